//! The seeded speed workload: conversations of power-law sizes, bursts of messages, and receipts of
//! recent ones.
//!
//! An event takes 16 bytes and is spelled out on demand, decoded or as JSON, so a bench does not
//! measure its generation. Ids and numbers have realistic lengths. It tests no rule: every event is
//! regular.

mod plan;
mod spell;

pub use self::spell::Scratch;

use self::plan::Plan;
use crate::random::Random;
use crate::subject::At;

/// The record time of the rosters, Unix milliseconds; the first burst follows.
pub const EPOCH_MS: u64 = 1_780_000_000_000;
/// Messages in a burst: geometric with this mean, up to [`BURST_MAX`].
pub const BURST_MEAN: f64 = 8.0;
/// The longest burst, messages.
pub const BURST_MAX: usize = 50;
/// Bursts per conversation.
pub const BURSTS_PER_CONVERSATION: usize = 4;
/// The probability that a member reads a burst.
pub const READ_PROBABILITY: f64 = 0.8;
/// The median of the log-normal delay between the end of a burst and its reads, milliseconds (2
/// minutes).
pub const DELAY_MEDIAN_MS: f64 = 120_000.0;
/// The sigma of that delay.
pub const DELAY_SIGMA: f64 = 1.5;
/// Members in one `members.changed` at most, as the contract allows.
pub const MEMBERS_PER_EVENT: usize = receipts_event::LISTED_IDS_MAX;

/// The size and kind of a workload.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// The seed. The same seed and parameters always give the same events.
    pub seed: u64,
    /// The number of messages.
    pub messages: usize,
    /// The mean number of receipts per message, with duplicates. Group sizes follow from it.
    pub receipts_per_message: f64,
    /// The largest group, members; at most 2^26 - 2.
    pub size_max: u32,
    /// The most messages that one `message.read` names: 1, or up to [`BURST_MAX`] for one read per
    /// burst.
    pub ids_per_event: usize,
    /// The probability that a read or a send is repeated.
    pub duplicates: f64,
    /// The messages per second of record time. 47 is one of 256 partitions at a billion per day.
    pub messages_per_s: f64,
}

impl Default for Params {
    /// The workload of the documents: 3 million messages, 15 million receipts, groups of 2 to
    /// 5,000.
    fn default() -> Self {
        Self {
            seed: 1,
            messages: 3_000_000,
            receipts_per_message: 5.0,
            size_max: 5_000,
            ids_per_event: 1,
            duplicates: 0.01,
            messages_per_s: 47.0,
        }
    }
}

/// One send or read: its time, its burst, and its part of the burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Compact {
    /// The record's timestamp, Unix milliseconds.
    pub at_ms: u64,
    burst: u32,
    what: What,
}

/// Reader slot and index of the first message in the burst, packed: 26 and 6 bits. The slot
/// [`What::SEND`] belongs to no person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct What(u32);

impl What {
    const SEND: u32 = (1 << 26) - 1;

    fn send(message: usize) -> Self {
        Self(Self::SEND << 6 | message as u32)
    }

    fn read(slot: u32, message: usize) -> Self {
        Self(slot << 6 | message as u32)
    }

    fn message(self) -> usize {
        (self.0 & 63) as usize
    }

    fn reader(self) -> Option<u32> {
        (self.0 >> 6 != Self::SEND).then_some(self.0 >> 6)
    }
}

/// An event that makes the rosters, before all sends.
#[derive(Debug, Clone, Copy)]
enum Setup {
    Configured(u32),
    /// The slots from this one on.
    Joined(u32, u32),
}

/// All events of one partition, in record time.
#[derive(Debug)]
pub struct Workload {
    plan: Plan,
    setup: Vec<Setup>,
    /// Sends and reads, by record time; the rosters stand before them.
    pub events: Vec<Compact>,
    ids_per_event: usize,
}

impl Workload {
    /// Generates the workload. Takes about 16 bytes per event, and 8 more per message.
    ///
    /// ```
    /// use receipts_testkit::workload::{Params, Scratch, Workload};
    ///
    /// let workload = Workload::generate(&Params { messages: 100, ..Params::default() });
    /// let (mut scratch, mut json) = (Scratch::default(), vec![]);
    /// for i in 0..workload.len() {
    ///     workload.json(i, &mut json);
    ///     assert_eq!(receipts_event::decode(&json), Ok(workload.event(i, &mut scratch)));
    /// }
    /// ```
    ///
    /// # Panics
    /// If `ids_per_event` is 0, or `size_max` is below 2 or too large for a slot.
    pub fn generate(params: &Params) -> Self {
        assert!(params.ids_per_event > 0, "a read names a message");
        assert!((2..What::SEND).contains(&params.size_max), "a group has 2 to 2^26 - 2 members");
        let random = &mut Random::new(params.seed);
        let plan = Plan::make(params, random);
        let mut setup = vec![];
        for conversation in 0..plan.sizes.len() as u32 {
            setup.push(Setup::Configured(conversation));
            let slots = (0..plan.sizes[conversation as usize]).step_by(MEMBERS_PER_EVENT);
            setup.extend(slots.map(|from| Setup::Joined(conversation, from)));
        }
        let mut events = Vec::with_capacity((params.messages as f64 * (1.1 + params.receipts_per_message)) as usize);
        for burst in 0..plan.bursts.len() as u32 {
            plan_burst(params, &plan, burst, random, &mut events);
        }
        events.sort_unstable();
        Self { plan, setup, events, ids_per_event: params.ids_per_event }
    }

    /// Returns the number of events, with rosters.
    pub fn len(&self) -> usize {
        self.setup.len() + self.events.len()
    }

    /// Tells whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of roster events, which come first.
    pub fn setup_len(&self) -> usize {
        self.setup.len()
    }

    /// Returns the position and time of event `i`, whose offset is `i`.
    pub fn at(&self, i: usize) -> At {
        let timestamp_ms = i.checked_sub(self.setup.len()).map_or(EPOCH_MS, |i| self.events[i].at_ms);
        At { partition: 0, offset: i as u64, timestamp_ms }
    }

    /// Returns the number of messages without duplicates.
    pub fn messages(&self) -> usize {
        self.plan.senders.len()
    }

    /// Returns the number of receipts in all reads, with duplicates.
    pub fn receipts(&self) -> usize {
        let named = |event: &Compact| event.what.reader().map_or(0, |slot| self.named(*event, slot).count());
        self.events.iter().map(named).sum()
    }

    /// Returns the number of members of each conversation.
    pub fn sizes(&self) -> &[u32] {
        &self.plan.sizes
    }

    /// Returns the messages that a read names: from its first one on, as many as fit, without the
    /// reader's own.
    fn named(&self, event: Compact, slot: u32) -> impl Iterator<Item = usize> {
        let senders = self.plan.senders_of(event.burst);
        (event.what.message()..senders.len()).filter(move |i| senders[*i] != slot).take(self.ids_per_event)
    }
}

/// Adds the sends and the reads of a burst.
fn plan_burst(params: &Params, plan: &Plan, burst: u32, random: &mut Random, events: &mut Vec<Compact>) {
    let senders = plan.senders_of(burst);
    let mut push = |random: &mut Random, at_ms: u64, what: What| {
        events.push(Compact { at_ms, burst, what });
        if random.chance(params.duplicates) {
            events.push(Compact { at_ms: at_ms + 1 + random.below(60_000), burst, what });
        }
    };
    for i in 0..senders.len() {
        push(random, plan.sent_at_ms(burst, i), What::send(i));
    }
    for slot in 0..plan.size_of(burst) {
        if !random.chance(READ_PROBABILITY) {
            continue;
        }
        let mut at_ms = plan.end_ms(burst) + random.log_normal(DELAY_MEDIAN_MS, DELAY_SIGMA) as u64;
        let mut others = (0..senders.len()).filter(|i| senders[*i] != slot);
        while let Some(first) = others.next() {
            push(random, at_ms, What::read(slot, first));
            others.by_ref().take(params.ids_per_event - 1).for_each(drop);
            at_ms += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_event::Body;

    fn small(ids_per_event: usize) -> Params {
        Params { messages: 20_000, size_max: 500, ids_per_event, ..Params::default() }
    }

    #[test]
    fn the_same_seed_gives_the_same_events() {
        let (one, two) = (Workload::generate(&small(1)), Workload::generate(&small(1)));
        assert_eq!(one.events, two.events);
        assert_ne!(one.events, Workload::generate(&Params { seed: 2, ..small(1) }).events);
    }

    #[test]
    fn receipts_and_sizes_come_out_as_asked_for() {
        let workload = Workload::generate(&small(1));
        assert_eq!(workload.messages(), 20_000);
        let per_message = workload.receipts() as f64 / 20_000.0;
        assert!((4.5..5.5).contains(&per_message), "{per_message}");
        assert_eq!(workload.sizes().iter().min(), Some(&2));
        assert!(workload.sizes().iter().max().is_some_and(|max| (300..=500).contains(max)));
    }

    #[test]
    fn reads_follow_sends_and_time_never_falls() {
        let workload = Workload::generate(&small(8));
        let (mut scratch, mut sent) = (Scratch::default(), std::collections::HashSet::new());
        let mut last_ms = 0;
        for i in 0..workload.len() {
            assert!(workload.at(i).timestamp_ms >= last_ms);
            last_ms = workload.at(i).timestamp_ms;
            match workload.event(i, &mut scratch).body {
                Body::MessageSent(body) => _ = sent.insert(body.message_id.to_string()),
                Body::MessageRead(body) => {
                    assert!((1..=8).contains(&body.message_ids.len()));
                    assert!(body.message_ids.iter().all(|id| sent.contains(&**id)));
                }
                _ => assert!(i < workload.setup_len()),
            }
        }
        assert_eq!(sent.len(), 20_000);
    }

    #[test]
    fn burst_reads_name_equal_receipts_in_fewer_events() {
        let once = |ids| Workload::generate(&Params { duplicates: 0.0, ..small(ids) });
        let (single, whole) = (once(1), once(BURST_MAX));
        let mean = single.receipts() as f64 / whole.receipts() as f64;
        assert!((0.95..1.05).contains(&mean), "{mean}");
        assert!(whole.events.len() * 2 < single.events.len());
    }
}
