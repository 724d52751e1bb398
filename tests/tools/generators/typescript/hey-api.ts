// Posts, reads and streams with the client that hey-api makes; prints what it saw as JSON.

import { client } from "./hey-api/client.gen.js";
import { getReadMark, getReceipt, listMembers, postEvents, queryReceipts, streamUpdates } from "./hey-api/index.js";
import type { Events, MembersPage, Receipt } from "./hey-api/index.js";

const [conversation_id, message_id] = ["team/7?x=ü", "p/1"];
const token = process.env["RECEIPTS_TOKEN"];
client.setConfig({ baseUrl: process.env["RECEIPTS_URL"]!, ...(token !== undefined && { auth: () => token }) });

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
const positions: string[] = [];
for (const body of bodies) {
  const { data } = await postEvents({ body, throwOnError: true });
  accepted.push(data.accepted);
  positions.push(data.position);
}

const headers = { "Receipts-Min-Position": positions.at(-1)! };
const path = { conversation_id, message_id };
const { data: receipt } = await getReceipt({ path, headers, throwOnError: true });
const body = { conversation_id, message_ids: [message_id, "nothing"] };
const { data: answer } = await queryReceipts({ headers, body, throwOnError: true });
const unread: string[] = [];
let page: MembersPage | undefined;
do {
  const cursor: string | null | undefined = page?.next_cursor;
  const query = { filter: "unread" as const, limit: 1, ...(cursor && { cursor }) };
  page = (await listMembers({ path, headers, query, throwOnError: true })).data;
  unread.push(...page.members.map(({ user_id }) => user_id));
} while (page.next_cursor !== null);
const markPath = { conversation_id, user_id: "cy ü" };
const { data: mark } = await getReadMark({ path: markPath, headers, throwOnError: true });
const { response: missing } = await getReceipt({ path: { conversation_id, message_id: "no/thing" } });
const later: Receipt = JSON.parse('{"tenant":"t","message_id":"m","status":"ok","new_field":1}');

// Everything since the first post, until both have read.
const { stream } = await streamUpdates({ query: { conversation_id, since: positions[0]! } });
for await (const update of stream) {
  const { type, read_count } = update as unknown as { type?: string; read_count?: number };
  if (type === "receipt.updated" && read_count === 2) break;
}

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
    missing: missing?.status,
    unknown_field: later.status,
  }),
);
process.exit(0);
