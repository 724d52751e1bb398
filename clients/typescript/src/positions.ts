/**
 * The positions that a client has written or seen, merged into one token for each log. The service makes tokens; this
 * module only takes those of the formats that it knows apart, and keeps others as they are.
 *
 * `schemas/token/v2.md` describes both formats. Offsets have up to 64 bits, so they are of the type bigint.
 */

/** The most bytes of a token: as many as 2,000 characters hold. */
const BYTES_MAX = 1_500;
/** The most partitions of a token of format 2. */
const PARTITIONS_MAX = 100_000n;
const OFFSET_BITS = 64n;
const SHIFT_MAX = 64n;
/** Characters of kept tokens of other versions, joined. Servers limit a header to some 8,000. */
const OTHERS_MAX = 2_000;

/** A token's content. */
export interface Token {
  /** The log of the offsets, if the token names one. */
  log: number | undefined;
  /** The number of last bits that each offset lacks; 0 if the token is exact. */
  shift: bigint;
  /** (partition, next offset without these bits). */
  offsets: Map<number, bigint>;
}

/** How far a log was written or seen. */
interface Kept {
  shift: bigint;
  /** By partition: the next offset without `shift` bits, and the number of the call that added it. */
  offsets: Map<number, { next: bigint; added: number }>;
}

/** Positions that later reads wait for. */
export class Positions {
  /** By the log that tokens name; there is a second log only after the service got another. */
  readonly #logs = new Map<Token["log"], Kept>();
  /** Tokens of other versions, oldest first, and the number of the call that added each. */
  readonly #others = new Map<string, number>();
  #added = 0;

  /** One value for `Receipts-Min-Position`; empty if there is nothing to wait for. A token has at most 2,000 characters. */
  get token(): string {
    const merged = [...this.#logs].map(([log, { shift, offsets }]) =>
      encode({ log, shift, offsets: new Map([...offsets].map(([partition, { next }]) => [partition, next])) }),
    );
    return [...merged, ...this.#others.keys()].join(",");
  }

  /** A mark for `remove`: everything that was added so far. */
  get mark(): number {
    return this.#added;
  }

  /** Adds a token, or several separated by commas: the greater offset of each partition. */
  add(tokens: string): void {
    this.#added += 1;
    for (const token of tokens.split(",").map((text) => text.trim())) {
      if (token === "") continue;
      const read = decode(token);
      if (read !== undefined) {
        if (read.offsets.size > 0) this.#merge(read);
      } else {
        this.#others.delete(token);
        this.#others.set(token, this.#added);
      }
    }
    for (const oldest of this.#others.keys()) {
      if ([...this.#others.keys()].join(",").length <= OTHERS_MAX) break;
      this.#others.delete(oldest);
    }
  }

  /** Removes everything that was added before the mark, but not what was added since. */
  remove(mark: number): void {
    for (const [token, added] of this.#others) if (added <= mark) this.#others.delete(token);
    for (const [log, { offsets }] of this.#logs) {
      for (const [partition, { added }] of offsets) if (added <= mark) offsets.delete(partition);
      if (offsets.size === 0) this.#logs.delete(log);
    }
  }

  /** Keeps of each partition the greater offset, so that the result stands for every position that the two may stand for. */
  #merge(token: Token): void {
    const kept: Kept = this.#logs.get(token.log) ?? { shift: 0n, offsets: new Map() };
    this.#logs.set(token.log, kept);
    if (token.shift > kept.shift) {
      for (const offset of kept.offsets.values()) offset.next >>= token.shift - kept.shift;
      kept.shift = token.shift;
    }
    for (const [partition, exact] of token.offsets) {
      const next = exact >> (kept.shift - token.shift);
      const other = kept.offsets.get(partition);
      // Equal rounded offsets may stand for a later one.
      if (other === undefined || next > other.next || (next === other.next && kept.shift > 0n)) {
        kept.offsets.set(partition, { next, added: this.#added });
      }
    }
  }
}

/** Reads a token of the event log; undefined if it is of another version or kind, or no token. */
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
  const version = bytes[0] ?? 0;
  const hasLog = version === 3 || version === 7;
  if (![1, 3, 5, 7].includes(version) || end < (hasLog ? 5 : 1)) return undefined;
  if (view.getUint32(end, true) !== crc32(bytes, end)) return undefined;
  const log = hasLog ? view.getUint32(1, true) : undefined;
  const reader = new Reader(bytes.subarray(hasLog ? 5 : 1, end));
  const read = version < 5 ? readFormat1(reader) : readFormat2(reader);
  return read && { log, ...read };
}

function readFormat1(reader: Reader): Omit<Token, "log"> | undefined {
  const offsets: Token["offsets"] = new Map();
  let least = 0n;
  while (!reader.isAtEnd) {
    const gap = reader.varint();
    const next = reader.varint();
    if (gap === undefined || next === undefined || least + gap > 0xffff_ffffn) return undefined;
    offsets.set(Number(least + gap), next);
    least += gap + 1n;
  }
  return { shift: 0n, offsets };
}

function readFormat2(reader: Reader): Omit<Token, "log"> | undefined {
  const count = reader.varint();
  if (count === undefined || count > PARTITIONS_MAX) return undefined;
  const offsets: Token["offsets"] = new Map();
  if (count === 0n) return { shift: 0n, offsets };
  const first = reader.varint();
  const [gapBits, shift, offsetBits] = [reader.byte(), reader.byte(), reader.byte()];
  const least = reader.varint();
  if (first === undefined || least === undefined) return undefined;
  if (gapBits === undefined || shift === undefined || offsetBits === undefined || shift > SHIFT_MAX) return undefined;
  const partitions = [first];
  for (let at = 1; at < count; at++) {
    const gap = reader.field(gapBits);
    if (gap === undefined) return undefined;
    partitions.push(partitions[at - 1]! + gap + 1n);
  }
  if (partitions.at(-1)! > 0xffff_ffffn) return undefined;
  for (const partition of partitions) {
    const field = reader.field(offsetBits);
    if (field === undefined) return undefined;
    offsets.set(Number(partition), least + field);
  }
  return { shift, offsets };
}

/**
 * Writes a token: format 1 where it is not longer, otherwise format 2. What would be longer than 2,000 characters loses as
 * few of the last bits as it must.
 */
export function encode(token: Token): string {
  const offsets = [...token.offsets].sort(([a], [b]) => a - b);
  const layout = layoutOf(token.log, offsets);
  const plain = token.shift === 0n ? format1(token.log, offsets) : undefined;
  if (layout === undefined) return base64url(plain ?? []);
  if (plain !== undefined && plain.length <= Math.min(BYTES_MAX, byteCount(layout, 0n))) return base64url(plain);
  for (let more = 0n; token.shift + more <= SHIFT_MAX; more++) {
    if (byteCount(layout, more) > BYTES_MAX) continue;
    const rounded = offsets.map(([partition, next]): [number, bigint] => [partition, next >> more]);
    return base64url(format2(token.log, token.shift + more, rounded));
  }
  // Not even the gaps between the partitions fit: name those in between, too.
  const { first, last } = layout;
  if (BigInt(last - first) >= PARTITIONS_MAX || last - first < offsets.length) {
    return base64url(plain ?? format2(token.log, token.shift, offsets));
  }
  const filled: Token["offsets"] = new Map();
  for (let partition = first; partition <= last; partition++) filled.set(partition, token.offsets.get(partition) ?? 0n);
  return encode({ ...token, offsets: filled });
}

function format1(log: Token["log"], offsets: [number, bigint][]): number[] {
  const writer = new Writer(log, 1, 3);
  let least = 0;
  for (const [partition, next] of offsets) {
    writer.varint(BigInt(partition - least));
    writer.varint(next);
    least = partition + 1;
  }
  return writer.end();
}

function format2(log: Token["log"], shift: bigint, offsets: [number, bigint][]): number[] {
  const writer = new Writer(log, 5, 7);
  const { count, first, gapBits, least, most } = layoutOf(log, offsets)!;
  const offsetBits = bitsOf(most - least);
  writer.varint(BigInt(count));
  writer.varint(BigInt(first));
  for (const byte of [gapBits, shift, offsetBits]) writer.field(byte, 8n);
  writer.varint(least);
  for (const gap of gapsOf(offsets)) writer.field(BigInt(gap), gapBits);
  for (const [, next] of offsets) writer.field(next - least, offsetBits);
  return writer.end();
}

/** The numbers that format 2 has once for all partitions. */
interface Layout {
  /** Bytes of the version, the log and the checksum. */
  frame: number;
  count: number;
  first: number;
  last: number;
  gapBits: bigint;
  least: bigint;
  most: bigint;
}

/** Returns the layout; undefined without a partition, or with too many. */
function layoutOf(log: Token["log"], offsets: [number, bigint][]): Layout | undefined {
  const [first, last] = [offsets[0], offsets.at(-1)];
  if (first === undefined || last === undefined || BigInt(offsets.length) > PARTITIONS_MAX) return undefined;
  let [least, most] = [first[1], first[1]];
  for (const [, next] of offsets) {
    if (next < least) least = next;
    if (next > most) most = next;
  }
  const gapBits = bitsOf(BigInt(gapsOf(offsets).reduce((most, gap) => Math.max(most, gap), 0)));
  const frame = log === undefined ? 5 : 9;
  return { frame, count: offsets.length, first: first[0], last: last[0], gapBits, least, most };
}

/** The numbers of partitions between two. */
function gapsOf(offsets: [number, bigint][]): number[] {
  return offsets.slice(1).map(([partition], at) => partition - offsets[at]![0] - 1);
}

/** The length of a token without `more` of the last bits. */
function byteCount({ frame, count, first, gapBits, least, most }: Layout, more: bigint): number {
  const varints = [BigInt(count), BigInt(first), least >> more].map((value) =>
    Math.max(1, Math.ceil(Number(bitsOf(value)) / 7)),
  );
  const bits = (count - 1) * Number(gapBits) + count * Number(bitsOf((most >> more) - (least >> more)));
  return frame + 3 + varints.reduce((sum, bytes) => sum + bytes) + Math.ceil(bits / 8);
}

/** The number of bits of a number; 0 of 0. */
function bitsOf(value: bigint): bigint {
  return value === 0n ? 0n : BigInt(value.toString(2).length);
}

/** Reads bytes, varints and fields of bits, the lowest first. */
class Reader {
  readonly #bytes: Uint8Array;
  #at = 0;
  #held = 0n;
  #count = 0n;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  get isAtEnd(): boolean {
    return this.#at >= this.#bytes.length;
  }

  byte(): bigint | undefined {
    return this.isAtEnd ? undefined : BigInt(this.#bytes[this.#at++]!);
  }

  varint(): bigint | undefined {
    let value = 0n;
    for (let shift = 0n; shift < OFFSET_BITS; shift += 7n) {
      const byte = this.byte();
      if (byte === undefined) return undefined;
      value |= (byte & 127n) << shift;
      if (byte < 128n) return value >> OFFSET_BITS === 0n ? value : undefined;
    }
    return undefined;
  }

  field(bits: bigint): bigint | undefined {
    if (bits > OFFSET_BITS) return undefined;
    while (this.#count < bits) {
      const byte = this.byte();
      if (byte === undefined) return undefined;
      this.#held |= byte << this.#count;
      this.#count += 8n;
    }
    const value = this.#held & ((1n << bits) - 1n);
    this.#held >>= bits;
    this.#count -= bits;
    return value;
  }
}

/** Writes the version and the log, then varints and fields of bits, the lowest first, and the checksum. */
class Writer {
  readonly #bytes: number[];
  #held = 0n;
  #count = 0n;

  constructor(log: Token["log"], withoutLog: number, withLog: number) {
    this.#bytes = log === undefined ? [withoutLog] : [withLog, ...littleEndian(log)];
  }

  varint(value: bigint): void {
    for (; value >= 128n; value >>= 7n) this.#bytes.push(Number(value & 127n) + 128);
    this.#bytes.push(Number(value));
  }

  field(value: bigint, bits: bigint): void {
    this.#held |= value << this.#count;
    this.#count += bits;
    for (; this.#count >= 8n; this.#count -= 8n, this.#held >>= 8n) this.#bytes.push(Number(this.#held & 255n));
  }

  end(): number[] {
    if (this.#count > 0n) this.#bytes.push(Number(this.#held));
    return [...this.#bytes, ...littleEndian(crc32(this.#bytes, this.#bytes.length))];
  }
}

function littleEndian(value: number): number[] {
  return [0, 8, 16, 24].map((shift) => (value >>> shift) & 255);
}

function base64url(bytes: number[]): string {
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
