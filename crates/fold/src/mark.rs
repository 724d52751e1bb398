//! A reader has read a conversation up to somewhere: the mark moves forward, and every message it newly covers is read.

use crate::chain::{self, Link};
use crate::effects::{Effects, MarkMoved};
use crate::message::Messages;
use crate::page::Table;
use crate::park::Raw;
use crate::people::Role;
use crate::read::{Clock, Reader, Reading};
use crate::small::{Covered, MARKS_PER_PAGE, Mark, Marks};
use crate::state::{At, Error, Named, Pages, Result, State, key, message_key};
use receipts_event::{ConversationRead, Kind, UpTo};

/// Up to where.
struct Target {
    message_id: Option<Box<str>>,
    sent_at_ms: u64,
}

impl<S: Pages> State<S> {
    pub(crate) fn read_conversation(
        &mut self,
        tenant: &str,
        e: &ConversationRead<'_>,
        at: At,
        raw: Raw<'_>,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let clock = Clock { read_at_ms: e.read_at_ms, timestamp_ms: at.timestamp_ms };
        let reading = Reading { clock, hidden: e.hidden, offset: at.offset };
        let conversation = self.find_conversation(tenant, &e.conversation_id)?;
        match (&e.up_to, conversation) {
            (UpTo::Message(id), None) => self.park(at, raw, vec![(&**id).into()], effects)?,
            (UpTo::Message(id), Some(conversation)) => match self.find_message(conversation, id)? {
                Named::Message(message) => {
                    self.read_up_to_message(conversation, &e.reader_id, message, reading, effects)?
                }
                Named::Expired => effects.counters.expired += 1,
                Named::Nothing => self.park(at, raw, vec![(&**id).into()], effects)?,
            },
            (UpTo::SentAt(_), None) => effects.counters.not_in_audience += 1,
            (UpTo::SentAt(sent_at_ms), Some(conversation)) => {
                let target = Target { message_id: None, sent_at_ms: *sent_at_ms };
                self.read_up_to(conversation, &e.reader_id, &target, reading, effects)?;
            }
        }
        Ok(())
    }

    /// Reads everything up to a message that is in the log.
    pub(crate) fn read_up_to_message(
        &mut self,
        conversation: u32,
        reader_id: &str,
        message: u64,
        how: Reading,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let page = self.message(message)?.ok_or(Error::Broken("a message"))?;
        let place = message_key(message).1;
        let sent_at_ms = page.at(place).ok_or(Error::Broken("a message"))?.sent_at_ms;
        let target = Target { message_id: Some(page.id(place).into()), sent_at_ms };
        self.read_up_to(conversation, reader_id, &target, how, effects)
    }

    fn read_up_to(
        &mut self,
        conversation: u32,
        reader_id: &str,
        target: &Target,
        how: Reading,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        self.settle_erasures(conversation)?;
        let Some(reader) = self.reader(conversation, reader_id)? else {
            effects.counters.not_in_audience += 1;
            return Ok(());
        };
        let (k, place) = (key(conversation, reader.slot / MARKS_PER_PAGE), reader.slot % MARKS_PER_PAGE);
        let (mark, covered) = match Table::<Marks>::hot(&mut self.pages, k)? {
            Some(page) => page.slots.get(place as usize).cloned().unwrap_or_default(),
            None => {
                self.pages.put(k, Marks::default());
                (None, None)
            }
        };
        self.read_newly_covered(conversation, &reader, covered, target.sent_at_ms, how, effects)?;

        let moves =
            reader.role != Role::None && !how.hidden && mark.is_none_or(|m| target.sent_at_ms > m.up_to_sent_at_ms);
        // A mark at or beyond every message covers all of them, however far an earlier one reached.
        let reaches_all = target.sent_at_ms >= self.head(conversation)?.sent_at_max;
        let covers = reaches_all || covered.is_none_or(|c| target.sent_at_ms >= c.up_to_sent_at_ms);
        if moves || covers {
            let below = self.meta.next_message;
            let mut page = Table::<Marks>::hot(&mut self.pages, k)?.ok_or(Error::Broken("read marks"))?;
            let entry = page.at_mut(place);
            if covers {
                let before = covered.map_or(0, |c| c.up_to_sent_at_ms);
                entry.1 = Some(Covered { below, up_to_sent_at_ms: target.sent_at_ms.max(before) });
            }
            if moves {
                entry.0 = Some(Mark {
                    message_id: target.message_id.clone(),
                    up_to_sent_at_ms: target.sent_at_ms,
                    read_at_ms: how.clock.read_time(target.sent_at_ms),
                    version: how.offset,
                });
            }
        }
        if moves && self.head(conversation)?.kind == Kind::Direct {
            effects.marks.push(MarkMoved { conversation, slot: reader.slot });
        }
        Ok(())
    }

    /// Walks the conversation backwards from the last message that the mark can reach to the first one that an earlier
    /// mark had covered: the cost follows what is new, not the length of the conversation.
    fn read_newly_covered(
        &mut self,
        conversation: u32,
        reader: &Reader,
        covered: Option<Covered>,
        up_to_sent_at_ms: u64,
        how: Reading,
        effects: &mut Effects,
    ) -> Result<(), S::Error> {
        let head = self.head(conversation)?.clone();
        // A message behind one sent so much later than the target was itself sent after the target.
        let bound = up_to_sent_at_ms.saturating_add(head.disorder_ms);
        let mut at = chain::seek(&head, bound, |message| self.link(message))?;
        let mut newly_covered = Vec::new();
        while let Some((message, link)) = at {
            if message < reader.since
                || covered.is_some_and(|c| message < c.below && link.sent_at_max <= c.up_to_sent_at_ms)
            {
                break;
            }
            let before = covered.is_some_and(|c| message < c.below && link.sent_at_ms <= c.up_to_sent_at_ms);
            if link.sent_at_ms <= up_to_sent_at_ms && !before {
                newly_covered.push(message);
            }
            at = match link.previous {
                Some(previous) => self.link(previous)?.map(|l| (previous, l)),
                None => None,
            };
        }
        // In log order, as single receipts would have come.
        for message in newly_covered.into_iter().rev() {
            self.read_message(message, reader, how, effects)?;
        }
        Ok(())
    }

    fn link(&mut self, message: u64) -> Result<Option<Link>, S::Error> {
        let (k, place) = message_key(message);
        let link = Table::<Messages>::hot(&mut self.pages, k)?.and_then(|page| page.link(place));
        // A walk ends because every link leads further back.
        if link.is_some_and(|l| l.previous.max(l.skip).is_some_and(|to| to >= message)) {
            return Err(Error::Broken("links that lead back"));
        }
        Ok(link)
    }
}
