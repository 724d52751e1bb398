//! A real Kafka for tests, with one or three nodes, started by `tests/kafka/kafka.sh`.
//!
//! For tests only (feature `testing`). It mocks nothing. Its brokers and their data disappear with
//! the process that started them, even if that process is killed.

use crate::port::{AppendError, Entry, Log};
use bytes::Bytes;
use futures_executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, NewPartitions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::io::Write as _;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// An environment variable. `off` skips the tests that need Kafka; otherwise they fail without it.
pub const SWITCH: &str = "RECEIPTS_TEST_KAFKA";

/// Ports of one cluster: ten per node, and some spare ones.
const BLOCK_PORTS: u16 = 40;
/// Ports that a node may listen at, from its first one on.
const PORTS_OF_NODE: u16 = 6;
/// The first port of all blocks. All blocks are below the ports of outgoing connections.
const FIRST_PORT: u16 = 20_000;
const BLOCKS: u16 = 300;
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// Why the broker did not start.
#[derive(Debug, thiserror::Error)]
#[error(
    "Kafka did not start ({0}): install Java 17 and Maven (Debian: openjdk-17-jre-headless, maven), or set RECEIPTS_TEST_KAFKA=off to skip these tests"
)]
pub struct BrokerError(String);

/// An open transaction of a producer outside the project. Dropping it leaves the transaction open
/// until the broker's timeout.
pub struct Transaction(BaseProducer);

impl Transaction {
    /// Begins a transaction and writes records of key and value; the keys decide their partitions.
    /// Returns once the broker has all of them.
    ///
    /// # Panics
    /// If the broker does not take them.
    #[must_use]
    pub fn begin(bootstrap: &str, topic: &str, records: &[(&[u8], &[u8])]) -> Self {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("transactional.id", unique("transaction"))
            .set("partitioner", "murmur2_random")
            .create()
            .expect("a producer");
        producer.init_transactions(TRANSACTION_TIMEOUT).expect("a transactional producer");
        producer.begin_transaction().expect("a transaction");
        for (key, value) in records {
            producer.send(BaseRecord::to(topic).key(*key).payload(*value)).map_err(|(error, _)| error).expect("queued");
        }
        producer.flush(TRANSACTION_TIMEOUT).expect("written");
        Self(producer)
    }

    /// Commits.
    ///
    /// # Panics
    /// If the broker refuses it.
    pub fn commit(self) {
        self.0.commit_transaction(TRANSACTION_TIMEOUT).expect("committed");
    }

    /// Aborts.
    ///
    /// # Panics
    /// If the broker refuses it.
    pub fn abort(self) {
        self.0.abort_transaction(TRANSACTION_TIMEOUT).expect("aborted");
    }
}

/// A running cluster. Dropping it kills the nodes and removes their data.
#[derive(Debug)]
pub struct Broker {
    port: u16,
    nodes: u16,
    /// Each node has its own network namespace.
    on_a_net: bool,
    /// The folder with certificates and settings of listeners with TLS.
    secure: Option<PathBuf>,
    /// A child whose standard input closes when this process ends; it then removes the cluster.
    tether: Option<Child>,
}

impl Broker {
    /// Starts a cluster of `nodes` nodes (1 or 3) on free ports, or on the ports from `KAFKA_PORT`
    /// if that is set. The first start in a checkout downloads the jars.
    ///
    /// # Errors
    /// If Java or Maven is missing, or a node does not start. The sentence says what to do.
    pub fn start(nodes: u16) -> Result<Broker, BrokerError> {
        Broker { port: claim_ports(nodes)?, nodes, on_a_net: false, secure: None, tether: None }.started()
    }

    /// As [`Broker::start`], but each node has its own network, which tests can cut. Needs Linux
    /// and root.
    ///
    /// # Errors
    /// As [`Broker::start`], and if the networks cannot be created.
    pub fn start_on_a_net(nodes: u16) -> Result<Broker, BrokerError> {
        Broker { port: claim_ports(nodes)?, nodes, on_a_net: true, secure: None, tether: None }.started()
    }

    /// As [`Broker::start`] with one node, which also listens with TLS:
    /// `tests/kafka/broker/kafka.sh` says what the folder must hold.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub fn start_secured(folder: &Path) -> Result<Broker, BrokerError> {
        let secure = Some(folder.to_owned());
        Broker { port: claim_ports(1)?, nodes: 1, on_a_net: false, secure, tether: None }.started()
    }

    /// Returns the port of a secured node that is `offset` above its first one.
    pub fn port(&self, offset: u16) -> u16 {
        self.port + offset
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

    /// Returns the broker that all tests of a binary share; the first call starts it. Returns
    /// `None` if `RECEIPTS_TEST_KAFKA=off`, and says so on standard error.
    ///
    /// # Panics
    /// If it does not start: a test that needs Kafka must fail, not pass unseen.
    pub fn shared() -> Option<&'static Broker> {
        static SHARED: OnceLock<Result<Broker, BrokerError>> = OnceLock::new();
        // A failure is kept too, because another attempt would fail in the same way.
        enabled().then(|| match SHARED.get_or_init(|| Broker::start(1)) {
            Ok(broker) => broker,
            Err(error) => panic!("{error}"),
        })
    }

    /// Returns the broker addresses for `--kafka-bootstrap`.
    pub fn bootstrap(&self) -> String {
        let host = |node: u16| match self.on_a_net {
            true => format!("10.{}.{}.{}", self.port / 256, self.port % 256, node + 1),
            false => "127.0.0.1".to_owned(),
        };
        let nodes: Vec<String> =
            (0..self.nodes).map(|node| format!("{}:{}", host(node), self.port + 10 * node)).collect();
        nodes.join(",")
    }

    /// Kills a node (counted from 1) as a power cut does.
    ///
    /// # Errors
    /// If the script fails.
    pub fn kill(&self, node: u16) -> Result<(), BrokerError> {
        self.run(&["kill", &node.to_string()])
    }

    /// Starts a killed node (counted from 1) with its data, and returns when it is up.
    ///
    /// # Errors
    /// If it does not start.
    pub fn restart(&self, node: u16) -> Result<(), BrokerError> {
        self.run(&["start", &node.to_string()])
    }

    /// Suspends a node (counted from 1): to other nodes its network seems cut.
    ///
    /// # Errors
    /// If the script fails.
    pub fn hang(&self, node: u16) -> Result<(), BrokerError> {
        self.run(&["hang", &node.to_string()])
    }

    /// Resumes a suspended node.
    ///
    /// # Errors
    /// If the script fails.
    pub fn wake(&self, node: u16) -> Result<(), BrokerError> {
        self.run(&["wake", &node.to_string()])
    }

    /// Cuts a node (counted from 1) off from everything, or from one other node.
    ///
    /// # Errors
    /// If the script fails, or the nodes have no networks of their own.
    pub fn cut(&self, node: u16, other: Option<u16>) -> Result<(), BrokerError> {
        self.on_the_net("cut", node, other)
    }

    /// Undoes [`Broker::cut`].
    ///
    /// # Errors
    /// As [`Broker::cut`].
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
        command.env("KAFKA_SECURE", self.secure.as_deref().unwrap_or(Path::new("")));
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
            let _already_exited = tether.wait();
        }
    }
}

/// Writes `events` events to the event topic, each to the partition of its key. `fill` writes the
/// key and the value of an event into the two buffers and returns its timestamp, Unix milliseconds.
///
/// # Errors
/// If an event is not acknowledged within `at_most`.
pub fn write_events(
    log: &dyn Log,
    events: usize,
    at_most: Duration,
    mut fill: impl FnMut(usize, &mut Vec<u8>, &mut Vec<u8>) -> u64,
) -> Result<(), AppendError> {
    let writer = log.writer();
    let (mut key, mut value) = (Vec::new(), Vec::new());
    for i in 0..events {
        let timestamp_ms = Some(fill(i, &mut key, &mut value));
        let (key, value) = (Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value));
        drop(writer.append(Entry { timestamp_ms, ..Entry::event(key, value, None) }));
    }
    writer.flush(at_most)
}

/// Removes the records of a partition below an offset, as retention does over time.
///
/// # Panics
/// If the broker refuses.
pub fn trim(bootstrap: &str, topic: &str, partition: u32, before: u64) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a client");
    let mut offsets = TopicPartitionList::new();
    let offset = Offset::Offset(i64::try_from(before).expect("an offset"));
    offsets.add_partition_offset(topic, partition as i32, offset).expect("an offset");
    let trimmed = block_on(admin.delete_records(&offsets, &AdminOptions::new())).expect("the broker answers");
    trimmed.elements()[0].error().expect("trimmed");
}

/// Gives a topic more partitions, as an operator does with `kafka-topics.sh --alter`.
///
/// # Panics
/// If the broker refuses.
pub fn grow(bootstrap: &str, topic: &str, partitions: usize) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a client");
    let new = NewPartitions::new(topic, partitions);
    let grown = block_on(admin.create_partitions([&new], &AdminOptions::new())).expect("the broker answers");
    grown.into_iter().for_each(|grown| _ = grown.expect("grown"));
}

/// Deletes a topic, as an operator does with `kafka-topics.sh --delete`.
///
/// # Panics
/// If the broker refuses.
pub fn delete_topic(bootstrap: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a client");
    let deleted = block_on(admin.delete_topics(&[topic], &AdminOptions::new())).expect("the broker answers");
    deleted.into_iter().for_each(|deleted| _ = deleted.expect("deleted"));
}

/// Replaces the configuration of a topic.
///
/// # Panics
/// If the broker refuses.
pub fn set_config(bootstrap: &str, topic: &str, properties: &[(&str, &str)]) {
    alter(bootstrap, ResourceSpecifier::Topic(topic), properties);
}

/// Replaces the configuration of a consumer group.
///
/// # Panics
/// If the broker refuses.
pub fn set_group_config(bootstrap: &str, group: &str, properties: &[(&str, &str)]) {
    alter(bootstrap, ResourceSpecifier::Group(group), properties);
}

fn alter(bootstrap: &str, resource: ResourceSpecifier<'_>, properties: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", bootstrap).create().expect("a client");
    let config = AlterConfig::new(resource);
    let config = properties.iter().fold(config, |config, (name, value)| config.set(name, value));
    let altered = block_on(admin.alter_configs([&config], &AdminOptions::new())).expect("the broker answers");
    altered.into_iter().for_each(|altered| _ = altered.expect("altered"));
}

/// Returns whether tests with Kafka run; if not, says so on standard error.
pub fn enabled() -> bool {
    let off = std::env::var(SWITCH).is_ok_and(|value| value == "off");
    if off {
        left_out(&format!("{SWITCH}=off"));
    }
    !off
}

/// Says on standard error that the calling test leaves itself out. The test harness does not
/// capture the line, so that `tests/run` can count it.
pub fn left_out(why: &str) {
    let thread = std::thread::current();
    let line = format!("\nleft out: {}: {why}\n", thread.name().unwrap_or("a test"));
    let _a_closed_stderr_is_no_failure = std::io::stderr().write_all(line.as_bytes());
}

/// Returns a name for a topic or group that no other test uses, in this run or an earlier one.
pub fn unique(name: &str) -> String {
    static COUNT: AtomicU16 = AtomicU16::new(0);
    format!("{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn script_path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/kafka/broker/kafka.sh")
}

/// Returns the folder of jars, data and logs.
fn kafka_dir() -> PathBuf {
    std::env::var_os("KAFKA_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.kafka"), PathBuf::from)
}

/// Finds free ports and creates the folder of the first one, which reserves them among test
/// processes.
fn claim_ports(nodes: u16) -> Result<u16, BrokerError> {
    static STARTED: AtomicU16 = AtomicU16::new(0);
    let started = STARTED.fetch_add(1, Ordering::Relaxed);
    let dir = kafka_dir();
    std::fs::create_dir_all(&dir).map_err(|error| BrokerError(format!("{}: {error}", dir.display())))?;
    if let Ok(port) = std::env::var("KAFKA_PORT") {
        let port: u16 = port.parse().map_err(|_| BrokerError(format!("KAFKA_PORT is not a port: {port}")))?;
        return Ok(port + started * BLOCK_PORTS);
    }
    let begin = (std::process::id() % u32::from(BLOCKS)) as u16;
    for step in 0..BLOCKS {
        let port = FIRST_PORT + (begin + step) % BLOCKS * BLOCK_PORTS;
        let free = (0..nodes)
            .flat_map(|node| (0..PORTS_OF_NODE).map(move |at| port + 10 * node + at))
            .all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok());
        if free && std::fs::create_dir(dir.join(port.to_string())).is_ok() {
            return Ok(port);
        }
    }
    Err(BrokerError(format!("no ports are free from {FIRST_PORT} on: remove old folders in {}", dir.display())))
}
