//! Plans the members of conversations and the times of bursts. Spells no ids.

use super::{BURST_MAX, BURST_MEAN, BURSTS_PER_CONVERSATION, EPOCH_MS, Params, READ_PROBABILITY};
use crate::random::Random;

/// The time between two messages of a burst, milliseconds.
const STEP_MS: u64 = 3_000;
/// The mean number of conversations per person.
const CONVERSATIONS_PER_PERSON: u64 = 5;
/// Snowflakes count time from here, Unix milliseconds.
const SNOWFLAKE_EPOCH_MS: u64 = 1_420_000_000_000;

#[derive(Debug)]
pub(super) struct Plan {
    /// Members of each conversation.
    pub(super) sizes: Vec<u32>,
    /// The random numbers in the conversations' ids, so that ids do not depend on size.
    pub(super) numbers: Vec<u32>,
    people: Vec<People>,
    pub(super) bursts: Vec<Burst>,
    /// The sender's slot of each message, burst after burst.
    pub(super) senders: Vec<u32>,
    users: u64,
}

#[derive(Debug)]
pub(super) struct Burst {
    pub(super) conversation: u32,
    at_ms: u64,
    /// The index of its first message among all messages.
    first: u32,
    len: u32,
}

/// The members of a conversation as a stride through all people: distinct, and shared with other
/// conversations.
#[derive(Debug)]
struct People {
    start: u64,
    stride: u64,
}

impl Plan {
    pub(super) fn make(params: &Params, random: &mut Random) -> Self {
        let mut lengths = vec![];
        let mut left = params.messages;
        while left > 0 {
            let length = 1 + (random.unit().ln() / (1.0 - 1.0 / BURST_MEAN).ln()) as usize;
            lengths.push(length.min(BURST_MAX).min(left));
            left -= lengths[lengths.len() - 1];
        }
        let count = lengths.len().div_ceil(BURSTS_PER_CONVERSATION);
        let sizes = sizes(params, &lengths, count);
        let total: u64 = sizes.iter().map(|size| u64::from(*size)).sum();
        let largest = sizes.iter().copied().max().unwrap_or(2);
        // The number of people is prime, so every stride meets distinct people.
        let users = prime_from((total / CONVERSATIONS_PER_PERSON).max(2 * u64::from(largest)) | 1);
        let people =
            (0..count).map(|_| People { start: random.below(users), stride: random.between(1, users - 1) }).collect();
        let mut numbers: Vec<u32> = (0..count as u32).collect();
        random.shuffle(&mut numbers);

        let span_ms = (params.messages as f64 / params.messages_per_s * 1e3) as u64;
        let mut senders = Vec::with_capacity(params.messages);
        let mut bursts = Vec::with_capacity(lengths.len());
        for (i, length) in lengths.iter().enumerate() {
            let (conversation, first) = (i % count, senders.len() as u32);
            senders.extend((0..*length).map(|_| random.below(u64::from(sizes[conversation])) as u32));
            let at_ms = EPOCH_MS + random.below(span_ms.max(1));
            bursts.push(Burst { conversation: conversation as u32, at_ms, first, len: *length as u32 });
        }
        Self { sizes, numbers, people, bursts, senders, users }
    }

    pub(super) fn size_of(&self, burst: u32) -> u32 {
        self.sizes[self.bursts[burst as usize].conversation as usize]
    }

    /// Returns the sender's slot of each message of a burst.
    pub(super) fn senders_of(&self, burst: u32) -> &[u32] {
        let burst = &self.bursts[burst as usize];
        &self.senders[burst.first as usize..(burst.first + burst.len) as usize]
    }

    pub(super) fn sent_at_ms(&self, burst: u32, i: usize) -> u64 {
        self.bursts[burst as usize].at_ms + STEP_MS * i as u64
    }

    pub(super) fn end_ms(&self, burst: u32) -> u64 {
        self.sent_at_ms(burst, self.bursts[burst as usize].len as usize)
    }

    /// Returns a snowflake: the time and a number.
    pub(super) fn message_number(&self, burst: u32, i: usize) -> u64 {
        let number = u64::from(self.bursts[burst as usize].first) + i as u64;
        (self.sent_at_ms(burst, i) - SNOWFLAKE_EPOCH_MS) << 22 | number & 0x3F_FFFF
    }

    pub(super) fn user_number(&self, conversation: u32, slot: u32) -> u64 {
        let people = &self.people[conversation as usize];
        let product = u128::from(people.start) + u128::from(slot) * u128::from(people.stride);
        (product % u128::from(self.users)) as u64
    }
}

/// Returns quantiles of a power law of density s^-(b+1) from 2 to the cap. It chooses b so that the
/// bursts have the requested number of reads.
fn sizes(params: &Params, lengths: &[usize], count: usize) -> Vec<u32> {
    let cap = f64::from(params.size_max);
    let size = |i: usize, b: f64| {
        let u = (i as f64 + 0.5) / count as f64;
        (2f64.powf(-b) - u * (2f64.powf(-b) - cap.powf(-b))).powf(-1.0 / b).clamp(2.0, cap) as u32
    };
    let mut messages = vec![0; count];
    for (i, length) in lengths.iter().enumerate() {
        messages[i % count] += length;
    }
    let wanted = params.messages as f64 * params.receipts_per_message;
    let reads = |b: f64| {
        let of = |(i, messages): (usize, &usize)| f64::from(size(i, b) - 1) * *messages as f64;
        messages.iter().enumerate().map(of).sum::<f64>() * READ_PROBABILITY * (1.0 + params.duplicates)
    };
    let (mut low, mut high) = (0.01, 5.0);
    for _ in 0..40 {
        let middle = (low + high) / 2.0;
        if reads(middle) > wanted { low = middle } else { high = middle }
    }
    (0..count).map(|i| size(i, low)).collect()
}

/// Returns the first odd prime from this odd number on.
fn prime_from(mut n: u64) -> u64 {
    while (3..).step_by(2).take_while(|d| d * d <= n).any(|d| n.is_multiple_of(d)) {
        n += 2;
    }
    n
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_of_a_conversation_are_distinct() {
        let plan = Plan::make(&Params { messages: 2_000, ..Params::default() }, &mut Random::new(5));
        for conversation in 0..plan.sizes.len() as u32 {
            let size = plan.sizes[conversation as usize];
            let users: std::collections::HashSet<u64> =
                (0..size).map(|slot| plan.user_number(conversation, slot)).collect();
            assert_eq!(users.len(), size as usize);
        }
    }

    #[test]
    fn message_numbers_are_distinct() {
        let plan = Plan::make(&Params { messages: 50_000, ..Params::default() }, &mut Random::new(6));
        let mut numbers: Vec<u64> = (0..plan.bursts.len() as u32)
            .flat_map(|burst| (0..plan.senders_of(burst).len()).map(move |i| (burst, i)))
            .map(|(burst, i)| plan.message_number(burst, i))
            .collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50_000);
    }
}
