//! The public keys in memory: a background task reads them again, and a token with an unknown key
//! waits for it.
//!
//! A token with a known key must not wait, however many tokens name unknown ones.

use super::keys::{self, Key};
use super::source::{KeySource, Reader};
use super::{BadKeys, TokenSettings};
use futures_util::FutureExt as _;
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota};
use jsonwebtoken::Algorithm;
use receipts_metrics::catalogue;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

/// The pause before a start asks again for keys that it did not get.
const START_PAUSE: Duration = Duration::from_secs(1);

/// The reads that tokens may cause at once after a pause: an issuer may publish a key a moment
/// after it signs with it.
const BURST: NonZeroU32 = NonZeroU32::new(5).expect("not 0");

/// How long a token waits for its key.
const WAIT: Duration = Duration::from_secs(5);

/// The most tokens that wait at once. Each holds a connection.
const WAITING_MAX: usize = 100;

/// The keys, and the source that they come from.
pub(super) struct KeyRing {
    from: KeySource,
    reader: Reader,
    algorithms: Vec<Algorithm>,
    /// The interval between reads that no token causes.
    refresh: Duration,
    /// Bounds the reads that tokens cause; `None` does not.
    quota: Option<DefaultDirectRateLimiter>,
    latest: watch::Sender<Read>,
    /// Wakes the background task after a token has named an unknown key.
    unknown_key: Notify,
    waiting: Semaphore,
}

/// The keys after a read, which may have failed.
struct Read {
    keys: Arc<Vec<Key>>,
    began: Instant,
    is_ok: bool,
}

/// Why no key of the ring fits a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// The source does not have it.
    Unknown,
    /// The source could not be read in time.
    Unread,
}

impl KeyRing {
    /// Reads the keys. A file is read once. A URL is asked until it returns a usable set, at most
    /// for `start_timeout`.
    ///
    /// # Errors
    /// If the keys cannot be used.
    pub(super) async fn open(
        from: KeySource,
        algorithms: Vec<Algorithm>,
        settings: &TokenSettings,
    ) -> Result<Self, BadKeys> {
        let bad = |problem| BadKeys::Keys { from: from.clone(), problem };
        let reader = Reader::new(&from).map_err(bad)?;
        let until = Instant::now() + settings.start_timeout;
        let mut last_problem = String::new();
        let (keys, began) = loop {
            let began = Instant::now();
            match read(&reader, &algorithms).await {
                Ok(keys) => break (Arc::new(keys), began),
                Err(problem) => {
                    let is_transient = !matches!(from, KeySource::File(_));
                    if !is_transient || Instant::now() + START_PAUSE > until {
                        return Err(bad(problem));
                    }
                    if last_problem != problem {
                        tracing::warn!(%from, problem, "the keys of tokens cannot be read yet; retrying");
                        last_problem = problem;
                    }
                    tokio::time::sleep(START_PAUSE).await;
                }
            }
        };
        let quota = Quota::with_period(settings.refresh_pause).map(|quota| quota.allow_burst(BURST));
        Ok(Self {
            from,
            reader,
            algorithms,
            refresh: settings.refresh,
            quota: quota.map(DefaultDirectRateLimiter::direct),
            latest: watch::Sender::new(Read { keys, began, is_ok: true }),
            unknown_key: Notify::new(),
            waiting: Semaphore::new(WAITING_MAX),
        })
    }

    /// Returns the keys that are known now.
    pub(super) fn known(&self) -> Arc<Vec<Key>> {
        Arc::clone(&self.latest.borrow().keys)
    }

    /// Causes a read of the keys, and waits until `find` finds in them what it looks for.
    ///
    /// # Errors
    /// If a read that began after this call does not have it, or the keys cannot be read in time.
    pub(super) async fn wait_for<T>(&self, find: impl Fn(&[Key]) -> Option<T>) -> Result<T, Absent> {
        let _waits = self.waiting.try_acquire().map_err(|_| Absent::Unread)?;
        let came = Instant::now();
        let mut reads = self.latest.subscribe();
        self.unknown_key.notify_one();
        let waited = tokio::time::timeout(WAIT, async {
            loop {
                let (keys, is_newer, is_ok) = {
                    let read = reads.borrow_and_update();
                    (Arc::clone(&read.keys), read.began >= came, read.is_ok)
                };
                match find(&keys) {
                    Some(found) => return Ok(found),
                    None if is_newer && is_ok => return Err(Absent::Unknown),
                    None if is_newer => return Err(Absent::Unread),
                    None => reads.changed().await.map_err(|_| Absent::Unread)?,
                }
            }
        });
        waited.await.unwrap_or(Err(Absent::Unread))
    }

    /// Reads the keys again at the configured interval, and after a token has named an unknown key.
    /// It never returns.
    ///
    /// If a read fails, the previous keys stay for as long as the source fails. Refusing all tokens
    /// would help only an attacker who blocks the source.
    pub(super) async fn keep_fresh(&self) {
        ["read", "failed"].iter().for_each(|outcome| catalogue::TOKEN_KEYS.of([*outcome]).increment(0));
        let mut next = Instant::now() + self.refresh;
        loop {
            if tokio::time::timeout_at(next, self.unknown_key.notified()).await.is_ok() {
                self.wait_for_quota(next).await;
            }
            // The read that begins now serves all tokens that have asked so far.
            _ = self.unknown_key.notified().now_or_never();
            let began = Instant::now();
            next = began + self.refresh;
            let read = read(&self.reader, &self.algorithms).await;
            let outcome = if read.is_ok() { "read" } else { "failed" };
            catalogue::TOKEN_KEYS.of([outcome]).increment(1);
            match read {
                Ok(keys) => drop(self.latest.send_replace(Read { keys: Arc::new(keys), began, is_ok: true })),
                Err(problem) => {
                    tracing::warn!(from = %self.from, problem, "the keys of tokens cannot be read; the previous keys stay");
                    self.latest.send_modify(|latest| {
                        latest.began = began;
                        latest.is_ok = false;
                    });
                }
            }
        }
    }

    /// Waits until a token may cause a read, or the next one is due.
    async fn wait_for_quota(&self, next: Instant) {
        let Some(quota) = &self.quota else { return };
        while let Err(early) = quota.check() {
            let free = Instant::now() + early.wait_time_from(DefaultClock::default().now());
            tokio::time::sleep_until(free.min(next)).await;
            if free >= next {
                return;
            }
        }
    }
}

async fn read(reader: &Reader, algorithms: &[Algorithm]) -> Result<Vec<Key>, String> {
    keys::read(&reader.read().await?, algorithms)
}
