#!/usr/bin/env python3
"""Weaves the mutants that cargo-mutants lists into the source itself, each behind its number, so that one build holds all.

    weave.py LIST.json SOURCE_DIR OUT.json [NUMBER…]      NUMBER: mutants to leave out, for they do not compile

Every function with mutants becomes `match crate::mutants::on() { 17 => { mutated body } … _ => { body } }`; which one runs
is decided by RECEIPTS_MUTANT. SOURCE_DIR is a copy of the tree: this overwrites it. OUT.json says which lines are whose.
"""

import json
import re
import sys

ON = """//! Which mutant runs; only ever in the copy that tests/tools/mutants/run makes.
pub(crate) fn on() -> u32 {
    static ON: std::sync::OnceLock<u32> = std::sync::OnceLock::new();
    *ON.get_or_init(|| std::env::var("RECEIPTS_MUTANT").ok().and_then(|n| n.parse().ok()).unwrap_or(0))
}
"""


def offset(starts, place):
    return starts[place["line"] - 1] + place["column"] - 1


def body_of(text, begin, end):
    """Where the braces of a function's body stand, and its return type."""
    at = text.index("fn ", begin)
    while text[at] not in "(<":
        at += 1
    depth = 0
    if text[at] == "<":
        while True:
            depth += {"<": 1, ">": -1}.get(text[at], 0) if text[at - 1] != "-" else 0
            at += 1
            if depth == 0:
                break
    at = text.index("(", at)
    depth = 0
    while True:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
        if depth == 0:
            break
    opening = text.index("{", at)
    assert text[end - 1] == "}", text[begin:end]
    return opening, end - 1, (at, opening)


def boxed(text, returned, parameters):
    """The return type with a box instead of `impl Iterator`, for arms of different types; None where it is not clear
    what that borrows from."""
    kind = text[slice(*returned)]
    found = re.search(r"impl (Iterator<Item = .*?>)( \+ use<.*?>)?(?=\s*$|\s*where)", kind, re.S)
    if not found or parameters.count("&") > 1:
        return None
    life = "" if found.group(2) else " + '_"
    return kind[: found.start()] + f"Box<dyn {found.group(1)}{life}>" + kind[found.end():]


def weave(text, mutants, owner):
    """The text with its mutants; `owner` gets (first line, last line, number) of each."""
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    functions = {}
    for m in mutants:
        span = m["function"]["span"]
        functions.setdefault((offset(starts, span["start"]), offset(starts, span["end"])), []).append(m)
    outer = [f for f in functions if not any(g != f and g[0] <= f[0] and f[1] <= g[1] for g in functions)]
    out, last = [], 0
    for begin, end in sorted(outer):
        own = [m for f, ms in functions.items() if begin <= f[0] and f[1] <= end for m in ms]
        opening, closing, returned = body_of(text, begin, end)
        kind = text[slice(*returned)]
        wrap = ("{", "}")
        if "impl " in kind:
            kind = boxed(text, returned, text[begin:opening])
            if kind is None:
                continue
            wrap = ("Box::new({", "})")
        out += [text[last: returned[0]], kind, "{ match crate::mutants::on() {\n"]
        for m in own:
            a, b = offset(starts, m["span"]["start"]), offset(starts, m["span"]["end"])
            arm = f"{m['number']} => {wrap[0]}{text[opening + 1: a]} {m['replacement']} {text[b:closing]}{wrap[1]}\n"
            if not arm.rstrip().endswith("}"):
                arm = arm.rstrip() + ",\n"
            line = "".join(out).count("\n") + 1
            out.append(arm)
            owner.append((line, line + arm.count("\n") - 1, m["number"]))
            m["woven"] = True
        out += [f"_ => {wrap[0]}", text[opening + 1: closing], f"{wrap[1]}\n}} }}"]
        last = end
    out.append(text[last:])
    return "".join(out)


def main():
    listed, source, result = sys.argv[1:4]
    without = {int(n) for n in sys.argv[4:]}
    mutants = json.load(open(listed))
    files = {}
    for number, m in enumerate(mutants, 1):
        files.setdefault(m["file"], [])
        m["number"] = number
        m["woven"] = False
        if m["function"] and number not in without:
            files[m["file"]].append(m)
    lines = {}
    for file, own in files.items():
        text = open(f"{source}/{file}.orig").read()
        owner = lines.setdefault(file, [])
        open(f"{source}/{file}", "w").write(weave(text, own, owner))
    home = mutants[0]["file"].split("/src/")[0] + "/src"
    open(f"{source}/{home}/mutants.rs", "w").write(ON)
    lib = open(f"{source}/{home}/lib.rs.orig").read()
    at = lib.index("\nmod ")
    open(f"{source}/{home}/lib.rs", "w").write(lib[:at] + "\nmod mutants;" + lib[at:])
    json.dump({"lines": lines, "mutants": [{k: m[k] for k in ("number", "name", "file", "woven")} for m in mutants]},
              open(result, "w"))


main()
