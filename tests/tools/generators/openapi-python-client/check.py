"""Posts and reads with the client that openapi-python-client makes; prints what it saw as JSON."""

import json
import os

from read_receipts_client import AuthenticatedClient, Client
from read_receipts_client.api.ingest import post_events
from read_receipts_client.api.query import get_read_mark, get_receipt, list_members, query_receipts
from read_receipts_client.models import (
    ConversationRead,
    ListMembersFilter,
    MembersChanged,
    MessageRead,
    MessageSent,
    Receipt,
    ReceiptsQuery,
)
from read_receipts_client.types import UNSET

CONVERSATION, MESSAGE = "team/7?x=ü", "p/1"

url, token = os.environ["RECEIPTS_URL"], os.environ.get("RECEIPTS_TOKEN")
client = AuthenticatedClient(base_url=url, token=token) if token else Client(base_url=url)

joined = ["alice", "bob/1", "cy ü", "dan", "eve"]
bodies = [
    [
        MembersChanged(type_="members.changed", conversation_id=CONVERSATION, joined=joined),
        MessageSent(
            type_="message.sent", conversation_id=CONVERSATION, message_id=MESSAGE, sender_id="alice",
            sent_at_ms=1780000000000, need_read_receipt=True,
        ),
    ],
    MessageRead(
        type_="message.read", conversation_id=CONVERSATION, reader_id="bob/1", message_ids=[MESSAGE],
        read_at_ms=1780000004000,
    ),
    ConversationRead(
        type_="conversation.read", conversation_id=CONVERSATION, reader_id="cy ü", up_to_message_id=MESSAGE
    ),
]
answers = [post_events.sync(client=client, body=body) for body in bodies]
position = answers[-1].position
receipt = get_receipt.sync(CONVERSATION, MESSAGE, client=client, receipts_min_position=position)
receipts = query_receipts.sync(
    client=client,
    body=ReceiptsQuery(conversation_id=CONVERSATION, message_ids=[MESSAGE, "nothing"]),
    receipts_min_position=position,
).receipts
unread, cursor = [], UNSET
while cursor is not None:
    page = list_members.sync(
        CONVERSATION, MESSAGE, client=client, filter_=ListMembersFilter.UNREAD, limit=1, cursor=cursor,
        receipts_min_position=position,
    )
    unread += [member.user_id for member in page.members]
    cursor = page.next_cursor
mark = get_read_mark.sync(CONVERSATION, "cy ü", client=client, receipts_min_position=position)
missing = get_receipt.sync(CONVERSATION, "no/thing", client=client)
later = Receipt.from_dict({"tenant": "t", "message_id": "m", "status": "ok", "new_field": 1})

print(json.dumps({
    "accepted": [answer.accepted for answer in answers],
    "tenant": receipt.tenant,
    "status": receipt.status,
    "counts": [receipt.audience_count, receipt.read_count, receipt.unread_count],
    "sent_at_ms": receipt.sent_at_ms,
    "query": [one.status for one in receipts],
    "unread": sorted(unread),
    "page_read_count": page.receipt.read_count,
    "mark": [mark.up_to_message_id, mark.up_to_sent_at_ms],
    "missing": missing.status,
    "unknown_field": later.status,
}))
