#!/usr/bin/env bash
# A static member of a consumer group that unsubscribes before it closes.
#
# One would guess: with `group.instance.id` a stop is no farewell. The member keeps its partitions until
# its session ends, so a restart within that time moves nothing (KIP-345). Java's client does so, with
# or without `unsubscribe()` before `close()`.
# What happens: librdkafka does so for `close()` alone, and for `unsubscribe()` right before it. A
# member that unsubscribes and then polls on for a moment, as it must to answer the rebalance, has left
# the group when it closes: its place is gone within those seconds, and not after its session.
# Whom it hurts: operators of rolling restarts. A program that stops in order (unsubscribe, finish the
# work, close) loses what `group.instance.id` promises: the group rebalances at each stop and at each
# start. Nothing is logged, one that stops hastily keeps its place, and the same program in Java
# keeps it too.
#
# Seen with: confluent-kafka 2.16.1 (PyPI, its librdkafka), kafka-clients 4.4.0 and Apache Kafka 4.4.0 (Maven
# Central, Java 17), classic group protocol.
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
group.initial.rebalance.delay.ms=0
CONF
java -cp 'lib/*' kafka.tools.StorageTool format -t AAAAAAAAAAAAAAAAAAAAAQ -c server.properties > format.log 2>&1
java -Xmx512m -cp 'lib/*' kafka.Kafka server.properties > broker.log 2>&1 &
broker=$!

# The member of Java: joins, perhaps unsubscribes, closes.
cat > Member.java <<'JAVA'
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.KafkaConsumer;

public class Member {
    public static void main(String[] args) throws Exception {
        Properties set = new Properties();
        set.put("bootstrap.servers", args[0]);
        set.put("group.id", args[1]);
        set.put("group.instance.id", "one");
        set.put("session.timeout.ms", "30000");
        String text = "org.apache.kafka.common.serialization.StringDeserializer";
        set.put("key.deserializer", text);
        set.put("value.deserializer", text);
        KafkaConsumer<String, String> member = new KafkaConsumer<>(set);
        member.subscribe(List.of("t"));
        while (member.assignment().isEmpty()) {
            member.poll(Duration.ofMillis(100));
        }
        if (args[2].equals("unsubscribe")) {
            member.unsubscribe();
            Thread.sleep(3000);
        }
        member.close();
    }
}
JAVA
python3 -m venv venv
venv/bin/pip --quiet install confluent-kafka==2.16.1
cat > ask.py <<'PY'
import subprocess
import sys
import time
from confluent_kafka import Consumer, KafkaException
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap = sys.argv[1]
admin = AdminClient({"bootstrap.servers": bootstrap})
deadline = time.monotonic() + 120
while True:
    try:
        admin.create_topics([NewTopic("t", 2, 1)])["t"].result(10)
        break
    except KafkaException:
        assert time.monotonic() < deadline, "the broker is not up"
        time.sleep(0.5)


def librdkafka(group, how):
    member = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "group.instance.id": "one",
                       "session.timeout.ms": 30000})
    member.subscribe(["t"])
    end = time.monotonic() + 60
    while not member.assignment():
        assert time.monotonic() < end, "no partitions"
        member.poll(0.1)
    if how == "unsubscribe":
        member.unsubscribe()
        # It answers the rebalance that this begins in poll().
        until = time.monotonic() + 3
        while time.monotonic() < until:
            member.poll(0.1)
    member.close()


def java(group, how):
    subprocess.run(["java", "-cp", "lib/*", "Member.java", bootstrap, group, how], check=True, capture_output=True)


seen = {}
for client, run in (("librdkafka", librdkafka), ("Java", java)):
    for how in ("close", "unsubscribe"):
        group = f"{client}-{how}"
        run(group, how)
        # A leave is done when close() returns, and the session has 30 s.
        time.sleep(2)
        members = admin.describe_consumer_groups([group])[group].result(10).members
        seen[client, how] = len(members)
        print(f"{client}, {'unsubscribe() and ' if how == 'unsubscribe' else ''}close(): {len(members)} member left in the group")
assert seen == {("librdkafka", "close"): 1, ("librdkafka", "unsubscribe"): 0, ("Java", "close"): 1,
                ("Java", "unsubscribe"): 1}, f"it has changed: {seen}"
PY
venv/bin/python ask.py "127.0.0.1:$port"
echo "as described: unsubscribe() makes a static member of librdkafka leave, and one of Java's client stay"
