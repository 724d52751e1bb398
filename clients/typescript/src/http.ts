/** One request and its answer: who asks, from which position, how often it is tried. */

import { ReceiptsProblem } from "./problem.js";

/** Where the service is, and who asks. */
export interface ClientOptions {
  /** Where the service answers: `https://receipts.example.com`. */
  baseURL: string;
  /** A bearer token, or what gets one: called before every request, so it keeps its token and renews it in time. */
  token?: string | (() => Promise<string>);
  /** Whose data; only where the service trusts its network and has no authentication configured. */
  tenant?: string;
  /** The user who asks; only there too. Absent: a service with all scopes. */
  caller?: string;
  /** The reader in whose name receipts are sent where a call does not name another. */
  userID?: string;
  /** How long a read may wait for what this client has seen or written, milliseconds; the service's default without it. */
  waitMs?: number;
  /** How long one try of a request may take, milliseconds; 30,000 by default. */
  timeoutMs?: number;
  /** How often a request that may be repeated is tried again; 3 by default. */
  retries?: number;
}

/** What is asked. */
export interface Ask {
  method: "GET" | "POST";
  /** Behind the base URL, encoded. */
  path: string;
  body?: unknown;
  /** Whether it changes nothing more where it is done twice. */
  isRepeatable: boolean;
  /** A read, which waits for what this client has seen. */
  isRead: boolean;
}

/** Tokens kept at most: a write-only client never learns that its writes are folded. */
const POSITIONS_MAX = 32;
const BACKOFF_MS = 200;
const BACKOFF_MS_MAX = 10_000;
/** Problems of writes that say that nothing was written, whatever it was. */
const NOTHING_WRITTEN = ["not-written", "overloaded", "rate-limited"];

/** Half fixed, half chance, doubling: clients that lost the same service do not come back at the same time. */
export function backoffMs(attempt: number, firstMs: number, maxMs: number): number {
  return Math.min(maxMs, firstMs * 2 ** attempt) * (0.5 + Math.random() / 2);
}

/** Waits, but no longer than until `signal`. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
    if (signal?.aborted) done();
  });
}

/** A part of a path. */
export function segment(id: string): string {
  if (id === "." || id === "..") {
    // Written in whatever way, URLs take them for steps between folders.
    throw new TypeError(`an id that is ${JSON.stringify(id)} cannot be asked for by path`);
  }
  return encodeURIComponent(id);
}

/** Speaks HTTP with the service, and remembers the positions it was given. */
export class Transport {
  readonly #options: ClientOptions;
  readonly #base: string;
  readonly #positions = new Set<string>();

  constructor(options: ClientOptions) {
    if (options.token !== undefined && (options.tenant !== undefined || options.caller !== undefined)) {
      throw new TypeError("tenant and caller come from the token: give either, not both");
    }
    this.#options = options;
    this.#base = options.baseURL.replace(/\/+$/, "");
  }

  /** Everything that this client has seen or written, as one value for `Receipts-Min-Position`; empty at first. */
  get position(): string {
    return [...this.#positions].join(",");
  }

  /** Later reads stand at least at this position. */
  observe(position: string): void {
    for (const token of position.split(",")) {
      const trimmed = token.trim();
      if (trimmed === "") continue;
      this.#positions.delete(trimmed);
      this.#positions.add(trimmed);
    }
    for (const oldest of this.#positions) {
      if (this.#positions.size <= POSITIONS_MAX) break;
      this.#positions.delete(oldest);
    }
  }

  url(path: string): string {
    return this.#base + path;
  }

  /** The headers that say who asks. */
  async credentials(): Promise<Record<string, string>> {
    const { token, tenant, caller } = this.#options;
    if (token !== undefined) {
      return { Authorization: `Bearer ${typeof token === "function" ? await token() : token}` };
    }
    return {
      // Headers are bytes, and the tenant's are UTF-8.
      ...(tenant !== undefined && {
        "Receipts-Tenant": String.fromCharCode(...new TextEncoder().encode(tenant)),
      }),
      ...(caller !== undefined && { "Receipts-Caller": encodeURIComponent(caller) }),
    };
  }

  /**
   * Asks, and asks again where the service says so and it does no harm.
   *
   * @throws {ReceiptsProblem} where the answer is an error; what `fetch` throws where there was none.
   */
  async ask<Answer>(ask: Ask): Promise<Answer> {
    const retries = this.#options.retries ?? 3;
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#once<Answer>(ask);
      } catch (error) {
        if (attempt >= retries || !mayRepeat(ask, error)) throw error;
        const asked = error instanceof ReceiptsProblem ? (error.retryAfterMs ?? 0) : 0;
        await sleep(Math.max(asked, backoffMs(attempt, BACKOFF_MS, BACKOFF_MS_MAX)));
      }
    }
  }

  async #once<Answer>(ask: Ask): Promise<Answer> {
    const { waitMs, timeoutMs = 30_000 } = this.#options;
    const waitedFor = ask.isRead ? [...this.#positions] : [];
    const response = await fetch(this.url(ask.path), {
      method: ask.method,
      headers: {
        ...(await this.credentials()),
        ...(ask.body !== undefined && { "Content-Type": "application/json" }),
        ...(waitedFor.length > 0 && { "Receipts-Min-Position": waitedFor.join(",") }),
        ...(ask.isRead && waitMs !== undefined && { "Receipts-Wait-Ms": String(waitMs) }),
      },
      ...(ask.body !== undefined && { body: JSON.stringify(ask.body) }),
      signal: AbortSignal.timeout(timeoutMs),
    });
    if (!response.ok) {
      const problem = await ReceiptsProblem.of(response);
      // Tokens of another log, such as one that was set up anew, would spoil every read from here on.
      if (problem.is("bad-position")) waitedFor.forEach((token) => this.#positions.delete(token));
      throw problem;
    }
    const answer = (await response.json()) as Answer;
    const position = response.headers.get("Receipts-Position");
    if (position !== null) {
      // The answer's position stands for everything that it waited for.
      waitedFor.forEach((token) => this.#positions.delete(token));
      this.observe(position);
    }
    return answer;
  }
}

function mayRepeat(ask: Ask, error: unknown): boolean {
  // Where no answer came, nobody knows what was done.
  if (!(error instanceof ReceiptsProblem)) return ask.isRepeatable;
  if (error.status !== 503 && error.status !== 429) return false;
  return ask.isRepeatable || NOTHING_WRITTEN.some((code) => error.is(code));
}
