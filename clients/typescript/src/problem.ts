/** Errors of the service as exceptions. */

import type { Problem, ProblemItem, Receipt } from "./types.js";

/** An answer that is an error: an RFC 9457 problem with a stable `type`. */
export class ReceiptsProblem extends Error {
  override readonly name = "ReceiptsProblem";
  /** What went wrong, stable: `urn:receipts:problem:forbidden`. */
  readonly type: string;
  /** The HTTP status. */
  readonly status: number;
  /** The offending items, by JSON Pointer. */
  readonly errors: readonly ProblemItem[];
  /** With `not-found` and `not-ok` about a message: its receipt. */
  readonly receipt: Receipt | undefined;
  /** When the service asks to come again, milliseconds; `undefined` where it does not. */
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

  /** Whether this is the problem of a code: `problem.is("forbidden")`. */
  is(code: string): boolean {
    return this.type === `urn:receipts:problem:${code}`;
  }

  /** Makes the exception of an answer whose status is an error, whoever between here and the service wrote it. */
  static async of(response: Response): Promise<ReceiptsProblem> {
    const text = await response.text().catch(() => "");
    const seconds = Number(response.headers.get("Retry-After") ?? NaN);
    const retryAfterMs = Number.isFinite(seconds) && seconds >= 0 ? seconds * 1000 : undefined;
    if (response.headers.get("Content-Type")?.startsWith("application/problem+json")) {
      try {
        return new ReceiptsProblem(JSON.parse(text) as Problem, retryAfterMs);
      } catch {
        // Cut off on its way: told by its status, as the answer of a proxy is.
      }
    }
    const title = response.statusText || `HTTP ${response.status}`;
    return new ReceiptsProblem({ type: "about:blank", title, status: response.status }, retryAfterMs);
  }
}
