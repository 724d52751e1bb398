//! The seeded speed workload: conversations of power-law sizes, bursts of messages, receipts that fall on recent ones.
//!
//! Events are kept as 16 bytes each and spelt out on demand, decoded or as JSON, so that a bench measures what it feeds and
//! not this. Every id and number is of realistic length; nothing here is a test of rules: all goes well in it.

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
/// Bursts a conversation.
pub const BURSTS_PER_CONVERSATION: usize = 4;
/// How likely a member reads a burst.
pub const READ_PROBABILITY: f64 = 0.8;
/// Between the end of a burst and its being read, milliseconds: the median of a log-normal delay (2 minutes).
pub const DELAY_MEDIAN_MS: f64 = 120_000.0;
/// The sigma of that delay.
pub const DELAY_SIGMA: f64 = 1.5;
/// Members in one `members.changed` at most, as the contract allows.
pub const MEMBERS_PER_EVENT: usize = receipts_event::LISTED_IDS_MAX;

/// How much work, and of which kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Params {
    /// The same seed and parameters give the same events for ever.
    pub seed: u64,
    /// How many messages are sent.
    pub messages: usize,
    /// How many receipts a message gets in the mean, duplicates included; group sizes are chosen to that end.
    pub receipts_per_message: f64,
    /// The largest group, members; at most 2^26 - 2.
    pub size_max: u32,
    /// How many messages one `message.read` names at most: 1, or up to [`BURST_MAX`] for one read a burst.
    pub ids_per_event: usize,
    /// How likely a read or a send comes twice.
    pub duplicates: f64,
    /// How dense the messages are in record time, per second; 47 is one of 256 partitions at a billion a day.
    pub messages_per_s: f64,
}

impl Default for Params {
    /// What `docs` quote: 3 million messages, 15 million receipts, groups of 2 to 5,000.
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

/// One send or read: when, in which burst, and what of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Compact {
    /// The record's timestamp, Unix milliseconds.
    pub at_ms: u64,
    burst: u32,
    what: What,
}

/// Reader slot and index of the first message in the burst, packed: 26 and 6 bits. The slot [`What::SEND`] is nobody's.
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

/// An event of the rosters that stand before all sends.
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
    /// Makes the workload; takes about 16 bytes an event, half as much again a message.
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
    /// Where `ids_per_event` is 0 or `size_max` below 2 or too large for a slot.
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

    /// How many events, rosters included.
    pub fn len(&self) -> usize {
        self.setup.len() + self.events.len()
    }

    /// Whether there is no event.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many of the events are rosters; they stand before all others.
    pub fn setup_len(&self) -> usize {
        self.setup.len()
    }

    /// Where event `i` stands in the log: offsets are `i`.
    pub fn at(&self, i: usize) -> At {
        let timestamp_ms = i.checked_sub(self.setup.len()).map_or(EPOCH_MS, |i| self.events[i].at_ms);
        At { partition: 0, offset: i as u64, timestamp_ms }
    }

    /// How many messages are sent, duplicates aside.
    pub fn messages(&self) -> usize {
        self.plan.senders.len()
    }

    /// How many receipts the reads name, duplicates included.
    pub fn receipts(&self) -> usize {
        let named = |event: &Compact| event.what.reader().map_or(0, |slot| self.named(*event, slot).count());
        self.events.iter().map(named).sum()
    }

    /// The sizes of the conversations, members each.
    pub fn sizes(&self) -> &[u32] {
        &self.plan.sizes
    }

    /// The messages that a read of this reader names: from its first on, as many as fit, without the reader's own.
    fn named(&self, event: Compact, slot: u32) -> impl Iterator<Item = usize> {
        let senders = self.plan.senders_of(event.burst);
        (event.what.message()..senders.len()).filter(move |i| senders[*i] != slot).take(self.ids_per_event)
    }
}

/// The sends of a burst, and the reads of whoever reads it.
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
    fn time_never_falls_and_no_read_comes_before_its_send() {
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
    fn reads_of_whole_bursts_name_the_same_receipts_in_fewer_events() {
        let once = |ids| Workload::generate(&Params { duplicates: 0.0, ..small(ids) });
        let (single, whole) = (once(1), once(BURST_MAX));
        let mean = single.receipts() as f64 / whole.receipts() as f64;
        assert!((0.95..1.05).contains(&mean), "{mean}");
        assert!(whole.events.len() * 2 < single.events.len());
    }
}
