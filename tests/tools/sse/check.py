"""Follows streams by real clients of Server-Sent Events; see run."""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
DOCS = ROOT / "docs/streams.md"
# The longest wait for what a client does. Most do it within two seconds.
WAIT_S = 30
# How long a client that does nothing may still surprise.
SURPRISE_S = 12
# Longer than the read timeouts of httpx, okhttp-eventsource (5 s) and okhttp-sse (10 s).
QUIET_S = 20
SCENARIOS = ["quiet", "reset", "fin", "restart", "kill", "nginx", "410"]
# How long the service stays away behind nginx. Every client asks again within this time, or never.
AWAY_S = 5
NGINX = os.environ.get("SSE_NGINX", "/usr/sbin/nginx")


def command_lines(work):
    """The command of each client, but for the URL."""
    node = ["node", str(work / "node/client.mjs")]
    python = [sys.executable, str(HERE / "client.py")]
    rust, go = str(work / "rust/debug/sse-clients"), str(work / "go-clients")

    def java(name):
        folder = work / "java" / name
        return ["java", "-XX:TieredStopAtLevel=1", "-cp", f"{folder}/classes:{folder}/lib/*", "Client"]

    return {
        "receipts-client, Rust": [rust, "receipts-client"],
        "receipts-client, TypeScript": [*node, "receipts-client"],
        "receipts-client, Chromium": [*node, "receipts-client in Chromium"],
        "EventSource with the code below, Chromium": [*node, "EventSource of the docs"],
        "EventSource, Chromium": [*node, "Chromium EventSource"],
        "eventsource 5, npm": [*node, "eventsource 5"],
        "eventsource 4, npm": [*node, "eventsource 4"],
        "eventsource-client, npm": [*node, "eventsource-client"],
        "fetch-event-source, npm": [*node, "fetch-event-source"],
        "fetch-event-source that throws in onclose, npm": [*node, "fetch-event-source with onclose"],
        "event-source-polyfill, npm": [*node, "event-source-polyfill"],
        "httpx-sse, Python": [*python, "httpx-sse"],
        "httpx-sse in a loop, Python": [*python, "httpx-sse-loop"],
        "sseclient-py, Python": [*python, "sseclient-py"],
        "aiohttp-sse-client2, Python": [*python, "aiohttp-sse-client2"],
        "r3labs/sse, Go": [go, "r3labs"],
        "r3labs/sse called again, Go": [go, "r3labs again"],
        "go-sse, Go": [go, "go-sse"],
        "okhttp-sse, Java": java("okhttp-sse"),
        "okhttp-eventsource, Java": java("okhttp-eventsource"),
        "reqwest-eventsource, Rust": [rust, "reqwest-eventsource"],
        "eventsource-client, Rust": [rust, "eventsource-client"],
    }


def install(work, commands):
    """Installs what the chosen clients need."""
    work.mkdir(parents=True, exist_ok=True)
    programs = {command[0] for command in commands.values()}

    def call(*command, folder=HERE, **environment):
        subprocess.run([str(part) for part in command], cwd=folder, check=True, env=os.environ | environment)

    if "node" in programs:
        shutil.copytree(HERE / "node", work / "node", dirs_exist_ok=True)
        call("npm", "ci", "--silent", "--no-audit", "--no-fund", folder=work / "node")
        own = ROOT / "clients/typescript"
        if not (own / "node_modules").exists():
            call("npm", "ci", "--silent", "--no-audit", "--no-fund", folder=own)
        call("./build", folder=own)
    if any(program.endswith("go-clients") for program in programs):
        call("go", "build", "-o", work / "go-clients", ".", folder=HERE / "go")
    for name in ["okhttp-sse", "okhttp-eventsource"]:
        if any(name in part for command in commands.values() for part in command):
            project, out = HERE / "java" / name, work / "java" / name
            if not (out / "lib").exists():
                call("mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={out}/lib", folder=project)
                shutil.rmtree(project / "target", ignore_errors=True)
            call("javac", "--release", "17", "-cp", f"{out}/lib/*", "-d", out / "classes", project / "Client.java")
    if any(program.endswith("sse-clients") for program in programs):
        call("cargo", "build", "--locked", "--quiet", folder=HERE / "rust", CARGO_TARGET_DIR=str(work / "rust"))


class Service:
    """`receipts serve` on an embedded log, at a fixed port."""

    def __init__(self, binary, port, data):
        command = [binary, "serve", "--http-listen", f"127.0.0.1:{port}", "--data-dir", data, "--json"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the service did not start: {' '.join(map(str, command))}")
        self.url = json.loads(line)["http"]

    def post(self, *events):
        body = json.dumps(events).encode()
        request = urllib.request.Request(f"{self.url}/v1/events", body, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=WAIT_S) as answer:
            position = json.load(answer)["position"]
        # The answer shows that the update is published soon.
        ask = urllib.request.Request(f"{self.url}/v1/conversations/g1/read-marks/nobody")
        ask.add_header("Receipts-Min-Position", position)
        try:
            opener.open(ask, timeout=WAIT_S)
        except urllib.error.HTTPError as error:
            error.close()

    def send(self, message_id):
        self.post(
            {"type": "message.sent", "conversation_id": "g1", "message_id": message_id, "sender_id": "alice",
             "sent_at_ms": 1_780_000_000_000, "need_read_receipt": True}
        )  # fmt: skip

    def begin(self):
        self.post({"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob"]})

    def end(self, how):
        self.process.send_signal(how)
        self.process.wait(timeout=WAIT_S)


class Nginx:
    """nginx by docs/examples/proxies/nginx.conf, without its TLS."""

    def __init__(self, upstream, folder):
        self.port = free_port()
        example = (ROOT / "docs/examples/proxies/nginx.conf").read_text()
        lines = [line for line in example.splitlines() if "ssl" not in line]
        config = "\n".join(lines).replace("127.0.0.1:8080", f"127.0.0.1:{upstream}")
        config = config.replace("listen 8090;", f"listen 127.0.0.1:{self.port};")
        temporary = f"client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;"
        main = f"""daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{ access_log off; {temporary}
{config}
}}"""
        file = folder / "nginx.conf"
        file.write_text(main)
        said = folder / "nginx.log"
        with said.open("w") as output:
            self.process = subprocess.Popen([NGINX, "-c", str(file), "-p", str(folder)], stderr=output)

        def listens():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0

        if not until(listens):
            raise SystemExit(f"nginx does not start: {said.read_text()}")

    def stop(self):
        self.process.terminate()
        self.process.wait(timeout=WAIT_S)


class Proxy:
    """Forwards one client to the service. It can break connections and refuse new ones. Counts the
    streams that were opened."""

    def __init__(self, upstream):
        self.upstream = upstream
        self.lock, self.open, self.opened = threading.Lock(), set(), 0
        self.resets = set()
        self.port, self.listener = free_port(), None
        self.listen()

    def listen(self):
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=100)
        threading.Thread(target=self.accept, args=(self.listener,), daemon=True).start()

    def refuse(self):
        """New connections are refused from here on."""
        listener, self.listener = self.listener, None
        if listener is None:
            return
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()

    def accept(self, listener):
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(near,), daemon=True).start()

    def serve(self, near):
        try:
            far = socket.create_connection(("127.0.0.1", self.upstream))
        except OSError:
            return near.close()
        with self.lock:
            self.open.add(near)
        threading.Thread(target=self.pump, args=(near, far), daemon=True).start()
        self.pump(far, near)
        with self.lock:
            self.open.discard(near)

    def pump(self, source, sink):
        try:
            while some := source.recv(65536):
                if some.startswith(b"HTTP/1.1 200 ") and b"text/event-stream" in some:
                    self.opened += 1
                sink.sendall(some)
        except OSError:
            pass
        for end in (source, sink):
            try:
                # After a FIN a close would send no reset.
                if end not in self.resets:
                    end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            end.close()

    def cut(self, reset):
        """Ends all connections, by a reset or by a FIN within the answer."""
        with self.lock:
            connections = list(self.open)
        for near in connections:
            try:
                if reset:
                    # With this a close sends a reset. The thread that reads wakes up and closes.
                    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.resets.add(near)
                    near.shutdown(socket.SHUT_RD)
                else:
                    near.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Client:
    """A process that follows a stream."""

    def __init__(self, name, command, upstream):
        self.name, self.proxy = name, Proxy(upstream)
        self.heard, self.ended, self.strange, self.failed = [], None, [], []
        url = f"http://127.0.0.1:{self.proxy.port}/v1/updates?conversation_id=g1"
        self.process = subprocess.Popen(
            [*command, url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        threading.Thread(target=self.read, daemon=True).start()
        self.errors = []
        threading.Thread(target=lambda: self.errors.extend(self.process.stderr), daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            fields = json.loads(line)
            if "end" in fields:
                self.ended = fields["end"]
            elif "failed" in fields:
                self.failed.append(fields["failed"])
            elif fields["event"] == "receipt.updated":
                update = json.loads(fields["data"])
                self.heard.append((update["message_id"], update["version"]))
            elif fields["event"] != "position" or fields["data"] != "{}":
                self.strange.append(fields)
        self.ended = self.ended or "the process ended"

    def has(self, message_id):
        return any(heard == message_id for heard, _ in self.heard)

    def stop(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def until(holds, seconds=WAIT_S):
    """Waits until a condition holds; returns whether it does."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def play(scenario, binary, commands, folder):
    """Plays a scenario with all clients at once; returns what happened to each, and faults."""
    port = free_port()
    service = Service(binary, port, folder / "data")
    service.begin()
    nginx = Nginx(port, folder) if scenario == "nginx" else None
    clients = [Client(name, command, nginx.port if nginx else port) for name, command in commands.items()]
    proxies = [client.proxy for client in clients]
    faults = []
    try:
        until(lambda: all(client.proxy.opened or client.ended for client in clients), 2 * WAIT_S)
        for client in clients:
            if not client.proxy.opened:
                said = "".join(client.errors)[-500:]
                faults.append(f"{client.name} opened no stream: {client.ended or 'nothing'} {said}")
        # The first event is in the client by then.
        time.sleep(1.5)
        if scenario != "reset":
            service.send("m1")
            until(lambda: all(client.has("m1") or client.ended for client in clients))
            faults += [f"{client.name} did not hear m1: {client.ended}" for client in clients if not client.has("m1")]
        before = {client.name: client.proxy.opened for client in clients}
        if scenario == "quiet":
            time.sleep(QUIET_S)
        else:
            for proxy in proxies:
                proxy.refuse()
            if scenario not in ("reset", "fin"):
                service.end(signal.SIGKILL if scenario in ("kill", "410") else signal.SIGTERM)
            for proxy in proxies:
                proxy.cut(reset=scenario == "reset")
            if nginx:
                for proxy in proxies:
                    proxy.listen()
                # nginx answers 502 meanwhile.
                time.sleep(AWAY_S)
                for proxy in proxies:
                    proxy.refuse()
            if scenario not in ("reset", "fin"):
                service = Service(binary, port, folder / ("other" if scenario == "410" else "data"))
            if scenario == "410":
                service.begin()
        if scenario != "410":
            service.send("m2")
        if scenario != "quiet":
            for proxy in proxies:
                proxy.listen()
        if scenario == "410":
            until(lambda: all(client.ended or client.proxy.opened > before[client.name] for client in clients), SURPRISE_S)
        else:
            until(lambda: all(client.has("m2") or client.ended for client in clients), SURPRISE_S)
        # One that hears this and not m2 has a gap.
        service.send("m3")
        wanted = "m3" if scenario == "410" else "m2"
        until(lambda: all(client.has("m3") or client.ended for client in clients), SURPRISE_S)
        outcomes = {}
        for client in clients:
            reconnected = client.proxy.opened > before[client.name]
            if client.has(wanted):
                outcomes[client.name] = "reconnects" if scenario == "quiet" and reconnected else "ok"
            elif client.has("m3"):
                outcomes[client.name] = "gap"
            else:
                outcomes[client.name] = "ends" if client.ended else "hangs"
            versions = {}
            for message_id, version in client.heard:
                if versions.setdefault(message_id, version) != version:
                    faults.append(f"{client.name} heard {message_id} with two versions: {client.heard}")
            if client.strange:
                faults.append(f"{client.name} got what is no update and no position: {client.strange[:3]}")
        return outcomes, faults
    finally:
        for client in clients:
            client.stop()
            client.proxy.refuse()
        if nginx:
            nginx.stop()
        if service.process.poll() is None:
            service.end(signal.SIGKILL)


def table_of(text):
    """The outcomes that a document promises, by client and scenario."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    head = next(row for row in rows if row[0] == "client")
    return {row[0]: dict(zip(head, row)) for row in rows if len(row) == len(head)}


def main():
    binary, work, *arguments = sys.argv[1:]
    work = Path(work)
    os.environ.setdefault("SSE_CHROMIUM", "/usr/bin/chromium")
    os.environ.setdefault("SSE_OWN_CLIENT", str(ROOT / "clients/typescript/dist/esm/index.js"))
    os.environ["SSE_DOCS"] = str(DOCS)
    commands = command_lines(work)
    if arguments == ["--list"]:
        return print("\n".join(commands))
    without = {arguments[at + 1] for at, word in enumerate(arguments[:-1]) if word == "--without"}
    named = [word for at, word in enumerate(arguments) if word != "--without" and (at == 0 or arguments[at - 1] != "--without")]
    if unknown := [name for name in [*named, *without] if name not in commands]:
        print(f"tests/tools/sse/run: no client {', '.join(unknown)}; --list prints all", file=sys.stderr)
        sys.exit(2)
    chosen = {name: command for name, command in commands.items() if name not in without and (not named or name in named)}
    expected = table_of(DOCS.read_text())
    install(work, chosen)
    found, faults = {name: {} for name in chosen}, []
    for scenario in SCENARIOS:
        print(f"{scenario} …", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="sse-") as folder:
            outcomes, wrong = play(scenario, binary, chosen, Path(folder))
        faults += [f"{scenario}: {fault}" for fault in wrong]
        for name, outcome in outcomes.items():
            found[name][scenario] = outcome
            wanted = expected.get(name, {}).get(scenario)
            if outcome != wanted:
                faults.append(f"{scenario}: {name}: {outcome}, expected {wanted}")
    print(f"| client | {' | '.join(SCENARIOS)} |")
    print(f"| --- |{' --- |' * len(SCENARIOS)}")
    for name, outcomes in found.items():
        print(f"| {name} | {' | '.join(outcomes[scenario] for scenario in SCENARIOS)} |")
    for fault in faults:
        print(f"FAULT {fault}")
    sys.exit(1 if faults else 0)


main()
