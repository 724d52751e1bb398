"""Posts and reads with the client that openapi-generator makes for Python; prints what it saw as JSON."""

import json
import os

import openapi_client
from openapi_client import models

CONVERSATION, MESSAGE = "team/7?x=ü", "p/1"

configuration = openapi_client.Configuration(
    host=os.environ["RECEIPTS_URL"], access_token=os.environ.get("RECEIPTS_TOKEN")
)
with openapi_client.ApiClient(configuration) as client:
    ingest, query = openapi_client.IngestApi(client), openapi_client.QueryApi(client)

    def post(*events):
        wrapped = [models.Event(event) for event in events]
        return ingest.post_events(models.Events(wrapped[0] if len(wrapped) == 1 else wrapped))

    joined = ["alice", "bob/1", "cy ü", "dan", "eve"]
    answers = [
        post(
            models.MembersChanged(type="members.changed", conversation_id=CONVERSATION, joined=joined),
            models.MessageSent(
                type="message.sent", conversation_id=CONVERSATION, message_id=MESSAGE, sender_id="alice",
                sent_at_ms=1780000000000, need_read_receipt=True,
            ),
        ),
        post(models.MessageRead(
            type="message.read", conversation_id=CONVERSATION, reader_id="bob/1", message_ids=[MESSAGE],
            read_at_ms=1780000004000,
        )),
        post(models.ConversationRead(
            type="conversation.read", conversation_id=CONVERSATION, reader_id="cy ü", up_to_message_id=MESSAGE
        )),
    ]
    # The tool recognizes events in JSON by their type.
    told = models.Event.from_json(json.dumps({"type": "message.recalled", "conversation_id": "g", "message_id": "m"}))
    assert isinstance(told.actual_instance, models.MessageRecalled), told

    position = answers[-1].position
    receipt = query.get_receipt(CONVERSATION, MESSAGE, receipts_min_position=position)
    receipts = query.query_receipts(
        models.ReceiptsQuery(conversation_id=CONVERSATION, message_ids=[MESSAGE, "nothing"]),
        receipts_min_position=position,
    ).receipts
    unread, cursor = [], None
    while True:
        page = query.list_members(
            CONVERSATION, MESSAGE, "unread", limit=1, cursor=cursor, receipts_min_position=position
        )
        unread += [member.user_id for member in page.members]
        cursor = page.next_cursor
        if cursor is None:
            break
    mark = query.get_read_mark(CONVERSATION, "cy ü", receipts_min_position=position)
    try:
        query.get_receipt(CONVERSATION, "no/thing")
        missing = 200
    except openapi_client.exceptions.NotFoundException as error:
        missing = error.status
    later = models.Receipt.from_json('{"tenant":"t","message_id":"m","status":"ok","new_field":1}')

print(json.dumps({
    "accepted": [answer.accepted for answer in answers],
    "tenant": receipt.tenant,
    "status": receipt.status.value,
    "counts": [receipt.audience_count, receipt.read_count, receipt.unread_count],
    "sent_at_ms": receipt.sent_at_ms,
    "query": [one.status.value for one in receipts],
    "unread": sorted(unread),
    "page_read_count": page.receipt.read_count,
    "mark": [mark.up_to_message_id, mark.up_to_sent_at_ms],
    "missing": missing,
    "unknown_field": later.status.value,
}))
