//! A real Kafka for tests, of one node or three, started by the project's own `tests/kafka/broker/kafka.sh`.
//!
//! It is for tests only (feature `testing`), replaces nothing by a mock, and leaves nothing behind: its brokers and
//! their data go with the process that started them, however that process ends.

use crate::port::{AppendError, Entry, Log};
use bytes::Bytes;
use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// Set to `off`, tests that need Kafka are left out; otherwise they fail where it cannot be started.
pub const SWITCH: &str = "RECEIPTS_TEST_KAFKA";

/// Ports of one cluster: ten a node and some to spare.
const BLOCK_PORTS: u16 = 40;
/// Where blocks begin; all of them lie below the ports that systems give to outgoing connections.
const FIRST_PORT: u16 = 20_000;
const BLOCKS: u16 = 300;

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
#[error(
    "Kafka cannot be started: {0}. Tests with Kafka need Java 17 and Maven (Debian: openjdk-17-jre-headless, maven); RECEIPTS_TEST_KAFKA=off leaves them out"
)]
pub struct BrokerError(String);

/// A running cluster. Dropping it kills the nodes and removes their data.
#[derive(Debug)]
pub struct Broker {
    port: u16,
    nodes: u16,
    /// Each node has a network of its own.
    on_a_net: bool,
    /// Its standard input ends with this process, and it wipes then.
    tether: Option<Child>,
}

impl Broker {
    /// Starts a cluster of `nodes` nodes (1 or 3) on free ports of its own, or from `KAFKA_PORT` on where that is set.
    /// The first start of a checkout gets the jars.
    ///
    /// # Errors
    /// Where Java or Maven is missing, or a node does not come up; the sentence says what to do.
    pub fn start(nodes: u16) -> Result<Broker, BrokerError> {
        Broker { port: claim_ports(nodes)?, nodes, on_a_net: false, tether: None }.started()
    }

    /// As [`Broker::start`], each node in a network of its own that can be cut. Needs Linux and root.
    ///
    /// # Errors
    /// As there, and where the networks cannot be made.
    pub fn start_on_a_net(nodes: u16) -> Result<Broker, BrokerError> {
        Broker { port: claim_ports(nodes)?, nodes, on_a_net: true, tether: None }.started()
    }

    fn started(self) -> Result<Broker, BrokerError> {
        let mut broker = self;
        let tether = broker
            .script(&["tether"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| BrokerError(format!("sh: {error}")))?;
        broker.tether = Some(tether);
        broker.run(&["start"])?;
        Ok(broker)
    }

    /// The one broker that the tests of a binary share, started by the first that asks. `None` where
    /// `RECEIPTS_TEST_KAFKA=off`; then it says so on standard error.
    ///
    /// # Panics
    /// Where it cannot be started: a test that needs Kafka fails rather than passing unseen.
    pub fn shared() -> Option<&'static Broker> {
        static SHARED: OnceLock<Result<Broker, BrokerError>> = OnceLock::new();
        // A failure is kept too: the next test would only wait for the same.
        enabled().then(|| match SHARED.get_or_init(|| Broker::start(1)) {
            Ok(broker) => broker,
            Err(error) => panic!("{error}"),
        })
    }

    /// The brokers, for `--kafka-bootstrap`.
    pub fn bootstrap(&self) -> String {
        let host = |node: u16| match self.on_a_net {
            true => format!("10.{}.{}.{}", self.port / 256, self.port % 256, node + 1),
            false => "127.0.0.1".to_owned(),
        };
        let nodes: Vec<String> =
            (0..self.nodes).map(|node| format!("{}:{}", host(node), self.port + 10 * node)).collect();
        nodes.join(",")
    }

    /// Ends a node (counted from 1) as a power cut does.
    ///
    /// # Errors
    /// Where the script fails.
    pub fn kill(&self, node: u16) -> Result<(), BrokerError> {
        self.run(&["kill", &node.to_string()])
    }

    /// Starts a node (counted from 1) that was killed, with its data; returns when it is up.
    ///
    /// # Errors
    /// Where it does not come up.
    pub fn restart(&self, node: u16) -> Result<(), BrokerError> {
        self.run(&["start", &node.to_string()])
    }

    /// Lets a node (counted from 1) hang: to the others it is as if its network were cut.
    ///
    /// # Errors
    /// Where the script fails.
    pub fn hang(&self, node: u16) -> Result<(), BrokerError> {
        self.run(&["hang", &node.to_string()])
    }

    /// Lets a node go on that hangs.
    ///
    /// # Errors
    /// Where the script fails.
    pub fn wake(&self, node: u16) -> Result<(), BrokerError> {
        self.run(&["wake", &node.to_string()])
    }

    /// Lets no packet pass between a node (counted from 1) and anybody, or another node alone.
    ///
    /// # Errors
    /// Where the script fails, or the nodes have no network of their own.
    pub fn cut(&self, node: u16, other: Option<u16>) -> Result<(), BrokerError> {
        self.on_the_net("cut", node, other)
    }

    /// Undoes [`Broker::cut`].
    ///
    /// # Errors
    /// As there.
    pub fn heal(&self, node: u16, other: Option<u16>) -> Result<(), BrokerError> {
        self.on_the_net("heal", node, other)
    }

    fn on_the_net(&self, what: &str, node: u16, other: Option<u16>) -> Result<(), BrokerError> {
        let nodes: Vec<String> = [Some(node), other].into_iter().flatten().map(|node| node.to_string()).collect();
        self.run(&[&[what], &nodes.iter().map(String::as_str).collect::<Vec<_>>()[..]].concat())
    }

    fn script(&self, args: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.arg(script_path()).args(args);
        command.env("KAFKA_PORT", self.port.to_string()).env("KAFKA_NODES", self.nodes.to_string());
        command.env("KAFKA_DIR", kafka_dir());
        command.env("KAFKA_NET", if self.on_a_net { "cut" } else { "" });
        command
    }

    fn run(&self, args: &[&str]) -> Result<(), BrokerError> {
        let output = self.script(args).output().map_err(|error| BrokerError(format!("sh cannot be run: {error}")))?;
        if output.status.success() {
            return Ok(());
        }
        Err(BrokerError(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut tether) = self.tether.take() {
            drop(tether.stdin.take());
            let _already_gone = tether.wait();
        }
    }
}

/// Writes so many events into the event topic, each where its key belongs, as `spell` puts it into key and value, at the time
/// that it returns (Unix milliseconds).
///
/// # Errors
/// Where one is not acknowledged in time.
pub fn write_events(
    log: &dyn Log,
    events: usize,
    at_most: Duration,
    mut spell: impl FnMut(usize, &mut Vec<u8>, &mut Vec<u8>) -> u64,
) -> Result<(), AppendError> {
    let writer = log.writer();
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for i in 0..events {
        let timestamp_ms = Some(spell(i, &mut key, &mut value));
        let (key, value) = (Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
        drop(writer.append(Entry { timestamp_ms, ..Entry::event(key, value, None) }));
    }
    writer.flush(at_most)
}

/// Removes the records of a partition below an offset, as retention does in time.
///
/// # Panics
/// Where the broker refuses.
pub fn trim(bootstrap: &str, topic: &str, partition: u32, before: u64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a client");
    let mut offsets = TopicPartitionList::new();
    let offset = Offset::Offset(i64::try_from(before).expect("an offset"));
    offsets.add_partition_offset(topic, partition as i32, offset).expect("an offset");
    let trimmed = block_on(admin.delete_records(&offsets, &AdminOptions::new())).expect("the broker answers");
    trimmed.elements()[0].error().expect("trimmed");
}

/// Whether tests with Kafka run; says on standard error where they do not.
pub fn enabled() -> bool {
    let off = std::env::var(SWITCH).is_ok_and(|value| value == "off");
    if off {
        eprintln!("left out: {SWITCH}=off");
    }
    !off
}

/// A name that no other test, of this run or of an earlier one, uses: for topics and groups.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU16 = AtomicU16::new(0);
    format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn script_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/kafka/broker/kafka.sh")
}

/// Jars, data and logs.
fn kafka_dir() -> PathBuf {
    std::env::var_os("KAFKA_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.kafka"), PathBuf::from)
}

/// Finds free ports and makes the folder of the first one, which keeps other test processes off them.
fn claim_ports(nodes: u16) -> Result<u16, BrokerError> {
    static STARTED: AtomicU16 = AtomicU16::new(0);
    let started = STARTED.fetch_add(1, Ordering::Relaxed);
    let dir = kafka_dir();
    std::fs::create_dir_all(&dir).map_err(|error| BrokerError(format!("{}: {error}", dir.display())))?;
    if let Ok(port) = std::env::var("KAFKA_PORT") {
        let port: u16 = port.parse().map_err(|_| BrokerError(format!("KAFKA_PORT is no port: {port}")))?;
        return Ok(port + started * BLOCK_PORTS);
    }
    let begin = (std::process::id() % u32::from(BLOCKS)) as u16;
    for step in 0..BLOCKS {
        let port = FIRST_PORT + (begin + step) % BLOCKS * BLOCK_PORTS;
        let free = (0..nodes)
            .flat_map(|node| [port + 10 * node, port + 10 * node + 1])
            .all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
        if free && std::fs::create_dir(dir.join(port.to_string())).is_ok() {
            return Ok(port);
        }
    }
    Err(BrokerError(format!("no free ports from {FIRST_PORT} on; wipe {}", dir.display())))
}
