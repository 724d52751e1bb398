//! `conversation.read`: moves the reader's mark forward, and reads every message that the mark
//! newly covers.
//!
//! A mark never moves back (INV-MARK). A hidden read covers messages and does not move the mark.

use crate::effects::{Effects, MarkMoved};
use crate::index::Lookup;
use crate::pages::{Covered, MARKS_PER_PAGE, Mark, Messages, PageKey, Pages, ReadMarks, Role, Table, message_key};
use crate::record::{RawRecord, RecordMetadata};
use crate::rules::read::{ReadTimes, Reader, Reading};
use crate::skip_list;
use crate::skip_list::SkipLink;
use crate::state::{Error, Result, State};
use receipts_event::{ConversationRead, Kind, UpTo};

/// The point up to which the conversation is read.
struct Target {
    message_id: Option<Box<str>>,
    sent_at_ms: u64,
}

/// A read mark that is being applied. Messages are read from the newest to the oldest, as the links
/// lead, so no list of them is needed. The order changes no state: a mark reads each message once.
pub(crate) struct MarkWalk {
    conversation: u32,
    reader: Reader,
    target: Target,
    how: Reading,
    covered: Option<Covered>,
    /// The next message of the walk.
    at: Option<u64>,
}

/// Returns the page of a reader's mark, and the mark's index on it.
fn mark_key(conversation: u32, reader: &Reader) -> (PageKey, u32) {
    (PageKey::new(conversation, reader.slot / MARKS_PER_PAGE), reader.slot % MARKS_PER_PAGE)
}

impl<S: Pages> State<S> {
    pub(super) fn read_conversation(
        &mut self,
        tenant: &str,
        e: &ConversationRead<'_>,
        at: RecordMetadata,
        raw: RawRecord<'_>,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let times = ReadTimes { read_at_ms: e.read_at_ms, timestamp_ms: at.timestamp_ms };
        let reading = Reading { times, hidden: e.hidden, offset: at.offset };
        let conversation = self.find_conversation(tenant, &e.conversation_id)?;
        match (&e.up_to, conversation) {
            (UpTo::Message(id), None) => self.park(tenant, at, raw, vec![(&**id).into()], effects)?,
            (UpTo::Message(id), Some(conversation)) => match self.find_message(tenant, conversation, id)? {
                Lookup::Message(message) => {
                    self.read_up_to_message(conversation, &e.reader_id, message, reading, effects)?
                }
                Lookup::Expired => effects.counters.expired += 1,
                Lookup::Unknown => self.park(tenant, at, raw, vec![(&**id).into()], effects)?,
            },
            (UpTo::SentAt(_), None) => effects.counters.not_in_audience += 1,
            (UpTo::SentAt(sent_at_ms), Some(conversation)) => {
                let target = Target { message_id: None, sent_at_ms: *sent_at_ms };
                self.read_up_to(conversation, &e.reader_id, target, reading, effects)?;
            }
        }
        Ok(())
    }

    /// Reads a conversation up to a message that is in the log.
    pub(super) fn read_up_to_message(
        &mut self,
        conversation: u32,
        reader_id: &str,
        message: u64,
        how: Reading,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let page = self.messages_page(message)?.ok_or(Error::Broken("a message"))?;
        let index = message_key(message).1;
        let sent_at_ms = page.at(index).ok_or(Error::Broken("a message"))?.sent_at_ms;
        let target = Target { message_id: Some(page.id(index).into()), sent_at_ms };
        self.read_up_to(conversation, reader_id, target, how, effects)
    }

    /// Begins to read a conversation up to a target. The slices of [`super::slices`] do the rest.
    fn read_up_to(
        &mut self,
        conversation: u32,
        reader_id: &str,
        target: Target,
        how: Reading,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        self.apply_erasures(conversation)?;
        let Some(reader) = self.reader(conversation, reader_id)? else {
            effects.counters.not_in_audience += 1;
            return Ok(());
        };
        let (key, index) = mark_key(conversation, &reader);
        let covered = match Table::<ReadMarks>::load_mut(&mut self.pages, key)? {
            Some(page) => page.slots.get(index as usize).and_then(|(_, covered)| *covered),
            None => {
                self.pages.put(key, ReadMarks::default());
                None
            }
        };
        let page = self.conversation_page(conversation)?.clone();
        // If the `sent_at_max` of a message exceeds this bound, that message and all later ones
        // were sent after the target.
        let bound = target.sent_at_ms.saturating_add(page.disorder_ms);
        let at = skip_list::seek(&page, bound, |message| self.link(message))?.map(|(message, _)| message);
        self.unfinished.mark = Some(MarkWalk { conversation, reader, target, how, covered, at });
        Ok(())
    }

    /// Walks the conversation backwards, from the last message that the mark can reach to the first
    /// one that an earlier mark covered, and reads the newly covered ones. The cost follows the
    /// newly covered messages, not the length of the conversation (INV-COVER).
    ///
    /// Returns false once `left`, a number of messages, is used up.
    pub(super) fn walk_mark(
        &mut self,
        walk: &mut MarkWalk,
        left: &mut u32,
        effects: &mut Effects,
    ) -> Result<bool, S::Error> {
        let up_to_sent_at_ms = walk.target.sent_at_ms;
        while let Some(message) = walk.at {
            if *left == 0 {
                return Ok(false);
            }
            *left -= 1;
            let Some(link) = self.link(message)? else { break };
            if message < walk.reader.since_message
                || walk.covered.is_some_and(|c| message < c.below && link.sent_at_max <= c.up_to_sent_at_ms)
            {
                break;
            }
            let before = walk.covered.is_some_and(|c| message < c.below && link.sent_at_ms <= c.up_to_sent_at_ms);
            if link.sent_at_ms <= up_to_sent_at_ms && !before {
                self.read_message(message, &walk.reader, walk.how, effects)?;
            }
            walk.at = link.previous;
        }
        Ok(true)
    }

    /// Moves the mark, after all messages that it covers are read.
    pub(super) fn finish_mark(&mut self, walk: MarkWalk, effects: &mut Effects) -> Result<(), S::Error> {
        let MarkWalk { conversation, reader, target, how, covered, .. } = walk;
        let (key, index) = mark_key(conversation, &reader);
        let page = self.conversation_page(conversation)?;
        let (sent_at_max, kind) = (page.sent_at_max, page.kind);
        let below = self.meta.next_message;
        let mut page = Table::<ReadMarks>::load_mut(&mut self.pages, key)?.ok_or(Error::Broken("read marks"))?;
        let mark = page.slots.get(index as usize).and_then(|(mark, _)| mark.as_ref());
        let moves =
            reader.role != Role::None && !how.hidden && mark.is_none_or(|m| target.sent_at_ms > m.up_to_sent_at_ms);
        // A mark that reaches the newest `sent_at_ms` covers all messages, even if an earlier mark
        // reached further.
        let reaches_all = target.sent_at_ms >= sent_at_max;
        let covers = reaches_all || covered.is_none_or(|c| target.sent_at_ms >= c.up_to_sent_at_ms);
        if moves || covers {
            let entry = page.entry_mut(index);
            if covers {
                let before = covered.map_or(0, |c| c.up_to_sent_at_ms);
                entry.1 = Some(Covered { below, up_to_sent_at_ms: target.sent_at_ms.max(before) });
            }
            if moves {
                entry.0 = Some(Mark {
                    message_id: target.message_id,
                    up_to_sent_at_ms: target.sent_at_ms,
                    read_at_ms: how.times.read_time(target.sent_at_ms),
                    version: how.offset,
                });
            }
        }
        if moves && kind == Kind::Direct {
            effects.marks.push(MarkMoved { conversation, slot: reader.slot });
        }
        Ok(())
    }

    fn link(&mut self, message: u64) -> Result<Option<SkipLink>, S::Error> {
        let (key, index) = message_key(message);
        let link = Table::<Messages>::load_mut(&mut self.pages, key)?.and_then(|page| page.link(index));
        // A walk ends because every link leads further back.
        if link.is_some_and(|l| l.previous.max(l.skip).is_some_and(|to| to >= message)) {
            return Err(Error::Broken("the links of a message"));
        }
        Ok(link)
    }
}
