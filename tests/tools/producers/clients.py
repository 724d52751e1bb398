"""The examples, and how each is built and run. Decides nothing about receipts."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[3] / "docs/examples"
MAVEN = ["mvn", "-B", "-q", "-Dstyle.color=never"]
JARS = ["org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies", "-DincludeScope=runtime"]
# The detail of a record in a wrong partition; the check compares the number with murmur2 itself.
MISPLACED = r"belongs to partition \d+ of 12 by its key"


@dataclass
class Client:
    """One example: a name for the command line, its row of the table, and its commands."""

    name: str
    row: str
    folder: str
    # Where the version stands: a file of the example, and a pattern around it.
    version_in: tuple[str, str]
    tools: list[str]
    run: list[str]
    # Run once per change of this file, which names the versions.
    install: list[list[str]] = field(default_factory=list)
    # Run after each change of the source.
    build: list[list[str]] = field(default_factory=list)
    # What the dead letters say without the lines marked `needed:`.
    cause: str | None = None
    # Instead of leaving lines out: variables that set another serializer.
    trap: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    # A worker that never ends, and needs a PostgreSQL.
    is_worker: bool = False

    def version(self):
        file, pattern = self.version_in
        return re.search(pattern, (EXAMPLES / self.folder / file).read_text()).group(1)


def java(name, row, version, main, cause=None, options=(), **more):
    artifact = {"java": "kafka-clients", "spring": "spring-boot-starter-parent", "flink": "flink-connector-kafka"}[name]
    return Client(
        name, row, f"producers/{name}", ("pom.xml", rf"<artifactId>{artifact}</artifactId>\s*<version>({version})<"),
        ["java", "mvn"], ["java", *options, "-cp", "target/classes:target/dependency/*", main],
        install=[[*MAVEN, *JARS]], build=[[*MAVEN, "compile"]], cause=cause, **more)


def go(name, module, cause=None):
    return Client(name, name, f"producers/{name}", ("go.mod", rf"{module} v(\S+)"), ["go"], ["./example"],
                  build=[["go", "build", "-mod=readonly", "-o", "example", "."]], cause=cause)


def python(name, row, package, folder, cause=None):
    return Client(name, row, f"producers/{folder}", ("requirements.txt", rf"{package}==(\S+)"), ["python3"],
                  ["venv/bin/python", "producer.py"], install=PIP, cause=cause)


def node(name, row, package, folder, file, cause=None, tools=()):
    return Client(name, row, f"producers/{folder}", ("package.json", rf'"{package}": "([^"]+)"'),
                  ["node", "npm", *tools], ["node", file],
                  install=[["npm", "install", "--silent", "--no-audit", "--no-fund", "--no-package-lock"]],
                  environment={"KAFKAJS_NO_PARTITIONER_WARNING": "1", **NODE}, cause=cause)


PIP = [["python3", "-m", "venv", "--clear", "venv"],
       ["venv/bin/pip", "install", "--quiet", "--disable-pip-version-check", "--requirement", "requirements.txt"]]
# Headers of the installed Node, and the system's libraries, so that a package with C++ code that
# has to be compiled asks no further server for them. The package of confluent-node calls `make -j`,
# which would start all its compilers at once: the flag `-l` binds that call as well.
NODE = {"CKJS_LINKING": "dynamic", "MAKEFLAGS": f"-l{os.cpu_count()}"}
if Path("/usr/include/node/node.h").exists():
    NODE["npm_config_nodedir"] = "/usr"
LIBRDKAFKA = r"CRC-32 \(librdkafka's default\): set partitioner=murmur2_random"
# Flink serializes through classes of the JDK that are closed otherwise.
OPENS = ["--add-opens=java.base/java.util=ALL-UNNAMED", "--add-opens=java.base/java.lang=ALL-UNNAMED"]
JSON_KEYS = {"SPRING_KAFKA_PRODUCER_KEY_SERIALIZER":
             "org.springframework.kafka.support.serializer.JacksonJsonSerializer"}

CLIENTS = [
    java("java", "kafka-clients (Java)", "[^<]+", "Example"),
    java("spring", "Spring Kafka, of Spring Boot", "[^<]+", "example.Example",
         cause="the record's key is a JSON string: write the text without quotes", trap=JSON_KEYS),
    Client("connect", "Kafka Connect, with Debezium's outbox", "producers/connect",
           ("pom.xml", r"connect-runtime</artifactId>\s*<version>([^<]+)<"), ["java", "mvn", "initdb", "psql"],
           ["java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", "target/dependency/*",
            "org.apache.kafka.connect.cli.ConnectStandalone", "worker.properties", "outbox.properties"],
           install=[[*MAVEN, *JARS]], cause="key.converter=org.apache.kafka.connect.storage.StringConverter",
           is_worker=True),
    java("flink", "Flink KafkaSink", "[^<]+", "Example", options=OPENS,
         cause="the record has no key: write that text as its key"),
    go("franz-go", "github.com/twmb/franz-go"),
    go("sarama", "github.com/IBM/sarama",
       r"FNV-1a \(sarama's default\): set Producer.Partitioner = sarama.NewMurmur2Partitioner"),
    go("kafka-go", "github.com/segmentio/kafka-go", MISPLACED),
    python("confluent-python", "confluent-kafka (Python)", "confluent-kafka", "confluent-python", LIBRDKAFKA),
    python("kafka-python", "kafka-python", "kafka-python", "kafka-python"),
    node("kafkajs", "kafkajs", "kafkajs", "kafkajs", "producer.js"),
    node("confluent-node", "@confluentinc/kafka-javascript, KafkaJS API", "@confluentinc/kafka-javascript",
         "confluent-node", "kafkajs-api.js", tools=["c++"]),
    node("confluent-node-rdkafka", "@confluentinc/kafka-javascript, rdkafka API", "@confluentinc/kafka-javascript",
         "confluent-node", "rdkafka-api.js", LIBRDKAFKA, tools=["c++"]),
]

UPDATES = Client("updates", "consumer of updates", "updates", ("requirements.txt", r"==(\S+)"), ["python3"],
                 ["venv/bin/python", "consumer.py"], install=PIP)

# Tests that start the service as a double: each ends with 0 if they pass.
DOUBLES = [
    Client("pytest", "pytest", "testing/pytest", ("requirements.txt", r"pytest==(\S+)"), ["python3"],
           ["venv/bin/python", "-m", "pytest", "-q", "-p", "no:cacheprovider"], install=PIP),
    Client("node-test", "node:test", "testing/node", ("package.json", "()"), ["node"], ["node", "--test"]),
    Client("go-test", "go test", "testing/go", ("go.mod", r"go (\S+)"), ["go"], ["go", "test", "-count=1", "./..."]),
    Client("junit", "JUnit", "testing/junit",
           ("pom.xml", r"junit-jupiter</artifactId>\s*<version>([^<]+)<"), ["java", "mvn"], [*MAVEN, "test"]),
]
ALL = [client.name for client in [*CLIENTS, UPDATES, *DOUBLES]]


def without_needed(text):
    """Leaves out each line marked `needed:`, and the line below a mark that stands alone."""
    kept, skips_next = [], False
    for line in text.splitlines(keepends=True):
        is_marked = "needed:" in line
        if not is_marked and not skips_next:
            kept.append(line)
        skips_next = is_marked and re.match(r"\s*(//|#)", line) is not None
    return "".join(kept)


def environment_of(client, **more):
    """The environment of an example: nobody's settings of Kafka or of the service."""
    theirs = ("RECEIPTS_", "KAFKA_", "SPRING_")
    mine = {name: value for name, value in os.environ.items() if not name.startswith(theirs)}
    return {**mine, **client.environment, **more}
