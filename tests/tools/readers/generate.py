"""Writes tables for `receipts backfill`: members, messages, reads as CSV. The same seed gives the same tables.

    generate.py big DIR [SEED]      2,000 conversations, 83,262 messages, about 700,000 reads, 60 days, 5 tenants
    generate.py small DIR [SEED]    the same shape with a twentieth of the messages
    generate.py tricky DIR [SEED]   tenants and ids that readers take for something else
"""

import csv
import random
import sys
from pathlib import Path

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
# The end of all histories, so that a seed's tables never change: 2026-11-29T00:00:00Z.
END_MS = 1_795_910_400_000
DAYS = 60
# Sends by hour of the day, UTC: two peaks of a working day, quiet nights.
HOURS = [2, 1, 1, 1, 1, 2, 6, 18, 45, 60, 58, 48, 40, 52, 60, 56, 44, 34, 26, 24, 20, 14, 8, 4]
# Tenants with their share of conversations and of messages on Saturdays and Sundays.
TENANTS = [("acme", 0.42, 0.15), ("globex", 0.25, 0.2), ("initech", 0.16, 0.1), ("umbrella", 0.11, 0.6), ("hooli", 0.06, 0.25)]
TYPES = [("team", 0.55), ("announcement", 0.12), ("support", 0.2), ("social", 0.13)]

# A number and its twins, words that parsers know, separators, case, dates, Hive's null.
TRICKY_TENANTS = [
    "0042", "42", "007", "7", "1e5", "100000", "1.50", "1.5", "true", "TRUE", "NULL", "null", "None", "nan", "inf",
    "a=b", "org:7", "acme corp", "100%", "Acme", "acme", "ACME", "__HIVE_DEFAULT_PARTITION__", "2026-01-01",
    "2026-01-02T03:04:05Z", "grüße", "-", "\\N", "'quoted'", 'say "hi"', "a,b", "tenant=x", "0x1F", "9223372036854775808", "ÿ" * 60,
]  # fmt: skip
TRICKY_IDS = ["plain", "with,comma", 'with "quotes"', "with\nnewline", "with\r\nboth", "tab\there", "0042", "1e5", "NULL", "", " ends ", "semi;colon", "'", "émoji 🙂", "\\N", "true"]


class Tables:
    def __init__(self, to):
        to.mkdir(parents=True, exist_ok=True)
        self.files = []
        self.members = self.table(to / "members.csv", ["tenant", "conversation_id", "user_id", "role", "kind", "group_type", "at_ms"])
        self.messages = self.table(to / "messages.csv", ["tenant", "conversation_id", "message_id", "sender_id", "sent_at_ms", "need_read_receipt", "status"])
        self.reads = self.table(to / "reads.csv", ["tenant", "conversation_id", "message_id", "user_id", "read_at_ms", "hidden"])

    def table(self, path, columns):
        file = open(path, "w", newline="", encoding="utf-8")
        self.files.append(file)
        writer = csv.writer(file)
        writer.writerow(columns)
        return writer

    def close(self):
        for file in self.files:
            file.close()


def pick(chance, weighted):
    return chance.choices([name for name, *_ in weighted], [weight for _, weight, *_ in weighted])[0]


def send_time(chance, weekend):
    while True:
        day = chance.randrange(DAYS)
        # 1970-01-01 was a Thursday, weekday 3 of Monday to Sunday.
        weekday = ((END_MS // DAY_MS - DAYS + day) + 3) % 7
        # More messages as the weeks go by, as in a product that grows.
        if chance.random() < (weekend if weekday > 4 else 1) * (0.6 + 0.4 * day / DAYS):
            break
    hour = chance.choices(range(24), HOURS)[0]
    return END_MS - (DAYS - day) * DAY_MS + hour * HOUR_MS + chance.randrange(HOUR_MS)


def big(tables, seed, message_count):
    chance = random.Random(seed)
    conversations = []
    for number in range(2_000):
        tenant = pick(chance, TENANTS)
        size = 2 if chance.random() < 0.5 else min(1_200, 3 + int(4 * chance.paretovariate(1.05)))
        kind = "direct" if size == 2 else "group"
        group_type = pick(chance, TYPES) if kind == "group" else ""
        people = [f"user-{person:04}" for person in chance.sample(range(2_500), size)]
        # Groups of announcements are read by fewer; some conversations read little.
        rate = min(0.97, chance.betavariate(5, 2) * (0.75 if group_type == "announcement" else 1))
        conversations.append((tenant, f"conv-{number:05}", kind, group_type, people, rate))
        for person in people:
            tables.members.writerow([tenant, conversations[-1][1], person, "member", kind, group_type, ""])
    weekend = {name: share for name, _, share in TENANTS}
    # A few conversations have most of the messages, hardly depending on their size.
    busy = [chance.paretovariate(1.1) / len(people) ** 0.07 for *_, people, _ in conversations]
    sends = []
    for of in chance.choices(range(len(conversations)), busy, k=message_count):
        sends.append((send_time(chance, weekend[conversations[of][0]]), of))
    sends.sort()
    for number, (sent_at, of) in enumerate(sends):
        tenant, conversation, _, group_type, people, rate = conversations[of]
        sender, message = chance.choice(people), f"msg-{number:08}"
        need = "false" if chance.random() < 0.01 else "true"
        status = "recalled" if chance.random() < 0.004 else "ok"
        tables.messages.writerow([tenant, conversation, message, sender, sent_at, need, status])
        for person in people:
            if person == sender or chance.random() > rate:
                continue
            # A median of 20 minutes, which grows with the audience, and a long tail.
            read_at = sent_at + int(1000 * chance.lognormvariate(6.2 + 0.25 * len(people) ** 0.3, 1.8))
            if read_at < END_MS:
                hidden = "true" if chance.random() < 0.015 else ""
                tables.reads.writerow([tenant, conversation, message, person, read_at, hidden])


def tricky(tables, seed):
    """Small conversations of every tenant, one group of 3,000, departures, hidden reads, recalls; no read marks and erasures, which are events."""
    chance = random.Random(seed)
    members, messages, reads = [], [], []
    for at, tenant in enumerate(TRICKY_TENANTS):
        for conversation in ["c", *(f"c{name}" for name in chance.sample([name for name in TRICKY_IDS if name], 3))]:
            people = [f"u{person}" for person in range(chance.choice([2, 4, 9]))] + [identifier for identifier in TRICKY_IDS if identifier][: chance.randrange(8)]
            kind = "direct" if len(people) == 2 else "group"
            history(chance, tenant, conversation, kind, chance.choice(["team", "announcement", "NULL", "1e5"]) if kind == "group" else "", people, 4, members, messages, reads)
        if tenant == "0042":
            history(chance, tenant, "all hands", "group", "announcement", [f"{person:04}" for person in range(3_000)], 5, members, messages, reads)
    # Rows without a time come first; the others are sorted by it.
    for row in sorted(members, key=lambda row: row[6] or 0):
        tables.members.writerow(row)
    for row in sorted(messages, key=lambda row: row[4]):
        tables.messages.writerow(row)
    for row in reads:
        tables.reads.writerow(row)


def history(chance, tenant, conversation, kind, group_type, people, count, members, messages, reads):
    for person in people:
        members.append([tenant, conversation, person, "member", kind, group_type, ""])
    leaves = {}
    for number in range(count):
        message = chance.choice(TRICKY_IDS) + f"{number}"
        sent_at = END_MS - chance.randrange(DAY_MS, 8 * DAY_MS)
        sender = chance.choice(people)
        messages.append([tenant, conversation, message, sender, sent_at, "false" if chance.random() < 0.1 else "", "recalled" if chance.random() < 0.1 else "ok"])
        for person in people:
            if person != sender and chance.random() < 0.6:
                reads.append([tenant, conversation, message, person, sent_at + chance.randrange(2 * DAY_MS), "true" if chance.random() < 0.1 else ""])
    if kind == "group":
        for person in chance.sample(people, max(1, len(people) // 5)):
            leaves[person] = END_MS - chance.randrange(4 * DAY_MS)
    for person, at in leaves.items():
        members.append([tenant, conversation, person, "left", kind, group_type, at])


def main():
    shape, to = sys.argv[1], Path(sys.argv[2])
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else 1
    tables = Tables(to)
    if shape == "tricky":
        tricky(tables, seed)
    else:
        big(tables, seed, {"big": 83_262, "small": 4_163}[shape])
    tables.close()


main()
