"""The identity providers: how each is fetched, started and set up, and how tokens are got from it.

What an operator has to set at a provider stands here in full, and docs/identity.md says it in words.
"""

import base64
import hashlib
import http.cookiejar
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
KEYCLOAK = "26.7.3"
# The longest wait for a provider to start, and for a step that fetches or builds, seconds.
START_S = 900
STEP_S = 3600


class Failed(Exception):
    """A step failed; the text says which and why."""


def run(command, cwd, **more):
    """Runs a command; raises Failed with its last lines."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, timeout=STEP_S, check=False, **more
    )
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()[-15:]
        raise Failed(" ".join(map(str, command)) + "\n" + "\n".join(lines))
    return done.stdout


def free_port():
    """Returns a port that nobody listens at now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def call(url, body=None, token=None, form=None, basic=None, method=None):
    """Sends JSON or a form; returns the answer, or None if it is empty."""
    headers = {"Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    if basic:
        headers["Authorization"] = "Basic " + base64.b64encode(":".join(basic).encode()).decode()
    data = None
    if form is not None:
        data = urllib.parse.urlencode(form).encode()
    elif body is not None:
        data, headers["Content-Type"] = json.dumps(body).encode(), "application/json"
    try:
        request = urllib.request.Request(url, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
            return json.loads(text) if text else None
    except urllib.error.HTTPError as error:
        raise Failed(f"{url}: {error.code} {error.read().decode()[:500]}") from error


class Provider:
    """A running provider. Its process and its files end with it."""

    # The ways in which it is run.
    variants = ("",)
    # A token for others, and what the log of the service must say of it.
    foreign = None
    flags = ()

    def __init__(self, work, folder, variant):
        self.work, self.folder, self.variant = work, folder, variant
        self.port, self.process = free_port(), None

    def start(self, command, ready, cwd=None, environment=None):
        """Starts the process, and waits until a URL answers."""
        log = open(self.folder / "provider.log", "w+b")
        self.process = subprocess.Popen(
            [str(part) for part in command], cwd=cwd, env={**os.environ, **(environment or {})}, stdout=log, stderr=log,
            stdin=subprocess.DEVNULL, start_new_session=True,
        )
        end = time.monotonic() + START_S
        while True:
            try:
                with urllib.request.urlopen(ready, timeout=5):
                    return
            except OSError as error:
                if self.process.poll() is not None or time.monotonic() > end:
                    lines = Path(log.name).read_text().splitlines()[-15:]
                    raise Failed("the provider did not start:\n" + "\n".join(lines)) from error
            time.sleep(0.2)

    def __enter__(self):
        try:
            self.begin()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.process and self.process.poll() is None:
            # Its own session: a start script has children.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class OidcProvider(Provider):
    """oidc-provider of npm, in a script of 80 lines (oidc-provider.mjs)."""

    variants = ("RS256", "PS256", "ES256", "ES384", "Ed25519", "EdDSA")
    flags = ("--auth-audience", "https://receipts.example", "--auth-service-claim", "service")

    def begin(self):
        """Starts it."""
        folder = self.work / "oidc-provider"
        folder.mkdir(exist_ok=True)
        lock = (HERE / "package-lock.json").read_text()
        if not (folder / "wanted").is_file() or (folder / "wanted").read_text() != lock:
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, folder)
            run(["npm", "ci", "--silent"], folder)
            (folder / "wanted").write_text(lock)
        shutil.copy(HERE / "oidc-provider.mjs", folder)
        self.issuer = f"http://127.0.0.1:{self.port}"
        self.start(
            ["node", "oidc-provider.mjs", self.port, self.variant], f"{self.issuer}/.well-known/openid-configuration",
            cwd=folder,
        )
        self.number = 1

    def service_token(self):
        """Returns a token of the service."""
        form = {
            "grant_type": "client_credentials", "scope": "receipts:write receipts:members",
            "resource": "https://receipts.example",
        }
        answer = call(f"{self.issuer}/token", form=form, basic=("backend", "backend-secret-of-the-check"))
        return answer["access_token"]

    def token_of(self, person):
        """Logs a person in as a browser does, and returns the token of the app."""
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        callback = "http://127.0.0.1/callback"
        query = {
            "client_id": "app", "response_type": "code", "redirect_uri": callback, "scope": "openid receipts:own",
            "resource": "https://receipts.example", "code_challenge": challenge, "code_challenge_method": "S256",
        }
        browser = Browser()
        url = browser.open(f"{self.issuer}/auth?{urllib.parse.urlencode(query)}", callback)
        url = browser.open(url, callback, {"prompt": "login", "login": person, "password": "any"})
        url = browser.open(url, callback, {"prompt": "consent"})
        code = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)["code"][0]
        form = {
            "grant_type": "authorization_code", "client_id": "app", "code": code, "redirect_uri": callback,
            "code_verifier": verifier,
        }
        return call(f"{self.issuer}/token", form=form)["access_token"]

    def rotate(self):
        """Gives it a new key, and waits until it is published."""
        self.number += 1
        self.process.send_signal(signal.SIGHUP)
        end = time.monotonic() + START_S
        while not any(key["kid"] == f"key-{self.number}" for key in call(f"{self.issuer}/jwks")["keys"]):
            if time.monotonic() > end:
                raise Failed("the new key was not published")
            time.sleep(0.05)


class Browser:
    """Follows redirects with cookies, up to the callback of an app."""

    def __init__(self):
        class Stop(urllib.request.HTTPRedirectHandler):
            """Ends at the callback."""

            def redirect_request(self, request, body, code, message, headers, url):
                if url.startswith(browser.callback):
                    browser.arrived = url
                    return None
                return super().redirect_request(request, body, code, message, headers, url)

        browser, self.callback, self.arrived = self, None, None
        cookies = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self.opener = urllib.request.build_opener(cookies, Stop)

    def open(self, url, callback, form=None):
        """Returns the URL at which it arrives: a page, or the callback."""
        self.callback, self.arrived = callback, None
        data = urllib.parse.urlencode(form).encode() if form else None
        try:
            with self.opener.open(url, data, timeout=60) as answer:
                return answer.url
        except urllib.error.HTTPError as error:
            if self.arrived:
                return self.arrived
            raise Failed(f"{url}: {error.code} {error.read().decode()[:500]}") from error


class Keycloak(Provider):
    """Keycloak of Maven Central: a realm with an organization, an app, and a service."""

    flags = (
        "--auth-tenant-claim", "organization", "--auth-default-tenant", "acme", "--auth-user-claim",
        "preferred_username", "--auth-service-claim", "client_id", "--auth-scope-map",
        "chat-system=receipts:write receipts:members",
    )

    def begin(self):
        """Fetches, starts and sets it up."""
        name = f"keycloak-{KEYCLOAK}"
        folder = self.work / name
        if not folder.is_dir():
            artifact = f"org.keycloak:keycloak-quarkus-dist:{KEYCLOAK}:zip"
            run(["mvn", "-q", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={self.work}"], self.work)
            with zipfile.ZipFile(self.work / f"keycloak-quarkus-dist-{KEYCLOAK}.zip") as archive:
                archive.extractall(self.work / "unpacked")
            (self.work / "unpacked" / name).rename(folder)
        shutil.rmtree(folder / "data", ignore_errors=True)
        self.root = f"http://127.0.0.1:{self.port}"
        self.issuer = f"{self.root}/realms/chat"
        environment = {"KC_BOOTSTRAP_ADMIN_USERNAME": "admin", "KC_BOOTSTRAP_ADMIN_PASSWORD": "admin"}
        command = ["bash", folder / "bin/kc.sh", "start-dev", "--http-host=127.0.0.1", f"--http-port={self.port}"]
        self.start(command, f"{self.root}/realms/master", environment=environment)
        self.number = 0
        self.set_up()

    def admin(self, path, body=None, method=None):
        """Asks as the administrator."""
        form = {"grant_type": "password", "client_id": "admin-cli", "username": "admin", "password": "admin"}
        token = call(f"{self.root}/realms/master/protocol/openid-connect/token", form=form)["access_token"]
        return call(f"{self.root}/admin/realms{path}", body, token, method=method)

    def set_up(self):
        """Makes the realm: what docs/identity.md says in words."""
        self.admin("", {"realm": "chat", "enabled": True, "organizationsEnabled": True})
        # The audience, which is `account` otherwise.
        self.admin("/chat/client-scopes", {
            "name": "receipts", "protocol": "openid-connect",
            "protocolMappers": [{
                "name": "audience", "protocol": "openid-connect", "protocolMapper": "oidc-audience-mapper",
                "config": {"included.custom.audience": "receipts", "access.token.claim": "true"},
            }],
        })
        self.admin("/chat/client-scopes", {
            "name": "receipts:own", "protocol": "openid-connect", "attributes": {"include.in.token.scope": "true"},
        })
        scopes = {scope["name"]: scope["id"] for scope in self.admin("/chat/client-scopes")}
        self.admin("/chat/clients", {
            "clientId": "app", "publicClient": True, "directAccessGrantsEnabled": True, "standardFlowEnabled": False,
        })
        self.admin("/chat/clients", {
            "clientId": "backend", "secret": "backend-secret", "serviceAccountsEnabled": True,
            "standardFlowEnabled": False,
        })
        self.admin("/chat/clients", {
            "clientId": "other", "publicClient": True, "directAccessGrantsEnabled": True, "standardFlowEnabled": False,
        })
        clients = {client["clientId"]: client["id"] for client in self.admin("/chat/clients")}
        for client, names in {"app": ["receipts", "receipts:own", "organization"], "backend": ["receipts"]}.items():
            for name in names:
                self.admin(f"/chat/clients/{clients[client]}/default-client-scopes/{scopes[name]}", method="PUT")
        # A role of the realm that auth.scope_map knows.
        self.admin("/chat/roles", {"name": "chat-system"})
        role = self.admin("/chat/roles/chat-system")
        account = self.admin(f"/chat/clients/{clients['backend']}/service-account-user")
        self.admin(f"/chat/users/{account['id']}/role-mappings/realm", [role])
        self.admin("/chat/organizations", {"name": "acme", "alias": "acme", "domains": [{"name": "acme.example"}]})
        organization = self.admin("/chat/organizations")[0]["id"]
        for person in ("alice", "bob"):
            self.admin("/chat/users", {
                "username": person, "enabled": True, "email": f"{person}@acme.example", "firstName": person,
                "lastName": "x", "credentials": [{"type": "password", "value": "any", "temporary": False}],
            })
            user = self.admin(f"/chat/users?username={person}&exact=true")[0]["id"]
            self.admin(f"/chat/organizations/{organization}/members", user)
        self.foreign = (lambda: self.password("other", "alice"), 'found="account"')

    def service_token(self):
        """Returns a token of the service."""
        form = {"grant_type": "client_credentials"}
        answer = call(f"{self.issuer}/protocol/openid-connect/token", form=form, basic=("backend", "backend-secret"))
        return answer["access_token"]

    def password(self, client, person):
        """Returns a token of a person and a client."""
        form = {
            "grant_type": "password", "client_id": client, "username": person, "password": "any", "scope": "openid",
        }
        return call(f"{self.issuer}/protocol/openid-connect/token", form=form)["access_token"]

    def token_of(self, person):
        """Returns a token of a person."""
        return self.password("app", person)

    def rotate(self):
        """Gives the realm a new key that signs from now on."""
        self.number += 1
        realm = self.admin("/chat")["id"]
        self.admin("/chat/components", {
            "name": f"key-{self.number}", "providerId": "rsa-generated",
            "providerType": "org.keycloak.keys.KeyProvider", "parentId": realm,
            "config": {"priority": [str(1000 + self.number)], "algorithm": ["RS256"], "keySize": ["2048"]},
        })


ALL = {"oidc-provider": OidcProvider, "keycloak": Keycloak}
