// Posts and reads with the client that orval makes for fetch; prints what it saw as JSON.

import { getReadMark, getReceipt, listMembers, postEvents, queryReceipts } from "./orval/client.js";
import type { Events, MembersPage, Receipt } from "./orval/client.js";

const [conversation_id, message_id] = ["team/7?x=ü", "p/1"];
// The paths are relative, as a web page from the same origin needs them.
const send = globalThis.fetch;
globalThis.fetch = (path, init) => send(process.env["RECEIPTS_URL"]! + path, init);
const token = process.env["RECEIPTS_TOKEN"];
const credentials = token === undefined ? undefined : { Authorization: `Bearer ${token}` };

const bodies: Events[] = [
  [
    { type: "members.changed", conversation_id, joined: ["alice", "bob/1", "cy ü", "dan", "eve"] },
    {
      type: "message.sent",
      conversation_id,
      message_id,
      sender_id: "alice",
      sent_at_ms: 1780000000000,
      need_read_receipt: true,
    },
  ],
  { type: "message.read", conversation_id, reader_id: "bob/1", message_ids: [message_id], read_at_ms: 1780000004000 },
  { type: "conversation.read", conversation_id, reader_id: "cy ü", up_to_message_id: message_id },
];
const accepted: number[] = [];
let position = "";
for (const body of bodies) {
  // The body has two media types, and orval sends neither's name.
  const json = { headers: { ...credentials, "Content-Type": "application/json" } };
  const answer = await postEvents(body, json);
  if (answer.status !== 202) throw new Error(JSON.stringify(answer));
  accepted.push(answer.data.accepted);
  position = answer.data.position;
}

/** Returns the data of an answer with status 200. */
function ok<Answer extends { status: number; data: unknown }>(answer: Answer) {
  if (answer.status !== 200) throw new Error(JSON.stringify(answer));
  return answer.data as Extract<Answer, { status: 200 }>["data"];
}

const options = { headers: { ...credentials, "Receipts-Min-Position": position } };
const receipt = ok(await getReceipt(conversation_id, message_id, options));
const query = { conversation_id, message_ids: [message_id, "nothing"] };
const answer = ok(await queryReceipts(query, options));
const unread: string[] = [];
let page: MembersPage | undefined;
do {
  const cursor: string | null | undefined = page?.next_cursor;
  const parameters = { filter: "unread" as const, limit: 1, ...(cursor && { cursor }) };
  page = ok(await listMembers(conversation_id, message_id, parameters, options));
  unread.push(...page.members.map(({ user_id }) => user_id));
} while (page.next_cursor !== null);
const mark = ok(await getReadMark(conversation_id, "cy ü", options));
const missing = await getReceipt(conversation_id, "no/thing", options);
const later: Receipt = JSON.parse('{"tenant":"t","message_id":"m","status":"ok","new_field":1}');

console.log(
  JSON.stringify({
    accepted,
    tenant: receipt.tenant,
    status: receipt.status,
    counts: [receipt.audience_count, receipt.read_count, receipt.unread_count],
    sent_at_ms: receipt.sent_at_ms,
    query: answer.receipts.map(({ status }) => status),
    unread: unread.sort(),
    page_read_count: page.receipt.read_count,
    mark: [mark.up_to_message_id, mark.up_to_sent_at_ms],
    missing: missing.status,
    unknown_field: later.status,
  }),
);
