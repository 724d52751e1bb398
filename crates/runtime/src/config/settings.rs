//! Every setting there is: key, meaning, default and allowed values, one call each. Holds no logic but the rules
//! between settings.

mod callers;
mod snapshot;

pub use callers::{Access, AccessRules, Algorithm, Askers, Auth};
pub use snapshot::Snapshot;

use super::reader::{Reader, Rule};
use crate::telemetry;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

const DAY_MS: u64 = 24 * 3_600_000;
const MIB: u64 = 1 << 20;

/// The configuration of every binary; each reads its parts.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the store and the embedded log keep their files; made on the first start.
    pub data_dir: PathBuf,
    /// How long a stopping process waits for what is under way, in milliseconds.
    pub drain_ms: u64,
    /// The public HTTP edge.
    pub http: Http,
    /// Who callers are.
    pub auth: Auth,
    /// Who may ask for what.
    pub access: Access,
    /// The event log, whichever holds it.
    pub log: Log,
    /// Apache Kafka.
    pub kafka: Kafka,
    /// The projector.
    pub projector: Projector,
    /// States kept elsewhere.
    pub snapshot: Snapshot,
    /// The query edge.
    pub query: Query,
    /// Logs.
    pub telemetry: Telemetry,
}

/// The public HTTP edge.
#[derive(Debug, Clone)]
pub struct Http {
    /// Where it listens; a loopback address unless `insecure_listen`.
    pub listen: SocketAddr,
    /// Listens at any address though callers are not authenticated.
    pub insecure_listen: bool,
    /// The largest request body; more is a 413.
    pub body_bytes_max: usize,
    /// How long a request may take, but a stream of updates.
    pub timeout_ms: u64,
    /// How long the head of a request may take, and how long a connection is kept without one.
    pub head_timeout_ms: u64,
    /// How many requests a second one caller may make; more is a 429.
    pub rate_per_s: Option<u32>,
    /// How many all callers of a tenant may make together; more is a 429.
    pub tenant_rate_per_s: Option<u32>,
    /// How long a read waits for its `Receipts-Min-Position` where the caller does not say.
    pub wait_ms_default: u64,
    /// How far behind its partitions' ends a ready service may be.
    pub ready_lag_ms: u64,
    /// How many streams of updates may be open at once; more is a 503.
    pub streams_max: usize,
    /// How often a stream of updates that has nothing to say gives a sign of life.
    pub heartbeat_ms: u64,
}

/// The event log.
#[derive(Debug, Clone)]
pub struct Log {
    /// How many partitions a topic gets when it is created; never changed in place.
    pub partitions: u32,
    /// The topic of events.
    pub events_topic: String,
    /// The topic of receipt updates.
    pub updates_topic: String,
    /// The topic of dead letters.
    pub dead_letters_topic: String,
}

/// Apache Kafka.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// The first brokers to ask; absent: the embedded log.
    pub bootstrap: Option<String>,
    /// The replication factor of topics when they are created; absent: the broker's default.
    pub replication: Option<u16>,
    /// Anything else for the client, as librdkafka names it.
    pub properties: KafkaProperties,
}

/// Properties of the Kafka client by librdkafka's names. Debug output names them but shows no value: there are passwords
/// among them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaProperties(pub BTreeMap<String, String>);

impl fmt::Debug for KafkaProperties {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The projector.
#[derive(Debug, Clone)]
pub struct Projector {
    /// Where a projector of its own answers the query edges.
    pub listen: SocketAddr,
    /// Listens at any address: its callers are not authenticated, only a private network may reach it.
    pub insecure_listen: bool,
    /// The `HOST:PORT` under which edges reach it; absent: where it listens.
    pub advertise: Option<String>,
    /// Its consumer group; another group is a standby or a second view.
    pub group: String,
    /// Folds beside a group, answers where that does not, and publishes nothing.
    pub standby: bool,
    /// After how many events a checkpoint is written.
    pub checkpoint_events: u64,
    /// After what time at most a checkpoint is written; partitions have times of their own, up to a quarter less, in milliseconds.
    pub checkpoint_interval_ms: u64,
    /// How many threads fold, each its own partitions.
    pub fold_threads: u32,
    /// How much memory hot pages may take, in bytes.
    pub memory_bytes: u64,
    /// If receipt updates are published.
    pub updates: bool,
    /// Within what time updates of one message may be merged.
    pub update_window_ms: u64,
    /// How much older than its partition's newest record a message may grow.
    pub retention_ms: u64,
    /// How many items may be parked in a partition for messages that have not come yet.
    pub parked_count: u64,
    /// How long they stay parked, in record time.
    pub parked_age_ms: u64,
    /// If read times per reader are kept; without them lists carry none.
    pub read_times: bool,
}

/// The query edge.
#[derive(Debug, Clone)]
pub struct Query {
    /// The projectors to ask, each `HOST:PORT`; a name may stand for many addresses.
    pub projectors: Vec<String>,
    /// How often they are asked what partitions they own.
    pub poll_ms: u64,
    /// A file with the secret that projectors and query edges share.
    pub secret_file: Option<PathBuf>,
}

/// Logs.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Levels by module.
    pub log_filter: String,
    /// For people or for machines.
    pub log_format: LogFormat,
}

/// The format of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

const HOST_PORT: Rule = Rule { allowed: "HOST:PORT", holds: is_host_port };
const HOST_PORTS: Rule =
    Rule { allowed: "HOST:PORT, several separated by commas", holds: |text| text.split(',').all(is_host_port) };
const TOPIC: Rule = Rule { allowed: "1 to 249 letters, digits, dots, dashes and underscores", holds: is_topic };
const NOT_EMPTY: Rule = Rule { allowed: "any text but an empty one", holds: |text| !text.trim().is_empty() };
const FILTER: Rule = Rule {
    allowed: "levels (error, warn, info, debug, trace, off), also by module: info,receipts_log=debug",
    holds: |text| telemetry::parse_filter(text).is_ok(),
};

fn is_host_port(text: &str) -> bool {
    text.trim().rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn is_topic(text: &str) -> bool {
    (1..=249).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && text != "."
        && text != ".."
}

impl Settings {
    /// Reads all keys, in the order in which `docs/configuration.md` lists them.
    pub(super) fn read(from: &mut Reader) -> Self {
        let help = "Where the store and the embedded log keep their files; made on the first start";
        let data_dir = from.text("data_dir", help, "receipts-data", &NOT_EMPTY).into();
        let help = "How long a stopping process waits for what is under way";
        let drain_ms = from.integer("drain_ms", help, 10_000, 0..=600_000);
        let settings = Self {
            data_dir,
            drain_ms,
            http: Http::read(from),
            auth: Auth::read(from),
            access: Access::read(from),
            log: Log::read(from),
            kafka: Kafka::read(from),
            projector: Projector::read(from),
            snapshot: Snapshot::read(from),
            query: Query::read(from),
            telemetry: Telemetry::read(from),
        };
        settings.check(from);
        settings
    }

    /// The rules between settings.
    fn check(&self, from: &mut Reader) {
        let (http, projector) = (&self.http, &self.projector);
        let tokens =
            " with tokens for callers (auth.jwks_file, auth.jwks_url or auth.secret_file; --auth-jwks-file), or";
        let exposed = [
            (
                "http.listen",
                "http.insecure_listen",
                http.listen,
                http.insecure_listen || self.auth.is_configured(),
                tokens,
            ),
            (
                "projector.listen",
                "projector.insecure_listen",
                projector.listen,
                projector.insecure_listen || self.query.secret_file.is_some(),
                " with a secret that the edges know (query.secret_file), or",
            ),
        ];
        for (key, permission, address, permitted, otherwise) in exposed {
            if !address.ip().is_loopback() && !permitted {
                from.contradiction(
                    key,
                    format!(
                        "{address} is no loopback address, and callers are not authenticated; allowed: 127.0.0.1:PORT, \
                         [::1]:PORT, or any address{otherwise} with {permission} = true where a private network or a proxy \
                         keeps strangers out"
                    ),
                );
            }
        }
        self.auth.check(from);
        let Log { events_topic, updates_topic, dead_letters_topic, .. } = &self.log;
        for (key, topic, others) in [
            ("log.updates_topic", updates_topic, [events_topic].as_slice()),
            ("log.dead_letters_topic", dead_letters_topic, &[events_topic, updates_topic]),
        ] {
            if others.contains(&topic) {
                from.contradiction(
                    key,
                    format!("{topic:?} is another topic's name already; allowed: three different names"),
                );
            }
        }
    }

    /// Says what is allowed but dangerous; a service logs each of these as a warning.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let http_open = self.http.insecure_listen && !self.auth.is_configured();
        let exposed = [
            ("http", self.http.listen, http_open),
            ("projector", self.projector.listen, self.projector.insecure_listen),
        ];
        let exposed = exposed.into_iter().filter(|(_, address, permitted)| *permitted && !address.ip().is_loopback());
        let open = exposed.map(|(what, address, _)| {
            format!("{what}.insecure_listen: whoever reaches {address} may ask and write anything for any tenant")
        });
        open.chain(self.auth.warning()).collect()
    }
}

impl Http {
    fn read(from: &mut Reader) -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        let insecure = "Listens at any address though callers are not authenticated: for containers behind a proxy";
        let wait = "How long a read waits for its Receipts-Min-Position where the caller does not say";
        let head = "How long the head of a request may take to arrive, and how long a connection is kept without one";
        let rate = "How many requests a second one caller may make, a person or a service; to open a stream is one";
        Self {
            listen: from.address("http.listen", "Where the public HTTP edge listens", listen),
            insecure_listen: from.boolean("http.insecure_listen", insecure, false),
            body_bytes_max: from.integer("http.body_bytes_max", "The largest request body", MIB, 1..=64 * MIB),
            timeout_ms: from.integer("http.timeout_ms", "How long a request may take", 30_000, 1..=600_000),
            head_timeout_ms: from.integer("http.head_timeout_ms", head, 30_000, 1..=600_000),
            rate_per_s: from.optional_integer("http.rate_per_s", rate, 1..=1_000_000),
            tenant_rate_per_s: from.optional_integer(
                "http.tenant_rate_per_s",
                "How many requests a second all callers of a tenant may make together",
                1..=1_000_000,
            ),
            wait_ms_default: from.integer("http.wait_ms_default", wait, 1_000, 0..=30_000),
            ready_lag_ms: from.integer(
                "http.ready_lag_ms",
                "How far behind its partitions' ends a ready service may be",
                10_000,
                0..=DAY_MS,
            ),
            streams_max: from.integer(
                "http.streams_max",
                "How many streams of updates may be open at once",
                10_000,
                0..=1_000_000,
            ),
            heartbeat_ms: from.integer(
                "http.heartbeat_ms",
                "How often a stream of updates that has nothing to say gives a sign of life",
                15_000,
                10..=600_000,
            ),
        }
    }
}

impl Log {
    fn read(from: &mut Reader) -> Self {
        let partitions = "How many partitions a topic gets when it is created; never changed in place";
        Self {
            partitions: from.integer("log.partitions", partitions, 4, 1..=10_000),
            events_topic: from.text("log.events_topic", "The topic of events", "receipts.events", &TOPIC),
            updates_topic: from.text("log.updates_topic", "The topic of receipt updates", "receipts.updates", &TOPIC),
            dead_letters_topic: from.text(
                "log.dead_letters_topic",
                "The topic of dead letters",
                "receipts.dead-letters",
                &TOPIC,
            ),
        }
    }
}

impl Kafka {
    fn read(from: &mut Reader) -> Self {
        let bootstrap = "The first Kafka brokers to ask; without it the log is the embedded one, in the data directory";
        let replication = "The replication factor of topics when they are created; the broker's default without it";
        let properties = "Anything else for the Kafka client, by librdkafka's names (`security.protocol = \"SSL\"`)";
        Self {
            bootstrap: from.optional_text("kafka.bootstrap", bootstrap, &HOST_PORTS),
            replication: from.optional_integer("kafka.replication", replication, 1..=32_767),
            properties: KafkaProperties(from.properties(properties)),
        }
    }
}

impl Projector {
    fn read(from: &mut Reader) -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8081));
        let insecure = "Listens at any address though callers are not authenticated: for private networks only";
        let group = "The consumer group; projectors of one group share the partitions";
        let standby = "Stands by: folds as a group of its own, GROUP-standby, answers where the first group does not, and publishes nothing";
        let threads = "How many threads fold; a partition is folded by one of them";
        let memory = "How much memory hot pages may take";
        let window = "Within what time updates of one message may be merged; the more must read it the longer: times \
                      1 + 4·√(audience / 100,000), at most 5; while the partition is behind a fifth of how far, at most 50 times this";
        let retention = "How much older than its partition's newest record a message may grow before it is not_found";
        let count = "How many items a partition parks for messages that have not come yet";
        let times = "Keeps the read time of every reader; without it lists carry none";
        Self {
            listen: from.address("projector.listen", "Where a projector answers the query edges", listen),
            insecure_listen: from.boolean("projector.insecure_listen", insecure, false),
            advertise: from.optional_text(
                "projector.advertise",
                "Under what address the edges reach a projector; where it listens without it",
                &HOST_PORT,
            ),
            group: from.text("projector.group", group, "receipts-projector", &NOT_EMPTY),
            standby: from.boolean("projector.standby", standby, false),
            checkpoint_events: from.integer(
                "projector.checkpoint_events",
                "After how many events a checkpoint is written",
                2_000_000,
                1..=100_000_000,
            ),
            checkpoint_interval_ms: from.integer(
                "projector.checkpoint_interval_ms",
                "After what time at most a checkpoint is written; partitions have times of their own, up to a quarter less",
                30_000,
                10..=DAY_MS,
            ),
            fold_threads: from.integer("projector.fold_threads", threads, 2, 1..=64),
            memory_bytes: from.integer("projector.memory_bytes", memory, 512 * MIB, 8 * MIB..=1 << 40),
            updates: from.boolean("projector.updates", "Publishes receipt updates", true),
            update_window_ms: from.integer("projector.update_window_ms", window, 200, 0..=60_000),
            retention_ms: from.integer("projector.retention_ms", retention, 30 * DAY_MS, 1..=36_500 * DAY_MS),
            parked_count: from.integer("projector.parked_count", count, 10_000, 0..=10_000_000),
            parked_age_ms: from.integer(
                "projector.parked_age_ms",
                "How long they stay parked, in record time",
                3_600_000,
                0..=365 * DAY_MS,
            ),
            read_times: from.boolean("projector.read_times", times, true),
        }
    }
}

impl Query {
    fn read(from: &mut Reader) -> Self {
        let secret = "A file with the secret that projectors and query edges share, at least 32 bytes: projectors then answer nobody else, \
                      and all edges sign the same cursors";
        let projectors = "The projectors a query edge asks; a name may stand for many addresses";
        Self {
            projectors: from.list("query.projectors", projectors, &HOST_PORT),
            poll_ms: from.integer(
                "query.poll_ms",
                "How often they are asked what partitions they own",
                500,
                10..=60_000,
            ),
            secret_file: from.optional_text("query.secret_file", secret, &NOT_EMPTY).map(PathBuf::from),
        }
    }
}

impl Telemetry {
    fn read(from: &mut Reader) -> Self {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        Self {
            log_filter: from.text("telemetry.log_filter", "What is logged", "info", &FILTER),
            log_format: from.choice("telemetry.log_format", "Logs for people or for machines", &formats),
        }
    }
}
