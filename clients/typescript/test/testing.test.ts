/** The service of `receipts-client/testing`: it answers, and it ends with the test that started it. */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { test } from "node:test";
import { startService } from "receipts-client/testing";
import { until } from "./service.js";

const binary = join(process.env["RECEIPTS_TEST_BIN_DIR"] ?? "../../target/debug", "receipts");

/** Tells whether a service listens. */
async function listens(url: string): Promise<boolean> {
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  return new Promise((resolve) => {
    socket.once("connect", () => (socket.destroy(), resolve(true)));
    socket.once("error", () => resolve(false));
  });
}

test("a service in memory answers, and stops", async () => {
  const service = await startService({ binary, flags: ["--log-partitions", "3"] });
  const client = service.client();
  await client.postEvents([
    { type: "members.changed", conversation_id: "g1", joined: ["alice", "bob", "carol"] },
    {
      type: "message.sent",
      conversation_id: "g1",
      message_id: "m1",
      sender_id: "alice",
      sent_at_ms: 1_780_000_000_000,
      need_read_receipt: true,
    },
    { type: "message.read", conversation_id: "g1", message_ids: ["m1"], reader_id: "bob" },
  ]);
  const [receipt] = await client.getMessageReadReceipts([{ conversationID: "g1", ID: "m1" }]);
  assert.ok(receipt?.status === "ok");
  assert.deepEqual([receipt.read_count, receipt.unread_count], [1, 1]);
  await service.stop();
  await service.stop();
  assert.equal(await listens(service.url), false);
});

test("the service ends with a killed process, and keeps none alive", async () => {
  const start = `import { startService } from "receipts-client/testing"; console.log((await startService()).url);`;
  const run = (more: string) =>
    spawn(process.execPath, ["--input-type=module", "--eval", start + more], {
      env: { ...process.env, RECEIPTS_BIN: binary },
      stdio: ["ignore", "pipe", "inherit"],
    });
  for (const [more, isKilled] of [
    ["", false],
    ["setInterval(() => {}, 1000);", true],
  ] as const) {
    const child = run(more);
    const ended = once(child, "exit");
    const [url] = (await once(createInterface({ input: child.stdout }), "line")) as [string];
    if (isKilled) child.kill("SIGKILL");
    await ended;
    let open = true;
    await until("the service has ended", () => {
      void listens(url).then((listening) => (open = listening));
      return !open;
    });
  }
});

test("an absent or refusing program is named", async () => {
  await assert.rejects(startService({ binary: "/nowhere/receipts" }), /no program \/nowhere\/receipts: .*RECEIPTS_BIN/);
  await assert.rejects(startService({ binary, flags: ["--data-dir", "x"] }), /ended with 2 before it was ready/);
  await assert.rejects(startService({ binary: "echo" }), /first line of echo is "serve --ephemeral/);
});
