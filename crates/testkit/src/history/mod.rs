//! Seeded random histories of one partition for property tests. The same seed and shape always give
//! the same history. It knows which events are likely together, not what an event means.
//!
//! Ids come from small pools (`u0`…, `g0`…, `m0`… in every conversation), so they collide often.
//! Crowds are `w0`….

mod conversation;
mod shape;

use std::borrow::Cow;

use receipts_event::{Body, ConversationConfigured, Event, Kind, PolicyChanged, UserErased};

pub use self::shape::{Shape, Weights};

use self::conversation::Chat;
use crate::random::Random;
use crate::subject::At;

/// Record times start here, Unix milliseconds.
pub const EPOCH_MS: u64 = 1_780_000_000_000;

/// The group types of the policies.
const GROUP_TYPES: [&str; 4] = ["default", "team", "channel", "*"];

/// The generator of a history, which is also the crowd of chats that it happens in.
#[derive(Debug)]
pub struct History<'s> {
    shape: &'s Shape,
    random: Random,
    /// One for each conversation of each tenant.
    chats: Vec<Chat>,
    now_ms: u64,
    offset: u64,
    made: Vec<(At, Event<'static>)>,
}

impl<'s> History<'s> {
    /// Generates the history of a seed and a shape: at least `shape.events` events with growing
    /// offsets of partition 0.
    ///
    /// ```
    /// use receipts_testkit::history::{History, Shape};
    ///
    /// let shape = Shape { events: 50, ..Shape::wild() };
    /// assert_eq!(History::generate(1, &shape), History::generate(1, &shape));
    /// assert_ne!(History::generate(1, &shape), History::generate(2, &shape));
    /// ```
    pub fn generate(seed: u64, shape: &'s Shape) -> Vec<(At, Event<'static>)> {
        let mut history =
            Self { shape, random: Random::new(seed), chats: vec![], now_ms: EPOCH_MS, offset: 0, made: vec![] };
        for tenant in 0..shape.tenants.max(1) {
            for conversation in 0..shape.conversations.max(1) {
                history.open(tenant, conversation);
            }
        }
        while history.made.len() < shape.events {
            history.step();
        }
        history.made
    }

    fn open(&mut self, tenant: usize, conversation: usize) {
        let (shape, random) = (self.shape, &mut self.random);
        let kind = if random.chance(shape.p_direct) { Kind::Direct } else { Kind::Group };
        let mut chat = Chat::new(tenant, conversation, kind);
        let first = (!random.chance(shape.p_no_roster)).then(|| chat.found(random, shape));
        let configured = kind == Kind::Direct || random.chance(0.6);
        self.chats.push(chat);
        let index = self.chats.len() - 1;
        if configured {
            let body = self.configured(index, kind);
            self.record(index, body);
        }
        if let Some(body) = first {
            self.record(index, body);
        }
    }

    fn step(&mut self) {
        let w = &self.shape.weights;
        let weights = [
            w.configured,
            w.members,
            w.sent,
            w.read,
            w.storm,
            w.mark_by_message,
            w.mark_by_time,
            w.recalled,
            w.policy,
            w.erased,
            w.flood,
        ];
        let index = self.random.index(self.chats.len());
        let (shape, random, chat, now_ms) = (self.shape, &mut self.random, &mut self.chats[index], self.now_ms);
        let drawn = random.weighted(&weights);
        // If no event may come early, a conversation starts with a message.
        let body = match if chat.is_silent() && (3..=7).contains(&drawn) && shape.p_early == 0.0 { 2 } else { drawn } {
            0 => {
                let kind = if random.chance(shape.p_direct) { Kind::Direct } else { Kind::Group };
                self.configured(index, kind)
            }
            1 => chat.change(random, shape),
            2 => chat.send(random, shape, now_ms),
            3 => chat.read(random, shape, now_ms),
            4 => {
                for body in chat.storm(random, shape, now_ms) {
                    self.record(index, body);
                }
                return;
            }
            5 => chat.mark_by_message(random, shape, now_ms),
            6 => chat.mark_by_time(random, shape, now_ms),
            7 => chat.recall(random, shape),
            8 => self.policy(),
            10 => {
                for body in chat.flood(random, shape, now_ms) {
                    self.record(index, body);
                }
                return;
            }
            _ => {
                let user_id = chat.any_person(random, shape);
                Body::UserErased(UserErased { user_id, partition: random.chance(0.5).then_some(0) })
            }
        };
        let again = matches!(body, Body::MessageRead(_) | Body::ConversationRead(_))
            && self.random.chance(self.shape.p_duplicate);
        self.record(index, body.clone());
        if again {
            self.record(index, body);
        }
    }

    fn configured(&mut self, index: usize, kind: Kind) -> Body<'static> {
        let group_type = match kind {
            Kind::Direct => None,
            Kind::Group => Some(GROUP_TYPES[self.random.index(GROUP_TYPES.len() - 1)]),
        };
        let group_type = group_type.filter(|_| self.random.chance(0.7)).map(Cow::Borrowed);
        Body::ConversationConfigured(ConversationConfigured {
            conversation_id: self.chats[index].id.clone().into(),
            kind,
            group_type,
        })
    }

    fn policy(&mut self) -> Body<'static> {
        let mut listed = GROUP_TYPES.to_vec();
        self.random.shuffle(&mut listed);
        listed.truncate(self.random.index(listed.len() + 1));
        let read_receipts = listed.into_iter().map(|of| (Cow::Borrowed(of), self.random.chance(0.6))).collect();
        Body::PolicyChanged(PolicyChanged { read_receipts, partition: self.random.chance(0.5).then_some(0) })
    }

    /// Puts an event of this chat's tenant at the end of the log.
    fn record(&mut self, index: usize, body: Body<'static>) {
        let (shape, random) = (self.shape, &mut self.random);
        self.now_ms += random.below(2_000);
        if random.chance(shape.p_jump) {
            // Exactly the retention, one millisecond more, or far past it: the bounds of rule 9.
            self.now_ms += shape.retention_ms + [0, 1, 86_400_000][random.index(3)];
        }
        let late_ms = if random.chance(shape.p_late_record) { random.below(30_000) } else { 0 };
        self.offset += 1 + if random.chance(shape.p_gap) { random.below(5) } else { 0 };
        let at =
            At { partition: 0, offset: self.offset, timestamp_ms: self.now_ms - late_ms.min(self.now_ms - EPOCH_MS) };
        let tenant = self.chats[index].tenant.clone().into();
        let event_id = random.chance(0.1).then(|| Cow::Owned(format!("e{}", self.offset)));
        self.made.push((at, Event { tenant, event_id, body }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_event::{MessageSent, UpTo};

    fn bodies(shape: &Shape) -> Vec<Body<'static>> {
        (0..30).flat_map(|seed| History::generate(seed, shape)).map(|(_, event)| event.body).collect()
    }

    #[test]
    fn offsets_grow_and_times_start_at_the_epoch() {
        let history = History::generate(3, &Shape::wild());
        assert!(history.windows(2).all(|pair| pair[0].0.offset < pair[1].0.offset));
        assert!(history.iter().all(|(at, _)| at.timestamp_ms >= EPOCH_MS));
        assert!(history.windows(2).any(|pair| pair[0].0.timestamp_ms > pair[1].0.timestamp_ms));
    }

    #[test]
    fn every_event_survives_its_json() {
        for seed in 0..20 {
            for (_, event) in History::generate(seed, &Shape::wild()) {
                let json = event.to_json();
                assert_eq!(receipts_event::decode(&json).expect("the generator keeps the format"), event);
            }
        }
    }

    #[test]
    fn a_spine_holds_four_types_and_nothing_else() {
        assert!(bodies(&Shape::spine()).iter().all(|body| matches!(
            body,
            Body::ConversationConfigured(_) | Body::MembersChanged(_) | Body::MessageSent(_) | Body::MessageRead(_)
        )));
    }

    #[test]
    fn crowds_come_go_and_are_named() {
        let bodies = bodies(&Shape::crowds());
        let of_crowd = |id: &str| id.starts_with('w');
        let any = |is: &dyn Fn(&Body<'_>) -> bool| bodies.iter().any(is);
        for size in [63, 64, 65, 128, 129, 256, 257, 512, 513, 1_024] {
            let is = |body: &Body<'_>| matches!(body, Body::MembersChanged(change) if change.joined.len() + change.observers.len() == size);
            assert!(any(&is), "nowhere {size} people");
        }
        assert!(any(&|body| matches!(body, Body::MembersChanged(change) if change.left.len() > 256)));
        assert!(any(&|body| matches!(body, Body::UserErased(erased) if of_crowd(&erased.user_id))));
        assert!(any(&|body| matches!(body, Body::MessageRead(read) if of_crowd(&read.reader_id))));
        let named = |sent: &MessageSent<'_>| sent.recipients.iter().flatten().any(|id| of_crowd(id));
        assert!(bodies.iter().any(|body| matches!(body, Body::MessageSent(sent) if named(sent))));
    }

    #[test]
    fn wild_history_has_all_types_and_rare_cases() {
        let bodies = bodies(&Shape::wild());
        let any = |is: fn(&Body<'_>) -> bool| bodies.iter().any(is);
        assert!(any(|body| matches!(body, Body::PolicyChanged(_))));
        assert!(any(|body| matches!(body, Body::UserErased(_))));
        let unknown = |body: &Body<'_>| matches!(body, Body::MessageRead(read) if read.message_ids[0].starts_with('x'));
        assert!(bodies.windows(9).any(|flood| flood.iter().all(unknown)), "no flood");
        assert!(any(|body| matches!(body, Body::MessageRecalled(_))));
        assert!(any(|body| matches!(body, Body::ConversationRead(mark) if matches!(mark.up_to, UpTo::SentAt(_)))));
        assert!(any(|body| matches!(body, Body::ConversationRead(mark) if matches!(mark.up_to, UpTo::Message(_)))));
        let empty = |sent: &MessageSent<'_>| sent.recipients.as_ref().is_some_and(Vec::is_empty);
        assert!(bodies.iter().any(|body| matches!(body, Body::MessageSent(sent) if empty(sent))));
        assert!(any(|body| matches!(body, Body::MembersChanged(change) if change.joined.len() > 64)));
        assert!(any(|body| matches!(body, Body::MembersChanged(change) if change.joined.len() > 512)));
        assert!(any(|body| matches!(body, Body::MembersChanged(change) if !change.observers.is_empty())));
    }
}
