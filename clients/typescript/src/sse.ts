/** Parses Server-Sent Events as the HTML standard defines them. */

/** An event. Without data it only sets `id`, as a keep-alive. */
export interface ServerSentEvent {
  /** `message` by default. */
  event: string;
  /** Empty if there is none. */
  data: string;
  /** The last id of the stream so far; empty before the first. */
  id: string;
}

/** Parses a stream that arrives in arbitrary pieces. */
export class EventStreamParser {
  readonly #decoder = new TextDecoder();
  #rest = "";
  #event = "";
  #data: string[] = [];
  #id = "";
  /** The wait before the next connection that the server asks for, milliseconds. */
  retryMs: number | undefined;

  /** Returns the events that these bytes complete. */
  push(bytes: Uint8Array): ServerSentEvent[] {
    const text = this.#rest + this.#decoder.decode(bytes, { stream: true });
    // A carriage return at the end may be the first half of a line end.
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
