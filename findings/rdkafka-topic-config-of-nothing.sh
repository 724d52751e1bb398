#!/usr/bin/env bash
# The configuration of a topic that does not exist, as the Rust binding of librdkafka reads it.
#
# One would guess: `AdminClient::describe_configs` returns a `Result<ConfigResource, RDKafkaErrorCode>`
# per resource, so a topic that is not there is `Err(UnknownTopicOrPartition)`.
# What happens: it is `Ok` with no properties at all. The binding never asks librdkafka for the error
# of a resource, so the `Err` of that type is never made. confluent-kafka for Python, over the same
# librdkafka, raises UNKNOWN_TOPIC_OR_PART.
# Whom it hurts: services that look at a topic before they trust it. `get("cleanup.policy")` is None,
# which passes a check of the form "refuse what is compacted", and fails one of the form "refuse what
# has no bound", in both cases without a word of the cause. A topic that another broker has just
# made can look so for a moment, too.
#
# Seen with: rdkafka 0.39.0 (crates.io), confluent-kafka 2.16.1 (PyPI), Apache Kafka 4.4.0 (Maven
# Central, Java 17).
set -euo pipefail
work=$(mktemp -d)
broker=
trap '[ -z "$broker" ] || kill "$broker" 2> /dev/null || true; rm -rf "$work"' EXIT
cd "$work"

cat > pom.xml <<'XML'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>find</groupId><artifactId>find</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>4.4.0</version></dependency>
  </dependencies>
</project>
XML
mvn -B -q org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies -DincludeScope=runtime -DoutputDirectory=lib
port=$((20000 + RANDOM % 10000))
cat > server.properties <<CONF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
controller.listener.names=CONTROLLER
log.dirs=$work/data
offsets.topic.replication.factor=1
auto.create.topics.enable=false
CONF
java -cp 'lib/*' kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ -c server.properties > format.log 2>&1
java -Xmx512m -cp 'lib/*' kafka.Kafka server.properties > broker.log 2>&1 &
broker=$!

python3 -m venv venv
venv/bin/pip --quiet install confluent-kafka==2.16.1
cat > ask.py <<'PY'
import sys
import time
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

admin = AdminClient({"bootstrap.servers": sys.argv[1]})
deadline = time.monotonic() + 60
while True:
    try:
        admin.create_topics([NewTopic("there", 1, 1)])["there"].result(10)
        break
    except KafkaException:
        assert time.monotonic() < deadline, "the broker is not up"
        time.sleep(0.5)


def describe(name):
    resource = ConfigResource(ConfigResource.Type.TOPIC, name)
    try:
        return len(admin.describe_configs([resource])[resource].result(10))
    except KafkaException as error:
        return error.args[0].name()


there, absent = describe("there"), describe("absent")
print(f"confluent-kafka: there {there} properties, absent {absent}")
assert there > 20 and absent == "UNKNOWN_TOPIC_OR_PART"
PY
venv/bin/python ask.py "127.0.0.1:$port"

mkdir -p src
cat > Cargo.toml <<'TOML'
[package]
name = "find"
version = "0.0.0"
edition = "2021"
[dependencies]
futures-executor = "=0.3.34"
rdkafka = "=0.39.0"
TOML
cat > src/main.rs <<'RS'
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;

fn main() {
    let bootstrap = std::env::args().nth(1).unwrap();
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().unwrap();
    let properties = |name| {
        let resources = [ResourceSpecifier::Topic(name)];
        let options = AdminOptions::new();
        let mut answer = futures_executor::block_on(admin.describe_configs(&resources, &options)).unwrap();
        answer.remove(0).map(|config| config.entries.len())
    };
    let (there, absent) = (properties("there"), properties("absent"));
    println!("rdkafka: there {there:?}, absent {absent:?} properties");
    assert!(there.unwrap() > 20);
    assert_eq!(absent, Ok(0));
}
RS
cargo run --quiet -- "127.0.0.1:$port"
echo "as seen: a topic that is not there has a configuration, and it is empty"
