// Posts and reads with openapi-fetch over the types of openapi-typescript; prints as JSON what it
// saw.

import createClient from "openapi-fetch";
import type { components, paths } from "./openapi-typescript/schema.js";

const [conversation_id, message_id] = ["team/7?x=ü", "p/1"];
const token = process.env["RECEIPTS_TOKEN"];
const client = createClient<paths>({
  baseUrl: process.env["RECEIPTS_URL"]!,
  ...(token !== undefined && { headers: { Authorization: `Bearer ${token}` } }),
});

const bodies: components["schemas"]["events"][] = [
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
  const { data, error } = await client.POST("/v1/events", { body });
  if (data === undefined) throw new Error(JSON.stringify(error));
  accepted.push(data.accepted);
  position = data.position;
}

const header = { "Receipts-Min-Position": position };
const path = { conversation_id, message_id };
const { data: receipt } = await client.GET("/v1/conversations/{conversation_id}/messages/{message_id}/receipt", {
  params: { path, header },
});
const { data: answer } = await client.POST("/v1/receipts/query", {
  params: { header },
  body: { conversation_id, message_ids: [message_id, "nothing"] },
});
const unread: string[] = [];
let page: components["schemas"]["MembersPage"] | undefined;
do {
  const cursor = page?.next_cursor;
  const query = { filter: "unread" as const, limit: 1, ...(cursor && { cursor }) };
  page = (
    await client.GET("/v1/conversations/{conversation_id}/messages/{message_id}/members", {
      params: { path, header, query },
    })
  ).data!;
  unread.push(...page.members.map(({ user_id }) => user_id));
} while (page.next_cursor !== null);
const { data: mark } = await client.GET("/v1/conversations/{conversation_id}/read-marks/{user_id}", {
  params: { path: { conversation_id, user_id: "cy ü" }, header },
});
const { error: missing } = await client.GET("/v1/conversations/{conversation_id}/messages/{message_id}/receipt", {
  params: { path: { conversation_id, message_id: "no/thing" } },
});
const later: components["schemas"]["Receipt"] = JSON.parse(
  '{"tenant":"t","message_id":"m","status":"ok","new_field":1}',
);

console.log(
  JSON.stringify({
    accepted,
    tenant: receipt!.tenant,
    status: receipt!.status,
    counts: [receipt!.audience_count, receipt!.read_count, receipt!.unread_count],
    sent_at_ms: receipt!.sent_at_ms,
    query: answer!.receipts.map(({ status }) => status),
    unread: unread.sort(),
    page_read_count: page.receipt.read_count,
    mark: [mark!.up_to_message_id, mark!.up_to_sent_at_ms],
    missing: missing && "status" in missing ? missing.status : 200,
    unknown_field: later.status,
  }),
);
