#!/usr/bin/env bash
# Message ids in SMS delivery receipts, as node-smpp reads them.
#
# One would guess: an SMS centre answers a send with a message id, repeats the id in the delivery
# receipt ("id:... stat:DELIVRD"), and a client library hands out the same text both times.
# What happens: the id of the answer is a C string, read as ASCII. The receipt is a short message with
# a data_coding: 0 (the centre's default alphabet) or 1 (ASCII, by SMPP 3.4). node-smpp reads both as
# GSM 03.38, for its encoding named `ASCII` is that alphabet, where three ASCII codes mean other
# characters: `m_1` of the answer is `m§1` in the receipt ($ and @ change as well). Nothing is raised,
# and no receipt matches its send. Python's smpplib hands out the bytes and leaves the alphabet to
# the caller.
# Whom it hurts: gateways that turn SMS receipts into "delivered" by message id, where ids come from
# an alphabet with an underscore, such as base64url. With `smpp.encodings.default = "LATIN1"` the ids
# of receipts with data_coding 0 are right; those with 1 stay wrong.
#
# Seen with: smpp 0.5.1 (npm, Node 20), smpplib 2.2.4 (PyPI, Python 3.11).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"

npm init --yes > /dev/null
npm install --silent --no-audit --no-fund smpp@0.5.1
cat > receipt.js <<'JS'
const assert = require("assert");
const fs = require("fs");
const smpp = require("smpp");

const id = "m_1$2@3";
const text = `id:${id} sub:001 dlvrd:001 submit date:2605010000 done date:2605010001 stat:DELIVRD err:000 text:`;
const short_message = Buffer.from(text, "ascii");
const answer = new smpp.PDU(new smpp.PDU("submit_sm_resp", { message_id: id }).toBuffer());
const wire = (data_coding) => new smpp.PDU("deliver_sm", { esm_class: 4, data_coding, short_message }).toBuffer();
const idOf = (bytes) => /^id:(\S+)/.exec(new smpp.PDU(bytes).short_message.message)[1];
fs.writeFileSync("receipt.pdu", wire(1));

console.log("answer: ", answer.message_id);
console.log("receipt:", idOf(wire(0)), idOf(wire(1)));
assert.strictEqual(answer.message_id, id);
assert.strictEqual(idOf(wire(0)), "m§1¤2¡3");
assert.strictEqual(idOf(wire(1)), "m§1¤2¡3");
smpp.encodings.default = "LATIN1";
console.log("receipt, with LATIN1 as the default:", idOf(wire(0)), idOf(wire(1)));
assert.strictEqual(idOf(wire(0)), id);
assert.strictEqual(idOf(wire(1)), "m§1¤2¡3");
JS
node receipt.js

python3 -m venv venv
venv/bin/pip --quiet install smpplib==2.2.4
venv/bin/python - <<'PY'
from smpplib import smpp
from smpplib.client import Client

pdu = smpp.parse_pdu(open("receipt.pdu", "rb").read(), client=Client("127.0.0.1", 2775, allow_unknown_opt_params=True))
print("smpplib:", pdu.short_message[:10])
assert pdu.short_message.startswith(b"id:m_1$2@3 ")
PY
echo "as seen: one message id, two texts"
