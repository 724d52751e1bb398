/** The parser of Server-Sent Events, with the bytes cut at every position. */

import assert from "node:assert/strict";
import { test } from "node:test";
import { EventStreamParser, type ServerSentEvent } from "../dist/esm/sse.js";

const STREAM =
  "\ufeffretry: 1500\n: a comment\nid: A\n\n" +
  'event: receipt.updated\nid: B\ndata: {"text":"grüße 漢 \u{1f600}"}\n\n' +
  "data: one\r\ndata:two\r\n\r\n" +
  "event: x\rdata\rid: C\0\r\r" +
  "unknown: field\nid: D\n\n" +
  "event: never complete\ndata: so never seen\n";

const EVENTS: ServerSentEvent[] = [
  { event: "message", data: "", id: "A" },
  { event: "receipt.updated", data: '{"text":"grüße 漢 \u{1f600}"}', id: "B" },
  { event: "message", data: "one\ntwo", id: "B" },
  { event: "x", data: "", id: "B" },
  { event: "message", data: "", id: "D" },
];

test("a stream parses the same in any pieces", () => {
  const bytes = new TextEncoder().encode(STREAM);
  for (const size of [1, 2, 3, 5, 7, 64, bytes.length]) {
    const parser = new EventStreamParser();
    const events: ServerSentEvent[] = [];
    for (let at = 0; at < bytes.length; at += size) events.push(...parser.push(bytes.slice(at, at + size)));
    assert.deepEqual(events, EVENTS, `pieces of ${size}`);
    assert.equal(parser.retryMs, 1500);
  }
});
