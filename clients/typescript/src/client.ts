/** The client: the read-receipt calls and events of a chat SDK, answered by the service. */

import { isMangledInPaths, Transport, type ClientOptions } from "./http.js";
import { Positions } from "./positions.js";
import { ReceiptsProblem } from "./problem.js";
import { subjectFields, UpdateStream, type StreamOptions, type StreamSubject } from "./stream.js";
import type {
  Accepted,
  Event,
  Member,
  MemberFilter,
  MembersPage,
  MessageRef,
  ReadMark,
  ReadMarksAnswer,
  ReadMarkUpdate,
  Receipt,
  ReceiptUpdate,
  StreamTicket,
  Update,
} from "./types.js";

/** The contract's limits: messages per event or query, events per body, members per page. */
const MESSAGES_MAX = 100;
const EVENTS_MAX = 1_000;
const PAGE_MAX = 1_000;
/** Half of the service's default limit of a body. */
const BODY_BYTES = 512 * 1024;
/** Some proxies decode or shorten paths, and the service then answers another question. */
const OTHER_IDS =
  "the answer has other ids than the request: set the proxy in front of the service to pass paths unchanged";
/** A repetition of these changes nothing. */
const REPEATABLE: readonly Event["type"][] = ["message.read", "conversation.read", "message.sent"];

/** The events of a client. */
export interface ClientEvents {
  /** Messages were sent, read or recalled. At least once per message and change; the higher `version` is right. */
  onRecvMessageReadReceipts: (receipts: ReceiptUpdate[]) => void;
  /** Partners in direct conversations have read up to some message. */
  onRecvC2CReadReceipt: (marks: ReadMarkUpdate[]) => void;
  /** A stream is connected, for the first time or again. */
  onConnectSuccess: () => void;
  /** A connection failed or broke off. Without `retryInMs` the service refused the stream, and it has ended. */
  onConnectFailed: (error: Error, retryInMs: number | undefined) => void;
  /** Missed updates are no longer kept; the stream continues from now on. Query the shown receipts again. */
  onUpdatesGone: (problem: ReceiptsProblem) => void;
}

/** The reader, and how the message was read. */
export interface ReadOptions {
  /** The reader; by default the client's `userID`. */
  userID?: string;
  /** The read time by the reader's device, Unix milliseconds. Default: the time of the write. */
  readAtMs?: number;
  /** Counts the read without naming the reader to anyone. */
  hidden?: boolean;
}

/** A page of a member list. */
export interface MemberListOptions {
  message: MessageRef;
  filter: MemberFilter;
  /** `next_cursor` of the previous page; absent, null or empty for the first page. */
  cursor?: string | null;
  /** The maximum number of members of the page, 1 to 1,000; 100 by default. */
  count?: number;
}

/**
 * Calls a read-receipt service.
 *
 * A client's later reads include everything that it has written or seen, because it sends the newest positions that it has
 * received.
 *
 * @example
 * const client = new ReceiptsClient({ baseURL, token, userID: "bob" });
 * await client.sendMessageReadReceipts([message]);
 * const [receipt] = await client.getMessageReadReceipts([message]);
 */
export class ReceiptsClient {
  readonly #transport: Transport;
  readonly #userID: string | undefined;
  readonly #listeners = new Map<keyof ClientEvents, Set<(...values: never[]) => void>>();

  constructor(options: ClientOptions) {
    this.#transport = new Transport(options);
    this.#userID = options.userID ?? options.caller;
  }

  /** The position of everything that this client has written or seen. Pass it to another client's `observePosition`. */
  get position(): string {
    return this.#transport.position;
  }

  /**
   * For how many seconds the service had not heard from its log when it answered the last read; undefined if it hears from it.
   * Such an answer may lack newer events.
   */
  get staleSeconds(): number | undefined {
    return this.#transport.staleSeconds;
  }

  /** Makes later reads wait for a position that came from elsewhere, such as the backend that sent the message. */
  observePosition(position: string): void {
    this.#transport.observe(position);
  }

  /**
   * Says that a reader has read messages. The caller's own reads need the scope `receipts:own`, those of others
   * `receipts:write`.
   *
   * @returns the position of the receipts: a read that waits for it sees them.
   */
  async sendMessageReadReceipts(messages: readonly MessageRef[], options: ReadOptions = {}): Promise<string> {
    const common = this.#read(options);
    const events = [...byConversation(messages)].flatMap(([conversation_id, found]) =>
      chunks(found, MESSAGES_MAX).map((chunk): Event => ({
        type: "message.read",
        conversation_id,
        message_ids: chunk.map(({ message }) => message.ID),
        ...common,
      })),
    );
    return events.length > 0 ? (await this.postEvents(events)).position : this.position;
  }

  /**
   * Says that a reader has read a conversation up to a message, or up to a sending time (Unix milliseconds). The caller's own
   * mark needs the scope `receipts:own`, those of others `receipts:write`.
   *
   * @returns the position of the read mark.
   */
  async markC2CMessageAsRead(
    options: ReadOptions & { conversationID: string } & (
        { upToMessageID: string; upToSentAtMs?: never } | { upToSentAtMs: number; upToMessageID?: never }
      ),
  ): Promise<string> {
    const event: Event = {
      type: "conversation.read",
      conversation_id: options.conversationID,
      ...(options.upToMessageID !== undefined
        ? { up_to_message_id: options.upToMessageID }
        : { up_to_sent_at_ms: options.upToSentAtMs }),
      ...this.#read(options),
    };
    return (await this.postEvents([event])).position;
  }

  /** Returns one receipt per message, in the given order. `status` says whether there are counts. */
  async getMessageReadReceipts(messages: readonly MessageRef[]): Promise<Receipt[]> {
    const receipts = new Array<Receipt>(messages.length);
    for (const [conversation_id, found] of byConversation(messages)) {
      for (const chunk of chunks(found, MESSAGES_MAX)) {
        const body = { conversation_id, message_ids: chunk.map(({ message }) => message.ID) };
        const answer = await this.#query<{ receipts: Receipt[] }>("/v1/receipts/query", body);
        chunk.forEach(({ index, message }, at) => (receipts[index] = of(message, answer.receipts[at])));
      }
    }
    return receipts;
  }

  /** Returns a page of the members who have read a message, have not read it, or left without reading. */
  async getGroupMessageReadMemberList({ message, filter, cursor, count }: MemberListOptions): Promise<MembersPage> {
    const ids = [message.conversationID, message.ID] as const;
    let page: MembersPage;
    if (ids.some(isMangledInPaths)) {
      const [conversation_id, message_id] = ids;
      const limit = count !== undefined && { limit: count };
      page = await this.#query("/v1/members/list", {
        ...{ conversation_id, message_id, filter, ...limit },
        ...(cursor && { cursor }),
      });
    } else {
      const query = new URLSearchParams({ filter });
      if (cursor) query.set("cursor", cursor);
      if (count !== undefined) query.set("limit", String(count));
      const [conversation, id] = ids.map(encodeURIComponent);
      const path = `/v1/conversations/${conversation}/messages/${id}/members?${query}`;
      page = await this.#transport.call({ method: "GET", path, isRepeatable: true, isRead: true });
    }
    of(message, page.receipt);
    return page;
  }

  /**
   * Iterates over a whole list. No member appears twice, and every member whose state does not change appears once.
   *
   * @example
   * for await (const { user_id } of client.groupMessageReadMembers({ message, filter: "unread" })) remind(user_id);
   */
  async *groupMessageReadMembers(options: Omit<MemberListOptions, "cursor">): AsyncGenerator<Member, void, undefined> {
    let cursor: string | null = null;
    do {
      const page: MembersPage = await this.getGroupMessageReadMemberList({ count: PAGE_MAX, ...options, cursor });
      yield* page.members;
      cursor = page.next_cursor;
    } while (cursor !== null);
  }

  /** Returns how far a person has read a conversation; `null` if there is no read mark. */
  async getC2CReadMark(conversationID: string, userID: string): Promise<ReadMark | null> {
    if (isMangledInPaths(conversationID) || isMangledInPaths(userID)) {
      return (await this.getC2CReadMarks(conversationID, [userID]))[0] ?? null;
    }
    const path = `/v1/conversations/${encodeURIComponent(conversationID)}/read-marks/${encodeURIComponent(userID)}`;
    try {
      const mark = await this.#transport.call<ReadMark>({ method: "GET", path, isRepeatable: true, isRead: true });
      if (mark.reader_id !== userID) throw new Error(OTHER_IDS);
      return mark;
    } catch (error) {
      if (error instanceof ReceiptsProblem && error.is("not-found")) return null;
      throw error;
    }
  }

  /** Returns how far each person has read a conversation, in the given order; `null` where there is no read mark. */
  async getC2CReadMarks(conversationID: string, userIDs: readonly string[]): Promise<(ReadMark | null)[]> {
    const marks: (ReadMark | null)[] = [];
    for (const user_ids of chunks(userIDs, MESSAGES_MAX)) {
      const body = { conversation_id: conversationID, user_ids };
      const { read_marks } = await this.#query<ReadMarksAnswer>("/v1/read-marks/query", body);
      const areOf = read_marks.every((mark, at) => mark === null || mark.reader_id === user_ids[at]);
      if (read_marks.length !== user_ids.length || !areOf) throw new Error(OTHER_IDS);
      marks.push(...read_marks);
    }
    return marks;
  }

  /**
   * Writes events of any type, for backends. More than one request's worth is split, in order; each request is written as a
   * whole or not at all. A request is retried only if a repetition changes nothing, so never one with a changed roster.
   *
   * One event is never split: a `members.changed` whose ids fill more than a body (1 MiB) is the problem `too-large`. Send some
   * thousand ids per event, all of them before the next send, which takes the roster as it stands.
   */
  async postEvents(events: readonly Event[]): Promise<Accepted> {
    let accepted = 0;
    const written = new Positions();
    for (const body of bodies(events)) {
      const isRepeatable = body.every((event) => REPEATABLE.includes(event.type));
      const answer = await this.#transport.call<Accepted>({
        method: "POST",
        path: "/v1/events",
        body,
        isRepeatable,
        isRead: false,
      });
      accepted += answer.accepted;
      written.add(answer.position);
      // The header has the same position, but a browser may hide it.
      this.observePosition(answer.position);
    }
    return { accepted, position: written.token };
  }

  /** Adds a listener; returns a function that removes it. */
  on<Name extends keyof ClientEvents>(name: Name, listener: ClientEvents[Name]): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => this.off(name, listener);
  }

  /** Removes a listener. */
  off<Name extends keyof ClientEvents>(name: Name, listener: ClientEvents[Name]): void {
    this.#listeners.get(name)?.delete(listener);
  }

  /**
   * Returns a ticket for a stream whose requests carry no credential, such as a browser's `EventSource`, and the URL of that
   * stream. It opens the stream within a minute, and resumes it until this client's token ends.
   *
   * @example
   * const { url } = await client.createStreamTicket({ senderID: "alice" });
   * const source = new EventSource(url);
   */
  async createStreamTicket(subject: StreamSubject): Promise<StreamTicket> {
    const answer = await this.#transport.call<Omit<StreamTicket, "url">>({
      method: "POST",
      path: "/v1/updates/tickets",
      body: subjectFields(subject),
      isRepeatable: true,
      isRead: false,
    });
    return { ...answer, url: this.#transport.url(`/v1/updates?ticket=${answer.ticket}`) };
  }

  /** Opens a stream of updates. This client's listeners get its updates until it is closed. */
  subscribe(options: StreamOptions): UpdateStream {
    return new UpdateStream(this.#transport, options, {
      onUpdates: (updates) => this.#emitUpdates(updates),
      onConnectSuccess: () => this.#emit("onConnectSuccess"),
      onConnectFailed: (error, retryInMs) => this.#emit("onConnectFailed", error, retryInMs),
      onUpdatesGone: (problem) => this.#emit("onUpdatesGone", problem),
    });
  }

  #emitUpdates(updates: readonly Update[]): void {
    // Types of later versions have no listeners.
    const receipts = updates.filter((update) => update.type === "receipt.updated");
    const marks = updates.filter((update) => update.type === "read_mark.updated");
    if (receipts.length > 0) this.#emit("onRecvMessageReadReceipts", receipts);
    if (marks.length > 0) this.#emit("onRecvC2CReadReceipt", marks);
  }

  #emit<Name extends keyof ClientEvents>(name: Name, ...values: Parameters<ClientEvents[Name]>): void {
    for (const listener of [...(this.#listeners.get(name) ?? [])]) {
      try {
        (listener as (...values: Parameters<ClientEvents[Name]>) => void)(...values);
      } catch (error) {
        // A listener's error is reported as uncaught. It ends neither the stream nor the calls of
        // other listeners.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  /** Asks with ids in a body. */
  async #query<Answer>(path: string, body: unknown): Promise<Answer> {
    return await this.#transport.call<Answer>({ method: "POST", path, body, isRepeatable: true, isRead: true });
  }

  #read(options: ReadOptions): { reader_id: string; read_at_ms?: number; hidden?: boolean } {
    const reader_id = options.userID ?? this.#userID;
    if (reader_id === undefined) throw new TypeError("the reader is missing: pass userID to the call or to the client");
    return {
      reader_id,
      ...(options.readAtMs !== undefined && { read_at_ms: options.readAtMs }),
      ...(options.hidden !== undefined && { hidden: options.hidden }),
    };
  }
}

/** Returns a receipt, unless it is of another message. */
function of(message: MessageRef, receipt: Receipt | undefined): Receipt {
  if (receipt?.message_id === message.ID && receipt.conversation_id === message.conversationID) return receipt;
  throw new Error(OTHER_IDS);
}

function byConversation(messages: readonly MessageRef[]): Map<string, { message: MessageRef; index: number }[]> {
  const found = new Map<string, { message: MessageRef; index: number }[]>();
  messages.forEach((message, index) => {
    const others = found.get(message.conversationID);
    if (others) others.push({ message, index });
    else found.set(message.conversationID, [{ message, index }]);
  });
  return found;
}

function chunks<Item>(items: readonly Item[], size: number): Item[][] {
  return Array.from({ length: Math.ceil(items.length / size) }, (_, at) => items.slice(at * size, (at + 1) * size));
}

/** Splits events into request bodies, as many events per body as its number and bytes allow. */
function bodies(events: readonly Event[]): Event[][] {
  const encoder = new TextEncoder();
  const found: Event[][] = [];
  let bytes = Infinity;
  for (const event of events) {
    const size = encoder.encode(JSON.stringify(event)).length + 1;
    const last = found.at(-1);
    if (last !== undefined && last.length < EVENTS_MAX && bytes + size <= BODY_BYTES) {
      last.push(event);
      bytes += size;
    } else {
      found.push([event]);
      bytes = size;
    }
  }
  return found;
}
