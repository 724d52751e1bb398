/** The service's errors as exceptions. */

import type { Problem, ProblemItem, Receipt } from "./types.js";

/** A problem report of the service (RFC 9457) with a stable `type`. */
export class ReceiptsProblem extends Error {
  override readonly name = "ReceiptsProblem";
  /** The stable type: `urn:receipts:problem:forbidden`. */
  readonly type: string;
  /** The HTTP status. */
  readonly status: number;
  /** The offending items, by JSON Pointer. */
  readonly errors: readonly ProblemItem[];
  /** The message's receipt, with `not-found` and `not-ok`. */
  readonly receipt: Receipt | undefined;
  /** When the service allows a retry, milliseconds; `undefined` if it does not say. */
  readonly retryAfterMs: number | undefined;

  constructor(problem: Problem, retryAfterMs?: number) {
    const items = (problem.errors ?? []).map((item) => `${item.pointer || "body"} ${item.detail}`);
    super([problem.title, problem.detail, ...items].filter(Boolean).join("; "));
    this.type = problem.type;
    this.status = problem.status;
    this.errors = problem.errors ?? [];
    this.receipt = problem.receipt;
    this.retryAfterMs = retryAfterMs;
  }

  /** Returns true if this problem has that code: `problem.is("forbidden")`. */
  is(code: string): boolean {
    return this.type === `urn:receipts:problem:${code}`;
  }

  /** Reads the problem of an error response, which the service or a proxy may have written. */
  static async of(response: Response): Promise<ReceiptsProblem> {
    const text = await response.text().catch(() => "");
    const seconds = Number(response.headers.get("Retry-After") ?? NaN);
    const retryAfterMs = Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : undefined;
    if (response.headers.get("Content-Type")?.startsWith("application/problem+json")) {
      try {
        return new ReceiptsProblem(JSON.parse(text) as Problem, retryAfterMs);
      } catch {
        // A truncated body is reported by its status, like a proxy's answer.
      }
    }
    const title = response.statusText || `HTTP ${response.status}`;
    return new ReceiptsProblem({ type: "about:blank", title, status: response.status }, retryAfterMs);
  }
}
