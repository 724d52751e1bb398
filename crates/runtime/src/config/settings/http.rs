//! The settings of the HTTP edge: its listeners, its timeouts, and its budgets (ADR 0036). Holds no
//! logic except the rules between them.

use super::super::reader::Reader;
use super::{DAY_MS, HOST, MIB, NOT_EMPTY, ORIGIN};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

/// The public HTTP edge.
#[derive(Debug, Clone)]
pub struct Http {
    /// The address to listen at; loopback, unless callers are authenticated or `insecure_listen`.
    pub listen: SocketAddr,
    /// Permits any address although callers are not authenticated.
    pub insecure_listen: bool,
    /// Further names of this machine in `Host`, for a loopback listener without tokens.
    pub allowed_hosts: Vec<String>,
    /// Origins whose web pages may read answers, and send requests to a listener without tokens.
    pub allowed_origins: Vec<String>,
    /// The files of the certificate and its key; if absent, the listener speaks no TLS.
    pub tls: Option<TlsFiles>,
    /// Whether the inspector is at `/`.
    pub inspector: bool,
    /// The address of health, metrics and snapshots; if absent, they are at the address of the
    /// callers.
    pub admin_listen: Option<SocketAddr>,
    /// Connections that may be open at once; if absent, those that the descriptors leave, at most
    /// 20,000.
    pub connections_max: Option<u64>,
    /// Requests in progress at once.
    pub requests: Shares,
    /// Reads that wait for their position at once.
    pub waits: Shares,
    /// Streams of updates that may be open at once.
    pub streams: Shares,
    /// Bytes of the request bodies that are held at once.
    pub bodies_bytes: Shares,
    /// The largest head of a request in bytes; a larger one gets a 431.
    pub head_bytes_max: usize,
    /// The largest request body in bytes; a larger one gets a 413.
    pub body_bytes_max: usize,
    /// The slowest body in bytes per second, after its first 5 s; a slower one gets a 408. 0 for
    /// any speed.
    pub body_bytes_per_s_min: u64,
    /// Control events of one body; more get a 400.
    pub control_events_max: usize,
    /// The longest time of a request in milliseconds, streams of updates excepted.
    pub timeout_ms: u64,
    /// The longest time for the head of a request to arrive, in milliseconds.
    pub head_timeout_ms: u64,
    /// How long a connection without a request stays open, in milliseconds.
    pub keep_alive_ms: u64,
    /// How long a client may read nothing of its answer before its connection is closed, in
    /// milliseconds.
    pub write_timeout_ms: u64,
    /// Requests per second that one caller may make; a further one gets a 429.
    pub rate_per_s: Option<u32>,
    /// Requests per second that all callers of a tenant may make together; a further one gets a
    /// 429.
    pub tenant_rate_per_s: Option<u32>,
    /// The time that a read waits for its `Receipts-Min-Position` unless the caller sets one, in
    /// milliseconds.
    pub wait_ms_default: u64,
    /// How far behind the ends of its partitions a ready service may be, in milliseconds.
    pub ready_lag_ms: u64,
    /// The interval of heartbeats on a stream without updates, in milliseconds.
    pub heartbeat_ms: u64,
}

/// The files of TLS, both PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and those that lead to its root.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// The amounts of one budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shares {
    /// What all callers may hold together.
    pub total: u64,
    /// What the callers of one tenant may hold together; if absent, three quarters of the total.
    pub tenant: Option<u64>,
    /// What one caller may hold; if absent, a quarter of the total.
    pub caller: Option<u64>,
}

impl Http {
    pub(super) fn read(from: &mut Reader) -> Self {
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
        let insecure =
            "Permits http.listen at any address although callers are not authenticated; for containers behind a proxy";
        let hosts = "Names that the Host of a request may have beside localhost, 127.0.0.0/8 and [::1], at a loopback address without tokens for callers; without a port; `*` for any name";
        let origins = "Origins whose web pages may read answers (CORS: preflights are answered, and errors can be read too), beside the service's own; without tokens for callers all other pages are refused; `*` for all";
        let inspector = "Serves the inspector at `/`: a web page for people who develop or operate, without data of its own; it asks for a token where callers need one; true by default at a loopback address, false at another one";
        let certificate = "File with the certificate of TLS and those that lead to its root, PEM; with it http.listen speaks TLS alone, and is read again when it changes; http.admin_listen and projector.listen do not speak TLS";
        let key = "File with the unencrypted key of that certificate, PEM; read again likewise";
        let admin = "Address of a listener for operators: health, metrics and snapshots move to it, and the other one keeps only /livez; it asks for no token, so keep strangers away from it; if not set, there is no such listener";
        let connections = "Connections that may be open at once: for one more, the one that is idle for the longest is closed; if not set, those that the descriptor limit leaves, at most 20000";
        let wait = "Time that a read waits for its Receipts-Min-Position unless the caller sets one, in milliseconds";
        let head = "Longest time for the head of a request to arrive from its first byte, in milliseconds; the first one of a connection counts from the beginning of the connection, with the handshake of TLS";
        let keep_alive = "How long a connection without a request stays open, in milliseconds; longer than proxies keep theirs, or a request may meet a closing connection: Google Cloud's load balancer keeps 600 s";
        let unread =
            "How long a client may read nothing of its answer before its connection is closed, in milliseconds";
        let slow =
            "Slowest request body, in bytes per second after its first 5 s; a slower one gets a 408; 0 for any speed";
        let rate = "Requests per second that one caller may make, a person or a service; opening a stream is one request; unlimited if not set";
        let listen = from.address("http.listen", "Address at which the public HTTP edge listens", listen);
        Self {
            listen,
            insecure_listen: from.boolean("http.insecure_listen", insecure, false),
            allowed_hosts: from.list("http.allowed_hosts", hosts, &HOST),
            allowed_origins: from.list("http.allowed_origins", origins, &ORIGIN),
            inspector: from.optional_boolean("http.inspector", inspector).unwrap_or(listen.ip().is_loopback()),
            tls: tls(from, certificate, key),
            admin_listen: from.optional_address("http.admin_listen", admin),
            connections_max: from.optional_integer("http.connections_max", connections, 1..=1_000_000),
            requests: Shares {
                total: from.integer("http.requests_max", "Requests in progress at once; at most a quarter of the connections", 1_024, 1..=1_000_000),
                tenant: from.optional_integer(
                    "http.requests_per_tenant",
                    "Requests in progress that one tenant may have; if not set, three quarters of http.requests_max",
                    1..=1_000_000,
                ),
                caller: from.optional_integer(
                    "http.requests_per_caller",
                    "Requests in progress that one caller may have, a person or a named service; if not set, a quarter of http.requests_max",
                    1..=1_000_000,
                ),
            },
            waits: Shares {
                total: from.integer(
                    "http.waits_max",
                    "Reads that wait for their Receipts-Min-Position at once; at most a quarter of the connections",
                    10_000,
                    1..=1_000_000,
                ),
                tenant: from.optional_integer(
                    "http.waits_per_tenant",
                    "Waiting reads that one tenant may have; if not set, three quarters of http.waits_max",
                    1..=1_000_000,
                ),
                caller: from.optional_integer(
                    "http.waits_per_caller",
                    "Waiting reads that one caller may have; if not set, a quarter of http.waits_max",
                    1..=1_000_000,
                ),
            },
            streams: Shares {
                total: from.integer(
                    "http.streams_max",
                    "Streams of updates that may be open at once; at most half of the connections",
                    10_000,
                    0..=1_000_000,
                ),
                tenant: from.optional_integer(
                    "http.streams_per_tenant",
                    "Streams that one tenant may have open; if not set, three quarters of http.streams_max",
                    1..=1_000_000,
                ),
                caller: from.optional_integer(
                    "http.streams_per_caller",
                    "Streams that one caller may have open; if not set, a quarter of http.streams_max",
                    1..=1_000_000,
                ),
            },
            bodies_bytes: Shares {
                total: from.integer(
                    "http.bodies_bytes_max",
                    "Bytes of request bodies that are held at once",
                    64 * MIB,
                    1..=1_024 * 1_024 * MIB,
                ),
                tenant: from.optional_integer(
                    "http.bodies_bytes_per_tenant",
                    "Bytes of bodies that are held for one tenant; if not set, three quarters of http.bodies_bytes_max, and at least http.body_bytes_max",
                    1..=1_024 * 1_024 * MIB,
                ),
                caller: from.optional_integer(
                    "http.bodies_bytes_per_caller",
                    "Bytes of bodies that are held for one caller; if not set, a quarter of http.bodies_bytes_max, and at least http.body_bytes_max",
                    1..=1_024 * 1_024 * MIB,
                ),
            },
            head_bytes_max: from.integer(
                "http.head_bytes_max",
                "Largest head of a request, in bytes; a larger one gets a 431",
                65_536,
                1_024..=MIB,
            ),
            body_bytes_max: from.integer("http.body_bytes_max", "Largest request body, in bytes", MIB, 1..=64 * MIB),
            body_bytes_per_s_min: from.integer("http.body_bytes_per_s_min", slow, 1_024, 0..=MIB),
            control_events_max: from.integer(
                "http.control_events_max",
                "Control events of one body (policy.changed, user.erased), each of which is written into every partition; more get a 400",
                100,
                1..=1_000,
            ),
            timeout_ms: from.integer(
                "http.timeout_ms",
                "Longest time of a request, in milliseconds; streams of updates excepted",
                30_000,
                1..=600_000,
            ),
            head_timeout_ms: from.integer("http.head_timeout_ms", head, 30_000, 1..=600_000),
            keep_alive_ms: from.integer("http.keep_alive_ms", keep_alive, 620_000, 1..=DAY_MS),
            write_timeout_ms: from.integer("http.write_timeout_ms", unread, 30_000, 1..=600_000),
            rate_per_s: from.optional_integer("http.rate_per_s", rate, 1..=1_000_000),
            tenant_rate_per_s: from.optional_integer(
                "http.tenant_rate_per_s",
                "Requests per second that all callers of a tenant may make together; unlimited if not set",
                1..=1_000_000,
            ),
            wait_ms_default: from.integer("http.wait_ms_default", wait, 1_000, 0..=30_000),
            ready_lag_ms: from.integer(
                "http.ready_lag_ms",
                "How far behind the ends of its partitions a ready service may be, in milliseconds",
                10_000,
                0..=DAY_MS,
            ),
            heartbeat_ms: from.integer(
                "http.heartbeat_ms",
                "Interval of heartbeats on a stream without updates, in milliseconds",
                4_000,
                10..=600_000,
            ),
        }
    }

    /// Checks that the largest body fits into the amounts of bodies that are set.
    pub(super) fn check(&self, from: &mut Reader) {
        let (largest, bodies) = (self.body_bytes_max as u64, self.bodies_bytes);
        for (key, amount) in [
            ("http.bodies_bytes_max", Some(bodies.total)),
            ("http.bodies_bytes_per_tenant", bodies.tenant),
            ("http.bodies_bytes_per_caller", bodies.caller),
        ] {
            if let Some(amount) = amount.filter(|amount| *amount < largest) {
                let problem = format!("{amount} is less than one body may have, {largest} (http.body_bytes_max)");
                from.contradiction(key, problem);
            }
        }
    }
}

/// Reads the files of TLS, of which there are both or none.
fn tls(from: &mut Reader, certificate_help: &'static str, key_help: &'static str) -> Option<TlsFiles> {
    let (certificate_key, key_key) = ("http.tls_certificate_file", "http.tls_key_file");
    let certificate = from.optional_text(certificate_key, certificate_help, &NOT_EMPTY);
    let key = from.optional_text(key_key, key_help, &NOT_EMPTY);
    match (certificate, key) {
        (Some(certificate), Some(key)) => Some(TlsFiles { certificate: certificate.into(), key: key.into() }),
        (Some(_), None) => missing(from, key_key, certificate_key),
        (None, Some(_)) => missing(from, certificate_key, key_key),
        (None, None) => None,
    }
}

fn missing(from: &mut Reader, absent: &str, present: &str) -> Option<TlsFiles> {
    from.contradiction(absent, format!("is not set, but {present} is: TLS needs both, or neither"));
    None
}
