#!/usr/bin/env python3
"""Runs the tests against every woven mutant, one process a stage, and ends a mutant with the first stage that fails.

    judge.py WOVEN.json RESULTS.tsv STAGES.json [FILE…]      FILE: only mutants of these, by the name without a folder

Goes on where RESULTS.tsv ends: `number outcome seconds stage name` a line, the last line of a number counts. An outcome is
caught, timeout (of 30 s, or ten times what the stage takes without a mutant) or missed.
"""

import json
import os
import subprocess
import sys
import time


def run(stage, number):
    env = {**os.environ, **stage["env"], "RECEIPTS_MUTANT": str(number), "RUST_BACKTRACE": "0",
           "RECEIPTS_TEST_UNSHRUNK": "1"}
    since = time.monotonic()
    try:
        done = subprocess.run(stage["command"], env=env, cwd=stage["folder"], timeout=stage.get("limit_s", 600),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return "missed" if done.returncode == 0 else "caught", time.monotonic() - since
    except subprocess.TimeoutExpired:
        return "timeout", time.monotonic() - since


def main():
    woven, results, stages = json.load(open(sys.argv[1])), sys.argv[2], json.load(open(sys.argv[3]))
    files = sys.argv[4:]
    known = {}
    if os.path.exists(results):
        known = {int(line.split("\t")[0]): line.split("\t")[1] for line in open(results)}
    order = {file: place for place, file in enumerate(files)}
    due = [m for m in woven["mutants"] if m["woven"] and known.get(m["number"]) not in ("caught", "timeout")]
    if files:
        due = [m for m in due if os.path.basename(m["file"]) in order]
        due.sort(key=lambda m: order[os.path.basename(m["file"])])
    due = [m for m in due if os.environ.get("AGAIN") or m["number"] not in known]
    for stage in stages:
        outcome, seconds = run(stage, 0)
        if outcome != "missed":
            sys.exit(f"{stage['name']} does not pass without a mutant: {outcome}")
        stage["limit_s"] = max(30, 10 * seconds)
        print(f"{stage['name']}: {seconds:.1f} s", flush=True)
    since, counts = time.monotonic(), {}
    with open(results, "a") as out:
        for done, m in enumerate(due, 1):
            began = time.monotonic()
            for stage in stages:
                outcome, _ = run(stage, m["number"])
                if outcome != "missed":
                    break
            counts[outcome] = counts.get(outcome, 0) + 1
            out.write(f"{m['number']}\t{outcome}\t{time.monotonic() - began:.1f}\t{stage['name']}\t{m['name']}\n")
            out.flush()
            if outcome == "missed" or done % 25 == 0:
                left = (len(due) - done) * (time.monotonic() - since) / done
                print(f"{done} of {len(due)}, {left:.0f} s left, {counts}: {outcome} {m['name']}", flush=True)


main()
