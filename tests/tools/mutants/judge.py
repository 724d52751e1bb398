#!/usr/bin/env python3
"""Runs the tests against the woven mutants, stage by stage: the first one against all, the next against those that are left.

    judge.py WOVEN.json RESULTS.tsv STAGES.json [FILE…]      FILE: only mutants of these, by the name without a folder

Goes on where RESULTS.tsv ends: `number outcome seconds stage name` a line, the last line of a number counts. An outcome is
caught, timeout (of 10 s, or ten times what the stage takes without a mutant), open (passed this stage, and there are more) or
missed (passed all). Who asks for more than 4 GiB of memory, as loops without an end do, is caught.
"""

import json
import os
import resource
import subprocess
import sys
import time

MEMORY_BYTES = 4 << 30


def bound():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def run(stage, number):
    env = {**os.environ, **stage["env"], "RECEIPTS_MUTANT": str(number), "RUST_BACKTRACE": "0",
           "RECEIPTS_TEST_UNSHRUNK": "1"}
    since = time.monotonic()
    try:
        done = subprocess.run(stage["command"], env=env, cwd=stage["folder"], timeout=stage.get("limit_s", 600),
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=bound)
        return "missed" if done.returncode == 0 else "caught", time.monotonic() - since
    except subprocess.TimeoutExpired:
        return "timeout", time.monotonic() - since


def main():
    woven, results, stages = json.load(open(sys.argv[1])), sys.argv[2], json.load(open(sys.argv[3]))
    files = sys.argv[4:]
    known = {}
    if os.path.exists(results):
        for line in open(results):
            number, outcome, _, stage, _ = line.split("\t")
            known[int(number)] = (outcome, stage)
    order = {file: place for place, file in enumerate(files)}
    due = [m for m in woven["mutants"] if m["woven"] and known.get(m["number"], ("",))[0] not in ("caught", "timeout")]
    if files:
        due = [m for m in due if os.path.basename(m["file"]) in order]
        due.sort(key=lambda m: order[os.path.basename(m["file"])])
    names = [stage["name"] for stage in stages]
    # How many stages each has passed.
    passed = {m["number"]: 0 for m in due}
    if not os.environ.get("AGAIN"):
        last = {m["number"]: known[m["number"]][1] for m in due if m["number"] in known}
        passed |= {number: names.index(stage) + 1 for number, stage in last.items() if stage in names}
    for stage in stages:
        outcome, seconds = run(stage, 0)
        if outcome != "missed":
            sys.exit(f"{stage['name']} does not pass without a mutant: {outcome}")
        stage["limit_s"] = max(10, 10 * seconds)
        print(f"{stage['name']}: {seconds:.1f} s", flush=True)
    with open(results, "a") as out:
        for place, stage in enumerate(stages):
            mine = [m for m in due if passed[m["number"]] == place]
            since, counts = time.monotonic(), {}
            print(f"== {stage['name']}: {len(mine)} mutants", flush=True)
            for done, m in enumerate(mine, 1):
                outcome, seconds = run(stage, m["number"])
                if outcome == "missed":
                    passed[m["number"]] += 1
                    outcome = "missed" if stage is stages[-1] else "open"
                counts[outcome] = counts.get(outcome, 0) + 1
                out.write(f"{m['number']}\t{outcome}\t{seconds:.1f}\t{stage['name']}\t{m['name']}\n")
                out.flush()
                if done % 50 == 0 or done == len(mine):
                    left = (len(mine) - done) * (time.monotonic() - since) / done
                    print(f"{done} of {len(mine)}, {left:.0f} s left: {counts}", flush=True)


main()
