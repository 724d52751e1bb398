/** Tokens: one for all partitions, and what becomes of tokens that somebody refuses. */

import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { ReceiptsClient } from "receipts-client";
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

const token = (log: number | undefined, ...offsets: [number, number][]) =>
  encode({ log, shift: 0n, offsets: new Map(offsets.map(([partition, next]) => [partition, BigInt(next)])) });

const json = (response: ServerResponse, body: unknown) =>
  response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(body));

interface Golden {
  tokens: { token: string; log: number | null; shift: number; offsets: [number, string][] }[];
  merges: { tokens: string[]; merged: string }[];
}

test("golden tokens are read and merged", async () => {
  const golden = JSON.parse(await readFile("../../schemas/token/golden-v2.json", "utf8")) as Golden;
  assert.ok(golden.tokens.length > 5 && golden.merges.length > 3);
  for (const { token, log, shift, offsets } of golden.tokens) {
    const content = {
      log: log ?? undefined,
      shift: BigInt(shift),
      offsets: new Map(offsets.map(([partition, next]) => [partition, BigInt(next)])),
    };
    assert.deepEqual(decode(token), content);
    assert.equal(encode(content), token);
  }
  for (const { tokens, merged } of golden.merges) {
    const positions = new Positions();
    tokens.forEach((token) => positions.add(token));
    assert.equal(positions.token, merged);
  }
});

test("a merged token stands for both positions", () => {
  const random = (seed: number, at: number) => BigInt(Math.imul(seed * 7_919 + at, 2_654_435_761) >>> 0);
  for (const count of [1, 12, 64, 65, 400, 1_000, 10_000]) {
    for (const base of [1n, 10n ** 9n, 2n ** 40n]) {
      const offsets = (seed: number) =>
        new Map(Array.from({ length: count }, (_, at) => [at, base + (random(seed, at) * base) / 2n ** 33n] as const));
      const [a, b] = [offsets(1), offsets(2)];
      const positions = new Positions();
      for (const offsets of [a, b]) positions.add(encode({ log: 7, shift: 0n, offsets }));
      assert.ok(positions.token.length <= 2_000);
      const merged = decode(positions.token)!;
      assert.ok(merged.shift === 0n || count > 64);
      for (const [partition, next] of merged.offsets) {
        const truth = a.get(partition)! > b.get(partition)! ? a.get(partition)! : b.get(partition)!;
        assert.equal(truth >> merged.shift, next);
      }
      const before = positions.token;
      positions.add(before);
      assert.equal(positions.token, before, "merging again changes nothing");
    }
  }
});

test("tokens are merged by partition", () => {
  // The token of the OpenAPI document: partition 3, next offset 42.
  assert.deepEqual(decode("AQMqMCkVDg"), { log: undefined, shift: 0n, offsets: new Map([[3, 42n]]) });
  assert.equal(token(undefined, [3, 42]), "AQMqMCkVDg");
  const large = 2 ** 40 + 7;
  for (const log of [undefined, 7, 2 ** 32 - 1]) {
    const positions = new Positions();
    positions.add(token(log, [3, 42]));
    positions.add(token(log, [0, 5], [999, large]));
    positions.add(token(log, [0, 6], [3, 7]));
    assert.equal(positions.token, token(log, [0, 6], [3, 42], [999, large]));
    const others = new Positions();
    for (let at = 0; at < 10_000; at++) others.add(token(log, [at % 64, 1e9 + at]));
    assert.ok(others.token.length < 200, "64 partitions and one token");
  }
});

test("tokens of two logs and of other versions stay apart", () => {
  const positions = new Positions();
  positions.add(`AgNvbmU, nonsense,AQMqMCkVDw,AgNvbmU,${token(7, [0, 1])}`);
  positions.add(token(8, [0, 2]));
  assert.equal(positions.token, `${token(7, [0, 1])},${token(8, [0, 2])},nonsense,AQMqMCkVDw,AgNvbmU`);
  for (let at = 0; at < 1_000; at++) positions.add(`token-${at}-`.padEnd(300, "x"));
  assert.ok(positions.token.length < 2_100);
  assert.match(positions.token, /token-999-/);
});

test("a removed token keeps what was added since", () => {
  const positions = new Positions();
  positions.add(`${token(7, [0, 5], [1, 5])},${token(8, [0, 5])},other`);
  const { mark } = positions;
  positions.add(token(7, [1, 6]));
  positions.remove(mark);
  assert.equal(positions.token, token(7, [1, 6]));
});

test("a removed rounded token keeps later offsets", () => {
  const offsets = new Map(Array.from({ length: 1_000 }, (_, at) => [at, BigInt(at) ** 4n + 1n] as const));
  const rounded = encode({ log: undefined, shift: 0n, offsets });
  const positions = new Positions();
  positions.add(rounded);
  const { mark } = positions;
  // Without its last bits it is the same offset.
  positions.add(token(undefined, [5, 627]));
  assert.equal(decode(positions.token)!.offsets.get(5), decode(rounded)!.offsets.get(5));
  positions.remove(mark);
  assert.deepEqual([...decode(positions.token)!.offsets.keys()], [5]);
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
      const [receipt] = await client.getMessageReadReceipts([{ conversationID: "g", ID: "m" }]);
      assert.equal(receipt?.status, "recalled");
      assert.equal(client.position, "");
      assert.deepEqual(seen, ["AQMqMCkVDg,other", undefined]);
    });
  }
});

test("an answer with other ids is refused", async () => {
  const receipt = { tenant: "t", conversation_id: "g", message_id: "q1w2", status: "recalled" };
  const answer = ({ url }: IncomingMessage, response: ServerResponse) => {
    if (url!.includes("/members")) json(response, { members: [], next_cursor: null, is_finished: true, receipt });
    else if (url!.includes("/read-marks/query")) json(response, { read_marks: [{ reader_id: "bob" }] });
    else if (url!.includes("/read-marks/")) json(response, { reader_id: "bob" });
    else json(response, { receipts: [receipt] });
  };
  await behind(answer, async (baseURL) => {
    const client = new ReceiptsClient({ baseURL });
    const [right, wrong, mangled] = ["q1w2", "q1w2+", "q1w2/"].map((ID) => ({ conversationID: "g", ID }));
    const list = (message = right!) => client.getGroupMessageReadMemberList({ message, filter: "read" });
    assert.equal((await list()).receipt.message_id, "q1w2");
    await assert.rejects(list(wrong), /other ids/);
    await assert.rejects(list(mangled), /other ids/);
    assert.equal((await client.getMessageReadReceipts([right!])).length, 1);
    await assert.rejects(client.getMessageReadReceipts([wrong!]), /other ids/);
    await assert.rejects(client.getMessageReadReceipts([right!, right!]), /other ids/);
    assert.equal((await client.getC2CReadMark("g", "bob"))?.reader_id, "bob");
    for (const other of ["bob+", "bob/"]) await assert.rejects(client.getC2CReadMark("g", other), /other ids/);
    assert.equal((await client.getC2CReadMarks("g", ["bob"])).length, 1);
    await assert.rejects(client.getC2CReadMarks("g", ["bob", "bob"]), /other ids/);
  });
});
