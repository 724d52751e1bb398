/** One HTTP request and its answer: credentials, positions and retries. */

import { Positions } from "./positions.js";
import { ReceiptsProblem } from "./problem.js";

/** The settings of a client. */
export interface ClientOptions {
  /** The URL of the service: `https://receipts.example.com`. */
  baseURL: string;
  /**
   * A bearer token, or a function that returns one. It is called before every request, so it should cache the token. If the
   * service refuses a token (401), the function is asked once more.
   */
  token?: string | (() => string | Promise<string>);
  /** The tenant. Only for a service that trusts its network and has no authentication configured. */
  tenant?: string;
  /** The calling user. Only for such a service. Without it the client is a service with all scopes. */
  caller?: string;
  /** The default reader of calls that send receipts. */
  userID?: string;
  /** How long a read may wait for the client's position, milliseconds. Default: the service's default. */
  waitMs?: number;
  /** The time limit of one attempt, milliseconds; 30,000 by default. */
  timeoutMs?: number;
  /** How often a repeatable request is retried; 3 by default. */
  retries?: number;
}

/** A request. */
export interface RequestSpec {
  method: "GET" | "POST";
  /** The encoded path and query after the base URL. */
  path: string;
  body?: unknown;
  /** True if a repetition changes nothing. */
  isRepeatable: boolean;
  /** True for a read, which waits for the client's positions. */
  isRead: boolean;
}

const BACKOFF_MS = 200;
const BACKOFF_MS_MAX = 10_000;
/** Problem codes which say that nothing was written. */
const NOTHING_WRITTEN = ["not-written", "overloaded", "rate-limited"];

/** Returns a doubling wait with a random half, so that clients of one service do not return together. */
export function backoffMs(attempt: number, firstMs: number, maxMs: number): number {
  return Math.min(maxMs, firstMs * 2 ** attempt) * (0.5 + Math.random() / 2);
}

/** Waits until the time is over or `signal` aborts. */
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

/**
 * Whether some proxies or clients change a path with this id, encoded or not: they decode slashes, resolve dots, decode
 * twice, or refuse control characters.
 */
export function isMangledInPaths(id: string): boolean {
  return id === "." || id === ".." || /[/\\%\p{Cc}]/u.test(id);
}

/** Sends requests to the service and keeps the positions of its answers. */
export class Transport {
  readonly #options: ClientOptions;
  readonly #base: string;
  readonly #positions = new Positions();
  #staleSeconds: number | undefined;

  constructor(options: ClientOptions) {
    if (options.token !== undefined && (options.tenant !== undefined || options.caller !== undefined)) {
      throw new TypeError("tenant and caller come from the token: set either, not both");
    }
    this.#options = options;
    this.#base = options.baseURL.replace(/\/+$/, "");
  }

  /** All positions as one value for `Receipts-Min-Position`; empty at first. */
  get position(): string {
    return this.#positions.token;
  }

  /** For how many seconds the service had not heard from its log at the last answered read. */
  get staleSeconds(): number | undefined {
    return this.#staleSeconds;
  }

  /** Makes later reads wait at least for this position. */
  observe(position: string): void {
    this.#positions.add(position);
  }

  url(path: string): string {
    return this.#base + path;
  }

  /** Whether a refused token can be replaced. */
  get hasTokenFunction(): boolean {
    return typeof this.#options.token === "function";
  }

  /** Returns the headers with the credentials. */
  async credentials(): Promise<Record<string, string>> {
    const { token, tenant, caller } = this.#options;
    if (token !== undefined) {
      return { Authorization: `Bearer ${typeof token === "function" ? await token() : token}` };
    }
    return {
      // Header values are bytes, and the tenant is UTF-8.
      ...(tenant !== undefined && {
        "Receipts-Tenant": String.fromCharCode(...new TextEncoder().encode(tenant)),
      }),
      ...(caller !== undefined && { "Receipts-Caller": encodeURIComponent(caller) }),
    };
  }

  /**
   * Sends a request, and retries it if that is harmless and the service asks for it or does not answer.
   *
   * @throws {ReceiptsProblem} if the answer is an error; the error of `fetch` if there is no answer.
   */
  async call<Answer>(request: RequestSpec): Promise<Answer> {
    const retries = this.#options.retries ?? 3;
    let mayRenew = this.hasTokenFunction;
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.#once<Answer>(request);
      } catch (error) {
        if (mayRenew && isUnauthenticated(error)) {
          mayRenew = false;
          continue;
        }
        if (attempt >= retries || !mayRepeat(request, error)) throw error;
        const asked = error instanceof ReceiptsProblem ? (error.retryAfterMs ?? 0) : 0;
        await sleep(Math.max(asked, backoffMs(attempt, BACKOFF_MS, BACKOFF_MS_MAX)));
      }
    }
  }

  /** Sends a request once, or a second time without positions if they are too long for a proxy. */
  async #once<Answer>(request: RequestSpec): Promise<Answer> {
    const { mark, token } = this.#positions;
    const waitedFor = request.isRead ? token : "";
    try {
      return await this.#attempt<Answer>(request, waitedFor, mark);
    } catch (error) {
      if (waitedFor === "" || !isTooLong(error)) throw error;
      return await this.#attempt<Answer>(request, "", mark);
    }
  }

  /** Sends a request that waits for `waitedFor`, which holds what was added up to `mark`. */
  async #attempt<Answer>(request: RequestSpec, waitedFor: string, mark: number): Promise<Answer> {
    const { waitMs, timeoutMs = 30_000 } = this.#options;
    const response = await fetch(this.url(request.path), {
      method: request.method,
      headers: {
        ...(await this.credentials()),
        ...(request.body !== undefined && { "Content-Type": "application/json" }),
        ...(waitedFor !== "" && { "Receipts-Min-Position": waitedFor }),
        ...(request.isRead && waitMs !== undefined && { "Receipts-Wait-Ms": String(waitMs) }),
      },
      ...(request.body !== undefined && { body: JSON.stringify(request.body) }),
      signal: AbortSignal.timeout(timeoutMs),
    });
    if (!response.ok) {
      const problem = await ReceiptsProblem.of(response);
      // Tokens of another log, for instance after a new setup, would break every later read. So
      // would a token that is too long for a proxy, which answers with a page of its own.
      if (waitedFor !== "" && (problem.is("bad-position") || isTooLong(problem))) this.#positions.remove(mark);
      throw problem;
    }
    const answer = (await response.json()) as Answer;
    const stale = response.headers.get("Receipts-Stale");
    if (request.isRead) this.#staleSeconds = stale === null ? undefined : Number(stale);
    const position = response.headers.get("Receipts-Position");
    if (position !== null) {
      // The answer's position includes everything that the read waited for.
      if (waitedFor !== "") this.#positions.remove(mark);
      this.observe(position);
    }
    return answer;
  }
}

/** Whether the service refused the credential. Nothing happened then. */
export function isUnauthenticated(error: unknown): boolean {
  return error instanceof ReceiptsProblem && error.status === 401;
}

/** Whether a head was refused by a server that does not explain itself. */
function isTooLong(error: unknown): boolean {
  return (
    error instanceof ReceiptsProblem && (error.status === 400 || error.status === 431) && error.type === "about:blank"
  );
}

function mayRepeat(request: RequestSpec, error: unknown): boolean {
  // Without an answer the outcome is unknown.
  if (!(error instanceof ReceiptsProblem)) return request.isRepeatable;
  if (error.status !== 503 && error.status !== 429) return false;
  return request.isRepeatable || NOTHING_WRITTEN.some((code) => error.is(code));
}
