/** The stream of updates of the real service, over an unreliable network. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ReceiptsClient, type Event, type ReadMarkUpdate, type ReceiptUpdate } from "receipts-client";
import { Network, Service, until } from "./service.js";

const SENT_AT_MS = 1_780_000_000_000;
let service: Service;
let network: Network;
before(async () => {
  service = await Service.start();
  network = await Network.before(service);
});
after(async () => {
  await network.close();
  await service.stop();
});

function sent(conversation_id: string, message_id: string): Event {
  const common = { conversation_id, message_id, sender_id: "alice", sent_at_ms: SENT_AT_MS };
  return { type: "message.sent", ...common, need_read_receipt: true };
}

/** A listener and the events that it received. */
function listen(client: ReceiptsClient) {
  const received = {
    receipts: [] as ReceiptUpdate[],
    marks: [] as ReadMarkUpdate[],
    connects: 0,
    failures: [] as Error[],
  };
  client.on("onRecvMessageReadReceipts", (receipts) => received.receipts.push(...receipts));
  client.on("onRecvC2CReadReceipt", (marks) => received.marks.push(...marks));
  client.on("onConnectSuccess", () => received.connects++);
  client.on("onConnectFailed", (error) => received.failures.push(error));
  return received;
}

const newest = (receipts: ReceiptUpdate[], id: string) =>
  receipts.filter(({ message_id }) => message_id === id).reduce((a, b) => (b.version >= a.version ? b : a)).read_count;

test("a sender gets updates until the stream is closed", async () => {
  const backend = service.backend();
  await backend.postEvents([
    { type: "conversation.configured", conversation_id: "d1", kind: "direct" },
    { type: "members.changed", conversation_id: "d1", joined: ["alice", "bob"] },
  ]);
  const alice = new ReceiptsClient({ baseURL: service.url, caller: "alice" });
  const received = listen(alice);
  const stream = alice.subscribe({ senderID: "alice" });
  await until("connected", () => received.connects === 1);
  await backend.postEvents([sent("d1", "m1")]);
  await backend.markC2CMessageAsRead({ conversationID: "d1", upToMessageID: "m1", userID: "bob" });
  await until("received", () => received.marks.length > 0 && received.receipts.some(({ all_read }) => all_read));
  assert.equal(received.marks[0]!.up_to_message_id, "m1");
  assert.equal(received.marks[0]!.reader_id, "bob");
  assert.deepEqual(
    received.receipts.flatMap(({ newly_read }) => newly_read.map(({ user_id }) => user_id)),
    ["bob"],
  );
  stream.close();
  await stream.done;
  const count = received.receipts.length;
  await backend.postEvents([sent("d1", "m2")]);
  await backend.getMessageReadReceipts([{ conversationID: "d1", ID: "m2" }]);
  assert.equal(received.receipts.length, count);
});

test("an interrupted stream continues without a gap", async () => {
  const backend = service.backend();
  await backend.postEvents([{ type: "members.changed", conversation_id: "g1", joined: ["alice", "bob", "carol"] }]);
  const client = new ReceiptsClient({ baseURL: network.url });
  const received = listen(client);
  const stream = client.subscribe({ conversationID: "g1", heartbeatTimeoutMs: 2_000 });
  await until("connected", () => received.connects === 1);
  network.cut();
  await backend.postEvents([sent("g1", "m1")]);
  await until("m1, after a cut before the first update", () =>
    received.receipts.some(({ message_id }) => message_id === "m1"),
  );

  network.cut();
  await backend.postEvents([sent("g1", "m2")]);
  await until("m2, after a cut", () => received.receipts.some(({ message_id }) => message_id === "m2"));
  assert.ok(received.failures.length > 0);

  const connects = received.connects;
  network.freeze();
  await backend.postEvents([sent("g1", "m3")]);
  await until("m3, after silence", () => received.receipts.some(({ message_id }) => message_id === "m3"));
  assert.ok(received.connects > connects);
  assert.ok(
    received.failures.some(({ message }) => message === "the stream was silent for 2000 ms"),
    String(received.failures),
  );

  await service.kill();
  await service.resume();
  await backend.sendMessageReadReceipts(
    ["m1", "m2", "m3"].map((ID) => ({ conversationID: "g1", ID })),
    { userID: "bob" },
  );
  await until("all read by one, after a kill", () =>
    ["m1", "m2", "m3"].every((id) => newest(received.receipts, id) === 1),
  );
  stream.close();
  await stream.done;

  const later = new ReceiptsClient({ baseURL: service.url });
  const since = stream.lastEventID;
  await backend.sendMessageReadReceipts([{ conversationID: "g1", ID: "m1" }], { userID: "carol" });
  const resumed = listen(later);
  const second = later.subscribe({ conversationID: "g1", since });
  await until("what came between", () => resumed.receipts.some(({ read_count }) => read_count === 2));
  assert.deepEqual([...new Set(resumed.receipts.map(({ message_id }) => message_id))], ["m1"]);
  second.close();
});

test("a ticket opens a stream without credentials", async () => {
  const secured = await Service.start("0123456789abcdef0123456789abcdef");
  const alice = new ReceiptsClient({ baseURL: secured.url, token: secured.token({ sub: "alice" }) });
  const { url, ticket, expires_at_ms } = await alice.createStreamTicket({ senderID: "alice" });
  assert.ok(url.startsWith(secured.url) && url.endsWith(ticket));
  assert.ok(expires_at_ms > Date.now());
  const stream = await fetch(url, { signal: AbortSignal.timeout(20_000) });
  assert.equal(stream.status, 200);
  const { value } = await stream.body!.getReader().read();
  assert.match(new TextDecoder().decode(value), /^retry: 1000\nevent: position\nid: [^\n]+\ndata: \{\}\n\n$/);
  await assert.rejects(alice.createStreamTicket({ senderID: "bob" }), /may not ask/);
  await secured.stop();
});

test("a refused stream ends and says why", async () => {
  const mallory = new ReceiptsClient({ baseURL: service.url, caller: "mallory" });
  const received = listen(mallory);
  let retryInMs: number | undefined = -1;
  mallory.on("onConnectFailed", (_, ms) => (retryInMs = ms));
  await mallory.subscribe({ senderID: "alice" }).done;
  assert.match(String(received.failures[0]), /may not ask/);
  assert.equal(retryInMs, undefined);
  await mallory.subscribe({ senderID: "mallory", since: "nonsense" }).done;
  assert.match(String(received.failures[1]), /position token/);
});

test("a stream that cannot resume continues from now", async () => {
  const other = await Service.start();
  try {
    const far = other.backend();
    await far.postEvents([{ type: "members.changed", conversation_id: "g3", joined: ["alice", "bob"] }]);
    const heardFar = listen(far);
    const farStream = far.subscribe({ conversationID: "g3" });
    await until("connected", () => heardFar.connects === 1);
    for (let at = 0; at < 20; at++) {
      await far.postEvents([sent("g3", `m${at}`)]);
      await until(`m${at}`, () => heardFar.receipts.some(({ message_id }) => message_id === `m${at}`));
    }
    farStream.close();
    // A position beyond the end of the new log cannot be resumed, like one before its beginning.
    const backend = service.backend();
    await backend.postEvents([{ type: "members.changed", conversation_id: "g3", joined: ["alice", "bob"] }]);
    const received = listen(backend);
    const gone: string[] = [];
    backend.on("onUpdatesGone", (problem) => gone.push(problem.type));
    const stream = backend.subscribe({ conversationID: "g3", since: farStream.lastEventID });
    await until("connected", () => received.connects === 1);
    assert.deepEqual(gone, ["urn:receipts:problem:updates-gone"]);
    await backend.postEvents([sent("g3", "m99")]);
    await until("m99", () => received.receipts.some(({ message_id }) => message_id === "m99"));
    stream.close();
    await stream.done;
  } finally {
    await other.stop();
  }
});

test("a refused token is replaced once by its function", async () => {
  const own = await Service.start("0123456789abcdef0123456789abcdef");
  try {
    const stale = `${own.token({ sub: "alice" })}x`;
    const asked: string[] = [];
    const tokens = (valid: boolean) => () => {
      asked.push(asked.length === 0 || !valid ? stale : own.token({ sub: "alice" }));
      return asked.at(-1)!;
    };
    const renewing = new ReceiptsClient({ baseURL: own.url, token: tokens(true) });
    const received = listen(renewing);
    const stream = renewing.subscribe({ senderID: "alice" });
    await until("connected", () => received.connects === 1);
    assert.deepEqual([asked.length, received.failures.length], [2, 1]);
    stream.close();
    await stream.done;

    asked.length = 0;
    assert.deepEqual(
      await renewing.getMessageReadReceipts([{ conversationID: "g", ID: "m" }]).then((all) => all.length),
      1,
    );
    assert.equal(asked.length, 2);

    asked.length = 0;
    const refused = new ReceiptsClient({ baseURL: own.url, token: tokens(false) });
    const heard = listen(refused);
    await refused.subscribe({ senderID: "alice" }).done;
    assert.deepEqual([asked.length, heard.connects, heard.failures.length], [2, 0, 2]);
    await assert.rejects(refused.getMessageReadReceipts([{ conversationID: "g", ID: "m" }]), /credential/);
    assert.equal(asked.length, 4);
  } finally {
    await own.stop();
  }
});

test("a removed listener gets no more events", async () => {
  const backend = service.backend();
  await backend.postEvents([{ type: "members.changed", conversation_id: "g2", joined: ["alice", "bob"] }]);
  let [first, second] = [0, 0];
  const off = backend.on("onRecvMessageReadReceipts", () => first++);
  backend.on("onRecvMessageReadReceipts", () => second++);
  let connects = 0;
  backend.on("onConnectSuccess", () => connects++);
  const stream = backend.subscribe({ conversationID: "g2" });
  await until("connected", () => connects === 1);
  off();
  await backend.postEvents([sent("g2", "m1")]);
  await until("received", () => second === 1);
  assert.equal(first, 0);
  stream.close();
  await stream.done;
});
