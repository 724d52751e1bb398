#!/usr/bin/env python3
"""Adds the numbers of the woven mutants that do not compile to a list.

    unviable.py WOVEN.json CHECK.json WITHOUT      CHECK: what `cargo check --message-format=json` said
"""

import json
import sys


def main():
    woven, check, without = sys.argv[1:]
    lines = json.load(open(woven))["lines"]
    bad, strangers = set(open(without).read().split()), []
    before = len(bad)
    for message in (json.loads(line) for line in open(check)):
        if message.get("reason") != "compiler-message" or message["message"]["level"] != "error":
            continue
        spans = [span for span in message["message"]["spans"] if span["is_primary"]]
        own = {str(number) for span in spans for first, last, number in lines.get(span["file_name"], [])
               if first <= span["line_start"] <= last}
        bad |= own
        if spans and not own:
            strangers.append(message["message"]["rendered"])
    open(without, "w").write(" ".join(sorted(bad, key=int)))
    if len(bad) == before:
        sys.exit("the woven tree does not compile, and no mutant is to blame:\n" + "\n".join(strangers))


main()
