"""Writes read marks and erasures to a service, or asks it for every receipt, list and read mark of the tables."""

import csv
import http.client
import json
import sys
from collections import defaultdict
from pathlib import Path
from urllib.parse import quote

ACTION, READY, TABLES = sys.argv[1], json.loads(Path(sys.argv[2]).read_text()), Path(sys.argv[3])
CONNECTION = http.client.HTTPConnection(READY["http"].removeprefix("http://"))
MARK_OF = "c"


def ask(method, path, tenant, body=None):
    # Bytes, because the library writes texts as Latin-1 and tenants are UTF-8.
    headers = {"Receipts-Tenant": tenant.encode(), "Content-Type": "application/json"}
    CONNECTION.request(method, path, None if body is None else json.dumps(body), headers)
    answer = CONNECTION.getresponse()
    text = answer.read()
    if answer.status == 404:
        return None
    if answer.status >= 300:
        sys.exit(f"{method} {path} of {tenant}: {answer.status} {text.decode()}")
    return json.loads(text)


def rows(name):
    with open(TABLES / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main():
    messages = rows("messages")
    tenants = sorted({row["tenant"] for row in messages})
    if ACTION == "events":
        newest = max(int(row["sent_at_ms"]) for row in messages)
        for tenant in tenants:
            mark = {"type": "conversation.read", "conversation_id": MARK_OF, "reader_id": "u1", "up_to_sent_at_ms": newest - 3 * 86_400_000, "read_at_ms": newest}
            ask("POST", "/v1/events", tenant, [mark, {"type": "user.erased", "user_id": "with,comma"}])
        return
    answers = {"receipts": [], "members": [], "read_marks": []}
    conversations = defaultdict(list)
    for row in messages:
        conversations[row["tenant"], row["conversation_id"]].append(row["message_id"])
    for (tenant, conversation), ids in sorted(conversations.items()):
        told = ask("POST", "/v1/receipts/query", tenant, {"conversation_id": conversation, "message_ids": ids})["receipts"]
        for receipt in told:
            answers["receipts"].append([tenant, conversation, receipt])
            if receipt["status"] == "ok":
                for name in ["read", "unread", "departed"]:
                    lists(answers, tenant, conversation, receipt["message_id"], name)
    for tenant in tenants:
        mark = ask("GET", f"/v1/conversations/{MARK_OF}/read-marks/u1", tenant)
        if mark:
            answers["read_marks"].append([tenant, MARK_OF, "u1", mark["up_to_sent_at_ms"], mark["read_at_ms"]])
    print(json.dumps(answers))


def lists(answers, tenant, conversation, message, name):
    cursor = ""
    while cursor is not None:
        path = f"/v1/conversations/{quote(conversation, safe='')}/messages/{quote(message, safe='')}/members?filter={name}&limit=1000"
        page = ask("GET", path + (f"&cursor={quote(cursor)}" if cursor else ""), tenant)
        for member in page["members"]:
            answers["members"].append([tenant, conversation, message, name, member["user_id"], member.get("read_at_ms")])
        cursor = page.get("next_cursor")


main()
