"""Runs the service behind each proxy, tries what proxies break, and compares with the docs.

The proxies run with exactly the files of docs/examples/proxies; only ports and the folder of the
certificate are replaced. It must not take a proxy for good that did not start.
"""

import argparse
import base64
import hashlib
import hmac
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[3]
EXAMPLES = ROOT / "docs/examples/proxies"
DOC = ROOT / "docs/behind-a-proxy.md"
SECRET = "0123456789abcdef0123456789abcdef"
ORIGIN = "https://app.example"
# Message ids of one conversation, each a message of its own.
IDS = [
    "plain", "a/b", "q1w2", "q1w2/", "/", "//", "a//b", ".", "..", "a/../b", "./a", "%2F", "100%", "a b", "a+b",
    "ä€😀", "a?b", "a#b", "a;b=c", "a\\b", "a\tb", "a\x7fb", "a\x01b", "a\x00b", "19:abc@thread.v2",
    "$ev:matrix.org", "a&b", "'()*!~",
]
HEARTBEAT_MS = 1_000
# The longest that anything may take that is waited for, seconds.
PATIENCE_S = 60


class Failed(Exception):
    """A step failed; the text says which and why."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_for(what, holds, process=None):
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            found = holds()
            if found:
                return found
        except (OSError, http.client.HTTPException):
            pass
        if process is not None and process.poll() is not None:
            raise Failed(f"{what}: the process ended with {process.returncode}")
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {PATIENCE_S} s")
        time.sleep(0.1)


def token():
    """A token of a service with all scopes."""
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=").decode()
    claims = {"iss": "https://id.example", "aud": "receipts", "exp": 9999999999, "tenant": "acme",
              "scope": "receipts:members receipts:write"}
    signed = ".".join(part(json.dumps(each).encode()) for each in ({"alg": "HS256"}, claims))
    return f"{signed}.{part(hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).digest())}"


AUTHORIZATION = {"Authorization": f"Bearer {token()}"}


def ask(port, method, path, headers=None, body=None):
    """Sends one request with the path as it is; returns status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    # http.client refuses control characters, which we never send raw.
    connection.request(method, path, body=body, headers={**AUTHORIZATION, **(headers or {})})
    answer = connection.getresponse()
    read = answer.status, answer.headers, answer.read()
    connection.close()
    return read


def receipt_path(message_id):
    # As encodeURIComponent does, which leaves dots alone.
    return f"/v1/conversations/c/messages/{quote(message_id, safe='')}/receipt"


def start_service(receipts, folder):
    secret = folder / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    service = subprocess.Popen(
        [receipts, "serve", "--json", "--http-listen", "127.0.0.1:0", "--data-dir", str(folder / "data"),
         "--auth-secret-file", str(secret), "--auth-issuer", "https://id.example", "--auth-audience", "receipts",
         "--http-heartbeat-ms", str(HEARTBEAT_MS), "--http-allowed-origins", ORIGIN],
        stdout=subprocess.PIPE, stderr=(folder / "service.log").open("w"), text=True,
    )
    ready = service.stdout.readline()
    if not ready:
        raise Failed(f"the service did not start: {(folder / 'service.log').read_text()[-2000:]}")
    port = int(re.search(r"http://127\.0\.0\.1:(\d+)", ready).group(1))
    events = [{"type": "members.changed", "conversation_id": "c", "joined": ["al", "bo"]}]
    events += [{"type": "message.sent", "conversation_id": "c", "message_id": message_id, "sender_id": "al",
                "sent_at_ms": 1780000000000 + at, "need_read_receipt": True} for at, message_id in enumerate(IDS)]
    status, headers, body = ask(port, "POST", "/v1/events", {"Content-Type": "application/json"}, json.dumps(events))
    if status != 202:
        raise Failed(f"the service refuses the events: {status} {body[:500]}")
    position = {"Receipts-Min-Position": headers["Receipts-Position"], "Receipts-Wait-Ms": "30000"}
    ask(port, "GET", receipt_path("plain"), position)
    return service, port


# The proxies.

class Proxy:
    """A proxy: its file, its command, and the path below which it serves."""

    def __init__(self, name, file, needs, command, below="", wrap=None, more=None, tls=False):
        self.name, self.file, self.needs, self.command = name, file, needs, command
        self.below, self.wrap, self.more, self.tls = below, wrap, more, tls


NGINX_MAIN = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{}}
http {{ access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; include {file}; }}
"""
APACHE_MODULES = "mpm_event authz_core proxy proxy_http"
APACHE_MAIN = """
ServerRoot {folder}
ServerName localhost
PidFile {folder}/apache.pid
ErrorLog {folder}/error.log
DefaultRuntimeDir {folder}
{modules}
Include {file}
"""


def nginx(folder, file, _port):
    main = folder / "main.conf"
    main.write_text(NGINX_MAIN.format(folder=folder, file=file))
    return ["nginx", "-c", str(main), "-p", str(folder)]


def apache(folder, file, _port):
    main = folder / "main.conf"
    modules = "\n".join(f"LoadModule {name}_module /usr/lib/apache2/modules/mod_{name}.so"
                        for name in APACHE_MODULES.split())
    main.write_text(APACHE_MAIN.format(folder=folder, file=file, modules=modules))
    return ["apache2", "-D", "FOREGROUND", "-f", str(main)]


PROXIES = [
    Proxy("nginx", "nginx.conf", "nginx", nginx, tls=True),
    Proxy("nginx below a path", "nginx.conf", "nginx", nginx, below="/receipts"),
    Proxy("Apache", "apache.conf", "apache2", apache),
    Proxy("HAProxy", "haproxy.cfg", "haproxy", lambda _, file, __: ["haproxy", "-db", "-f", str(file)]),
    Proxy("Varnish", "varnish.vcl", "varnishd", lambda folder, file, port: [
        "varnishd", "-F", "-f", str(file), "-a", f"127.0.0.1:{port}", "-n", str(folder / "varnish"),
        "-s", "malloc,32m"]),
    Proxy("lighttpd", "lighttpd.conf", "lighttpd", lambda _, file, __: ["lighttpd", "-D", "-f", str(file)]),
    Proxy("Caddy", "Caddyfile", "caddy", lambda _, file, __: [
        "caddy", "run", "--adapter", "caddyfile", "--config", str(file)]),
    Proxy("Envoy", "envoy.yaml", "envoy", lambda _, file, __: [
        "envoy", "-c", str(file), "--disable-hot-restart", "--log-level", "error"]),
]


def configuration(proxy, folder, ports):
    """Writes the documented file with other ports, and returns its path."""
    text = (EXAMPLES / proxy.file).read_text()
    for documented, port in ports.items():
        if documented != "8443" and documented not in text and not (documented == "8090" and proxy.name == "Varnish"):
            raise Failed(f"{proxy.file} does not name port {documented}")
        text = re.sub(rf"\b{documented}\b", str(port), text)
    text = text.replace("/etc/receipts/", f"{folder}/")
    if proxy.name == "Caddy":
        # Not part of the file: without it all runs share the port of Caddy's administration.
        text = "{\n\tadmin off\n}\n" + text
    file = folder / proxy.file
    file.write_text(text)
    return file


# What is tried.

def mangled_ids(port, below):
    """Returns the ids that do not arrive, and those that got the answer for another one."""
    lost, wrong = [], []
    for message_id in IDS:
        try:
            status, _, body = ask(port, "GET", below + receipt_path(message_id))
        except (OSError, http.client.HTTPException):
            status, body = 0, b""
        if status != 200:
            lost.append(message_id)
        elif json.loads(body)["message_id"] != message_id:
            wrong.append(message_id)
    return lost, wrong


def shown(ids):
    return ", ".join(f"`{json.dumps(each)[1:-1]}`" for each in ids) or "–"


def stream(port, below, stay_s):
    """Follows a stream; returns what it lacks, or that it has all."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    began = time.monotonic()
    connection.request("GET", below + "/v1/updates?conversation_id=c", headers=AUTHORIZATION)
    try:
        answer = connection.getresponse()
    except OSError:
        return "no head in 20 s"
    if answer.status != 200:
        return f"{answer.status}"

    def until(part):
        while True:
            line = answer.readline()
            if not line:
                raise EOFError
            if part in line:
                return

    try:
        until(b"event: position")
        beats = 0
        while time.monotonic() - began < stay_s:
            until(b"event: position")
            beats += 1
        return "at once, not cut" if beats >= stay_s / (HEARTBEAT_MS / 1000) / 4 else f"late: {beats} heartbeats"
    except EOFError:
        return f"cut after {time.monotonic() - began:.0f} s"
    except OSError:
        return f"stuck after {time.monotonic() - began:.0f} s"
    finally:
        connection.close()


def delay(port, below, service_port):
    """Returns the median delay of an update through the proxy, seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", below + "/v1/updates?conversation_id=d", headers=AUTHORIZATION)
    answer = connection.getresponse()
    delays = []
    for at in range(5):
        message = f"m{time.monotonic_ns()}"
        events = [{"type": "members.changed", "conversation_id": "d", "joined": ["al", "bo"]},
                  {"type": "message.sent", "conversation_id": "d", "message_id": message, "sender_id": "al",
                   "sent_at_ms": 1780000000000 + at, "need_read_receipt": True},
                  {"type": "message.read", "conversation_id": "d", "reader_id": "bo", "message_ids": [message]}]
        ask(service_port, "POST", "/v1/events", {"Content-Type": "application/json"}, json.dumps(events))
        began = time.monotonic()
        while message.encode() not in answer.readline():
            pass
        delays.append(time.monotonic() - began)
    connection.close()
    return sorted(delays)[2]


def bodies(port, below):
    """Posts a body of exactly 1 MiB, and a larger one that asks first; returns both outcomes."""
    event = b'[{"type":"members.changed","conversation_id":"big","joined":["al"]}]'
    headers = {"Content-Type": "application/json"}
    whole, _, _ = ask(port, "POST", below + "/v1/events", headers, event.ljust(1 << 20))
    # curl asks with `Expect: 100-continue` by itself.
    url = f"http://127.0.0.1:{port}{below}/v1/events"
    with tempfile.NamedTemporaryFile() as file:
        file.write(event.ljust((1 << 20) + 1))
        file.flush()
        done = subprocess.run(
            ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{content_type}", "-H", "Expect: 100-continue",
             "-H", f"Authorization: {AUTHORIZATION['Authorization']}", "-H", "Content-Type: application/json",
             "--data-binary", f"@{file.name}", url],
            capture_output=True, text=True, timeout=PATIENCE_S)
    status, _, kind = done.stdout.partition(" ")
    return str(whole), status if "problem+json" in kind else f"{status}, the proxy's own"


def heads(port, below):
    """Sends a position of 8,000 characters, which only the service may refuse."""
    status, headers, _ = ask(port, "GET", below + receipt_path("plain"), {"Receipts-Min-Position": "x" * 8000})
    return "pass" if "problem+json" in headers.get("Content-Type", "") else f"{status}, the proxy's own"


def caches(port, below):
    """Returns whether every answer is fresh and whole."""
    for path in ["/livez", "/openapi.json", "/metrics", "/nowhere", receipt_path("plain")]:
        for conditions in [{}, {"If-None-Match": "*", "If-Modified-Since": "Sun, 01 Jan 2040 00:00:00 GMT"}]:
            status, headers, body = ask(port, "GET", below + path, conditions)
            age = int(headers.get("Age", "0"))
            if status not in (200, 404) or age > 0 or not body or headers.get("Cache-Control") != "no-store":
                return f"{path}: {status}, age {age}"
    return "never"


def preflight(port, below):
    headers = {"Origin": ORIGIN, "Access-Control-Request-Method": "POST",
               "Access-Control-Request-Headers": "authorization,receipts-min-position"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("OPTIONS", below + "/v1/receipts/query", headers=headers)
    answer = connection.getresponse()
    answer.read()
    passes = answer.status == 204 and answer.headers["Access-Control-Allow-Origin"] == ORIGIN
    return "pass" if passes else str(answer.status)


def http2(port, below):
    """Whether a client gets HTTP/2 over TLS, and a stream over it."""
    done = subprocess.run(
        ["curl", "-sk", "--http2", "-N", "--max-time", "5", "-w", "\nversion %{http_version}\n",
         "-H", f"Authorization: {AUTHORIZATION['Authorization']}",
         f"https://localhost:{port}{below}/v1/updates?conversation_id=c"],
        capture_output=True, text=True, timeout=PATIENCE_S)
    if "version 2" not in done.stdout or "event: position" not in done.stdout:
        raise Failed(f"no stream over HTTP/2: {done.stdout[:500]}")


HEADINGS = ["proxy", "ids that do not pass", "answers for another id", "stream", "body of 1 MiB",
            "one byte more, with `Expect`", "head of 8,000", "kept by a cache", "preflight"]


def row(proxy, service_port, folder, stay_s):
    port, tls_port = free_port(), free_port()
    file = configuration(proxy, folder, {"8080": service_port, "8090": port, "8443": tls_port})
    log = folder / "proxy.log"
    with log.open("w") as out:
        process = subprocess.Popen(proxy.command(folder, file, port), stdout=out, stderr=out, cwd=folder)
    try:
        wait_for(f"{proxy.name} serves", lambda: ask(port, "GET", proxy.below + "/livez")[0] == 200, process)
        lost, wrong = mangled_ids(port, proxy.below)
        whole, larger = bodies(port, proxy.below)
        cells = [proxy.name, shown(lost), shown(wrong), stream(port, proxy.below, stay_s), whole, larger,
                 heads(port, proxy.below), caches(port, proxy.below), preflight(port, proxy.below)]
        slower = delay(port, proxy.below, service_port) - delay(service_port, "", service_port)
        print(f"{proxy.name}: an update comes {1000 * slower:.0f} ms later than without it", file=sys.stderr)
        if proxy.tls:
            http2(tls_port, proxy.below)
        return "| " + " | ".join(cells) + " |"
    except Failed as failed:
        raise Failed(f"{failed}\n{log.read_text()[-2000:]}") from failed
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def main():
    parser = argparse.ArgumentParser(prog="tests/tools/proxies/run")
    parser.add_argument("receipts")
    parser.add_argument("proxies", nargs="*", help="nginx, Apache, HAProxy, Varnish, lighttpd, Caddy, Envoy")
    parser.add_argument("--stay", type=int, default=20, metavar="SECONDS")
    parser.add_argument("--bless", action="store_true")
    arguments = parser.parse_args()
    names = [name.lower() for name in arguments.proxies]
    chosen = [proxy for proxy in PROXIES if not names or proxy.name.split()[0].lower() in names]
    if not chosen or any(all(proxy.name.split()[0].lower() != name for proxy in PROXIES) for name in names):
        parser.error(f"unknown proxy in {arguments.proxies}")
    missing = sorted({proxy.needs for proxy in chosen if not shutil.which(proxy.needs)})
    if missing:
        print(f"missing: {', '.join(missing)}: apt-get install nginx-light apache2 haproxy varnish lighttpd caddy",
              file=sys.stderr)
        return 2
    document = DOC.read_text()
    failed = False
    with tempfile.TemporaryDirectory(prefix="receipts-proxies-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        service, service_port = start_service(arguments.receipts, folder)
        try:
            lost, wrong = mangled_ids(service_port, "")
            if lost or wrong:
                raise Failed(f"the service itself does not answer for {lost} {wrong}")
            print("| " + " | ".join(HEADINGS) + " |\n|" + " --- |" * len(HEADINGS))
            for proxy in chosen:
                own = folder / proxy.name.replace(" ", "-")
                own.mkdir(mode=0o755)
                subprocess.run(
                    ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                     "-subj", "/CN=localhost", "-keyout", own / "tls.key", "-out", own / "tls.crt", "-days", "2"],
                    check=True, capture_output=True)
                measured = row(proxy, service_port, own, arguments.stay)
                print(measured, flush=True)
                if measured not in document:
                    documented = re.search(rf"^\| {proxy.name} \|.*$", document, re.MULTILINE)
                    if arguments.bless and documented:
                        document = document.replace(documented.group(0), measured)
                        DOC.write_text(document)
                    else:
                        failed = True
                        print(f"docs/behind-a-proxy.md says: {documented and documented.group(0)}", file=sys.stderr)
        finally:
            service.terminate()
            service.wait(PATIENCE_S)
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failed as failure:
        print(f"tests/tools/proxies/run: {failure}", file=sys.stderr)
        sys.exit(1)
