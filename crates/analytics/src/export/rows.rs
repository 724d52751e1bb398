//! Makes the rows of each dataset from a folded state, for every layout and for live tables. The
//! answers are the fold's; no rule of it is repeated here.

use super::batch::{Each, Value};
use super::datasets::Dataset;
use crate::{Error, ProgressMonitor, Span, read};
use receipts_event::{Body, Event};
use receipts_fold::pages::Role;
use receipts_fold::view::{Counts, MemberFilter};
use receipts_fold::{Conversation, Pages, State};
use receipts_log::Inspect;
use serde::Serialize;
use serde_json::Value as Json;
use std::ops::Range;

/// Members of one message that are loaded from the state at a time.
const MEMBERS_AT_ONCE: usize = 1_000;

/// A consumer of members: tenant, day, conversation and message, then user id, read time and send
/// time.
type EachMember<'a> = &'a mut dyn FnMut([Value<'_>; 4], Value<'_>, Value<'_>, Value<'_>) -> Result<(), Error>;

/// A state from which rows are made.
pub(crate) struct Source<'a, S> {
    pub(crate) state: &'a State<S>,
    pub(crate) partition: u32,
    pub(crate) monitor: &'a dyn ProgressMonitor,
}

impl<S: Pages<Error = receipts_store::Error>> Source<'_, S> {
    /// Makes the rows of a dataset for the range of the log that was folded into the state.
    pub(super) fn rows(&self, log: &dyn Inspect, span: &Span, dataset: Dataset, each: Each<'_>) -> Result<(), Error> {
        let messages = self.state.first_message()..self.state.messages();
        let conversations = 0..self.state.conversations();
        match dataset {
            Dataset::Messages => self.messages(messages, each),
            Dataset::Reads => self.reads(messages, each),
            Dataset::Members => self.members(messages, each),
            Dataset::Rosters => self.rosters(conversations, each),
            Dataset::ReadMarks => self.read_marks(conversations, each),
            Dataset::Events => events(log, span, self.state, self.monitor, each),
        }
    }

    /// Makes the rows of `messages` for a range of message numbers.
    pub(crate) fn messages(&self, numbers: Range<u64>, each: Each<'_>) -> Result<(), Error> {
        for number in numbers {
            is_stopped(self.monitor)?;
            let located = self.state.located_receipt(number).map_err(Error::state(self.partition))?;
            let Some(m) = located else { continue };
            let c = self.state.conversation(m.conversation).map_err(Error::state(self.partition))?;
            let r = &m.receipt;
            let count = |of: fn(&Counts) -> u32| Value::maybe(r.counts.as_ref().map(of), Value::integer);
            let sent_at_ms = r.sent_at_ms.unwrap_or(m.timestamp_ms);
            each(&[
                Value::Text(&r.tenant),
                Value::day_of(sent_at_ms),
                Value::Text(&c.conversation_id),
                Value::Text(&r.message_id),
                Value::Text(&name_of(&r.status)),
                Value::Text(&name_of(&r.kind)),
                Value::Text(&c.group_type),
                Value::maybe(r.sender_id.as_deref(), Value::Text),
                Value::time(sent_at_ms),
                count(|c| c.audience_count),
                count(|c| c.read_count),
                count(|c| c.unread_count),
                count(|c| c.hidden_count),
                count(|c| c.departed_count),
                Value::maybe(r.counts.as_ref(), |c| Value::Flag(c.all_read)),
                Value::maybe(r.last_read_at_ms, Value::time),
                Value::maybe(r.user_id.as_deref(), Value::Text),
                Value::maybe(r.read_at_ms, Value::time),
                Value::integer(r.version.unwrap_or_default()),
                Value::integer(self.partition),
                Value::integer(m.offset),
                Value::time(m.timestamp_ms),
            ])?;
        }
        Ok(())
    }

    /// Makes the rows of `reads` for a range of message numbers: one per reader whom a list names.
    pub(crate) fn reads(&self, numbers: Range<u64>, each: Each<'_>) -> Result<(), Error> {
        numbers.into_iter().try_for_each(|number| {
            self.list(
                number,
                MemberFilter::Read,
                &mut |[tenant, day, conversation, message], user, read_at, sent_at| {
                    each(&[tenant, day, conversation, message, user, read_at, sent_at, Value::integer(self.partition)])
                },
            )
        })
    }

    /// Makes the rows of `members` for a range of message numbers.
    pub(crate) fn members(&self, numbers: Range<u64>, each: Each<'_>) -> Result<(), Error> {
        for number in numbers {
            for filter in [MemberFilter::Read, MemberFilter::Unread, MemberFilter::Departed] {
                let list = name_of(&filter);
                self.list(number, filter, &mut |[tenant, day, conversation, message], user, read_at, sent_at| {
                    let partition = Value::integer(self.partition);
                    let list = Value::Text(&list);
                    each(&[tenant, day, conversation, message, user, list, read_at, sent_at, partition])
                })?;
            }
        }
        Ok(())
    }

    /// Calls `each` for each member of a list.
    fn list(&self, number: u64, filter: MemberFilter, each: EachMember<'_>) -> Result<(), Error> {
        let mut slot = Some(0);
        while let Some(from) = slot {
            is_stopped(self.monitor)?;
            let list = self.state.members_of(number, filter, from, MEMBERS_AT_ONCE);
            let Some(list) = list.map_err(Error::state(self.partition))? else { break };
            slot = list.next_slot;
            let r = &list.receipt;
            let sent_at_ms = r.sent_at_ms.unwrap_or_default();
            for member in &list.members {
                let message = [
                    Value::Text(&r.tenant),
                    Value::day_of(sent_at_ms),
                    Value::Text(r.conversation_id.as_deref().unwrap_or_default()),
                    Value::Text(&r.message_id),
                ];
                let read_at = Value::maybe(member.read_at_ms, Value::time);
                each(message, Value::Text(&member.user_id), read_at, Value::time(sent_at_ms))?;
            }
        }
        Ok(())
    }

    /// Makes the rows of `rosters` for a range of conversation numbers.
    pub(crate) fn rosters(&self, numbers: Range<u32>, each: Each<'_>) -> Result<(), Error> {
        for number in numbers {
            let Conversation { tenant, conversation_id, kind, group_type, .. } =
                self.state.conversation(number).map_err(Error::state(self.partition))?;
            let kind = name_of(&kind);
            let mut slot = Some(0);
            while let Some(from) = slot {
                is_stopped(self.monitor)?;
                let roster = self.state.roster_page(number, from).map_err(Error::state(self.partition))?;
                slot = roster.next_slot;
                for (user_id, role) in roster.people {
                    each(&[
                        Value::Text(&tenant),
                        Value::Text(&conversation_id),
                        Value::Text(&user_id),
                        Value::Text(if role == Role::Member { "member" } else { "observer" }),
                        Value::Text(&kind),
                        Value::Text(&group_type),
                        Value::integer(self.partition),
                    ])?;
                }
            }
        }
        Ok(())
    }

    /// Makes the rows of `read_marks` for a range of conversation numbers.
    pub(crate) fn read_marks(&self, numbers: Range<u32>, each: Each<'_>) -> Result<(), Error> {
        for number in numbers {
            let (tenant, conversation_id) =
                self.state.conversation_name(number).map_err(Error::state(self.partition))?;
            let mut slot = Some(0);
            while let Some(from) = slot {
                is_stopped(self.monitor)?;
                let page = self.state.read_marks_page(number, from).map_err(Error::state(self.partition))?;
                slot = page.next_slot;
                for mark in page.marks {
                    each(&[
                        Value::Text(&tenant),
                        Value::Text(&conversation_id),
                        Value::Text(&mark.reader_id),
                        Value::maybe(mark.up_to_message_id.as_deref(), Value::Text),
                        Value::time(mark.up_to_sent_at_ms),
                        Value::time(mark.read_at_ms),
                        Value::integer(mark.version),
                        Value::integer(self.partition),
                    ])?;
                }
            }
        }
        Ok(())
    }
}

/// Makes the rows of `events` for a range of the log. The state knows every person erased within
/// its prefix, also by records after the range.
fn events<S: Pages>(
    log: &dyn Inspect,
    span: &Span,
    state: &State<S>,
    monitor: &dyn ProgressMonitor,
    each: Each<'_>,
) -> Result<(), Error> {
    let decoder = state.decoder(log.partition_count());
    read(log, span, monitor, &mut |records| {
        for record in records {
            let Ok(event) = decoder.decode(record.partition, record.key, record.value) else { continue };
            each(&[
                Value::Text(&event.tenant),
                Value::day_of(record.timestamp_ms),
                Value::maybe(event.conversation_id(), Value::Text),
                Value::integer(record.partition),
                Value::integer(record.offset),
                Value::time(record.timestamp_ms),
                Value::Text(event.type_name()),
                Value::maybe(event.event_id.as_deref(), Value::Text),
                Value::Text(&shown(&event, state)),
            ])?;
        }
        Ok(())
    })
}

fn is_stopped(monitor: &dyn ProgressMonitor) -> Result<(), Error> {
    if monitor.is_stopped() { Err(Error::Stopped) } else { Ok(()) }
}

/// Returns an event as JSON without erased people and hidden readers.
fn shown<S: Pages>(event: &Event<'_>, state: &State<S>) -> String {
    let is_hidden = match &event.body {
        Body::MessageRead(read) => read.hidden,
        Body::ConversationRead(read) => read.hidden,
        _ => false,
    };
    let is_erased = |id: &Json| id.as_str().is_some_and(|id| state.is_erased(&event.tenant, id));
    let mut json = serde_json::to_value(event).expect("an event has string keys only");
    let fields = json.as_object_mut().expect("an event is an object");
    for field in ["reader_id", "sender_id", "user_id"] {
        if fields.get(field).is_some_and(|id| is_erased(id) || is_hidden) {
            fields.remove(field);
        }
    }
    for field in ["joined", "left", "observers", "recipients"] {
        if let Some(Json::Array(ids)) = fields.get_mut(field) {
            ids.retain(|id| !is_erased(id));
        }
    }
    json.to_string()
}

/// Returns the name of a kind, status or list in the contract's JSON.
fn name_of(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Json::String(name)) => name,
        _ => String::new(),
    }
}
