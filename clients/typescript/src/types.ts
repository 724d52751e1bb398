/** The data types of requests, answers and updates, with the service's field names. */

import type { components } from "./schema.js";

type Schemas = components["schemas"];

/** The status of a receipt; only `ok` has counts. */
export type ReceiptStatus = Schemas["Status"];
/** The fields of a receipt that exactly those with the status `ok` have. */
type Counts = "audience_count" | "read_count" | "unread_count" | "hidden_count" | "departed_count" | "all_read";
/** The fields that every receipt with the status `ok` has. */
type Always = Counts | "conversation_id" | "kind" | "sent_at_ms" | "version";
/** A receipt with counts. */
export type CountedReceipt = Omit<Schemas["Receipt"], "status" | Always> &
  Required<Pick<Schemas["Receipt"], Always>> & { status: "ok" };
/** A receipt without counts. */
export type UncountedReceipt<Status extends ReceiptStatus = ReceiptStatus> = Omit<
  Schemas["Receipt"],
  "status" | Counts
> & { [Count in Counts]?: never } & { status: Exclude<Status, "ok"> };
/** The receipt of one message: status, counts and version. `status === "ok"` says that there are counts. */
export type Receipt = CountedReceipt | UncountedReceipt;
/** One row of a member list. */
export type Member = Schemas["Member"];
/** A page of a member list. */
export type MembersPage = Omit<Schemas["MembersPage"], "receipt"> & { receipt: Receipt };
/** How far a person has read a conversation. */
export type ReadMark = Schemas["ReadMark"];
/** The answer to a query of read marks. */
export type ReadMarksAnswer = { read_marks: (ReadMark | null)[]; position: string };
/** An error report of the service (RFC 9457). */
export type Problem = Omit<Schemas["Problem"], "receipt"> & { receipt?: Receipt };
/** An offending item of a request, by JSON Pointer. */
export type ProblemItem = Schemas["ProblemItem"];
/** A ticket for a stream, the URL that it opens, and until when it opens it. */
export type StreamTicket = Schemas["StreamTicket"] & { url: string };
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
export type ReceiptUpdate = (
  CountedReceipt | UncountedReceipt<Exclude<ReceiptStatus, "not_found" | "forbidden" | "ambiguous">>
) & {
  type: "receipt.updated";
  conversation_id: string;
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
