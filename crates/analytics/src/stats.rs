//! Read statistics: shares, times to read, hours of the day, and the largest, hottest and most-read
//! items. Counts from a folded state with fixed-size sketches and short lists; names no person.
//!
//! Keeps INV-STATS.

mod figures;
mod groups;
pub mod page;
mod timeline;
mod times;
mod top;

pub use figures::{
    After24Hours, Audience, Conversation, Group, Groups, Hour, Message, Messages, Period, Readers, Share, Stats,
    TimeToRead, Timeline, Weekday,
};

use crate::{Error, FoldReport, Folded, ProgressMonitor, Scratch, Span};
use figures::of;
use groups::Named;
use receipts_event::Kind;
use receipts_fold::LocatedReceipt;
use receipts_fold::view::{Counts, MemberFilter, Receipt, Status};
use receipts_log::Inspect;
use timeline::{Sends, Week};
use times::{Hours, Sizes};
use top::Top;

/// Readers of one message that are loaded from the state at a time.
const READERS_AT_ONCE: usize = 1_000;
const DAY_MS: u64 = 24 * 3_600_000;

/// The messages to count and the length of the lists.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Counts only messages whose record has at least this timestamp, Unix milliseconds.
    pub since_ms: u64,
    /// Counts only this tenant's messages.
    pub tenant: Option<String>,
    /// The maximum number of entries of each list of conversations and messages.
    pub top: usize,
}

/// Folds ranges of the log and counts their messages. `spans` has at most one range per partition,
/// each from the partition's beginning.
///
/// # Errors
/// If the log or a state fails, or the monitor stops the run.
pub fn stats(
    log: &dyn Inspect,
    spans: &[Span],
    scratch: &Scratch,
    plan: &Plan,
    monitor: &dyn ProgressMonitor,
) -> Result<(Vec<FoldReport>, Stats), Error> {
    let mut reports = Vec::new();
    let mut counted = Counted::new(plan);
    for span in spans {
        let folded = scratch.fold(log, span, monitor)?;
        reports.push(folded.report.clone());
        counted.partition(&folded, monitor)?;
    }
    let newest_ms = reports.iter().filter_map(|report| report.newest_timestamp_ms).max();
    Ok((reports, counted.finish(newest_ms)))
}

/// The counts so far, at most about 8 MB and the lists of `Plan::top`. [`Traffic`] is per
/// partition.
struct Counted<'a> {
    plan: &'a Plan,
    messages: Messages,
    readers: Readers,
    after: After24Hours,
    sizes: Sizes,
    hours: Hours,
    week: Week,
    sends: Sends,
    tenants: Named,
    group_types: Named,
    largest: Top<Conversation>,
    hottest: Top<Conversation>,
    most_read: Top<Message>,
    most_unread: Top<Message>,
}

/// The sums of one conversation, 88 bytes each while its partition is counted.
#[derive(Clone, Copy, Default)]
struct Traffic {
    messages: u64,
    readers: Readers,
    /// The message with the most members who have not read, and their number; the first one of
    /// several.
    most_unread: (u64, u32),
}

impl<'a> Counted<'a> {
    fn new(plan: &'a Plan) -> Self {
        Self {
            plan,
            messages: Messages::default(),
            readers: Readers::default(),
            after: After24Hours::default(),
            sizes: Sizes::new(),
            hours: Hours::new(),
            week: Week::new(),
            sends: Sends::new(),
            tenants: Named::default(),
            group_types: Named::default(),
            largest: Top::new(plan.top),
            hottest: Top::new(plan.top),
            most_read: Top::new(plan.top),
            most_unread: Top::new(plan.top),
        }
    }

    fn partition(&mut self, folded: &Folded, monitor: &dyn ProgressMonitor) -> Result<(), Error> {
        let (state, partition) = (&folded.state, folded.report.partition);
        let newest_ms = state.newest_timestamp_ms();
        let mut traffic = vec![Traffic::default(); state.conversations() as usize];
        for number in state.first_message()..state.messages() {
            if monitor.is_stopped() {
                return Err(Error::Stopped);
            }
            let Some(placed) = state.located_receipt(number).map_err(Error::state(partition))? else { continue };
            if placed.timestamp_ms < self.plan.since_ms || !self.is_selected(&placed.receipt.tenant) {
                continue;
            }
            self.messages.count(placed.receipt.status);
            let of = &mut traffic[placed.conversation as usize];
            of.messages += 1;
            let counts = placed.receipt.counts;
            self.sends.message(placed.receipt.sent_at_ms.unwrap_or(placed.timestamp_ms), counts.as_ref());
            let Some(counts) = counts else { continue };
            of.readers.add(&counts);
            if counts.unread_count > of.most_unread.1 {
                of.most_unread = (number, counts.unread_count);
            }
            self.counts(&counts, &placed, || {
                let conversation = state.conversation(placed.conversation).map_err(Error::state(partition))?;
                Ok(conversation.group_type)
            })?;
            self.reads(folded, number, &placed, newest_ms)?;
        }
        for (number, traffic) in (0..state.conversations()).zip(traffic) {
            let c = state.conversation(number).map_err(Error::state(partition))?;
            if !self.is_selected(&c.tenant) {
                continue;
            }
            let (members, messages, reads) = (c.members, traffic.messages, traffic.readers.read_count);
            self.tenants.add(&c.tenant, &traffic);
            self.group_types.add(if c.kind == Kind::Direct { "direct" } else { &c.group_type }, &traffic);
            let (unread_message, unread) = traffic.most_unread;
            if unread > 0 && self.most_unread.takes(unread.into()) {
                let placed = state.located_receipt(unread_message).map_err(Error::state(partition))?;
                if let Some(LocatedReceipt { receipt, .. }) = placed
                    && let Some(counts) = receipt.counts
                {
                    self.most_unread.push(unread.into(), || Message::new(&receipt, &counts, c.group_type.clone()));
                }
            }
            let conversation = || Conversation {
                tenant: c.tenant.clone(),
                conversation_id: c.conversation_id.clone(),
                kind: c.kind,
                group_type: c.group_type.clone(),
                members,
                messages,
                reads,
            };
            if members > 0 {
                self.largest.push(u64::from(members), conversation);
            }
            if messages > 0 {
                self.hottest.push(messages + reads, conversation);
            }
        }
        Ok(())
    }

    fn is_selected(&self, tenant: &str) -> bool {
        self.plan.tenant.as_deref().is_none_or(|asked| asked == tenant)
    }

    /// Adds a message's counts.
    fn counts(
        &mut self,
        counts: &Counts,
        placed: &LocatedReceipt,
        group_type: impl FnOnce() -> Result<String, Error>,
    ) -> Result<(), Error> {
        self.readers.add(counts);
        self.sizes.message(counts);
        let (receipt, mut failed) = (&placed.receipt, None);
        if counts.read_count > 0 {
            self.most_read.push(u64::from(counts.read_count), || {
                let group_type = group_type().unwrap_or_else(|error| {
                    failed = Some(error);
                    String::new()
                });
                Message::new(receipt, counts, group_type)
            });
        }
        failed.map_or(Ok(()), Err)
    }

    /// Adds the named readers of a message that have a read time.
    fn reads(&mut self, folded: &Folded, number: u64, placed: &LocatedReceipt, newest_ms: u64) -> Result<(), Error> {
        let Some(counts) = placed.receipt.counts else { return Ok(()) };
        let sent_at_ms = placed.receipt.sent_at_ms.unwrap_or(placed.timestamp_ms);
        let is_old = sent_at_ms.saturating_add(DAY_MS) <= newest_ms;
        let (mut within, mut later) = (0, 0);
        let mut slot = (counts.read_count > 0).then_some(0);
        while let Some(from) = slot {
            let list = folded.state.members_of(number, MemberFilter::Read, from, READERS_AT_ONCE);
            let Some(list) = list.map_err(Error::state(folded.report.partition))? else { break };
            slot = list.next_slot;
            for reader in &list.members {
                let Some(read_at_ms) = reader.read_at_ms else { continue };
                let took_ms = read_at_ms.saturating_sub(sent_at_ms);
                self.sizes.read(&counts, took_ms);
                self.week.read(read_at_ms);
                self.hours.read(read_at_ms, &placed.receipt.tenant, &reader.user_id);
                *(if took_ms <= DAY_MS { &mut within } else { &mut later }) += 1;
            }
        }
        if is_old {
            self.after.add(&counts, within, later);
        }
        Ok(())
    }

    fn finish(self, newest_ms: Option<u64>) -> Stats {
        let (by_audience, time_to_read, read_within_ms) = self.sizes.finish();
        Stats {
            newest_timestamp_ms: newest_ms,
            since_ms: (self.plan.since_ms > 0).then_some(self.plan.since_ms),
            tenant: self.plan.tenant.clone(),
            messages: self.messages,
            readers: self.readers,
            by_audience,
            time_to_read,
            timeline: self.sends.finish(),
            by_tenant: self.tenants.finish(self.plan.top),
            by_group_type: self.group_types.finish(self.plan.top),
            read_within_ms,
            after_24_hours: self.after,
            by_hour: self.hours.finish(),
            by_weekday: self.week.finish(),
            largest_conversations: self.largest.finish(),
            hottest_conversations: self.hottest.finish(),
            most_read_messages: self.most_read.finish(),
            most_unread_messages: self.most_unread.finish(),
        }
    }
}

impl Message {
    fn new(receipt: &Receipt, counts: &Counts, group_type: String) -> Self {
        Self {
            tenant: receipt.tenant.clone(),
            conversation_id: receipt.conversation_id.clone().unwrap_or_default(),
            message_id: receipt.message_id.clone(),
            group_type,
            sent_at_ms: receipt.sent_at_ms.unwrap_or_default(),
            audience_count: counts.audience_count,
            read_count: counts.read_count,
            unread_count: counts.unread_count,
            read_percent: of(counts.read_count.into(), counts.audience_count.into()),
        }
    }
}

impl Messages {
    fn count(&mut self, status: Status) {
        self.total += 1;
        match status {
            Status::Ok => self.ok += 1,
            Status::NotRequested => self.not_requested += 1,
            Status::Unsupported => self.unsupported += 1,
            Status::Recalled => self.recalled += 1,
            // The state never returns these for a message that it holds.
            Status::NotFound | Status::Forbidden | Status::Ambiguous => {}
        }
    }
}
