/** The stream of updates. It connects, resumes after interruptions, and ends only if a retry cannot help. */

import { backoffMs, isUnauthenticated, sleep, type Transport } from "./http.js";
import { ReceiptsProblem } from "./problem.js";
import { EventStreamParser } from "./sse.js";
import type { Update } from "./types.js";

/** The subject of a stream. */
export type StreamSubject =
  | { /** Messages that this person sent. */ senderID: string; conversationID?: never }
  | { /** One conversation; for services. */ conversationID: string; senderID?: never };

/** The subject of a stream, and its start. */
export type StreamOptions = StreamSubject & {
  /** Starts with all updates since an earlier `stream.lastEventID` or a position of an answer. */
  since?: string;
  /** How long a connection may be silent, milliseconds; 15,000 by default: more than three heartbeats. */
  heartbeatTimeoutMs?: number;
};

/** The callbacks of a stream. */
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
  /** Whether the last token was refused, and the function was asked for another. */
  #hasRenewed = false;
  /** Resolves once the stream has ended: it was closed or refused. */
  readonly done: Promise<void>;

  /** @internal Created by `ReceiptsClient.subscribe`. */
  constructor(transport: Transport, options: StreamOptions, listener: StreamListener) {
    this.#transport = transport;
    this.#options = options;
    this.#listener = listener;
    this.#lastEventID = options.since ?? "";
    this.done = this.#run();
  }

  /** The id of the last update that the listeners got. Pass it as `since`, and another process continues without a gap. */
  get lastEventID(): string {
    return this.#lastEventID;
  }

  /** Ends the stream; no more callbacks follow. */
  close(): void {
    this.#closing.abort();
  }

  async #run(): Promise<void> {
    const closing = this.#closing.signal;
    while (!closing.aborted) {
      const failure = await this.#connect().catch((error: unknown) => asError(error));
      if (closing.aborted) return;
      if (failure instanceof ReceiptsProblem && failure.is("updates-gone")) {
        // Missed updates are lost to the stream, so it continues from now on. The application must
        // query the receipts.
        this.#lastEventID = "";
        this.#listener.onUpdatesGone(failure);
        continue;
      }
      if (isUnauthenticated(failure) && this.#transport.hasTokenFunction && !this.#hasRenewed) {
        this.#hasRenewed = true;
        this.#listener.onConnectFailed(failure, 0);
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

  /** Runs one connection to its end, and returns the reason of the end. */
  async #connect(): Promise<Error> {
    const { heartbeatTimeoutMs = 15_000 } = this.#options;
    const silence = new AbortController();
    const onClose = () => silence.abort();
    this.#closing.signal.addEventListener("abort", onClose);
    const resetTimer = () => {
      clearTimeout(timer);
      timer = setTimeout(
        () => silence.abort(new Error(`the stream was silent for ${heartbeatTimeoutMs} ms`)),
        heartbeatTimeoutMs,
      );
    };
    let timer: ReturnType<typeof setTimeout> | undefined;
    try {
      resetTimer();
      const query = new URLSearchParams(subjectFields(this.#options));
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
      this.#hasRenewed = false;
      this.#listener.onConnectSuccess();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return new Error("the service ended the stream");
        resetTimer();
        this.#attempt = 0;
        this.#deliver(parser, value);
      }
    } finally {
      clearTimeout(timer);
      // Without this, a connection that is not read to its end would stay open.
      silence.abort();
      this.#closing.signal.removeEventListener("abort", onClose);
    }
  }

  #deliver(parser: EventStreamParser, bytes: Uint8Array): void {
    const events = parser.push(bytes);
    this.#retryMs = parser.retryMs ?? this.#retryMs;
    // An event of the type `position` has only the id to resume from.
    const updates = events
      .filter(({ event, data }) => event !== "position" && data !== "")
      .map(({ data }) => JSON.parse(data) as Update);
    if (updates.length > 0) this.#listener.onUpdates(updates);
    // Set after the listeners have run, so that undelivered updates come again.
    this.#lastEventID = events.at(-1)?.id || this.#lastEventID;
  }
}

/** Returns the field of the service that names a subject. */
export function subjectFields({ conversationID, senderID }: StreamSubject): Record<string, string> {
  return conversationID === undefined ? { sender_id: senderID } : { conversation_id: conversationID };
}

/** Returns true if the service would refuse the same request again. */
function isFinal(problem: ReceiptsProblem): boolean {
  return problem.status >= 400 && problem.status < 500 && problem.status !== 408 && problem.status !== 429;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
