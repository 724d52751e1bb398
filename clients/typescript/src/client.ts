/** The client: the calls and events of a chat SDK's read receipts, answered by the service. */

import { segment, Transport, type ClientOptions } from "./http.js";
import { ReceiptsProblem } from "./problem.js";
import { UpdateStream, type StreamOptions } from "./stream.js";
import type {
  Accepted,
  Event,
  Member,
  MemberFilter,
  MembersPage,
  MessageRef,
  ReadMark,
  ReadMarkUpdate,
  Receipt,
  ReceiptUpdate,
  Update,
} from "./types.js";

/** Limits of the contract: messages of one event or query, events of one body, members of one page. */
const MESSAGES_MAX = 100;
const EVENTS_MAX = 1_000;
const PAGE_MAX = 1_000;
/** Half of what a body may have by default. */
const BODY_BYTES = 512 * 1024;
/** Written twice, these change nothing the second time. */
const REPEATABLE: readonly Event["type"][] = ["message.read", "conversation.read", "message.sent"];

/** What can be listened to. */
export interface ClientEvents {
  /** Messages were sent, read or recalled. Once per message and change at least; the higher `version` holds. */
  onRecvMessageReadReceipts: (receipts: ReceiptUpdate[]) => void;
  /** The other party of direct conversations has read up to somewhere. */
  onRecvC2CReadReceipt: (marks: ReadMarkUpdate[]) => void;
  /** A stream is connected, first or again. */
  onConnectSuccess: () => void;
  /** A connection failed or broke off. Without `retryInMs` the stream has ended: it was refused. */
  onConnectFailed: (error: Error, retryInMs: number | undefined) => void;
  /** Updates were missed that are not kept any more; the stream goes on from now. Ask for the receipts on show anew. */
  onUpdatesGone: (problem: ReceiptsProblem) => void;
}

/** Who has read, and how. */
export interface ReadOptions {
  /** The reader; the client's `userID` without it. */
  userID?: string;
  /** When, by the reader's device, Unix milliseconds; when it is written without it. */
  readAtMs?: number;
  /** Counts the read without naming the reader to anybody. */
  hidden?: boolean;
}

/** Which page of which list. */
export interface MemberListOptions {
  message: MessageRef;
  filter: MemberFilter;
  /** `next_cursor` of the page before; absent, null or empty for the first page. */
  cursor?: string | null;
  /** Members of the page at most, 1 to 1,000; 100 by default. */
  count?: number;
}

/**
 * Asks and tells a read-receipt service.
 *
 * What one client has written or seen, its later reads see too: it sends the newest positions that it was given.
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

  /** What this client has written or seen. Handed to another client's `observePosition`, that one sees it too. */
  get position(): string {
    return this.#transport.position;
  }

  /** Makes later reads wait for a position that came another way, such as from the backend that sent the message. */
  observePosition(position: string): void {
    this.#transport.observe(position);
  }

  /**
   * Says that a reader has read messages. Needs the scope `receipts:write`.
   *
   * @returns the position behind the receipts: a read with it sees them.
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
   * Says that a reader has read a conversation up to a message, or up to a time (of sending, Unix milliseconds). Needs the
   * scope `receipts:write`.
   *
   * @returns the position behind it.
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

  /** Answers the receipts of messages: one each, in their order. `status` says what there is to say. */
  async getMessageReadReceipts(messages: readonly MessageRef[]): Promise<Receipt[]> {
    const receipts = new Array<Receipt>(messages.length);
    for (const [conversation_id, found] of byConversation(messages)) {
      for (const chunk of chunks(found, MESSAGES_MAX)) {
        const answer = await this.#transport.ask<{ receipts: Receipt[] }>({
          method: "POST",
          path: "/v1/receipts/query",
          body: { conversation_id, message_ids: chunk.map(({ message }) => message.ID) },
          isRepeatable: true,
          isRead: true,
        });
        chunk.forEach(({ index }, at) => (receipts[index] = answer.receipts[at]!));
      }
    }
    return receipts;
  }

  /** Answers a page of those who have read a message, have not, or left without having read. */
  async getGroupMessageReadMemberList({ message, filter, cursor, count }: MemberListOptions): Promise<MembersPage> {
    const query = new URLSearchParams({ filter });
    if (cursor) query.set("cursor", cursor);
    if (count !== undefined) query.set("limit", String(count));
    const path = `/v1/conversations/${segment(message.conversationID)}/messages/${segment(message.ID)}/members?${query}`;
    return this.#transport.ask<MembersPage>({ method: "GET", path, isRepeatable: true, isRead: true });
  }

  /**
   * Walks through a whole list. Nobody comes twice, and everybody whose state does not change meanwhile comes once.
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

  /** Answers up to where a person has read a conversation; `null` where there is no read mark. */
  async getC2CReadMark(conversationID: string, userID: string): Promise<ReadMark | null> {
    const path = `/v1/conversations/${segment(conversationID)}/read-marks/${segment(userID)}`;
    try {
      return await this.#transport.ask<ReadMark>({ method: "GET", path, isRepeatable: true, isRead: true });
    } catch (error) {
      if (error instanceof ReceiptsProblem && error.is("not-found")) return null;
      throw error;
    }
  }

  /**
   * Writes events of any type, for backends. What does not fit into one request goes by several, in order: each is all or
   * nothing. Tried again by itself only where that changes nothing twice: a changed roster with an open outcome is not.
   */
  async postEvents(events: readonly Event[]): Promise<Accepted> {
    let accepted = 0;
    const positions: string[] = [];
    for (const body of bodies(events)) {
      const isRepeatable = body.every((event) => REPEATABLE.includes(event.type));
      const answer = await this.#transport.ask<Accepted>({
        method: "POST",
        path: "/v1/events",
        body,
        isRepeatable,
        isRead: false,
      });
      accepted += answer.accepted;
      positions.push(answer.position);
      // The header says the same, but a browser may not be allowed to see it.
      this.observePosition(answer.position);
    }
    return { accepted, position: positions.join(",") };
  }

  /** Listens; returns what ends it. */
  on<Name extends keyof ClientEvents>(name: Name, listener: ClientEvents[Name]): () => void {
    const listeners = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, listeners.add(listener));
    return () => this.off(name, listener);
  }

  /** Listens no more. */
  off<Name extends keyof ClientEvents>(name: Name, listener: ClientEvents[Name]): void {
    this.#listeners.get(name)?.delete(listener);
  }

  /** Opens a stream of updates, which are given to the listeners of this client until it is closed. */
  subscribe(options: StreamOptions): UpdateStream {
    return new UpdateStream(this.#transport, options, {
      onUpdates: (updates) => this.#emitUpdates(updates),
      onConnectSuccess: () => this.#emit("onConnectSuccess"),
      onConnectFailed: (error, retryInMs) => this.#emit("onConnectFailed", error, retryInMs),
      onUpdatesGone: (problem) => this.#emit("onUpdatesGone", problem),
    });
  }

  #emitUpdates(updates: readonly Update[]): void {
    // A type of a later version is nobody's yet.
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
        // A listener's mistake is its own: reported as uncaught, it ends neither the stream nor other listeners' turn.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  #read(options: ReadOptions): { reader_id: string; read_at_ms?: number; hidden?: boolean } {
    const reader_id = options.userID ?? this.#userID;
    if (reader_id === undefined) throw new TypeError("who has read? Give userID to the call or to the client");
    return {
      reader_id,
      ...(options.readAtMs !== undefined && { read_at_ms: options.readAtMs }),
      ...(options.hidden !== undefined && { hidden: options.hidden }),
    };
  }
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

/** Events by request: as many as a body may hold, by number and by bytes. */
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
