"""Runs every test program that cargo has built, with two at a time where one of them mostly waits.

    tests/programs.py LIST LOG [LIBTEST_ARGUMENT...]

LIST holds the JSON messages of `cargo test --no-run --message-format=json`, LOG gets the output of all programs. Prints the
output of each program when it ends, and at last the seconds of each. Must not choose tests: each program runs whole, once.
"""

import json
import os
import subprocess
import sys
import threading
import time

# Programs that wait for brokers and sessions. They run one by one beside the others, which use the
# processor.
WAITING = ["kafka", "long", "conformance"]


def programs(listing):
    """The test programs of cargo's messages: (name, executable, package, folder of the package)."""
    for line in open(listing, encoding="utf-8"):
        message = json.loads(line) if line.startswith("{") else {}
        executable = message.get("executable")
        if message.get("reason") != "compiler-artifact" or not executable or not message["profile"]["test"]:
            continue
        folder = os.path.dirname(message["manifest_path"])
        package = package_of(message["package_id"], folder)
        yield f"{package}/{message['target']['name']}", executable, package, folder


def package_of(identifier, folder):
    """The package's name: cargo writes `…/FOLDER#VERSION`, or `…#NAME@VERSION` where the folder has another name."""
    fragment = identifier.rpartition("#")[2]
    return fragment.partition("@")[0] if "@" in fragment else os.path.basename(folder)


def run(program, arguments, log, lock, seconds, failed):
    """Runs one program as `cargo test` would, and prints its output whole."""
    name, executable, package, folder = program
    environment = {**os.environ, "CARGO_PKG_NAME": package, "CARGO_MANIFEST_DIR": folder}
    begun = time.monotonic()
    ended = subprocess.run([executable, *arguments], cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    seconds[name] = time.monotonic() - begun
    with lock:
        text = f"\n== {name}: {seconds[name]:.0f} s\n{ended.stdout.decode('utf-8', 'replace')}"
        print(text, flush=True)
        log.write(text)
        log.flush()
        if ended.returncode != 0:
            failed.append(name)


def main():
    listing, path, *arguments = sys.argv[1:]
    found = list(programs(listing))
    if not found:
        sys.exit("tests/programs.py: cargo has built no test program")
    # First the shape of the tree, which fails fast.
    found.sort(key=lambda program: not program[0].endswith("/layers"))
    waiting = [program for program in found if program[0].rpartition("/")[2] in WAITING]
    lock, seconds, failed = threading.Lock(), {}, []
    with open(path, "w", encoding="utf-8") as log:
        beside = threading.Thread(target=lambda: [run(p, arguments, log, lock, seconds, failed) for p in waiting])
        beside.start()
        for program in found:
            if program not in waiting:
                run(program, arguments, log, lock, seconds, failed)
        beside.join()
    print("\n== seconds of the longest programs")
    for name, spent in sorted(seconds.items(), key=lambda item: -item[1])[:12]:
        print(f"{spent:6.0f}  {name}")
    if failed:
        sys.exit(f"tests/programs.py: failed: {', '.join(sorted(failed))}")


main()
