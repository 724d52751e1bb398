/** The public interface of the package. */

export { ReceiptsClient } from "./client.js";
export type { ClientEvents, MemberListOptions, ReadOptions } from "./client.js";
export type { ClientOptions } from "./http.js";
export { ReceiptsProblem } from "./problem.js";
export { UpdateStream } from "./stream.js";
export type { StreamOptions, StreamSubject } from "./stream.js";
export type * from "./types.js";
