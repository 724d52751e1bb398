//! The HTTP exchange with projectors: polls each projector's state, and sends one request to one
//! projector.
//!
//! Must not decide whether an answer is good enough: [`Peers`](super::Peers) does.

use super::PeerSettings;
use super::table::Table;
use crate::protocol::{ASK_PATH, PeerReply, PeerRequest, PeerState, STATE_PATH};
use crate::secret::Secret;
use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use receipts_metrics::catalogue;
use receipts_metrics::log_lines::LogLimit;
use receipts_query::Positions;
use receipts_traces::traces;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Weak;
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long a projector may take for one reply, beyond the wait that the request asks for. A
/// suspended process never replies.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How long an unused connection is kept. A projector keeps it longer by default
/// (`http.keep_alive_ms`), so that no request is sent on a connection that the projector is
/// closing.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// The pause between two rounds of requests, and at least between two polls.
const PAUSE: Duration = Duration::from_millis(20);

/// The state that the clones of one [`Peers`](super::Peers) share.
pub(super) struct Shared {
    pub(super) settings: PeerSettings,
    client: reqwest::Client,
    credential: Option<String>,
    pub(super) table: RwLock<Table>,
    /// The positions that callers have waited for: every later answer must cover them.
    pub(super) floor: Mutex<Positions>,
    /// Wakes [`keep_polling`] before its interval has passed.
    poll_now: Notify,
    /// The lines about names that cannot be looked up, by name.
    lookups: Mutex<BTreeMap<String, LogLimit>>,
}

/// A projector sent no reply at all; the text says why.
pub(super) struct NoReply(pub(super) String);

impl Shared {
    /// # Errors
    /// If no HTTP client can be made.
    pub(super) fn new(settings: PeerSettings) -> Result<Self, String> {
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| error.to_string())?;
        let credential = settings.secret.as_ref().map(Secret::credential);
        Ok(Self {
            settings,
            client,
            credential,
            table: RwLock::default(),
            floor: Mutex::default(),
            poll_now: Notify::new(),
            lookups: Mutex::default(),
        })
    }

    /// Asks every projector for its state, and records the states in the table.
    pub(super) async fn poll(&self) {
        let mut addresses = BTreeSet::new();
        for name in &self.settings.projectors {
            match tokio::net::lookup_host(name).await {
                Ok(found) => addresses.extend(found),
                Err(error) => {
                    if let Some(count) = self.lookups.lock().entry(name.clone()).or_default().count(Instant::now()) {
                        tracing::warn!(name, %error, count, "cannot look up a projector's name; check query.projectors");
                    }
                }
            }
        }
        self.table.write().retain(&addresses);
        let count = addresses.len();
        join_all(addresses.into_iter().map(|address| self.poll_one(address))).await;
        let (answering, partitions) = {
            let table = self.table.read();
            (table.count(), table.answered().len())
        };
        catalogue::PEERS.of(["answering"]).set(answering as f64);
        catalogue::PEERS.of(["silent"]).set(count.saturating_sub(answering) as f64);
        catalogue::PARTITIONS_ANSWERED.get().set(partitions as f64);
    }

    async fn poll_one(&self, address: SocketAddr) {
        let request = self.client.get(format!("http://{address}{STATE_PATH}"));
        let state = self.exchange::<PeerState>(request, ANSWER_TIMEOUT).await;
        if let Err(NoReply(cause)) = &state {
            tracing::debug!(%address, cause, "a projector does not report its state");
        }
        self.table.write().record(address, state.map_err(|NoReply(cause)| cause));
    }

    /// Sends a request to a projector.
    pub(super) async fn send(&self, url: &str, request: &PeerRequest) -> Result<PeerReply, NoReply> {
        let mut post = self.client.post(format!("{url}{ASK_PATH}")).json(request);
        let mut span = None;
        if let Some((traces, parent)) = traces().zip(receipts_traces::current()) {
            let address = url.strip_prefix("http://").and_then(|address| address.parse().ok());
            let asked = span.insert(traces.ask(ASK_PATH, address, &parent));
            let mut headers = reqwest::header::HeaderMap::new();
            asked.context().put_headers(|name, value| {
                if let Ok(value) = value.try_into() {
                    headers.insert(name, value);
                }
            });
            post = post.headers(headers);
        }
        let reply = self.exchange(post, ANSWER_TIMEOUT + Duration::from_millis(request.wait_ms)).await;
        let outcome = match &reply {
            Ok(Ok(_)) => "answered",
            Ok(Err(_)) => "unavailable",
            Err(_) => "no_reply",
        };
        catalogue::PEER_QUESTIONS.of([outcome]).increment(1);
        if let (Some(mut span), true) = (span, outcome != "answered") {
            span.fail(outcome);
        }
        match &reply {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => self.poll_now.notify_one(),
            Err(NoReply(cause)) => {
                tracing::debug!(url, cause, "a projector does not reply");
                self.table.write().suspect(url);
                self.poll_now.notify_one();
            }
        }
        reply
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
        timeout: Duration,
    ) -> Result<T, NoReply> {
        let request = match &self.credential {
            Some(credential) => request.bearer_auth(credential),
            None => request,
        };
        let exchanged = async { request.timeout(timeout).send().await?.error_for_status()?.json().await };
        exchanged.await.map_err(|error: reqwest::Error| {
            if error.status() == Some(reqwest::StatusCode::UNAUTHORIZED) {
                tracing::error!("a projector refuses this edge's secret: give both the same query.secret_file");
            }
            NoReply(error.to_string())
        })
    }

    /// Waits a little for another projector to take over, and has all projectors polled meanwhile.
    pub(super) async fn pause(&self) {
        self.poll_now.notify_one();
        tokio::time::sleep(PAUSE).await;
    }
}

/// Polls all projectors at every interval, and at once after a projector did not answer. Each poll
/// is a task of its own, so that a projector that hangs delays no poll of the others.
pub(super) async fn keep_polling(shared: Weak<Shared>, interval: Duration) {
    loop {
        let Some(shared) = shared.upgrade() else { return };
        _ = tokio::time::timeout(interval, shared.poll_now.notified()).await;
        tokio::spawn(async move { shared.poll().await });
        // However many callers ask for a poll, the next one begins no sooner than this.
        tokio::time::sleep(PAUSE).await;
    }
}
