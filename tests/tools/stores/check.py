"""Runs the snapshot commands at servers that speak S3 and Azure, and reads what they say.

Every command gets an environment of its own, so that no variable of this machine counts. It must
not take a sentence for good that shows a store's XML, or says a thing twice.
"""

import base64
import hashlib
import hmac
import json
import logging
import subprocess
import sys
import time
import urllib.error
import urllib.request
from email.utils import formatdate
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

# The account and the key that every Azurite has.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
# The longest that a command may take, seconds: without credentials a client asks for some for long.
COMMAND_S = 300
FAILED = []


def expect(what, found, wanted):
    """Notes a difference."""
    if found != wanted:
        FAILED.append(what)
        print(f"{what}: {found}, wanted {wanted}")


class Commands:
    """The snapshot commands of one data directory."""

    def __init__(self, receipts, work):
        self.receipts, self.work, self.number = receipts, work, 0
        self.home = work / "home"
        self.home.mkdir()

    def run(self, environment, *arguments):
        """Runs a command; returns its exit code, its lines and what it says."""
        command = [self.receipts, "snapshot", *arguments]
        done = subprocess.run(
            [str(part) for part in command], capture_output=True, text=True, timeout=COMMAND_S, check=False,
            env={"HOME": str(self.home), "RECEIPTS_LOG": "warn", **environment},
        )
        return done.returncode, done.stdout, done.stderr

    def works(self, what, url, environment):
        """Takes, lists, verifies and restores."""
        data = self.work / "data"
        code, _, said = self.run(environment, "take", "--data-dir", data, "--snapshot-url", url)
        expect(f"{what}: take ({said})", code, 0)
        code, lines, said = self.run(environment, "list", "--json", "--snapshot-url", url)
        found = [json.loads(line) for line in lines.splitlines()]
        expect(f"{what}: list ({said}{lines[:500]})", (code, bool(found)), (0, True))
        expect(f"{what}: described", [line for line in found if "digest" not in line], [])
        code, _, said = self.run(environment, "verify", "--snapshot-url", url)
        expect(f"{what}: verify ({said})", code, 0)
        self.number += 1
        restored = self.work / f"restored-{self.number}"
        code, _, said = self.run(environment, "restore", "--data-dir", restored, "--snapshot-url", url)
        expect(f"{what}: restore ({said})", code, 0)
        print(f"{what}: ok", flush=True)

    def says(self, what, url, environment, *parts, command="list", code=1):
        """Runs a command that must fail with a sentence that has these parts."""
        data = ["--data-dir", self.work / "data"] if command == "take" else []
        found, _, said = self.run(environment, command, *data, "--snapshot-url", url)
        expect(f"{what}: exit code ({said})", found, code)
        for part in parts:
            expect(f"{what}: {part!r} in {said!r}", part in said, True)
        for never in ("<", "xml", "RequestId", "is not there", "169.254"):
            expect(f"{what}: {never!r} in {said!r}", never in said, False)
        # No clause twice.
        clauses = [clause for clause in said.strip().split(": ") if len(clause) > 12]
        expect(f"{what}: a clause twice in {said!r}", len(clauses), len(set(clauses)))
        print(f"{what}: {said.strip()}", flush=True)


def data_directory(receipts, work):
    """Makes a data directory with some messages."""
    command = [receipts, "serve", "--json", "--http-listen", "127.0.0.1:0", "--data-dir", work / "data"]
    service = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    url = json.loads(service.stdout.readline())["http"]
    events = [
        {
            "type": "message.sent", "conversation_id": f"g{number}", "message_id": "m1", "sender_id": "alice",
            "sent_at_ms": 1780000000000, "recipients": ["bob"], "need_read_receipt": True,
        } for number in range(20)
    ]
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url + "/v1/events", json.dumps(events).encode(), headers)) as answer:
        assert answer.status == 202
    service.terminate()
    service.wait(60)


def s3(commands):
    """Checks S3."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    url = f"http://{host}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    client.create_bucket(Bucket="backups")
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    plain = {"AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true"}
    commands.works("S3 by keys", "s3://backups/a", {**plain, **keys})
    profile = commands.work / "profiles"
    profile.write_text("[work]\naws_access_key_id = test\naws_secret_access_key = test\nregion = us-east-1\n")
    by_profile = {"AWS_PROFILE": "work", "AWS_SHARED_CREDENTIALS_FILE": str(profile)}
    commands.works("S3 by a profile", "s3://backups/b", {**plain, **by_profile})
    for command in ("take", "list", "verify"):
        commands.says(
            f"S3 without the bucket, {command}", "s3://nowhere/a", {**plain, **keys}, "no such bucket", "s3://nowhere",
            command=command,
        )
    commands.says("S3 without TLS", "s3://backups/a", {"AWS_ENDPOINT_URL": url, **keys}, "AWS_ALLOW_HTTP=true", code=2)
    commands.says("S3 without the profile", "s3://backups/a", {**plain, "AWS_PROFILE": "gone"}, '"gone"', code=2)
    commands.says("S3 without credentials", "s3://backups/a", plain, "no credentials were found", "AWS_PROFILE")
    commands.says(
        "S3 without a server", "s3://backups/a", {**keys, "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_ALLOW_HTTP": "1"},
        "s3://backups/a",
    )
    server.stop()


def make_container(url, name):
    """Makes a container, signed by the key of the account."""
    date = formatdate(usegmt=True)
    resource = f"/{ACCOUNT}/{ACCOUNT}/{name}\nrestype:container"
    signed = f"PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:2021-08-06\n{resource}"
    mac = base64.b64encode(hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()).decode()
    request = urllib.request.Request(f"{url}/{ACCOUNT}/{name}?restype=container", method="PUT", headers={
        "x-ms-date": date, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey {ACCOUNT}:{mac}",
    })
    with urllib.request.urlopen(request, timeout=60):
        pass


def azure(commands, azurite):
    """Checks Azure."""
    program = azurite / "node_modules/azurite/dist/src/blob/main.js"
    command = ["node", program, "--silent", "--blobPort", "0", "--location", commands.work / "azurite", "--skipApiVersionCheck"]
    server = subprocess.Popen([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    try:
        url = None
        while url is None:
            line = server.stdout.readline()
            if not line:
                raise RuntimeError("Azurite ended")
            if "listens on" in line or "listening at" in line:
                url = line.strip().split()[-1].rstrip("/")
        end = time.monotonic() + 60
        while True:
            try:
                make_container(url, "backups")
                break
            except urllib.error.URLError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.2)
        endpoint = f"{url}/{ACCOUNT}"
        # Azurite knows an account by its path, and only the client's own mode for it signs so.
        emulator = {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": url}
        commands.works("Azure by its emulator", "az://backups/a", emulator)
        connection = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={endpoint};"
        by_string = {"AZURE_STORAGE_CONNECTION_STRING": connection}
        commands.works("Azure by a connection string", "az://backups/b", by_string)
        by_names = {
            "AZURE_STORAGE_ACCOUNT": ACCOUNT, "AZURE_STORAGE_KEY": KEY, "AZURE_STORAGE_ENDPOINT": endpoint,
            "AZURE_ALLOW_HTTP": "true",
        }
        commands.works("Azure by account and key", "az://backups/c", by_names)
        for command in ("take", "list", "verify"):
            commands.says(
                f"Azure without the container, {command}", "az://nowhere/a", by_string, "no such bucket or container",
                command=command,
            )
        wrong = connection.replace("Eby8", "AAAA")
        commands.says(
            "Azure with a wrong key", "az://backups/a", {"AZURE_STORAGE_CONNECTION_STRING": wrong}, "refuses",
            "AuthorizationFailure",
        )
        commands.says("Azure without an account", "az://backups/a", {}, "AZURE_STORAGE_CONNECTION_STRING", code=2)
        plain = {name: value for name, value in by_names.items() if name != "AZURE_ALLOW_HTTP"}
        commands.says("Azure without TLS", "az://backups/a", plain, "AZURE_ALLOW_HTTP=true", code=2)
    finally:
        # Azurite may wait for its connections when it is asked to end.
        server.kill()
        server.wait(60)


def main():
    """Runs all."""
    receipts, work, azurite = (Path(argument) for argument in sys.argv[1:4])
    chosen = sys.argv[4:] or ["s3", "azure"]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    data_directory(receipts, work)
    commands = Commands(receipts, work)
    if "s3" in chosen:
        s3(commands)
    if "azure" in chosen:
        azure(commands, azurite)
    sys.exit(1 if FAILED else 0)


if __name__ == "__main__":
    main()
