/**
 * The positions that a client has written or seen, merged into one token. The service makes tokens; this module only takes
 * those of the version that it knows apart, and keeps others as they are.
 */

/**
 * The first byte of a token, without and with four bytes after it that name the log. Partitions and next offsets follow as
 * varints, then a CRC-32 (`crates/query/src/position.rs`).
 */
const VERSION = 1;
const VERSION_WITH_LOG = 3;
/** Characters of kept tokens of other versions, joined. Servers limit a header to some 8,000. */
const OTHERS_MAX = 4_000;

/** A token's content. */
export interface Token {
  /** The log of the offsets, if the token names one. */
  log: number | undefined;
  /** (partition, next offset). */
  offsets: Map<number, number>;
}

/** Positions that later reads wait for. */
export class Positions {
  /** One token for each log; there is a second log only after the service got another. */
  readonly #logs = new Map<Token["log"], Token["offsets"]>();
  readonly #others = new Set<string>();

  /** One value for `Receipts-Min-Position`; empty if there is nothing to wait for. */
  get token(): string {
    const merged = [...this.#logs].filter(([, { size }]) => size > 0).map(([log, offsets]) => encode({ log, offsets }));
    return [...merged, ...this.#others].join(",");
  }

  /** Adds a token, or several separated by commas: the greater offset of each partition. */
  add(tokens: string): void {
    for (const token of tokens.split(",").map((text) => text.trim())) {
      if (token === "") continue;
      const read = decode(token);
      if (read === undefined) {
        this.#others.delete(token);
        this.#others.add(token);
        continue;
      }
      const kept: Token["offsets"] = this.#logs.get(read.log) ?? new Map();
      this.#logs.set(read.log, kept);
      for (const [partition, next] of read.offsets) kept.set(partition, Math.max(next, kept.get(partition) ?? 0));
    }
    for (const oldest of this.#others) {
      if ([...this.#others].join(",").length <= OTHERS_MAX) break;
      this.#others.delete(oldest);
    }
  }

  /** Removes the positions of a token that `token` returned, but not what was added since. */
  remove(tokens: string): void {
    for (const token of tokens.split(",")) {
      this.#others.delete(token);
      const read = decode(token);
      const kept = read && this.#logs.get(read.log);
      for (const [partition, next] of read?.offsets ?? []) {
        if (kept?.get(partition) === next) kept.delete(partition);
      }
      if (kept?.size === 0) this.#logs.delete(read?.log);
    }
  }
}

/** Reads a token; undefined if it is of another version, or no token. */
export function decode(token: string): Token | undefined {
  if (!/^[A-Za-z0-9_-]+$/.test(token)) return undefined;
  let text: string;
  try {
    text = atob(token.replaceAll("-", "+").replaceAll("_", "/"));
  } catch {
    return undefined;
  }
  const bytes = Uint8Array.from(text, (character) => character.charCodeAt(0));
  const end = bytes.length - 4;
  const view = new DataView(bytes.buffer);
  const hasLog = bytes[0] === VERSION_WITH_LOG;
  let at = hasLog ? 5 : 1;
  if (end < at || !(hasLog || bytes[0] === VERSION) || view.getUint32(end, true) !== crc32(bytes, end))
    return undefined;
  const varint = () => {
    let value = 0;
    for (let unit = 1; at < end; unit *= 128) {
      const byte = bytes[at++]!;
      value += (byte & 127) * unit;
      if (byte < 128) return value;
    }
    return NaN;
  };
  const offsets: Token["offsets"] = new Map();
  for (let least = 0; at < end; least++) {
    least += varint();
    const next = varint();
    // What a number cannot hold exactly stays in the token.
    if (!Number.isSafeInteger(least) || !Number.isSafeInteger(next)) return undefined;
    offsets.set(least, next);
  }
  return { log: hasLog ? view.getUint32(1, true) : undefined, offsets };
}

/** Writes a token. */
export function encode({ log, offsets }: Token): string {
  const littleEndian = (value: number) => [0, 8, 16, 24].map((shift) => (value >>> shift) & 255);
  const bytes = log === undefined ? [VERSION] : [VERSION_WITH_LOG, ...littleEndian(log)];
  const put = (value: number) => {
    for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) + 128);
    bytes.push(value);
  };
  let least = 0;
  for (const [partition, next] of [...offsets].sort(([a], [b]) => a - b)) {
    put(partition - least);
    put(next);
    least = partition + 1;
  }
  bytes.push(...littleEndian(crc32(bytes, bytes.length)));
  const text = bytes.map((byte) => String.fromCharCode(byte)).join("");
  return btoa(text).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/** Returns the CRC-32 of the first bytes. */
function crc32(bytes: ArrayLike<number>, end: number): number {
  let sum = ~0;
  for (let at = 0; at < end; at++) {
    sum ^= bytes[at]!;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return ~sum >>> 0;
}
