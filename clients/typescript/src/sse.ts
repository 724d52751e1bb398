/** Server-Sent Events: bytes in, events out, as the HTML standard has it. */

/** An event, or, without data, a sign of life that moves `id` on. */
export interface ServerSentEvent {
  /** `message` where the stream does not say. */
  event: string;
  /** Empty where there is none. */
  data: string;
  /** The last id that the stream has given so far; empty before the first. */
  id: string;
}

/** Reads a stream piece by piece, wherever it is cut. */
export class EventStreamParser {
  readonly #decoder = new TextDecoder();
  #rest = "";
  #event = "";
  #data: string[] = [];
  #id = "";
  /** What the server asks to wait before the next connection, milliseconds. */
  retryMs: number | undefined;

  /** The events that are complete with these bytes. */
  push(bytes: Uint8Array): ServerSentEvent[] {
    const text = this.#rest + this.#decoder.decode(bytes, { stream: true });
    // A carriage return at the end may be half of a line's end.
    const lines = text.split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    const events: ServerSentEvent[] = [];
    for (const line of lines) {
      if (line !== "") {
        this.#field(line);
        continue;
      }
      events.push({ event: this.#event || "message", data: this.#data.join("\n"), id: this.#id });
      this.#event = "";
      this.#data = [];
    }
    return events;
  }

  #field(line: string): void {
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "event") this.#event = value;
    else if (name === "data") this.#data.push(value);
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^[0-9]+$/.test(value)) this.retryMs = Number(value);
  }
}
