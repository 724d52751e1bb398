#!/usr/bin/env python3
"""Prints what became of the mutants, in all and by file, and the names of those that no test noticed.

    figures.py WOVEN.json RESULTS.tsv WITHOUT
"""

import collections
import json
import os
import sys


def main():
    woven, results, without = sys.argv[1:]
    mutants = json.load(open(woven))["mutants"]
    unviable = {int(number) for number in open(without).read().split()}
    outcomes = {}
    if os.path.exists(results):
        for line in open(results):
            number, outcome = line.split("\t")[:2]
            outcomes[int(number)] = outcome
    counts, missed = collections.defaultdict(collections.Counter), []
    for m in mutants:
        number = m["number"]
        outcome = "unviable" if number in unviable else "not woven" if not m["woven"] else outcomes.get(number, "open")
        counts[os.path.basename(m["file"])][outcome] += 1
        if outcome == "missed":
            missed.append(m["name"])
    kinds = ["caught", "timeout", "missed", "unviable", "not woven", "open"]
    print(f"{'file':16}" + "".join(f"{kind:>10}" for kind in kinds))
    for file, of in sorted(counts.items()):
        print(f"{file:16}" + "".join(f"{of[kind]:10}" for kind in kinds))
    print("\n".join(missed))
    total = sum(counts.values(), collections.Counter())
    print(f"\n{len(mutants)} mutants: " + ", ".join(f"{total[kind]} {kind}" for kind in kinds))


main()
