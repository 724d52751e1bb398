/** The data types of requests, answers and updates, with the service's field names. */

import type { components } from "./schema.js";

type Schemas = components["schemas"];

/** The receipt of one message: status, counts and version. */
export type Receipt = Schemas["Receipt"];
export type ReceiptStatus = Schemas["Status"];
/** One row of a member list. */
export type Member = Schemas["Member"];
/** A page of a member list. */
export type MembersPage = Schemas["MembersPage"];
/** How far a person has read a conversation. */
export type ReadMark = Schemas["ReadMark"];
/** An error report of the service (RFC 9457). */
export type Problem = Schemas["Problem"];
/** An offending item of a request, by JSON Pointer. */
export type ProblemItem = Schemas["ProblemItem"];
/** The answer to posted events. */
export type Accepted = Schemas["Accepted"];
/** An event of any type. */
export type Event = Schemas["event"];

/** A message, with the field names of a chat SDK, so that its message objects can be passed. */
export interface MessageRef {
  /** The message's conversation. */
  conversationID: string;
  /** The message's id. */
  ID: string;
}

/** The filter of a member list. */
export type MemberFilter = "read" | "unread" | "departed";

/** A person who read a message since the previous update. */
export interface NewReader {
  user_id: string;
  /** Unix milliseconds. */
  read_at_ms: number;
}

/**
 * The receipt of a message when the update was published, and its new readers. An update may come twice, and an older one
 * after a newer one: the higher `version` is right.
 */
export type ReceiptUpdate = Omit<Receipt, "status"> & {
  type: "receipt.updated";
  conversation_id: string;
  status: Exclude<ReceiptStatus, "not_found" | "forbidden">;
  version: number;
  /** At most 100; the counts include all new readers. */
  newly_read: NewReader[];
  /** Present if more than 100 people read. */
  newly_read_truncated?: true;
};

/** The read mark of a direct conversation moved. A sender's client shows it as "read up to here". */
export type ReadMarkUpdate = ReadMark & {
  type: "read_mark.updated";
  tenant: string;
  conversation_id: string;
  /** The person who sees the mark: the other member of the conversation. */
  peer_id?: string;
};

/** An update of a stream. */
export type Update = ReceiptUpdate | ReadMarkUpdate;
