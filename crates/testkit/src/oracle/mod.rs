//! The naive oracle folds one partition with plain sets and maps of string ids, by the rules of the
//! contract.
//!
//! It shares neither code nor ideas with the fold. Where the contract leaves a case open, a comment
//! that starts with `DECISION:` states the rule and its reason. The expectation of a sender who
//! asks "who has read my message" decides.

mod answers;
mod parking;
mod state;

use std::collections::BTreeMap;

use receipts_event::{
    Body, ConversationConfigured, ConversationRead, Event, MessageRead, MessageRecalled, MessageSent, UpTo,
};
use receipts_fold::view::{ReadMark, Status};

use self::parking::{Bounds, Parked, Parking, Reader, Wish};
use self::state::{Bit, Conversation, Message, Outcome, Tenant};
use crate::subject::{At, OracleEffect, reason};

/// The limits of a partition's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// A message expires once its record is older than the newest one by more than this,
    /// milliseconds.
    pub retention_ms: u64,
    /// The number of records that may be parked.
    pub parked_count: usize,
    /// The bytes of records that may be parked.
    pub parked_bytes: u64,
    /// A parked record is dropped once it is older than the newest one by more than this,
    /// milliseconds.
    pub parked_age_ms: u64,
    /// Whether member lists carry read times.
    pub read_times: bool,
    /// The number of people who may be erased, three quarters of it for one tenant.
    pub erasures_max: u64,
    /// The number of group types that policies may name, a tenth of it for one tenant.
    pub policy_types_max: u64,
    /// The number of messages of an id beyond which a search in all conversations is ambiguous.
    pub candidates_max: usize,
    /// Whether an event about an expired message differs from one about an unknown message. If true
    /// it changes nothing (rule 3); if false it is parked (rule 9: the space was freed).
    pub expired_ids_remembered: bool,
}

impl Default for Limits {
    /// 30 days (rule 9), room to park the records of a day of disorder, the budgets of ADR 0036,
    /// and ids remembered (rule 3).
    fn default() -> Self {
        Self {
            retention_ms: 30 * 24 * 3_600_000,
            parked_count: 10_000,
            parked_bytes: 8 << 20,
            parked_age_ms: 24 * 3_600_000,
            read_times: true,
            erasures_max: 1_000_000,
            policy_types_max: 100_000,
            candidates_max: 100,
            expired_ids_remembered: true,
        }
    }
}

/// The state of one partition after a prefix of its log.
#[derive(Debug, Clone)]
pub struct Oracle {
    limits: Limits,
    /// The greatest timestamp of any record so far, Unix milliseconds.
    newest_ms: u64,
    last: Option<At>,
    tenants: BTreeMap<String, Tenant>,
    parking: Parking,
    /// The bytes of the record being folded: its key and its value.
    record_bytes: u64,
}

/// The changed messages of one record by the offset of their send, so in log order.
type Changes = BTreeMap<u64, (String, Vec<(String, u64)>)>;

/// The result of a lookup of a named message.
enum Named {
    /// The message's index in its conversation.
    Here(usize),
    Expired,
    NotYet,
}

impl Oracle {
    /// Returns the state before the first record.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            newest_ms: 0,
            last: None,
            tenants: BTreeMap::new(),
            parking: Parking::default(),
            record_bytes: 0,
        }
    }

    /// Folds one event and returns its effects.
    ///
    /// The record's time counts first: it expires messages and parked records before its event is
    /// applied.
    ///
    /// # Panics
    /// If `at` has another partition than the record before, or its offset does not grow.
    // DECISION: the caller checks that a record is in the right partition; the fold trusts it.
    pub fn apply(&mut self, at: At, event: &Event<'_>) -> Vec<OracleEffect> {
        let mut effects = self.pass(at);
        self.record_bytes = (event.key().len() + event.to_json().len()) as u64;
        match &event.body {
            Body::ConversationConfigured(body) => self.configured(&event.tenant, body),
            Body::MembersChanged(body) => {
                self.conversation(&event.tenant, &body.conversation_id).change(at.offset, body)
            }
            Body::MessageSent(body) => effects.extend(self.sent(at, &event.tenant, body)),
            Body::MessageRead(body) => effects.extend(self.read(at, &event.tenant, body)),
            Body::ConversationRead(body) => effects.extend(self.marked(at, &event.tenant, body)),
            Body::MessageRecalled(body) => effects.extend(self.recalled(at, &event.tenant, body)),
            Body::PolicyChanged(body) => {
                let policy = body.read_receipts.iter().map(|(group_type, on)| (group_type.to_string(), *on));
                effects.extend(self.policy_changed(at.offset, &event.tenant, policy.collect()));
            }
            Body::UserErased(body) => effects.extend(self.erased(at.offset, &event.tenant, &body.user_id)),
        }
        effects.extend(self.parking.out(self.bounds()));
        effects
    }

    /// Folds a record without an event, or one that is a dead letter before the fold.
    ///
    /// # Panics
    /// As [`Self::apply`].
    // DECISION: every record of the partition moves its time, also a dead letter, so time needs no
    // decoding.
    pub fn pass(&mut self, at: At) -> Vec<OracleEffect> {
        if let Some(last) = self.last {
            assert!(last.partition == at.partition && last.offset < at.offset, "{at:?} after {last:?}");
        }
        self.last = Some(at);
        self.newest_ms = self.newest_ms.max(at.timestamp_ms);
        self.parking.out(self.bounds())
    }

    fn bounds(&self) -> Bounds {
        let Limits { parked_age_ms: age_ms, parked_count: count, parked_bytes: bytes, .. } = self.limits;
        Bounds { newest_ms: self.newest_ms, age_ms, count, bytes }
    }

    fn tenant(&mut self, tenant: &str) -> &mut Tenant {
        self.tenants.entry(tenant.into()).or_default()
    }

    fn conversation(&mut self, tenant: &str, id: &str) -> &mut Conversation {
        self.tenant(tenant).conversations.entry(id.into()).or_default()
    }

    /// Rule 9. An expired message stays expired, because the partition's time never falls.
    fn is_expired(&self, message: &Message) -> bool {
        self.newest_ms.saturating_sub(message.timestamp_ms) > self.limits.retention_ms
    }

    fn named(&self, tenant: &str, conversation_id: &str, message_id: &str) -> Named {
        let conversation = self.tenants.get(tenant).and_then(|tenant| tenant.conversations.get(conversation_id));
        let found = conversation.and_then(|c| c.message(message_id).map(|i| (i, self.is_expired(&c.messages[i]))));
        match found {
            Some((i, false)) => Named::Here(i),
            Some((_, true)) if self.limits.expired_ids_remembered => Named::Expired,
            _ => Named::NotYet,
        }
    }

    fn configured(&mut self, tenant: &str, body: &ConversationConfigured<'_>) {
        let conversation = self.conversation(tenant, &body.conversation_id);
        conversation.kind = body.kind;
        conversation.group_type = body.group_type.as_deref().unwrap_or("default").into();
    }

    // DECISION: an id that is sent again after its message expired is a new message, because the
    // old one was removed and is not remembered. DECISION: a send without a roster is a dead letter
    // even if it asks for no receipt. A roster exists once it had a member, so an empty
    // `members.changed` makes none.
    fn sent(&mut self, at: At, tenant: &str, body: &MessageSent<'_>) -> Vec<OracleEffect> {
        let (conversation_id, message_id) = (&*body.conversation_id, &*body.message_id);
        if matches!(self.named(tenant, conversation_id, message_id), Named::Here(_)) {
            return vec![];
        }
        self.conversation(tenant, conversation_id);
        let home = &self.tenants[tenant];
        let conversation = &home.conversations[conversation_id];
        if body.recipients.is_none() && conversation.once.is_empty() {
            let ids = vec![message_id.to_string()];
            return vec![OracleEffect::DeadLetter { offset: at.offset, reason: reason::NO_ROSTER, ids }];
        }
        let status = match (body.need_read_receipt, home.supports(conversation)) {
            (false, _) => Status::NotRequested,
            (true, false) => Status::Unsupported,
            (true, true) => Status::Ok,
        };
        let audience = match (&body.recipients, status) {
            (Some(named), Status::Ok) => {
                let others = named.iter().filter(|user| **user != body.sender_id);
                others.map(|user| (user.to_string(), Bit::Unread)).collect()
            }
            (None, Status::Ok) => conversation.audience_by_roster(&body.sender_id),
            _ => BTreeMap::new(),
        };
        let message = Message {
            id: message_id.into(),
            sender_id: body.sender_id.to_string(),
            sent_at_ms: body.sent_at_ms,
            timestamp_ms: at.timestamp_ms,
            offset: at.offset,
            kind: conversation.kind,
            status,
            audience,
            changed: at.offset,
        };
        // DECISION: a send that is already past the retention is `not_found` at once and publishes
        // nothing. Events that waited for it are dropped, because no message will come.
        let expired = self.is_expired(&message);
        let conversation = self.conversation(tenant, conversation_id);
        conversation.known.extend(message.audience.keys().cloned());
        conversation.messages.push(message);
        let due = self.parking.claim(tenant, conversation_id, message_id);
        if expired {
            return vec![];
        }
        let sent = self.conversation(tenant, conversation_id).messages.len() - 1;
        let mut changes = Changes::from([(at.offset, (message_id.to_string(), vec![]))]);
        let mut marks = vec![];
        for wish in due {
            match wish {
                Wish::Read(reader) => self.read_one(at.offset, tenant, conversation_id, sent, &reader, &mut changes),
                Wish::Mark(reader) => {
                    let up_to = (Some(message_id), body.sent_at_ms);
                    marks.extend(self.mark(at.offset, tenant, conversation_id, &reader, up_to, &mut changes));
                }
                Wish::Recall => _ = self.conversation(tenant, conversation_id).messages[sent].recall(at.offset),
            }
        }
        self.effects(tenant, conversation_id, changes, marks)
    }

    fn read(&mut self, at: At, tenant: &str, body: &MessageRead<'_>) -> Vec<OracleEffect> {
        let conversation_id = &*body.conversation_id;
        let reader = reader(at, &body.reader_id, body.read_at_ms, body.hidden);
        let mut changes = Changes::new();
        let mut missing: Vec<String> = vec![];
        for id in &body.message_ids {
            match self.named(tenant, conversation_id, id) {
                Named::Here(i) => self.read_one(at.offset, tenant, conversation_id, i, &reader, &mut changes),
                Named::NotYet if !missing.iter().any(|known| known == id) => missing.push(id.to_string()),
                Named::NotYet | Named::Expired => {}
            }
        }
        self.park(at, tenant, conversation_id, missing, Wish::Read(reader));
        self.effects(tenant, conversation_id, changes, vec![])
    }

    // DECISION: a mark that names an expired message changes nothing, not even the mark, because
    // its `sent_at_ms` is no longer known.
    fn marked(&mut self, at: At, tenant: &str, body: &ConversationRead<'_>) -> Vec<OracleEffect> {
        let conversation_id = &*body.conversation_id;
        let reader = reader(at, &body.reader_id, body.read_at_ms, body.hidden);
        let mut changes = Changes::new();
        let up_to = match &body.up_to {
            UpTo::SentAt(up_to_ms) => (None, *up_to_ms),
            UpTo::Message(id) => match self.named(tenant, conversation_id, id) {
                Named::Here(i) => (Some(&**id), self.conversation(tenant, conversation_id).messages[i].sent_at_ms),
                Named::Expired => return vec![],
                Named::NotYet => {
                    self.park(at, tenant, conversation_id, vec![id.to_string()], Wish::Mark(reader));
                    return vec![];
                }
            },
        };
        let marks = self.mark(at.offset, tenant, conversation_id, &reader, up_to, &mut changes);
        self.effects(tenant, conversation_id, changes, marks.into_iter().collect())
    }

    fn recalled(&mut self, at: At, tenant: &str, body: &MessageRecalled<'_>) -> Vec<OracleEffect> {
        let (conversation_id, id) = (&*body.conversation_id, &*body.message_id);
        let mut changes = Changes::new();
        match self.named(tenant, conversation_id, id) {
            Named::Here(i) => {
                let message = &mut self.conversation(tenant, conversation_id).messages[i];
                if message.recall(at.offset) {
                    changes.insert(message.offset, (id.to_string(), vec![]));
                }
            }
            Named::Expired => {}
            Named::NotYet => self.park(at, tenant, conversation_id, vec![id.to_string()], Wish::Recall),
        }
        self.effects(tenant, conversation_id, changes, vec![])
    }

    // DECISION: a policy that names no group type counts nothing, for it is the same as none.
    fn policy_changed(&mut self, offset: u64, tenant: &str, policy: BTreeMap<String, bool>) -> Option<OracleEffect> {
        let others = self.tenants.iter().filter(|(name, _)| *name != tenant).map(|(_, home)| home.policy.len());
        let (own, others) = (policy.len() as u64, others.sum::<usize>() as u64);
        if own > self.limits.policy_types_max / 10 || own + others > self.limits.policy_types_max {
            return Some(OracleEffect::DeadLetter { offset, reason: reason::OVER_BUDGET, ids: vec![] });
        }
        self.tenant(tenant).policy = policy;
        None
    }

    // DECISION: an erasure is a leave, at its own offset, in every conversation on whose roster or
    // in whose audiences the person ever was. So no message waits for an erased person, even a
    // recipient from outside, and the changed counts get a higher version.
    // DECISION: an erasure of an erased person counts nothing, and is a leave again.
    fn erased(&mut self, offset: u64, tenant: &str, user: &str) -> Option<OracleEffect> {
        let all = self.tenants.values().map(|home| home.erased.len()).sum::<usize>() as u64;
        let max = self.limits.erasures_max;
        let tenant = self.tenant(tenant);
        let is_full = all >= max || tenant.erased.len() as u64 >= max / 4 * 3;
        if is_full && !tenant.erased.contains(user) {
            return Some(OracleEffect::DeadLetter { offset, reason: reason::OVER_BUDGET, ids: vec![] });
        }
        tenant.erased.insert(user.into());
        for conversation in tenant.conversations.values_mut() {
            if conversation.known.contains(user) {
                conversation.leave(offset, user);
            }
        }
        None
    }

    fn park(&mut self, at: At, tenant: &str, conversation_id: &str, message_ids: Vec<String>, wish: Wish) {
        if !message_ids.is_empty() {
            let (tenant, conversation_id) = (tenant.into(), conversation_id.into());
            let bytes = self.record_bytes + message_ids.iter().map(|id| 48 + id.len() as u64).sum::<u64>();
            let parked = Parked { timestamp_ms: at.timestamp_ms, tenant, conversation_id, message_ids, wish, bytes };
            self.parking.park(at.offset, parked);
        }
    }

    fn read_one(&mut self, now: u64, tenant: &str, id: &str, index: usize, reader: &Reader, changes: &mut Changes) {
        let message = &mut self.conversation(tenant, id).messages[index];
        let outcome = message.read(reader, now);
        if outcome == Outcome::Unchanged {
            return;
        }
        let (_, newly_read) = changes.entry(message.offset).or_insert_with(|| (message.id.clone(), vec![]));
        if let Outcome::Read(time_ms) = outcome {
            newly_read.push((reader.id.clone(), time_ms));
        }
    }

    /// Reads all messages of the log so far up to a message or a time, and moves the reader's mark.
    /// Returns the mark if it moved.
    // DECISION: the read time of each message depends on its own `sent_at_ms`. Only the mark itself
    // uses `up_to_sent_at_ms`; otherwise a mark far in the future would date the reads there.
    // DECISION: a departed member can still read earlier messages by mark, but the mark itself does
    // not move.
    fn mark(
        &mut self,
        now: u64,
        tenant: &str,
        conversation_id: &str,
        reader: &Reader,
        (message_id, up_to_ms): (Option<&str>, u64),
        changes: &mut Changes,
    ) -> Option<ReadMark> {
        for index in 0..self.conversation(tenant, conversation_id).messages.len() {
            let message = &self.tenants[tenant].conversations[conversation_id].messages[index];
            if message.sent_at_ms <= up_to_ms && !self.is_expired(message) {
                self.read_one(now, tenant, conversation_id, index, reader, changes);
            }
        }
        let conversation = self.conversation(tenant, conversation_id);
        let grows = conversation.marks.get(&reader.id).is_none_or(|mark| up_to_ms > mark.up_to_sent_at_ms);
        if reader.hidden || !grows || !conversation.roster.contains_key(&reader.id) {
            return None;
        }
        let mark = ReadMark {
            reader_id: reader.id.clone(),
            up_to_message_id: message_id.map(str::to_owned),
            up_to_sent_at_ms: up_to_ms,
            read_at_ms: reader.time_ms(up_to_ms),
            version: now,
        };
        conversation.marks.insert(reader.id.clone(), mark.clone());
        Some(mark)
    }

    // DECISION: a send publishes any receipt, also a `not_requested` one: the contract makes no
    // exception.
    fn effects(&self, tenant: &str, id: &str, changes: Changes, marks: Vec<ReadMark>) -> Vec<OracleEffect> {
        let Some(home) = self.tenants.get(tenant) else { return vec![] };
        let direct = home.conversations.get(id).is_some_and(|c| c.kind == receipts_event::Kind::Direct);
        let named = |user: &str| !home.erased.contains(user);
        let changed = changes.into_values().map(|(message_id, mut newly_read)| {
            newly_read.retain(|(user, _)| named(user));
            OracleEffect::Changed { tenant: tenant.into(), conversation_id: id.into(), message_id, newly_read }
        });
        let moved = marks
            .into_iter()
            .filter(|mark| direct && named(&mark.reader_id))
            .map(|mark| OracleEffect::MarkMoved { tenant: tenant.into(), conversation_id: id.into(), mark });
        changed.chain(moved).collect()
    }
}

fn reader(at: At, id: &str, read_at_ms: Option<u64>, hidden: bool) -> Reader {
    Reader { id: id.into(), read_at_ms, timestamp_ms: at.timestamp_ms, hidden }
}
