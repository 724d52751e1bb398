"""The broker, the service and the database of the check. Each ends with the check."""

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def fail(why):
    raise RuntimeError(why)


def wait_for(what, is_so, seconds):
    """Waits until `is_so()`; the deadline is generous, because machines are slow at times."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds} s it is not so that {what}")
        time.sleep(0.1)


def free_port(span=1):
    """A port whose `span - 1` followers are free as well, below those of outgoing connections."""
    for first in range(21_000 + os.getpid() % 500 * 20, 32_000, 20):
        try:
            for port in range(first, first + span):
                with socket.socket() as one:
                    one.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
    fail("no free ports below 32000")


class Broker:
    """Kafka of tests/kafka/broker, which the script's `tether` removes if this process dies."""

    def __init__(self, work):
        self.script = ["sh", str(ROOT / "tests/kafka/broker/kafka.sh")]
        port = free_port(span=2)
        self.environment = {**os.environ, "KAFKA_PORT": str(port), "KAFKA_NODES": "1", "KAFKA_NET": "",
                            "KAFKA_DIR": os.environ.get("KAFKA_DIR", str(ROOT / ".kafka"))}
        self.bootstrap = f"127.0.0.1:{port}"
        self.tether = subprocess.Popen([*self.script, "tether"], env=self.environment, stdin=subprocess.PIPE,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        subprocess.run([*self.script, "start"], env=self.environment, stdout=subprocess.DEVNULL, check=True)

    def stop(self):
        self.tether.stdin.close()
        self.tether.wait()


class Service:
    """`receipts serve` on the broker, with the settings that it has by default."""

    def __init__(self, binary, work, bootstrap):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RECEIPTS_")}
        self.log = work / "service.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [binary, "serve", "--http-listen", "127.0.0.1:0", "--json", "--data-dir", work / "data",
                 "--kafka-bootstrap", bootstrap], env=environment, stdout=subprocess.PIPE, stderr=log, text=True)
        line = self.process.stdout.readline()
        if not line:
            fail(f"the service did not start:\n{self.log.read_text()}")
        self.url = json.loads(line)["http"]

    def stop(self):
        self.process.terminate()
        self.process.wait(60)

    def call(self, path, body=None, **headers):
        """Returns the JSON of an answer, also of a problem; repeats a read that is not folded yet."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None if body is None else json.dumps(body).encode()
        for _ in range(30):
            request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **headers})
            try:
                with urllib.request.urlopen(request) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                problem = json.load(error)
                if error.code != 503:
                    return problem
        fail(f"{path}: {problem}")

    def barrier(self):
        """Writes a policy into every partition: a read with its position has seen all before it."""
        return self.call("/v1/events", {"type": "policy.changed", "read_receipts": {"*": True}})["position"]

    def receipt(self, conversation, message, token):
        return self.call(f"/v1/conversations/{conversation}/messages/{message}/receipt",
                         Receipts_Min_Position=token, Receipts_Wait_Ms="5000")

    def dead_letters(self):
        """The number of dead letters since the start, of all reasons."""
        with urllib.request.urlopen(self.url + "/metrics") as answer:
            lines = answer.read().decode().splitlines()
        return sum(int(line.split()[-1]) for line in lines if line.startswith("receipts_dead_letters_total"))


class Postgres:
    """A PostgreSQL with logical decoding, on a port of its own, as the user `postgres` if root."""

    def __init__(self, work):
        self.folder = work / "postgres"
        self.port = free_port()
        self.user = "postgres"
        self.environment = {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": self.user, "PGPASSWORD": "",
                            "PGDATABASE": "postgres"}

    def __enter__(self):
        self.folder.mkdir()
        as_user = []
        if os.geteuid() == 0:
            for folder in [self.folder, self.folder.parent]:
                folder.chmod(0o755)
            shutil.chown(self.folder, "postgres")
            as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        data = self.folder / "data"
        subprocess.run([*as_user, "initdb", "--auth=trust", f"--username={self.user}", "-D", data],
                       stdout=subprocess.DEVNULL, check=True)
        with open(self.folder / "log", "w") as log:
            self.process = subprocess.Popen(
                [*as_user, "postgres", "-D", data, "-p", str(self.port), "-c", "wal_level=logical", "-c",
                 "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.folder}", "-c", "fsync=off"],
                stdout=log, stderr=log)
        wait_for("PostgreSQL is ready", lambda: subprocess.run(
            ["psql", "-qc", "select"], env={**os.environ, **self.environment}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL).returncode == 0, 60)
        return self

    def psql(self, file, prefix):
        subprocess.run(["psql", "-q", "-v", "ON_ERROR_STOP=1", "-v", f"prefix={prefix}", "-f", file],
                       env={**os.environ, **self.environment}, check=True)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(60)
        shutil.rmtree(self.folder)
