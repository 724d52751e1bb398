/** The stream of updates: connects, resumes where it broke off, and gives up only where coming again cannot help. */

import { backoffMs, sleep, type Transport } from "./http.js";
import { ReceiptsProblem } from "./problem.js";
import { EventStreamParser } from "./sse.js";
import type { Update } from "./types.js";

/** Which updates, and from where on. */
export type StreamOptions = (
  | { /** The messages that this person sent. */ senderID: string; conversationID?: never }
  | { /** One conversation; for services. */ conversationID: string; senderID?: never }
) & {
  /** Everything since comes first: `stream.lastEventID` of before, or a position of the service's answers. */
  since?: string;
  /** Without a byte for this long the connection is taken for dead, milliseconds; 45,000 by default, three heartbeats. */
  heartbeatTimeoutMs?: number;
};

/** Who hears of a stream. */
export interface StreamListener {
  onUpdates(updates: Update[]): void;
  onConnectSuccess(): void;
  onConnectFailed(error: Error, retryInMs: number | undefined): void;
  onUpdatesGone(problem: ReceiptsProblem): void;
}

const BACKOFF_MS = 1_000;
const BACKOFF_MS_MAX = 30_000;

/** A subscription to updates that outlives its connections. */
export class UpdateStream {
  readonly #transport: Transport;
  readonly #options: StreamOptions;
  readonly #listener: StreamListener;
  readonly #closing = new AbortController();
  #lastEventID: string;
  #retryMs = BACKOFF_MS;
  #attempt = 0;
  /** Resolves once the stream has ended for good: closed, or refused. */
  readonly done: Promise<void>;

  /** @internal Made by `ReceiptsClient.subscribe`. */
  constructor(transport: Transport, options: StreamOptions, listener: StreamListener) {
    this.#transport = transport;
    this.#options = options;
    this.#listener = listener;
    this.#lastEventID = options.since ?? "";
    this.done = this.#run();
  }

  /** Up to where updates were handed over: kept and given as `since`, it lets the next process go on without a gap. */
  get lastEventID(): string {
    return this.#lastEventID;
  }

  /** Ends the stream; listeners hear nothing more. */
  close(): void {
    this.#closing.abort();
  }

  async #run(): Promise<void> {
    const closing = this.#closing.signal;
    while (!closing.aborted) {
      const failure = await this.#connect().catch((error: unknown) => asError(error));
      if (closing.aborted) return;
      if (failure instanceof ReceiptsProblem && failure.is("updates-gone")) {
        // What was missed is not there any more: only the application can ask for it anew, and it goes on from now.
        this.#lastEventID = "";
        this.#listener.onUpdatesGone(failure);
        continue;
      }
      if (failure instanceof ReceiptsProblem && isFinal(failure)) {
        this.#listener.onConnectFailed(failure, undefined);
        return;
      }
      const asked = failure instanceof ReceiptsProblem ? (failure.retryAfterMs ?? 0) : 0;
      const waitMs = Math.max(asked, backoffMs(this.#attempt++, this.#retryMs, BACKOFF_MS_MAX));
      this.#listener.onConnectFailed(failure, waitMs);
      await sleep(waitMs, closing);
    }
  }

  /** One connection, to its end; says why it ended. */
  async #connect(): Promise<Error> {
    const { conversationID, senderID, heartbeatTimeoutMs = 45_000 } = this.#options;
    const silence = new AbortController();
    const onClose = () => silence.abort();
    this.#closing.signal.addEventListener("abort", onClose);
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(
        () => silence.abort(new Error(`nothing came for ${heartbeatTimeoutMs} ms`)),
        heartbeatTimeoutMs,
      );
    };
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      heard();
      const query = new URLSearchParams(
        conversationID === undefined ? { sender_id: senderID } : { conversation_id: conversationID },
      );
      const response = await fetch(this.#transport.url(`/v1/updates?${query}`), {
        headers: {
          ...(await this.#transport.credentials()),
          Accept: "text/event-stream",
          ...(this.#lastEventID !== "" && { "Last-Event-ID": this.#lastEventID }),
        },
        cache: "no-store",
        signal: silence.signal,
      });
      if (!response.ok) throw await ReceiptsProblem.of(response);
      if (response.body === null) throw new Error("the stream has no body");
      const reader = response.body.getReader();
      const parser = new EventStreamParser();
      this.#listener.onConnectSuccess();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return new Error("the service ended the stream");
        heard();
        this.#attempt = 0;
        this.#hand(parser, value);
      }
    } finally {
      clearTimeout(timer);
      // Where reading broke off before the end, the connection would stay.
      silence.abort();
      this.#closing.signal.removeEventListener("abort", onClose);
    }
  }

  #hand(parser: EventStreamParser, bytes: Uint8Array): void {
    const events = parser.push(bytes);
    this.#retryMs = parser.retryMs ?? this.#retryMs;
    const updates = events.filter(({ data }) => data !== "").map(({ data }) => JSON.parse(data) as Update);
    if (updates.length > 0) this.#listener.onUpdates(updates);
    // Behind the listeners: what they have not been given comes again.
    this.#lastEventID = events.at(-1)?.id || this.#lastEventID;
  }
}

/** Whether the same request would be refused again. */
function isFinal(problem: ReceiptsProblem): boolean {
  return problem.status >= 400 && problem.status < 500 && problem.status !== 408 && problem.status !== 429;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
