//! The source of all streams of a process: the hub, and bounded access to the topic for streams
//! that resume.
//!
//! It must not know what a stream shows.

use super::hub::{Hub, Subscription};
use receipts_log::{Inspect, ReadError, Topic};
use receipts_query::LogTag;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Concurrent reads of the topic, of all streams together. Each holds a thread, and on Kafka a
/// connection.
const CONCURRENT_READS: usize = 4;

/// The source of all streams of a process. Cheap to clone.
#[derive(Clone)]
pub struct Updates(Arc<Feed>);

struct Feed {
    hub: Hub,
    reads: Semaphore,
    heartbeat: Duration,
}

impl Updates {
    /// Begins to follow the topic of updates. Blocks until the log has answered.
    ///
    /// Each stream sends bytes at least once per `heartbeat`.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub fn start(log: Arc<dyn Inspect>, heartbeat: Duration) -> Result<Self, ReadError> {
        Ok(Self(Arc::new(Feed { hub: Hub::start(log)?, reads: Semaphore::new(CONCURRENT_READS), heartbeat })))
    }

    /// Ends every stream, refuses new ones, and releases the log. Blocks for at most one poll, 100
    /// ms.
    pub fn close(&self) {
        self.0.hub.close();
    }

    /// Registers a stream for an addressee; see [`Hub::subscribe`].
    pub(super) fn subscribe(&self, addressee: &str) -> Option<Subscription> {
        self.0.hub.subscribe(addressee)
    }

    /// The topic of updates, for the ids of stream events; `None` if it has no identity.
    pub(crate) fn log(&self) -> Option<LogTag> {
        self.0.hub.log().tag(Topic::Updates).map(LogTag)
    }

    /// The longest silence of a stream.
    pub(super) fn heartbeat(&self) -> Duration {
        self.0.heartbeat
    }

    /// Reads the log on a thread that may block.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Inspect) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let _permit = self.0.reads.acquire().await;
        let log = Arc::clone(self.0.hub.log());
        let done = tokio::task::spawn_blocking(move || read(&*log)).await;
        done.unwrap_or_else(|error| Err(ReadError::Stop(error.to_string())))
    }
}
