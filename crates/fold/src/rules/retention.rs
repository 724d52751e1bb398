//! Retention: a message expires by record time, and its space is given back page by page
//! (INV-EXPIRED). Never looks at a clock.

use crate::pages::{Chunk, MESSAGES_PER_PAGE, Message, Messages, PageKey, Pages, Table};
use crate::state::{Error, Result, State};

/// The time before which messages have expired. A copy, for use while a page is borrowed from the
/// state.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Horizon {
    newest_timestamp_ms: u64,
    retention_ms: u64,
}

impl Horizon {
    /// Whether a message whose record has this timestamp has expired.
    pub(crate) fn is_past(self, timestamp_ms: u64) -> bool {
        self.newest_timestamp_ms.saturating_sub(timestamp_ms) > self.retention_ms
    }
}

impl<S: Pages> State<S> {
    pub(crate) fn horizon(&self) -> Horizon {
        Horizon { newest_timestamp_ms: self.meta.newest_timestamp_ms, retention_ms: self.limits.retention_ms }
    }

    pub(crate) fn is_expired(&self, m: &Message) -> bool {
        self.horizon().is_past(m.timestamp_ms)
    }

    /// Removes up to four of the oldest pages, as long as every message of a page has expired.
    /// Called once per new page of messages.
    pub(crate) fn remove_expired(&mut self) -> Result<(), S::Error> {
        const PAGES_PER_CALL: u32 = 4;
        for _ in 0..PAGES_PER_CALL {
            let oldest = self.meta.oldest_page;
            if (oldest + 1) * MESSAGES_PER_PAGE > self.meta.next_message {
                return Ok(());
            }
            let horizon = self.horizon();
            let page = Table::<Messages>::load_mut(&mut self.pages, PageKey::new(oldest, 0))?
                .ok_or(Error::Broken("the oldest messages"))?;
            if page.iter().any(|m| !horizon.is_past(m.timestamp_ms)) {
                return Ok(());
            }
            let chunks: Vec<u32> = page.iter().map(Message::chunks).collect();
            for (message, chunks) in (oldest * MESSAGES_PER_PAGE..).zip(chunks) {
                self.remove_chunks(message, chunks);
            }
            Table::<Messages>::remove(&mut self.pages, PageKey::new(oldest, 0));
            self.index.blank(oldest * MESSAGES_PER_PAGE..(oldest + 1) * MESSAGES_PER_PAGE);
            self.meta.oldest_page += 1;
            self.index.remove_below(&mut self.pages, self.meta.oldest_page * MESSAGES_PER_PAGE);
        }
        Ok(())
    }

    pub(crate) fn remove_chunks(&mut self, message: u64, chunks: u32) {
        for chunk in 0..chunks {
            Table::<Chunk>::remove(&mut self.pages, PageKey::new(message, chunk));
        }
    }
}
