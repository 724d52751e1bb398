/** Calls of the real service. */

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { ReceiptsClient, ReceiptsProblem, type Event, type Member, type MessageRef } from "receipts-client";
import { Service } from "./service.js";

const SENT_AT_MS = 1_780_000_000_000;
let service: Service;
before(async () => void (service = await Service.start()));
after(() => service.stop());

/** Returns the events of a conversation in which alice has sent messages. */
function conversation(conversation_id: string, members: string[], ids: string[]): Event[] {
  return [
    { type: "members.changed", conversation_id, joined: ["alice", ...members] },
    ...ids.map((message_id, at): Event => ({
      type: "message.sent",
      conversation_id,
      message_id,
      sender_id: "alice",
      sent_at_ms: SENT_AT_MS + at,
      need_read_receipt: true,
    })),
  ];
}

const message = (conversationID: string, ID: string): MessageRef => ({ conversationID, ID });

async function problem(promise: Promise<unknown>): Promise<ReceiptsProblem> {
  const error = await promise.then(
    () => assert.fail("no problem"),
    (error: unknown) => error,
  );
  assert.ok(error instanceof ReceiptsProblem, String(error));
  return error;
}

test("a reader sees its own receipts at once", async () => {
  const backend = service.backend();
  await backend.postEvents([
    ...conversation("read-1", ["bob", "carol"], ["m1", "m2"]),
    ...conversation("read-2", ["bob"], ["m1"]),
  ]);
  const messages = [message("read-1", "m2"), message("read-2", "m1"), message("read-1", "m1"), message("read-1", "m9")];
  const position = await backend.sendMessageReadReceipts(messages.slice(0, 2), { userID: "bob" });
  assert.notEqual(position, "");
  const receipts = await backend.getMessageReadReceipts(messages);
  assert.deepEqual(
    receipts.map(({ conversation_id, message_id, status, read_count }) => [
      conversation_id,
      message_id,
      status,
      read_count,
    ]),
    [
      ["read-1", "m2", "ok", 1],
      ["read-2", "m1", "ok", 1],
      ["read-1", "m1", "ok", 0],
      ["read-1", "m9", "not_found", undefined],
    ],
  );
  assert.deepEqual(await backend.getMessageReadReceipts([]), []);
});

test("another client sees them with the position", async () => {
  const backend = service.backend();
  await backend.postEvents(conversation("handed", ["bob"], ["m1"]));
  await backend.sendMessageReadReceipts([message("handed", "m1")], { userID: "bob", readAtMs: SENT_AT_MS + 5 });
  const alice = new ReceiptsClient({ baseURL: service.url, caller: "alice" });
  assert.equal(alice.position, "");
  alice.observePosition(backend.position);
  const [receipt] = await alice.getMessageReadReceipts([message("handed", "m1")]);
  assert.equal(receipt?.all_read, true);
  assert.equal(receipt.last_read_at_ms, SENT_AT_MS + 5);
});

test("large calls are split into several requests", async () => {
  const backend = service.backend();
  // 100 ids of 120 bytes per event: about 12 kB per conversation.
  const ids = Array.from({ length: 150 }, (_, at) => `m${at}-`.padEnd(120, "x"));
  const names = Array.from({ length: 40 }, (_, at) => `many-${at}`);
  const accepted = await backend.postEvents(names.flatMap((name) => conversation(name, ["bob"], ids)));
  assert.equal(accepted.accepted, names.length * 151);
  const messages = names.flatMap((name) => ids.map((id) => message(name, id)));
  await backend.sendMessageReadReceipts(messages, { userID: "bob" });
  const receipts = await backend.getMessageReadReceipts(messages);
  assert.equal(receipts.length, 6_000);
  assert.ok(receipts.every(({ message_id, all_read }, at) => message_id === messages[at]!.ID && all_read));
});

test("iterating over a list names every member once", async () => {
  const backend = service.backend();
  const members = Array.from({ length: 25 }, (_, at) => `user-${at}`);
  await backend.postEvents(conversation("list", members, ["m1"]));
  await backend.sendMessageReadReceipts([message("list", "m1")], { userID: "user-3" });
  const read = await backend.getGroupMessageReadMemberList({ message: message("list", "m1"), filter: "read" });
  assert.deepEqual([read.members.map(({ user_id }) => user_id), read.is_finished], [["user-3"], true]);
  assert.equal(read.receipt.read_count, 1);
  const page = await backend.getGroupMessageReadMemberList({
    message: message("list", "m1"),
    filter: "unread",
    count: 4,
  });
  assert.equal(page.members.length, 4);
  const walked: Member[] = [];
  for await (const member of backend.groupMessageReadMembers({
    message: message("list", "m1"),
    filter: "unread",
    count: 4,
  })) {
    walked.push(member);
  }
  assert.deepEqual(walked.map(({ user_id }) => user_id).sort(), members.filter((user) => user !== "user-3").sort());
});

test("a read mark moves up to a message or a time", async () => {
  const backend = new ReceiptsClient({ baseURL: service.url, userID: "bob" });
  await backend.postEvents([
    { type: "conversation.configured", conversation_id: "direct", kind: "direct" },
    ...conversation("direct", ["bob"], ["m1", "m2"]),
  ]);
  assert.equal(await backend.getC2CReadMark("direct", "bob"), null);
  await backend.markC2CMessageAsRead({ conversationID: "direct", upToMessageID: "m1" });
  assert.equal((await backend.getC2CReadMark("direct", "bob"))?.up_to_message_id, "m1");
  await backend.markC2CMessageAsRead({ conversationID: "direct", upToSentAtMs: SENT_AT_MS + 1 });
  assert.equal((await backend.getC2CReadMark("direct", "bob"))?.up_to_sent_at_ms, SENT_AT_MS + 1);
  const [receipt] = await backend.getMessageReadReceipts([message("direct", "m2")]);
  assert.equal(receipt?.user_id, "bob");
  assert.notEqual(receipt.read_at_ms, undefined);
});

test("ids with any characters reach the service", async () => {
  const backend = service.backend("ténant 漢");
  const [conversationID, ID, user] = ["a/b?c#d %", "m&=\u{1f600}", "böb,%41"];
  await backend.postEvents(conversation(conversationID, [user], [ID]));
  await backend.sendMessageReadReceipts([message(conversationID, ID)], { userID: user });
  const page = await backend.getGroupMessageReadMemberList({ message: message(conversationID, ID), filter: "read" });
  assert.deepEqual(
    page.members.map(({ user_id }) => user_id),
    [user],
  );
  assert.equal(page.receipt.tenant, "ténant 漢");
  const self = new ReceiptsClient({ baseURL: `${service.url}/`, tenant: "ténant 漢", caller: user });
  self.observePosition(backend.position);
  assert.equal(await self.getC2CReadMark(conversationID, user), null);
  // Paths would mangle these, so they go in bodies.
  const [room, id, dot] = ["..", "m/..%2F\u{1}", "."];
  await backend.postEvents(conversation(room, [dot, "b"], [id]));
  await backend.markC2CMessageAsRead({ conversationID: room, upToMessageID: id, userID: dot });
  const list = { message: message(room, id), filter: "unread", count: 1 } as const;
  assert.equal((await backend.getGroupMessageReadMemberList(list)).members[0]?.user_id, "b");
  const mark = await backend.getC2CReadMark(room, dot);
  assert.equal(mark?.up_to_message_id, id);
  assert.deepEqual(await backend.getC2CReadMarks(room, ["b", dot, "nobody"]), [null, mark, null]);
});

test("an error is a problem with its offending items", async () => {
  const backend = service.backend();
  const bad = { type: "message.read", conversation_id: "g", reader_id: "", message_ids: ["m"] } as const;
  const invalid = await problem(backend.postEvents([{ ...bad, message_ids: ["m"] }]));
  assert.equal(invalid.type, "urn:receipts:problem:invalid");
  assert.equal(invalid.status, 400);
  assert.equal(invalid.errors[0]?.pointer, "/0/reader_id");
  assert.match(invalid.message, /reader_id/);
  await backend.postEvents([
    ...conversation("problems", ["bob"], ["m1"]),
    { type: "message.recalled", conversation_id: "problems", message_id: "m1" },
  ]);
  const list = { message: message("problems", "m1"), filter: "read" } as const;
  const recalled = await problem(backend.getGroupMessageReadMemberList(list));
  assert.deepEqual([recalled.status, recalled.is("not-ok"), recalled.receipt?.status], [409, true, "recalled"]);
  const stranger = new ReceiptsClient({ baseURL: service.url, caller: "mallory" });
  assert.ok((await problem(stranger.getGroupMessageReadMemberList(list))).is("forbidden"));
  const others = await problem(stranger.sendMessageReadReceipts([list.message], { userID: "bob" }));
  assert.deepEqual(
    [others.is("forbidden"), others.errors],
    [true, [{ pointer: "/0", detail: "needs the scope receipts:write" }]],
  );
  await stranger.sendMessageReadReceipts([list.message]);
  assert.throws(() => new ReceiptsClient({ baseURL: service.url, token: "t", caller: "bob" }), TypeError);
  await assert.rejects(backend.sendMessageReadReceipts([list.message]), TypeError);
});

test("the token function runs before every request", async () => {
  const own = await Service.start("0123456789abcdef0123456789abcdef");
  try {
    const baseURL = own.url;
    const backend = new ReceiptsClient({ baseURL, token: own.token({ scope: "receipts:members receipts:write" }) });
    await backend.postEvents(conversation("tokens", ["bob"], ["m1"]));
    await backend.sendMessageReadReceipts([message("tokens", "m1")], { userID: "bob" });
    let asked = 0;
    const token = async () => (asked++, own.token({ sub: "alice" }));
    const alice = new ReceiptsClient({ baseURL, token });
    alice.observePosition(backend.position);
    assert.equal((await alice.getMessageReadReceipts([message("tokens", "m1")]))[0]?.read_count, 1);
    assert.equal(await alice.getC2CReadMark("tokens", "bob"), null);
    assert.equal(asked, 2);
    const forged = new ReceiptsClient({ baseURL, token: `${own.token({ sub: "alice" })}x` });
    const refused = await problem(forged.getMessageReadReceipts([message("tokens", "m1")]));
    assert.deepEqual([refused.status, refused.is("unauthenticated")], [401, true]);
  } finally {
    await own.stop();
  }
});

test("a lagging read is retried until it is current", async () => {
  const other = await Service.start();
  try {
    // This copy is shorter than the other log, so the awaited position does not exist yet.
    const fresh = await other.copy();
    const events = conversation("behind", ["bob"], ["m1"]);
    for (let round = 0; round < 3; round++) await other.backend().postEvents(events);
    const ahead = await other.backend().postEvents(events);
    try {
      const impatient = new ReceiptsClient({ baseURL: fresh.url, waitMs: 10, retries: 1 });
      impatient.observePosition(ahead.position);
      const behind = await problem(impatient.getMessageReadReceipts([message("behind", "m1")]));
      assert.deepEqual([behind.status, behind.is("behind"), behind.retryAfterMs], [503, true, 1_000]);

      const patient = new ReceiptsClient({ baseURL: fresh.url, waitMs: 10 });
      patient.observePosition(ahead.position);
      const asked = patient.getMessageReadReceipts([message("behind", "m1")]);
      await new Promise((resolve) => setTimeout(resolve, 300));
      for (let round = 0; round < 4; round++) await fresh.backend().postEvents(events);
      assert.equal((await asked)[0]?.status, "ok");
    } finally {
      await fresh.stop();
    }
  } finally {
    await other.stop();
  }
  const client = service.backend();
  client.observePosition("nonsense");
  assert.ok((await problem(client.getMessageReadReceipts([message("g", "m")]))).is("bad-position"));
  assert.equal((await client.getMessageReadReceipts([message("g", "m")])).length, 1);
});

test("without an answer only harmless requests are retried", async () => {
  const own = await Service.start();
  try {
    const client = new ReceiptsClient({ baseURL: own.url });
    const events = conversation("again", ["bob"], ["m1"]);
    await client.postEvents(events);
    await own.kill();
    await assert.rejects(client.postEvents(events), TypeError);
    const sent = client.sendMessageReadReceipts([message("again", "m1")], { userID: "bob" });
    await own.resume();
    await sent;
    assert.equal((await client.getMessageReadReceipts([message("again", "m1")]))[0]?.read_count, 1);
  } finally {
    await own.stop();
  }
});
