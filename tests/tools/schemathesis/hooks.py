"""Rules that JSON Schema cannot say, applied to generated requests that must be accepted.

Must not change requests that are wrong by intent: these must be refused, for any reason.
"""

import json
import os
from urllib.parse import quote, unquote, unquote_to_bytes

import schemathesis
from schemathesis import GenerationMode

# A token of the running service, from its answer to the seeds.
POSITION = os.environ["RECEIPTS_POSITION"]
ID_BYTES_MAX = 128

NDJSON = """{"type":"message.read","conversation_id":"g1","reader_id":"carol","message_ids":["m1"]}

{"type":"message.recalled","conversation_id":"g1","message_id":"m3"}
"""


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """Text goes as it is; anything else is one line of JSON."""
    return (value if isinstance(value, str) else json.dumps(value)).encode()


@schemathesis.hook
def filter_case(context, case):
    """Leaves out requests that are called wrong for a header that nobody knows: such headers mean nothing."""
    return not any("unknown-property" in name.lower() for name in case.headers or {})


@schemathesis.hook
def map_case(context, case):
    meta = case.meta
    if meta is None or meta.generation.mode != GenerationMode.POSITIVE:
        return case
    if "Receipts-Min-Position" in (case.headers or {}):
        case.headers["Receipts-Min-Position"] = POSITION
    if "Receipts-Caller" in (case.headers or {}):
        # Percent-encoded UTF-8, measured in bytes.
        caller = acceptable(unquote(str(case.headers["Receipts-Caller"]), errors="ignore"))
        case.headers["Receipts-Caller"] = quote(caller or "somebody", safe="")
    for name, value in (case.path_parameters or {}).items():
        if len(unquote_to_bytes(value)) > ID_BYTES_MAX:
            case.path_parameters[name] = quote(acceptable(unquote(value)), safe="")
    # A cursor is signed, and of one list.
    if "cursor" in (case.query or {}):
        del case.query["cursor"]
    if case.media_type == "application/x-ndjson":
        # The document says no more than that it is text.
        case.body = NDJSON
    elif isinstance(case.body, (dict, list)):
        case.body = acceptable(case.body)
    return case


@schemathesis.hook
def before_call(context, case, **_):
    """Later than map_case, because examples are put together after that."""
    meta = case.meta
    is_meant_right = meta is not None and meta.generation.mode == GenerationMode.POSITIVE
    if is_meant_right and case.operation.path == "/v1/updates/tickets" and isinstance(case.body, dict):
        case.body = one_subject(case.body)


def acceptable(value):
    """The same body within the limits that are words in the document."""
    if isinstance(value, list):
        return [acceptable(item) for item in value]
    if isinstance(value, str):
        # Ids are measured in bytes.
        return value.encode()[:ID_BYTES_MAX].decode(errors="ignore")
    # A JSON reader may limit its numbers (RFC 8259, section 6): here well within a double's range.
    if isinstance(value, (int, float)) and abs(value) > 1e300:
        return 0
    # 1.0 is an integer to JSON Schema; a time is written in digits.
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        if value.get("type") == "conversation.read" or {"up_to_message_id", "up_to_sent_at_ms"} <= value.keys():
            value = exactly_one(value)
        # A tenant must be the caller's, a partition one that there is, and a cursor of this list.
        return {key: acceptable(item) for key, item in value.items() if key not in ("tenant", "partition", "cursor")}
    return value


def exactly_one(read):
    """The same conversation.read with one of its two ends, which are words in the document."""
    if read.get("up_to_message_id") is None and read.get("up_to_sent_at_ms") is None:
        return {**read, "up_to_message_id": "m1"}
    if read.get("up_to_message_id") is None:
        return {key: item for key, item in read.items() if key != "up_to_message_id"}
    return {key: item for key, item in read.items() if key != "up_to_sent_at_ms"}


def one_subject(ticket):
    """The same request for a ticket with one of its two subjects, which are words in the document."""
    subject = "conversation_id" if ticket.get("sender_id") is None else "sender_id"
    rest = {key: item for key, item in ticket.items() if key not in ("conversation_id", "sender_id")}
    return {**rest, subject: ticket.get(subject) or "g1"}
