//! The contact of a process with its log: since when the log is silent, what keeps it from taking
//! appends, which partitions wait for a transaction, and why the process must end.
//!
//! It asks nobody. The log writes it, and every part of the process reads it.

use parking_lot::Mutex;
use receipts_metrics::catalogue;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// The contact with one log. Clones share it.
#[derive(Debug, Clone)]
pub struct Contact(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    begun: Instant,
    /// When the log was last heard from, milliseconds since `begun`.
    heard_ms: AtomicU64,
    /// True while the log does not answer. A read then costs one more look at the clock.
    away: AtomicBool,
    /// When the log last came back, milliseconds since `begun`; 0 if it was never away.
    back_ms: AtomicU64,
    /// What the group last did for this process; see [`Membership`].
    membership: AtomicU8,
    /// Why an append would fail now.
    trouble: Mutex<Option<String>>,
    /// Partitions whose records wait for a transaction.
    held: Mutex<BTreeMap<u32, Held>>,
    /// Why the process must end.
    fault: watch::Sender<Option<String>>,
}

/// A partition counts as held up after this time. Usual transactions are far shorter.
pub(crate) const HELD_LONG: Duration = Duration::from_secs(10);

/// A partition whose records wait for a transaction that some producer has open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The offset of the first record that waits.
    pub offset: u64,
    /// When that was first seen.
    pub since: Instant,
}

impl Held {
    /// Tells whether the records have waited for 10 s: then the partition is not up to date.
    pub fn is_long(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= HELD_LONG
    }
}

/// The place of this process's reader in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Membership {
    /// The group has not said anything yet, or there is no group.
    Unknown,
    /// The group has given the reader its share, which may be empty.
    Member,
    /// The group has taken everything away, because it did not hear from the reader.
    Expelled,
    /// Another process has joined under the name of this one, which ends.
    Fenced,
}

impl Default for Contact {
    /// The contact of a log that always answers, as one in this process does.
    fn default() -> Self {
        catalogue::LOG_REACHABLE.get().set(1.0);
        Self(Arc::new(Shared {
            begun: Instant::now(),
            heard_ms: AtomicU64::new(0),
            away: AtomicBool::new(false),
            back_ms: AtomicU64::new(0),
            membership: AtomicU8::new(Membership::Unknown as u8),
            trouble: Mutex::default(),
            held: Mutex::default(),
            fault: watch::channel(None).0,
        }))
    }
}

impl Contact {
    /// Returns how long the log has been silent; `None` while it answers.
    pub fn silence(&self) -> Option<Duration> {
        self.0.away.load(Ordering::Acquire).then(|| self.heard_at().elapsed())
    }

    /// Returns when the log was last heard from.
    pub fn heard_at(&self) -> Instant {
        self.0.begun + Duration::from_millis(self.0.heard_ms.load(Ordering::Acquire))
    }

    /// Returns how long ago the log came back; `None` while it is away, and if it never was.
    pub fn back_since(&self) -> Option<Duration> {
        let back_ms = self.0.back_ms.load(Ordering::Acquire);
        (back_ms > 0 && self.silence().is_none())
            .then(|| self.0.begun.elapsed().saturating_sub(Duration::from_millis(back_ms)))
    }

    /// Returns the place of this process's reader in its group.
    pub fn membership(&self) -> Membership {
        match self.0.membership.load(Ordering::Acquire) {
            1 => Membership::Member,
            2 => Membership::Expelled,
            3 => Membership::Fenced,
            _ => Membership::Unknown,
        }
    }

    pub(crate) fn set_membership(&self, membership: Membership) {
        self.0.membership.store(membership as u8, Ordering::Release);
    }

    /// Returns why an append would fail now, for an operator.
    pub fn trouble(&self) -> Option<String> {
        self.0.trouble.lock().clone()
    }

    /// Tells whether the records of a partition wait for a transaction.
    pub fn held(&self, partition: u32) -> Option<Held> {
        self.0.held.lock().get(&partition).copied()
    }

    /// Notes from which offset on the records of a partition wait for a transaction. Returns the
    /// state before, if it was another one.
    pub(crate) fn set_held(&self, partition: u32, offset: Option<u64>, now: Instant) -> Option<Held> {
        let mut held = self.0.held.lock();
        let before = held.get(&partition).copied();
        if before.map(|held| held.offset) == offset {
            return None;
        }
        match offset {
            Some(offset) => _ = held.insert(partition, Held { offset, since: now }),
            None => _ = held.remove(&partition),
        }
        before
    }

    /// Returns why the process must end, if it must.
    pub fn fault(&self) -> Option<String> {
        self.0.fault.borrow().clone()
    }

    /// Resolves once the process must end; returns why.
    pub async fn failed(&self) -> String {
        let mut fault = self.0.fault.subscribe();
        match fault.wait_for(Option::is_some).await {
            Ok(sentence) => sentence.clone().unwrap_or_default(),
            // The sender lives as long as `self`.
            Err(_) => std::future::pending().await,
        }
    }

    /// Notes that the log answered.
    pub fn heard(&self) {
        let heard_ms = u64::try_from(self.0.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.heard_ms.store(heard_ms, Ordering::Release);
        if self.0.away.load(Ordering::Acquire) {
            catalogue::LOG_REACHABLE.get().set(1.0);
            self.0.back_ms.store(heard_ms.max(1), Ordering::Release);
            self.0.away.store(false, Ordering::Release);
        }
    }

    /// Notes that the log does not answer.
    pub fn lose(&self) {
        if !self.0.away.swap(true, Ordering::AcqRel) {
            catalogue::LOG_REACHABLE.get().set(0.0);
        }
    }

    pub(crate) fn set_trouble(&self, trouble: Option<String>) {
        *self.0.trouble.lock() = trouble;
    }

    /// Notes why the process must end. The first reason stays.
    pub(crate) fn fail(&self, sentence: String) {
        self.0.fault.send_if_modified(|fault| {
            let is_first = fault.is_none();
            fault.get_or_insert(sentence);
            is_first
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_last_answer() {
        let contact = Contact::default();
        assert_eq!(contact.silence(), None);
        let before = contact.heard_at();
        contact.lose();
        assert!(contact.silence().is_some_and(|silence| silence <= before.elapsed()));
        assert_eq!(contact.back_since(), None);
        contact.heard();
        assert!(contact.silence().is_none() && contact.back_since().is_some());
        assert!(contact.heard_at() >= before);
    }

    #[test]
    fn first_fault_stays() {
        let contact = Contact::default();
        contact.fail("a".into());
        contact.fail("b".into());
        assert_eq!(contact.fault().as_deref(), Some("a"));
        assert_eq!(futures_executor::block_on(contact.failed()), "a");
    }
}
