//! Applies the long part of a record in slices: a read mark over many messages, and the records
//! that waited for a message. Between two slices the caller may let readers in.
//!
//! A slice is bounded by a number of messages and never by time, because the fold has no clock
//! (INV-SLICES). The number changes no state and no effect, only how they are divided.

use crate::effects::Effects;
use crate::pages::Pages;
use crate::rules::read_mark::MarkWalk;
use crate::rules::send::Waited;
use crate::state::{Result, State};

/// The rest of the record that is being applied.
#[derive(Default)]
pub(crate) struct Unfinished {
    /// Goes first: a record that waited may be a read mark.
    pub(super) mark: Option<MarkWalk>,
    pub(super) waited: Option<Waited>,
}

impl Unfinished {
    pub(crate) fn is_empty(&self) -> bool {
        self.mark.is_none() && self.waited.is_none()
    }
}

impl<S: Pages> State<S> {
    /// Applies the next slice of a record that [`Self::begin`] began: visits about `messages_max`
    /// messages, at least one. Returns true once the whole record is applied.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn proceed(&mut self, messages_max: u32, effects: &mut Effects) -> Result<bool, S::Error> {
        let mut left = messages_max.max(1);
        while left > 0 {
            if let Some(mut walk) = self.unfinished.mark.take() {
                if self.walk_mark(&mut walk, &mut left, effects)? {
                    self.finish_mark(walk, effects)?;
                } else {
                    self.unfinished.mark = Some(walk);
                }
            } else if let Some(waited) = self.unfinished.waited.take() {
                left -= 1;
                self.unfinished.waited = self.apply_next_waited(waited, effects)?;
            } else {
                break;
            }
        }
        Ok(self.unfinished.is_empty())
    }
}
