//! Defines every setting, in one call each: key, meaning, default and allowed values. Holds no
//! logic except the rules between settings.

mod callers;
mod http;
mod snapshot;

pub use callers::{Access, AccessRule, AccessRules, Algorithm, Auth, Scope};
pub use http::{Http, Shares, TlsFiles};
pub use snapshot::Snapshot;

use super::Origin;
use super::in_force::InForce;
use super::property_files;
use super::reader::{Reader, Rule};
use super::sources::{PROPERTIES, PROPERTY_FILES};
use crate::telemetry;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

const DAY_MS: u64 = 24 * 3_600_000;
const MIB: u64 = 1 << 20;

/// The configuration of every binary. Each binary reads the parts that it needs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The folder of the store and the embedded log; made on the first start.
    pub data_dir: PathBuf,
    /// Time for a stopping process to finish work that has begun, in milliseconds.
    pub drain_ms: u64,
    /// True if a secret file that others may read is an error.
    pub secret_files_strict: bool,
    /// The public HTTP edge.
    pub http: Http,
    /// Authentication of callers.
    pub auth: Auth,
    /// Rules of who may ask for receipts and lists.
    pub access: Access,
    /// The event log, embedded or in Kafka.
    pub log: Log,
    /// Apache Kafka.
    pub kafka: Kafka,
    /// The projector.
    pub projector: Projector,
    /// Snapshots of states.
    pub snapshot: Snapshot,
    /// The query edge.
    pub query: Query,
    /// Logs and traces.
    pub telemetry: Telemetry,
    /// Variables of the environment that were ignored because Kubernetes sets them for a Service.
    pub foreign_variables: Vec<String>,
    /// All settings with their values and origins, without secrets.
    pub in_force: Vec<InForce>,
}

/// The event log.
#[derive(Debug, Clone)]
pub struct Log {
    /// Partitions of a new topic or embedded log; an existing one never changes.
    pub partitions: u32,
    /// The topic of events.
    pub events_topic: String,
    /// The topic of receipt updates.
    pub updates_topic: String,
    /// The topic of dead letters.
    pub dead_letters_topic: String,
    /// Accepts an event topic that takes records dated more than an hour ahead.
    pub accept_unbounded_time: bool,
    /// Accepts an event topic whose first records lean on records that are not there.
    pub accept_missing_beginning: bool,
}

/// Apache Kafka.
#[derive(Debug, Clone)]
pub struct Kafka {
    /// The brokers to connect to first; if absent, the log is the embedded one.
    pub bootstrap: Option<String>,
    /// The replication factor of new topics; if absent, the number of brokers, at most 3.
    pub replication: Option<u16>,
    /// Further properties of the client, by librdkafka's names, those of the two kinds of files
    /// among them.
    pub properties: KafkaProperties,
    /// The file of properties, if there is one.
    pub properties_file: Option<PathBuf>,
    /// Files with the value of one property each, by its name.
    pub property_files: BTreeMap<String, PathBuf>,
}

/// Properties of the Kafka client by librdkafka's names. Debug output shows no value, because some
/// are passwords.
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
    /// The address at which a projector answers the query edges.
    pub listen: SocketAddr,
    /// Permits any address although callers are not authenticated; for private networks only.
    pub insecure_listen: bool,
    /// The `HOST:PORT` at which edges reach it; if absent, the address at which it listens.
    pub advertise: Option<String>,
    /// Its consumer group; projectors of one group share the partitions.
    pub group: String,
    /// Folds beside a group, answers where that group does not, and publishes nothing.
    pub standby: bool,
    /// Events between two checkpoints of a partition, at most.
    pub checkpoint_events: u64,
    /// Time between two checkpoints of a partition, at most, in milliseconds. Each partition has
    /// its own, up to a quarter shorter.
    pub checkpoint_interval_ms: u64,
    /// Threads that fold, each its own partitions.
    pub fold_threads: u32,
    /// Memory for cached pages, in bytes.
    pub memory_bytes: u64,
    /// True if receipt updates are published.
    pub updates: bool,
    /// The time within which updates of one message are merged, in milliseconds.
    pub update_window_ms: u64,
    /// How much older than its partition's newest record a message may become, in milliseconds.
    pub retention_ms: u64,
    /// Items that a partition parks for messages that have not arrived yet.
    pub parked_count: u64,
    /// Bytes of the items that a partition parks.
    pub parked_bytes: u64,
    /// How long items stay parked, in milliseconds of record time.
    pub parked_age_ms: u64,
    /// True if the read time of every reader is kept; otherwise lists carry none.
    pub read_times: bool,
    /// The wrapping that is taken off the values of events.
    pub unwrap: Unwrap,
    /// People whose erasure a partition remembers; three quarters of them for one tenant.
    pub erasures_max: u64,
    /// Group types that the policies of a partition may name; a tenth of them for one tenant.
    pub policy_types_max: u64,
    /// How long reads are answered while Kafka is not heard from, in milliseconds.
    pub stale_ms_max: u64,
}

/// The wrapping of the values of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unwrap {
    /// None: a value is the JSON of its event.
    None,
    /// The frame of a Confluent schema registry around JSON.
    Confluent,
}

/// The query edge.
#[derive(Debug, Clone)]
pub struct Query {
    /// The projectors to ask, each `HOST:PORT`; a name may have many addresses.
    pub projectors: Vec<String>,
    /// The interval at which they are asked for the partitions that they own, in milliseconds.
    pub poll_ms: u64,
    /// Messages of an id that a query without a conversation looks at in a partition; where there
    /// are more, the item is `ambiguous`.
    pub candidates_max: u32,
    /// The file with the secret that projectors and query edges share.
    pub secret_file: Option<PathBuf>,
}

/// Logs and traces.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Log levels by module.
    pub log_filter: String,
    /// The format of logs.
    pub log_format: LogFormat,
    /// The base address of the collector of traces; without it there are none.
    pub otlp_endpoint: Option<String>,
    /// The share of traces that is kept where no caller decided, from 0 to 1.
    pub trace_ratio: f64,
}

/// The format of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

const HOST_PORT: Rule = Rule { allowed: "HOST:PORT", holds: is_host_port, pattern: Some(r"^\s*\S+:\+?[0-9]+\s*$") };
const HOST_PORTS: Rule = Rule {
    allowed: "HOST:PORT, several separated by commas",
    holds: |text| text.split(',').all(is_host_port),
    pattern: Some(r"^\s*\S+:\+?[0-9]+\s*(,\s*\S+:\+?[0-9]+\s*)*$"),
};
const HOST: Rule = Rule {
    allowed: "a host without a port, or *",
    holds: |text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:[],".contains(&byte)),
    pattern: Some(r"^[^/:\[\],\s]+$"),
};
const ORIGIN: Rule = Rule {
    allowed: "https://HOST, http://HOST, the same with :PORT, or *",
    holds: is_origin,
    pattern: Some(r"^(\*|https?://[^/?#@\s]+)$"),
};
const TOPIC: Rule = Rule {
    allowed: "1 to 249 letters, digits, dots, dashes and underscores",
    holds: is_topic,
    pattern: Some("^[A-Za-z0-9._-]{1,249}$"),
};
const NOT_EMPTY: Rule =
    Rule { allowed: "any text but an empty one", holds: |text| !text.trim().is_empty(), pattern: Some(r"\S") };
const OTLP_URL: Rule = Rule {
    allowed: "http://HOST:PORT or https://HOST:PORT, also with a path",
    holds: is_base_url,
    pattern: Some("^https?://[^?#@]+$"),
};
const FILTER: Rule = Rule {
    allowed: "levels (error, warn, info, debug, trace, off), also by module: info,receipts_log=debug",
    holds: |text| telemetry::parse_filter(text).is_ok(),
    pattern: None,
};

fn is_host_port(text: &str) -> bool {
    text.trim().rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(char::is_whitespace) && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

fn is_origin(text: &str) -> bool {
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    text == "*"
        || host.is_some_and(|host| {
            !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic() && !b"/?#@".contains(&byte))
        })
}

/// Tells whether a path can be appended to a URL.
fn is_base_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or_default());
    host.is_some_and(|host| !host.is_empty())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#@".contains(&byte))
}

fn is_topic(text: &str) -> bool {
    (1..=249).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
        && text != "."
        && text != ".."
}

impl Settings {
    /// Reads all keys, in the order of `docs/configuration.md`.
    pub(super) fn read(from: &mut Reader) -> Self {
        let help = "Folder of the store and the embedded log; made on the first start";
        let data_dir = from.text("data_dir", help, "receipts-data", &NOT_EMPTY).into();
        let help = "Time for a stopping process to finish work that has begun, in milliseconds";
        let drain_ms = from.integer("drain_ms", help, 10_000, 0..=600_000);
        let help = "Refuses to start with a secret file that its group or others may read, instead of a warning";
        let secret_files_strict = from.boolean("secret_files_strict", help, false);
        let settings = Self {
            data_dir,
            drain_ms,
            secret_files_strict,
            http: Http::read(from),
            auth: Auth::read(from),
            access: Access::read(from),
            log: Log::read(from),
            kafka: Kafka::read(from),
            projector: Projector::read(from),
            snapshot: Snapshot::read(from),
            query: Query::read(from),
            telemetry: Telemetry::read(from),
            foreign_variables: Vec::new(),
            in_force: Vec::new(),
        };
        settings.check(from);
        settings
    }

    /// Returns where a key is set; `None` if it has its default because no source sets it.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.in_force.iter().find(|setting| setting.key == key && setting.is_set()).map(|setting| &setting.origin)
    }

    /// The rules between settings.
    fn check(&self, from: &mut Reader) {
        let (http, projector) = (&self.http, &self.projector);
        let tokens = " with tokens for callers (auth.issuer, auth.jwks_url, auth.jwks_file or auth.secret_file; --auth-issuer, --auth-jwks-file), or";
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
                         [::1]:PORT, or any address{otherwise} with {permission} = true if a private network or a proxy \
                         keeps strangers out"
                    ),
                );
            }
        }
        self.auth.check(from);
        self.http.check(from);
        let Log { events_topic, updates_topic, dead_letters_topic, .. } = &self.log;
        for (key, topic, others) in [
            ("log.updates_topic", updates_topic, [events_topic].as_slice()),
            ("log.dead_letters_topic", dead_letters_topic, &[events_topic, updates_topic]),
        ] {
            if others.contains(&topic) {
                from.contradiction(
                    key,
                    format!("{topic:?} is already another topic's name; allowed: three different names"),
                );
            }
        }
    }

    /// Returns a sentence about each setting that is allowed but dangerous; a service logs them as
    /// warnings.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let http_open = self.http.insecure_listen && !self.auth.is_configured();
        let exposed = [
            ("http", self.http.listen, http_open),
            ("projector", self.projector.listen, self.projector.insecure_listen),
        ];
        let exposed = exposed.into_iter().filter(|(_, address, permitted)| *permitted && !address.ip().is_loopback());
        let open = exposed.map(|(what, address, _)| {
            format!(
                "{what}.insecure_listen: every client that reaches {address} may read and write anything for any tenant"
            )
        });
        open.chain(self.auth.warning()).chain(self.kafka.warning()).collect()
    }
}

impl Log {
    fn read(from: &mut Reader) -> Self {
        let partitions = "Partitions of a new topic or embedded log; an existing one never changes";
        let unbounded = "Accepts a topic of events that takes records dated more than an hour ahead, one of which makes all messages of its partition expire; otherwise such a topic is refused (message.timestamp.after.max.ms)";
        let beginning = "Accepts, for an empty data directory, a topic of events whose first conversations have neither rosters nor recipients, as in a mirror that was begun after its source had been trimmed; otherwise such a topic is refused";
        Self {
            partitions: from.integer("log.partitions", partitions, 12, 1..=10_000),
            events_topic: from.text("log.events_topic", "Topic of events", "receipts.events", &TOPIC),
            updates_topic: from.text("log.updates_topic", "Topic of receipt updates", "receipts.updates", &TOPIC),
            dead_letters_topic: from.text(
                "log.dead_letters_topic",
                "Topic of dead letters",
                "receipts.dead-letters",
                &TOPIC,
            ),
            accept_unbounded_time: from.boolean("log.accept_unbounded_time", unbounded, false),
            accept_missing_beginning: from.boolean("log.accept_missing_beginning", beginning, false),
        }
    }
}

impl Kafka {
    /// Properties that let anybody on the way be a broker.
    fn warning(&self) -> Option<String> {
        let is =
            |name: &str, value: &str| self.properties.0.get(name).is_some_and(|own| own.eq_ignore_ascii_case(value));
        let name =
            [("enable.ssl.certificate.verification", "false"), ("ssl.endpoint.identification.algorithm", "none")]
                .into_iter()
                .find_map(|(name, value)| is(name, value).then(|| format!("{name}={value}")))?;
        Some(format!(
            "kafka.properties: with {name} anybody on the way may be a broker and read what the service writes"
        ))
    }

    fn read(from: &mut Reader) -> Self {
        let bootstrap =
            "Kafka brokers to connect to first; if not set, the event log is the embedded one in the data directory";
        let replication = "Replication factor of new topics; if not set, the number of brokers, at most 3";
        let properties =
            "Further properties of the Kafka client, by librdkafka's names (`security.protocol = \"SSL\"`)";
        let many = "File of further properties of the Kafka client, a line NAME=VALUE each, and # before comments; \
                    kafka.properties and kafka.property_files win over it";
        let single = "Files that hold the value of one property of the Kafka client each, such as mounted secrets \
                      (`sasl.password = \"/run/secrets/kafka\"`); a line break at the end does not count";
        let bootstrap = from.optional_text("kafka.bootstrap", bootstrap, &HOST_PORTS);
        let replication = from.optional_integer("kafka.replication", replication, 1..=32_767);
        let given = from.properties(PROPERTIES, properties);
        let properties_file = from.optional_text("kafka.properties_file", many, &NOT_EMPTY).map(PathBuf::from);
        let property_files = from.properties(PROPERTY_FILES, single).into_iter();
        let property_files = property_files.map(|(name, path)| (name, PathBuf::from(path))).collect();
        let properties = property_files::completed(from, given, properties_file.as_deref(), &property_files);
        Self { bootstrap, replication, properties: KafkaProperties(properties), properties_file, property_files }
    }
}

impl Projector {
    fn read(from: &mut Reader) -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8081));
        let insecure =
            "Permits projector.listen at any address although callers are not authenticated; for private networks only";
        let group = "Consumer group; projectors of one group share the partitions";
        let standby = "Makes this projector a standby: it folds as the group GROUP-standby, answers where GROUP does not, and publishes nothing";
        let threads = "Threads that fold; each partition is folded by one of them";
        let memory = "Memory for cached pages, in bytes";
        let window = "Time within which updates of one message are merged, in milliseconds; multiplied by \
                      1 + 4·√(audience / 100,000), at most 5, and while the partition is behind at least a fifth of its \
                      lag, at most 50 times this";
        let retention =
            "Age at which a message becomes not_found, in milliseconds before its partition's newest record";
        let count = "Items that a partition parks for messages that have not arrived yet; beyond it, the tenant with the \
                     most parked bytes loses its oldest item to the dead letters";
        let bytes = "Bytes of the items that a partition parks, likewise; an item alone that is larger is a dead letter at once";
        let erasures = "People whose erasure a partition remembers, three quarters of them for one tenant; the erasure of \
                        another person is a dead letter";
        let types = "Group types that the policies of a partition may name, a tenth of them for one tenant; a policy with \
                     more is a dead letter";
        let stale = "Time for which reads are answered from the held state, with the header Receipts-Stale, while Kafka is not heard from, in milliseconds; 0 refuses them at once";
        let unwrap = "Wrapping that is taken off the values of events: none, or the frame of a Confluent schema registry around JSON (5 bytes); values without it are taken as they are";
        let times = "Keeps the read time of every reader; if false, lists carry none";
        Self {
            listen: from.address("projector.listen", "Address at which a projector answers the query edges", listen),
            insecure_listen: from.boolean("projector.insecure_listen", insecure, false),
            advertise: from.optional_text(
                "projector.advertise",
                "Address at which the edges reach a projector; if not set, the address at which it listens",
                &HOST_PORT,
            ),
            group: from.text("projector.group", group, "receipts-projector", &NOT_EMPTY),
            standby: from.boolean("projector.standby", standby, false),
            checkpoint_events: from.integer(
                "projector.checkpoint_events",
                "Most events between two checkpoints of a partition",
                2_000_000,
                1..=100_000_000,
            ),
            checkpoint_interval_ms: from.integer(
                "projector.checkpoint_interval_ms",
                "Longest time between two checkpoints of a partition, in milliseconds; each partition has its own, up to a quarter shorter",
                30_000,
                10..=DAY_MS,
            ),
            fold_threads: from.integer("projector.fold_threads", threads, 2, 1..=64),
            memory_bytes: from.integer("projector.memory_bytes", memory, 512 * MIB, 8 * MIB..=1 << 40),
            updates: from.boolean("projector.updates", "Publishes receipt updates", true),
            update_window_ms: from.integer("projector.update_window_ms", window, 200, 0..=60_000),
            retention_ms: from.integer("projector.retention_ms", retention, 30 * DAY_MS, 1..=36_500 * DAY_MS),
            parked_count: from.integer("projector.parked_count", count, 10_000, 0..=10_000_000),
            parked_bytes: from.integer("projector.parked_bytes", bytes, 8 * MIB, 0..=1 << 40),
            parked_age_ms: from.integer(
                "projector.parked_age_ms",
                "Time that items stay parked, in milliseconds of record time",
                3_600_000,
                0..=365 * DAY_MS,
            ),
            read_times: from.boolean("projector.read_times", times, true),
            unwrap: from.choice("projector.unwrap", unwrap, &[("none", Unwrap::None), ("confluent", Unwrap::Confluent)]),
            erasures_max: from.integer("projector.erasures_max", erasures, 1_000_000, 4..=1_000_000_000),
            policy_types_max: from.integer("projector.policy_types_max", types, 100_000, 10..=100_000_000),
            stale_ms_max: from.integer("projector.stale_ms_max", stale, 3_600_000, 0..=365 * DAY_MS),
        }
    }
}

impl Query {
    fn read(from: &mut Reader) -> Self {
        let secret = "File with the secret that projectors and query edges share, at least 32 bytes; projectors then answer no other \
                      caller, and all edges sign cursors with the same key";
        let projectors = "Projectors that a query edge asks; a name may have many addresses";
        let candidates = "Messages of one id that a query without a conversation looks at in each partition; an id of more is \
                          answered with the status ambiguous";
        Self {
            projectors: from.list("query.projectors", projectors, &HOST_PORT),
            poll_ms: from.integer(
                "query.poll_ms",
                "Interval at which projectors are asked for the partitions that they own, in milliseconds",
                500,
                10..=60_000,
            ),
            candidates_max: from.integer("query.candidates_max", candidates, 100, 1..=100_000),
            secret_file: from.optional_text("query.secret_file", secret, &NOT_EMPTY).map(PathBuf::from),
        }
    }
}

impl Telemetry {
    fn read(from: &mut Reader) -> Self {
        let formats = [("text", LogFormat::Text), ("json", LogFormat::Json)];
        Self {
            log_filter: from.text("telemetry.log_filter", "Log levels, also by module", "info", &FILTER),
            log_format: from.choice(
                "telemetry.log_format",
                "Format of logs: lines for people, or JSON for machines",
                &formats,
            ),
            otlp_endpoint: from.optional_text(
                "telemetry.otlp_endpoint",
                "Collector that gets traces by OTLP over HTTP, at this address with /v1/traces; without it there are no \
                 traces; OTEL_EXPORTER_OTLP_ENDPOINT sets it too",
                &OTLP_URL,
            ),
            trace_ratio: from.share(
                "telemetry.trace_ratio",
                "Share of the requests that are traced, of those whose caller does not decide it by a traceparent",
                1.0,
            ),
        }
    }
}
