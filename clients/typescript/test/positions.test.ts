/** Tokens: one for all partitions, and what becomes of tokens that somebody refuses. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { ReceiptsClient, ReceiptsProblem } from "receipts-client";
import { decode, encode, Positions } from "../dist/esm/positions.js";

/** Runs `use` with the URL of a server that answers with `answer`. */
async function behind(
  answer: (request: IncomingMessage, response: ServerResponse) => void,
  use: (url: string) => Promise<void>,
): Promise<void> {
  const server = createServer(answer);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const token = (log: number | undefined, ...offsets: [number, number][]) => encode({ log, offsets: new Map(offsets) });

const json = (response: ServerResponse, body: unknown) =>
  response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(body));

test("tokens are merged by partition", () => {
  // The token of the OpenAPI document: partition 3, next offset 42.
  assert.deepEqual(decode("AQMqMCkVDg"), { log: undefined, offsets: new Map([[3, 42]]) });
  assert.equal(token(undefined, [3, 42]), "AQMqMCkVDg");
  const large = 2 ** 40 + 7;
  for (const log of [undefined, 7, 2 ** 32 - 1]) {
    const positions = new Positions();
    positions.add(token(log, [3, 42]));
    positions.add(token(log, [0, 5], [999, large]));
    positions.add(token(log, [0, 6], [3, 7]));
    assert.equal(positions.token, token(log, [0, 6], [3, 42], [999, large]));
    for (let at = 0; at < 10_000; at++) positions.add(token(log, [at % 64, 1e9 + at]));
    assert.ok(positions.token.length < 700, "64 partitions and one token");
  }
});

test("tokens of two logs and of other versions stay apart", () => {
  const positions = new Positions();
  positions.add(`AgNvbmU, nonsense,AQMqMCkVDw,AgNvbmU,${token(7, [0, 1])}`);
  positions.add(token(8, [0, 2]));
  assert.equal(positions.token, `${token(7, [0, 1])},${token(8, [0, 2])},nonsense,AQMqMCkVDw,AgNvbmU`);
  for (let at = 0; at < 1_000; at++) positions.add(`token-${at}-`.padEnd(300, "x"));
  assert.ok(positions.token.length < 4_100);
  assert.match(positions.token, /token-999-/);
});

test("a removed token keeps what was added since", () => {
  const positions = new Positions();
  positions.add(`${token(7, [0, 5], [1, 5])},${token(8, [0, 5])},other`);
  const waitedFor = positions.token;
  positions.add(token(7, [1, 6]));
  positions.remove(waitedFor);
  assert.equal(positions.token, token(7, [1, 6]));
});

test("a token that a proxy refuses is dropped", async () => {
  for (const status of [400, 431]) {
    const seen: (string | undefined)[] = [];
    const answer = (request: IncomingMessage, response: ServerResponse) => {
      const position = request.headers["receipts-min-position"] as string | undefined;
      seen.push(position);
      if (position !== undefined) response.writeHead(status, { "Content-Type": "text/html" }).end("<html>");
      else json(response, { receipts: [{ tenant: "t", conversation_id: "g", message_id: "m", status: "recalled" }] });
    };
    await behind(answer, async (baseURL) => {
      const client = new ReceiptsClient({ baseURL });
      client.observePosition("AQMqMCkVDg,other");
      const ask = () => client.getMessageReadReceipts([{ conversationID: "g", ID: "m" }]);
      await assert.rejects(ask(), (error) => error instanceof ReceiptsProblem && error.status === status);
      assert.equal(client.position, "");
      assert.equal((await ask())[0]?.status, "recalled");
      assert.deepEqual(seen, ["AQMqMCkVDg,other", undefined]);
    });
  }
});

test("an answer with other ids is refused", async () => {
  const receipt = { tenant: "t", conversation_id: "g", message_id: "q1w2", status: "recalled" };
  const answer = ({ url }: IncomingMessage, response: ServerResponse) => {
    if (url!.includes("/members")) json(response, { members: [], next_cursor: null, is_finished: true, receipt });
    else if (url!.includes("/read-marks/")) json(response, { reader_id: "bob" });
    else json(response, { receipts: [receipt] });
  };
  await behind(answer, async (baseURL) => {
    const client = new ReceiptsClient({ baseURL });
    const [right, wrong] = ["q1w2", "q1w2/"].map((ID) => ({ conversationID: "g", ID }));
    const list = (message = right!) => client.getGroupMessageReadMemberList({ message, filter: "read" });
    assert.equal((await list()).receipt.message_id, "q1w2");
    await assert.rejects(list(wrong), /other ids/);
    assert.equal((await client.getMessageReadReceipts([right!])).length, 1);
    await assert.rejects(client.getMessageReadReceipts([wrong!]), /other ids/);
    await assert.rejects(client.getMessageReadReceipts([right!, right!]), /other ids/);
    assert.equal((await client.getC2CReadMark("g", "bob"))?.reader_id, "bob");
    await assert.rejects(client.getC2CReadMark("g", "bob/"), /other ids/);
  });
});
