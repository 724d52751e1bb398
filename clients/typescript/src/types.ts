/** The shapes of requests, answers and updates: as the service writes them, in its own field names. */

import type { components } from "./schema.js";

type Schemas = components["schemas"];

/** The answer about one message: status, counts and version. */
export type Receipt = Schemas["Receipt"];
export type ReceiptStatus = Schemas["Status"];
/** One row of a member list. */
export type Member = Schemas["Member"];
/** A page of a member list. */
export type MembersPage = Schemas["MembersPage"];
/** Up to where a person has read a conversation. */
export type ReadMark = Schemas["ReadMark"];
/** What the service says of an error (RFC 9457). */
export type Problem = Schemas["Problem"];
/** An offending item of a request, by JSON Pointer. */
export type ProblemItem = Schemas["ProblemItem"];
/** The answer to events that were written. */
export type Accepted = Schemas["Accepted"];
/** Anything that can be written into the log. */
export type Event = Schemas["event"];

/** A message, by the names that a chat SDK gives its message objects: such an object can be passed as it is. */
export interface MessageRef {
  /** The conversation it stands in. */
  conversationID: string;
  /** The message. */
  ID: string;
}

/** Which list of members. */
export type MemberFilter = "read" | "unread" | "departed";

/** Who read a message since the update before. */
export interface NewReader {
  user_id: string;
  /** Unix milliseconds. */
  read_at_ms: number;
}

/**
 * The receipt of a message as it was when the update was published, and its new readers. The same update may come
 * twice, and an older one after a newer: the higher `version` holds.
 */
export type ReceiptUpdate = Omit<Receipt, "status"> & {
  type: "receipt.updated";
  conversation_id: string;
  status: Exclude<ReceiptStatus, "not_found" | "forbidden">;
  version: number;
  /** At most 100; the counts hold all of them. */
  newly_read: NewReader[];
  /** There only where more than 100 read. */
  newly_read_truncated?: true;
};

/** A read mark of a direct conversation has moved: what a sender shows as "read up to here". */
export type ReadMarkUpdate = ReadMark & {
  type: "read_mark.updated";
  tenant: string;
  conversation_id: string;
  /** Who is shown it: the other party of the conversation. */
  peer_id?: string;
};

/** What the stream of updates carries. */
export type Update = ReceiptUpdate | ReadMarkUpdate;
