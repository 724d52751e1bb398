// A whole service per test run, in memory, as the double of the real one. RECEIPTS_BIN names the binary.
// With the TypeScript client, `receipts-client/testing` does what stands in `before` and `after`.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";

let service, url;

before(async () => {
  // It ends when its standard input closes, which the system does even if this process is killed.
  const flags = ["serve", "--ephemeral", "--until-stdin-closes"];
  service = spawn(process.env.RECEIPTS_BIN ?? "receipts", flags, { stdio: ["pipe", "pipe", "inherit"] });
  // It says on standard error why it ends, if it does not start.
  const ended = once(service, "exit").then(([status]) => assert.fail(`receipts ended with ${status}`));
  const [line] = await Promise.race([once(createInterface({ input: service.stdout }), "line"), ended]);
  ended.catch(() => {});
  url = JSON.parse(line).http;
});

after(async () => {
  service.kill();
  await once(service, "exit");
});

async function call(path, { body, headers } = {}) {
  const method = body === undefined ? "GET" : "POST";
  const all = { "Content-Type": "application/json", ...headers };
  const answer = await fetch(`${url}${path}`, { method, headers: all, body: JSON.stringify(body) });
  assert.ok(answer.ok, `${answer.status}`);
  return answer.json();
}

test("bob has read", async () => {
  // An id of its own keeps tests apart that share the service.
  const conversation_id = `g-${randomUUID()}`;
  const body = [
    { type: "members.changed", conversation_id, joined: ["alice", "bob", "carol"] },
    { type: "message.sent", conversation_id, message_id: "m1", sender_id: "alice", sent_at_ms: 1780000000000, need_read_receipt: true },
    { type: "message.read", conversation_id, message_ids: ["m1"], reader_id: "bob" },
  ];
  const { position } = await call("/v1/events", { body });
  // The position makes the answer include the events, so no test sleeps.
  const headers = { "Receipts-Min-Position": position };
  const receipt = await call(`/v1/conversations/${conversation_id}/messages/m1/receipt`, { headers });
  assert.deepEqual([receipt.read_count, receipt.unread_count], [1, 1]);
});
