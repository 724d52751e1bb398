//! One conversation of a random history: its likely members and its likely messages. It only
//! guesses, because the history is to test the truth about rosters and audiences.

use std::borrow::Cow;

use receipts_event::{Body, ConversationRead, Kind, MembersChanged, MessageRead, MessageRecalled, MessageSent, UpTo};

use super::{EPOCH_MS, Shape};
use crate::random::Random;

type Id = Cow<'static, str>;

/// How many messages after the last send an early receipt may name.
const EARLY_MAX: usize = 3;
/// The most events in a storm of reads.
const STORM_MAX: u64 = 40;
/// The most events in a flood.
const FLOOD_MAX: u64 = 30;

/// The generator's memory of a conversation.
#[derive(Debug)]
pub(super) struct Chat {
    pub(super) tenant: String,
    pub(super) id: String,
    kind: Kind,
    roster: Vec<Id>,
    /// The number of `w0`… at the beginning.
    crowd: u64,
    /// The `sent_at_ms` of each send so far; message `i` is `m{i}`.
    sent_at_ms: Vec<u64>,
}

/// Returns the id of a person in the pool.
pub(super) fn person(i: usize) -> Id {
    format!("u{i}").into()
}

fn one_of_the_crowd(i: u64) -> Id {
    format!("w{i}").into()
}

fn message(i: usize) -> Id {
    format!("m{i}").into()
}

impl Chat {
    pub(super) fn new(tenant: usize, conversation: usize, kind: Kind) -> Self {
        let tenant = if tenant == 0 { receipts_event::TENANT_DEFAULT.into() } else { format!("t{tenant}") };
        Self { tenant, id: format!("g{conversation}"), kind, roster: vec![], crowd: 0, sent_at_ms: vec![] }
    }

    /// Tells whether no message was sent so far.
    pub(super) fn is_silent(&self) -> bool {
        self.sent_at_ms.is_empty()
    }

    /// Returns the first roster.
    pub(super) fn found(&mut self, random: &mut Random, shape: &Shape) -> Body<'static> {
        let mut pool: Vec<Id> = (0..shape.people.max(3)).map(person).collect();
        random.shuffle(&mut pool);
        let size = match self.kind {
            Kind::Direct => 2 + usize::from(random.chance(0.15)),
            Kind::Group => random.between(2, pool.len() as u64) as usize,
        };
        pool.truncate(size);
        if self.kind == Kind::Group {
            self.crowd = match () {
                () if !shape.crowds.is_empty() => {
                    let (low, high) = random.pick(shape.crowds).copied().unwrap_or_default();
                    random.between(low, high).saturating_sub(pool.len() as u64)
                }
                () if random.chance(shape.p_large_group) => random.between(640, 700),
                () if random.chance(shape.p_mid_group) => random.between(65, 200),
                () => 0,
            };
            pool.extend((0..self.crowd).map(one_of_the_crowd));
        }
        self.roster.clone_from(&pool);
        let (observers, joined) = pool.into_iter().partition(|_| random.chance(shape.p_observer / 2.0));
        self.members(joined, vec![], observers)
    }

    /// Returns a change of members: joins, leaves, rejoins and changes of roles.
    pub(super) fn change(&mut self, random: &mut Random, shape: &Shape) -> Body<'static> {
        let (mut joined, mut left, mut observers) = (vec![], vec![], vec![]);
        if random.chance(0.5) {
            left.push(self.likely_person(random, shape));
        }
        if left.is_empty() || random.chance(0.3) {
            let who = self.any_person(random, shape);
            if random.chance(shape.p_observer) { observers.push(who) } else { joined.push(who) }
        }
        if random.chance(shape.p_role_flip) {
            let who = self.likely_person(random, shape);
            if random.chance(0.5) { observers.push(who) } else { joined.push(who) }
        }
        if random.chance(shape.p_bounce) {
            let who = self.likely_person(random, shape);
            left.push(who.clone());
            if random.chance(0.7) { joined.push(who) } else { observers.push(who) }
        }
        if self.has_a_crowd(shape) && random.chance(0.15) {
            let from = random.index(self.roster.len());
            let many = random.index(self.roster.len() / 2).min(self.roster.len() - from);
            left.extend(self.roster[from..from + many].iter().cloned());
        }
        if self.has_a_crowd(shape) && random.chance(0.05) {
            let from = random.below(self.crowd);
            joined.extend((from..from + random.below(self.crowd / 2)).map(one_of_the_crowd));
        }
        self.roster.retain(|user| !left.contains(user));
        for user in joined.iter().chain(&observers) {
            if !self.roster.contains(user) {
                self.roster.push(user.clone());
            }
        }
        self.members(joined, left, observers)
    }

    pub(super) fn send(&mut self, random: &mut Random, shape: &Shape, now_ms: u64) -> Body<'static> {
        let again = !self.sent_at_ms.is_empty() && random.chance(shape.p_duplicate);
        let number = if again { self.recent(random) } else { self.sent_at_ms.len() };
        let sender_id = self.likely_person(random, shape);
        let sent_at_ms = match random.index(12) {
            _ if !random.chance(shape.p_skew) => now_ms,
            0 => random.below(EPOCH_MS),
            1 => now_ms + 10 * shape.retention_ms,
            2 => self.sent_at_ms.last().copied().unwrap_or(now_ms),
            _ => now_ms + random.below(10_000) - 5_000,
        };
        let recipients = random.chance(shape.p_recipients).then(|| {
            let mut named: Vec<Id> = (0..random.index(6)).map(|_| self.any_person(random, shape)).collect();
            if random.chance(0.3) {
                named.push(sender_id.clone());
            }
            if random.chance(0.3) {
                named.extend(named.first().cloned());
            }
            named
        });
        if !again {
            self.sent_at_ms.push(sent_at_ms);
        }
        Body::MessageSent(MessageSent {
            conversation_id: self.id.clone().into(),
            message_id: message(number),
            sender_id,
            sent_at_ms,
            need_read_receipt: !random.chance(shape.p_not_requested),
            recipients,
        })
    }

    pub(super) fn read(&mut self, random: &mut Random, shape: &Shape, now_ms: u64) -> Body<'static> {
        let count = 1 + if random.chance(0.3) { random.index(6) } else { 0 };
        let message_ids = (0..count).map(|_| self.named(random, shape)).collect();
        let reader_id = self.likely_person(random, shape);
        self.reading(random, shape, now_ms, reader_id, message_ids)
    }

    /// Returns reads of the latest message by many members, in random order.
    pub(super) fn storm(&mut self, random: &mut Random, shape: &Shape, now_ms: u64) -> Vec<Body<'static>> {
        let mut readers = self.roster.clone();
        random.shuffle(&mut readers);
        readers.truncate(random.between(1, STORM_MAX) as usize);
        let latest = message(self.sent_at_ms.len().saturating_sub(1));
        readers.into_iter().map(|who| self.reading(random, shape, now_ms, who, vec![latest.clone()])).collect()
    }

    /// Returns reads of messages that never come, `x0` and so on.
    pub(super) fn flood(&mut self, random: &mut Random, shape: &Shape, now_ms: u64) -> Vec<Body<'static>> {
        let reader = self.likely_person(random, shape);
        let first = random.below(1_000);
        let unknown = |i: u64| -> Vec<Id> { vec![format!("x{}", first + i).into()] };
        let reads = 0..random.between(1, FLOOD_MAX);
        reads.map(|i| self.reading(random, shape, now_ms, reader.clone(), unknown(i))).collect()
    }

    pub(super) fn mark_by_message(&mut self, random: &mut Random, shape: &Shape, now_ms: u64) -> Body<'static> {
        let up_to = UpTo::Message(self.named(random, shape));
        self.mark(random, shape, now_ms, up_to)
    }

    /// Returns a mark to the time of a send, just before or after it, or to now.
    pub(super) fn mark_by_time(&mut self, random: &mut Random, shape: &Shape, now_ms: u64) -> Body<'static> {
        let sent_at_ms = random.pick(&self.sent_at_ms).copied().unwrap_or(now_ms);
        let up_to_ms = match random.index(5) {
            0 => now_ms,
            1 => sent_at_ms + 1,
            2 => sent_at_ms.saturating_sub(1),
            _ => sent_at_ms,
        };
        self.mark(random, shape, now_ms, UpTo::SentAt(up_to_ms))
    }

    pub(super) fn recall(&mut self, random: &mut Random, shape: &Shape) -> Body<'static> {
        let message_id = self.named(random, shape);
        Body::MessageRecalled(MessageRecalled { conversation_id: self.id.clone().into(), message_id })
    }

    fn members(&self, joined: Vec<Id>, left: Vec<Id>, observers: Vec<Id>) -> Body<'static> {
        Body::MembersChanged(MembersChanged { conversation_id: self.id.clone().into(), joined, left, observers })
    }

    fn reading(&self, random: &mut Random, shape: &Shape, now_ms: u64, who: Id, ids: Vec<Id>) -> Body<'static> {
        Body::MessageRead(MessageRead {
            conversation_id: self.id.clone().into(),
            reader_id: who,
            message_ids: ids,
            read_at_ms: read_at_ms(random, shape, now_ms),
            hidden: random.chance(shape.p_hidden),
        })
    }

    fn mark(&self, random: &mut Random, shape: &Shape, now_ms: u64, up_to: UpTo<'static>) -> Body<'static> {
        Body::ConversationRead(ConversationRead {
            conversation_id: self.id.clone().into(),
            reader_id: self.likely_person(random, shape),
            up_to,
            read_at_ms: read_at_ms(random, shape, now_ms),
            hidden: random.chance(shape.p_hidden),
        })
    }

    /// Picks a person, mostly one of the roster.
    fn likely_person(&self, random: &mut Random, shape: &Shape) -> Id {
        let member = if random.chance(shape.p_stranger) { None } else { random.pick(&self.roster) };
        member.cloned().unwrap_or_else(|| person(random.index(shape.people)))
    }

    /// Picks a person of the pool or, if the shape says so, of the crowd with three newcomers.
    pub(super) fn any_person(&self, random: &mut Random, shape: &Shape) -> Id {
        if self.has_a_crowd(shape) && random.chance(shape.p_crowd) {
            return one_of_the_crowd(random.below(self.crowd + 3));
        }
        person(random.index(shape.people))
    }

    fn has_a_crowd(&self, shape: &Shape) -> bool {
        shape.p_crowd > 0.0 && self.crowd > 0
    }

    /// Picks a message: mostly a recent one, sometimes any, sometimes a later one.
    fn named(&self, random: &mut Random, shape: &Shape) -> Id {
        if random.chance(shape.p_early) || self.sent_at_ms.is_empty() && shape.p_early > 0.0 {
            return message(self.sent_at_ms.len() + random.index(EARLY_MAX));
        }
        message(self.recent(random))
    }

    fn recent(&self, random: &mut Random) -> usize {
        let count = self.sent_at_ms.len();
        let back = if random.chance(0.8) { random.index(count.min(4)) } else { random.index(count) };
        count.saturating_sub(1 + back)
    }
}

fn read_at_ms(random: &mut Random, shape: &Shape, now_ms: u64) -> Option<u64> {
    random.chance(shape.p_read_at).then(|| match random.index(6) {
        _ if shape.p_skew == 0.0 => now_ms,
        0 => random.below(EPOCH_MS),
        1 => now_ms + random.below(1_000_000),
        _ => now_ms + random.below(4_000) - 2_000,
    })
}
