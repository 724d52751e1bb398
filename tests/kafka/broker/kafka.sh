#!/bin/sh
# Runs a real Apache Kafka 4.4.0 (KRaft) for development and tests, without Docker. Not for
# production: a listener on loopback without secrets, small heaps, quick failovers.
#
#   kafka.sh start  [node]   starts all nodes, or one; installs the jars the first time
#   kafka.sh stop   [node]   ends it in order
#   kafka.sh kill   [node]   ends it like a power cut (kill -9); start brings it back with its data
#   kafka.sh status [node]   one line per node
#   kafka.sh wipe   [node]   kills it and removes its data and logs
#   kafka.sh cut    NODE [OTHER]   with KAFKA_NET: drops its packets, or those between the two
#   kafka.sh heal   NODE [OTHER]   undoes that
#   kafka.sh tether          waits for the end of its standard input (the test), then wipes all
#   kafka.sh --help
#
#   KAFKA_PORT   client port of node 1 (19092); node N is at +10*(N-1), its controller one above
#   KAFKA_NODES  size of the cluster (1), the same at each call; three nodes keep three copies
#   KAFKA_CLUSTER  the cluster's id, as StorageTool takes it; the same for all clusters by default
#   KAFKA_DIR    jars, data, logs and pids, a folder per port (.kafka at the repository's root)
#   KAFKA_HEAP   heap of one node (512m)
#   KAFKA_NET    if set, node N has a network of its own and the address 10.X.Y.N on a bridge,
#                256 * X + Y = KAFKA_PORT; needs Linux and root
#   KAFKA_SECURE if set, a folder: node N listens with TLS at port +2 (SSL, with client
#                certificates), +3 (SASL_SSL) and +4 (EXPIRED, over TLS) as localhost, and at +5
#                with SASL alone (SASL_PLAINTEXT). The folder has server.properties, which is added to the node's, and
#                scram with an argument of --add-scram a line
# Needs Java 17 or newer, and Maven the first time (43 MB from Maven Central).
set -eu
here=$(cd -P "$(dirname "$0")" && pwd -P)
base=${KAFKA_PORT:-19092} nodes=${KAFKA_NODES:-1} heap=${KAFKA_HEAP:-512m}
dir=${KAFKA_DIR:-$here/../../../.kafka}
# Without links and dots: Java takes the dots out of a path by its text alone.
mkdir -p "$dir" && dir=$(cd -P "$dir" && pwd -P)
secure=${KAFKA_SECURE:-}
version=4.4.0 lib=$dir/lib-4.4.0 cds=$dir/classes-4.4.0.jsa
rf=$((nodes < 3 ? nodes : 3)) isr=$((nodes < 3 ? 1 : 2))

fail() { echo "kafka.sh: $*" >&2; exit 1; }
need() { command -v "$1" > /dev/null || fail "$1 is missing: install it (Debian: apt-get install $2)"; }

at() {
  node=$1 port=$((base + 10 * ($1 - 1))); run=$dir/$port; pid=$run/pid log=$run/log
  host=$(host "$1") ns=rk$base-$1 wire=rk${base}n$1
}

host() { if [ -n "${KAFKA_NET:-}" ]; then echo "10.$((base / 256)).$((base % 256)).$1"; else echo 127.0.0.1; fi; }

# A bridge for all nodes, which this machine is on too, and for each a namespace with a wire to it.
connect() {
  [ -n "${KAFKA_NET:-}" ] || return 0
  need ip iproute2
  if ! ip link show "rk$base" > /dev/null 2>&1; then
    ip link add "rk$base" type bridge || fail "a network of its own needs root and Linux"
    ip addr add "$(host 254)/24" dev "rk$base"
    ip link set "rk$base" up
  fi
  [ -e "/run/netns/$ns" ] && return
  ip netns add "$ns"
  ip link add "$wire" type veth peer name eth0 netns "$ns"
  ip link set "$wire" master "rk$base" up
  ip -n "$ns" addr add "$host/24" dev eth0
  ip -n "$ns" link set lo up
  ip -n "$ns" link set eth0 up
}

disconnect() {
  [ -n "${KAFKA_NET:-}" ] || return 0
  ip netns del "$ns" 2> /dev/null || true
  ls /run/netns | grep -q "^rk$base-" || ip link del "rk$base" 2> /dev/null || true
}

# Ours only if the process runs this node's configuration: another process may have the number now.
alive() {
  [ -f "$pid" ] || return 1
  p=$(cat "$pid") && [ -n "$p" ] && kill -0 "$p" 2> /dev/null || return 1
  if [ -r "/proc/$p/cmdline" ]; then tr '\0' ' ' < "/proc/$p/cmdline"; else ps -o args= -p "$p"; fi 2> /dev/null |
    grep -qF "$run/"
}

jvm() {
  exec ${KAFKA_NET:+ip netns exec "$ns"} java -Xms64m -Xmx"$heap" -XX:+UseSerialGC "$share" -cp "$lib/*" \
    -Dlog4j2.configurationFile="$run/log4j2.properties" \
    ${secure:+-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls="file://$secure/jwks.json"} "$@"
}

# Once, for any number of callers: the folder is the lock, its pid shows whether the holder died.
install() {
  need java openjdk-17-jre-headless
  [ -d "$lib" ] && return
  need mvn maven
  lock=$lib.lock n=0
  until mkdir "$lock" 2> /dev/null; do
    [ -d "$lib" ] && return
    holder=$(cat "$lock/pid" 2> /dev/null || true)
    if [ -n "$holder" ] && ! kill -0 "$holder" 2> /dev/null; then rm -rf "$lock"; continue; fi
    n=$((n + 1)); [ $n -lt 3000 ] || fail "another installation holds $lock for 10 minutes: remove it if none runs"
    sleep 0.2
  done
  echo $$ > "$lock/pid"
  trap 'rm -rf "$lock" "$lib.part"' EXIT
  if [ ! -d "$lib" ]; then
    rm -rf "$lib.part"
    mvn -B -q -Dstyle.color=never -f "$here/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies \
      -DincludeScope=runtime -DoutputDirectory="$lib.part" >&2 ||
      fail "Maven could not get Kafka $version: see to the network, or to a mirror in ~/.m2/settings.xml"
    mv "$lib.part" "$lib"
  fi
  rm -rf "$lock"
  trap - EXIT
}

configure() {
  mkdir -p "$run"
  voters=$(n=1; while [ $n -le "$nodes" ]; do printf '%s@%s:%s,' $n "$(host $n)" $((base + 10 * n - 9)); n=$((n + 1)); done)
  cat > "$run/server.properties" <<C
process.roles=broker,controller
node.id=$node
controller.quorum.voters=${voters%,}
listeners=PLAINTEXT://$host:$port,CONTROLLER://$host:$((port + 1))
controller.listener.names=CONTROLLER
log.dirs=$run/data
default.replication.factor=$rf
min.insync.replicas=$isr
offsets.topic.replication.factor=$rf
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$rf
transaction.state.log.min.isr=$isr
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$rf
share.coordinator.state.topic.min.isr=$isr
group.initial.rebalance.delay.ms=0
group.consumer.min.session.timeout.ms=5000
group.consumer.min.heartbeat.interval.ms=500
group.consumer.heartbeat.interval.ms=500
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
auto.create.topics.enable=false
log.cleaner.dedupe.buffer.size=16777216
C
  if [ -n "$secure" ]; then
    cat >> "$run/server.properties" - "$secure/server.properties" <<C
listeners=PLAINTEXT://$host:$port,CONTROLLER://$host:$((port + 1)),SSL://$host:$((port + 2)),SASL_SSL://$host:$((port + 3)),EXPIRED://$host:$((port + 4)),SASL_PLAINTEXT://$host:$((port + 5))
advertised.listeners=PLAINTEXT://$host:$port,SSL://localhost:$((port + 2)),SASL_SSL://localhost:$((port + 3)),EXPIRED://localhost:$((port + 4)),SASL_PLAINTEXT://localhost:$((port + 5))
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SSL:SSL,SASL_SSL:SASL_SSL,EXPIRED:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT
C
  fi
  cat > "$run/log4j2.properties" <<C
appender.o.type=Console
appender.o.name=o
appender.o.layout.type=PatternLayout
appender.o.layout.pattern=%d %p %c{1} %m%n
rootLogger=warn,o
logger.k.name=kafka.server.KafkaRaftServer
logger.k.level=info
C
}

# In a shell of its own, because jvm replaces it.
format() (
  set -- kafka.tools.StorageTool format -t "${KAFKA_CLUSTER:-AAAAAAAAAAAAAAAAAAAAAQ}" -c "$run/server.properties"
  if [ -n "$secure" ]; then while read -r user; do set -- "$@" --add-scram "$user"; done < "$secure/scram"; fi
  jvm "$@"
)

start() {
  at "$1"; alive && return
  connect
  configure
  share=-Xshare:auto
  [ -f "$run/data/meta.properties" ] || format > "$log" 2>&1 || fail "cannot format $run/data: $(tail -5 "$log")"
  # A node that ends in order leaves an archive of its classes, which makes later starts quicker.
  if [ -f "$cds" ]; then share=-XX:SharedArchiveFile=$cds; else share=-XX:ArchiveClassesAtExit=$run/classes.jsa; fi
  : > "$log" # emptied here, not by the redirection below, which may come after await has read the old one
  jvm kafka.Kafka "$run/server.properties" >> "$log" 2>&1 < /dev/null &
  echo $! > "$pid"
}

await() {
  at "$1"; n=0
  until grep -q 'Kafka Server started' "$log"; do
    kill -0 "$(cat "$pid")" 2> /dev/null || { tail -20 "$log" >&2; fail "node $node ended while it started: $log"; }
    n=$((n + 1)); [ $n -lt 2400 ] || fail "node $node is not up after 2 minutes: $log"
    sleep 0.05
  done
  echo "$host:$port pid $(cat "$pid")"
}

stop() {
  at "$1"
  if alive; then
    kill "$2" "$(cat "$pid")"
    while alive; do sleep 0.05; done
  fi
  rm -f "$pid"
  if [ "$2" = -TERM ] && [ -f "$run/classes.jsa" ]; then mv -f "$run/classes.jsa" "$cds"; fi
}

# Other nodes see a hanging node like a cut network: connections stay, and no packet comes.
signal() { at "$1"; kill "$2" "$(cat "$pid")"; }

# Like a wire that is down: connections stay, and no packet comes. Between two nodes, each drops the
# other's packets.
cut() {
  at "$1"
  if [ -z "${2:-}" ]; then ip link set "$wire" down; return; fi
  ip -n "$ns" route add blackhole "$(host "$2")/32"
  ip -n "rk$base-$2" route add blackhole "$host/32"
}

heal() {
  at "$1"
  if [ -z "${2:-}" ]; then ip link set "$wire" up; return; fi
  ip -n "$ns" route del blackhole "$(host "$2")/32"
  ip -n "rk$base-$2" route del blackhole "$host/32"
}

status() { at "$1"; if alive; then echo "$host:$port pid $(cat "$pid")"; else echo "$host:$port down"; fi; }
wipe() { stop "$1" -KILL; disconnect; rm -rf "$run"; }

all=${2:-$(seq 1 "$nodes")}
case ${1:-} in
  start) install; for i in $all; do start "$i"; done; for i in $all; do await "$i"; done ;;
  stop) for i in $all; do stop "$i" -TERM; done ;;
  kill) for i in $all; do stop "$i" -KILL; done ;;
  hang) for i in $all; do signal "$i" -STOP; done ;;
  wake) for i in $all; do signal "$i" -CONT; done ;;
  cut) cut "$2" "${3:-}" ;;
  heal) heal "$2" "${3:-}" ;;
  status) for i in $all; do status "$i"; done ;;
  wipe) for i in $all; do wipe "$i"; done ;;
  tether)
    trap '' HUP INT TERM
    cat > /dev/null
    # The first test ever ends its node in order, for the archive of classes.
    [ -f "$cds" ] || stop 1 -TERM
    for i in $all; do wipe "$i"; done
    ;;
  -h | --help) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" >&2; exit 2 ;;
esac
