#!/usr/bin/env bash
# Read receipts of a Matrix room, as matrix-nio hands them to a bot or an export.
#
# One would guess: the specification makes `ts` of a receipt optional (its schema requires no field
# of a receipt), so a client reads such a receipt without a time, or at worst leaves that one out.
# What happens: matrix-nio's schema requires `ts`. One receipt without it makes the whole `m.receipt`
# event invalid, and a homeserver batches all receipts of a room into one event: `parse_event`
# returns None, and the receipts of everybody else in it are lost with a line in the log.
# Whom it hurts: bridges, bots and exports that count who has read. ruma's type for the same event
# has the time as an Option.
#
# Seen with: matrix-nio 0.26.0 (PyPI), Python 3.11. Source of the rule: matrix-spec,
# data/event-schemas/schema/m.receipt.yaml.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

python3 -m venv venv
venv/bin/pip --quiet install matrix-nio==0.26.0
venv/bin/python - 2> log <<'PY'
from nio.events.ephemeral import EphemeralEvent

def receipts(content):
    event = EphemeralEvent.parse_event({"type": "m.receipt", "content": content})
    return None if event is None else [receipt.user_id for receipt in event.receipts]

timed = {"$one": {"m.read": {"@ann:example.org": {"ts": 1780000000000}}}}
untimed = {"$two": {"m.read": {"@ben:example.org": {}}}}
print("with times:", receipts(timed))
print("one of two without:", receipts(timed | untimed))
assert receipts(timed) == ["@ann:example.org"]
assert receipts(timed | untimed) is None
PY
grep -q "'ts' is a required property" log
echo "as seen: one receipt without a time loses all receipts of its event"
