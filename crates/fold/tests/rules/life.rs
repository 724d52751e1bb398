//! The fold on a store in memory, with a life of checkpoints and deaths, as a subject of the
//! testkit. Decides no rule.

use crate::lagging::Lagging;
use receipts_event::Event;
use receipts_fold::effects::Effects;
use receipts_fold::view::{FoundReceipt, Member, MemberFilter, ReadMark, Receipt, Status};
use receipts_fold::{Limits, RawRecord, RecordMetadata, State};
use receipts_store::{Backend, Paged};
use receipts_testkit::random::Random;
use receipts_testkit::{OracleEffect, Subject};

/// The memory, checkpoints and deaths of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    /// The memory for pages, bytes: 0 keeps hardly one page.
    pub(crate) memory_bytes: usize,
    /// The number of records between checkpoints.
    pub(crate) checkpoint_every: u64,
    /// The number of records between deaths. The next process starts from the last checkpoint and
    /// folds later records again.
    pub(crate) die_every: u64,
    /// The messages per segment of the id index: few, so that short histories have sealed and
    /// expired segments.
    pub(crate) segment: u64,
    /// The entries of checkpoints that become readable per record; `usize::MAX` for all at once.
    pub(crate) entries_per_record: usize,
    /// A seed that places checkpoints and deaths at random, with the above numbers as averages.
    pub(crate) by_chance: Option<u64>,
    /// The bytes that are encoded per record ahead of the checkpoint.
    pub(crate) pre_encoded_per_record: usize,
}

impl Life {
    pub(crate) const QUIET: Self = Self {
        memory_bytes: 64 << 20,
        checkpoint_every: u64::MAX,
        die_every: u64::MAX,
        segment: 64,
        entries_per_record: usize::MAX,
        by_chance: None,
        pre_encoded_per_record: 0,
    };

    /// Returns the life of a seed: little or much memory, many or few checkpoints, values that
    /// become readable at once or late, and deaths anywhere.
    pub(crate) fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut any = |of: &[u64]| *random.pick(of).unwrap();
        Self {
            memory_bytes: any(&[0, 4 << 10, 64 << 10, 64 << 20]) as usize,
            checkpoint_every: any(&[1, 3, 10, 40]),
            die_every: any(&[2, 15, 50, 200]),
            segment: 64,
            entries_per_record: any(&[1, 7, u64::MAX]) as usize,
            by_chance: Some(seed),
            pre_encoded_per_record: any(&[0, 1, 400, u64::MAX]) as usize,
        }
    }
}

/// A fold that dies and restarts.
pub(crate) struct Folded {
    life: Life,
    limits: Limits,
    candidates_max: u32,
    backend: Lagging,
    state: Option<State<Paged<Lagging>>>,
    records: u64,
    random: Option<Random>,
    /// The records since the last checkpoint; `None` for a record without an event.
    since: Vec<(RecordMetadata, Option<Event<'static>>)>,
}

impl Folded {
    pub(crate) fn new(limits: Limits, life: Life) -> Self {
        let random = life.by_chance.map(Random::new);
        let backend = Lagging::default();
        let candidates_max = 100;
        let mut new =
            Self { life, limits, candidates_max, backend, state: None, records: 0, random, since: Vec::new() };
        new.open();
        new
    }

    /// Sets the number of messages of an id that a search in all conversations looks at.
    pub(crate) fn looking_at(self, candidates_max: usize) -> Self {
        Self { candidates_max: candidates_max as u32, ..self }
    }

    fn open(&mut self) {
        self.state = None;
        self.backend.reopen();
        let pages = Paged::new(self.backend.clone(), 0, self.life.memory_bytes);
        self.state = Some(State::open_with_segments(pages, self.limits, self.life.segment).unwrap());
    }

    pub(crate) fn state(&self) -> &State<Paged<Lagging>> {
        self.state.as_ref().unwrap()
    }

    /// Returns the pages, to plant contradictions in them.
    pub(crate) fn pages_mut(&mut self) -> &mut Paged<Lagging> {
        self.state.as_mut().unwrap().pages_mut()
    }

    pub(crate) fn checkpoint(&mut self) {
        let state = self.state.as_mut().unwrap();
        state.write_meta();
        let batch = state.pages().batch(state.next_offset());
        let number = self.backend.commit(batch).unwrap();
        state.pages_mut().mark_saved(number);
        if self.life.entries_per_record == usize::MAX {
            self.backend.catch_up(usize::MAX);
        }
        state.pages_mut().trim(0);
        self.since.clear();
    }

    /// Does the work after a record: upkeep, checkpoints and deaths.
    fn live(&mut self) {
        self.records += 1;
        self.backend.catch_up(self.life.entries_per_record);
        let pages = self.state.as_mut().unwrap().pages_mut();
        pages.trim(0);
        if self.life.pre_encoded_per_record > 0 {
            pages.pre_encode(self.life.pre_encoded_per_record);
        }
        if self.is_due(self.life.checkpoint_every) {
            self.checkpoint();
        }
        if self.is_due(self.life.die_every) {
            self.open();
            for (at, event) in std::mem::take(&mut self.since) {
                self.fold(at, event.as_ref());
                self.since.push((at, event));
            }
        }
    }

    fn is_due(&mut self, every: u64) -> bool {
        match &mut self.random {
            Some(random) => random.below(every) == 0,
            None => self.records.is_multiple_of(every),
        }
    }

    fn fold(&mut self, at: RecordMetadata, event: Option<&Event<'_>>) -> Effects {
        let mut effects = Effects::default();
        let state = self.state.as_mut().unwrap();
        match event {
            Some(event) => {
                let (key, value) = (event.key(), event.to_json());
                let raw = RawRecord { key: Some(&key), value: &value, headers: &Vec::new };
                // The projector prefetches too; it must change nothing.
                state.prefetch(std::iter::once(event));
                // Slices of any size have the same outcome, even if pages leave memory in between.
                let messages_max = 1 + (at.offset % 3) as u32;
                let mut is_whole = state.begin(at, event, raw, messages_max, &mut effects).unwrap();
                while !is_whole {
                    state.pages_mut().trim(0);
                    is_whole = state.proceed(messages_max, &mut effects).unwrap();
                }
            }
            None => state.skip(at, receipts_event::Reason::InvalidJson, String::new(), &mut effects).unwrap(),
        }
        effects
    }

    fn effects(&self, at: RecordMetadata, effects: Effects) -> Vec<OracleEffect> {
        let state = self.state();
        let mut out: Vec<OracleEffect> = Vec::new();
        for letter in effects.dead_letters {
            out.push(OracleEffect::DeadLetter {
                offset: letter.parked.as_ref().map_or(at.offset, |p| p.offset),
                reason: letter.reason.code(),
                ids: letter.ids.iter().map(|id| id.to_string()).collect(),
            });
        }
        let mut changed: Vec<u64> = effects.changed.iter().map(|c| c.message).collect();
        changed.sort_unstable();
        changed.dedup();
        for message in changed {
            let Some(receipt) = state.receipt_of(message).unwrap() else { continue };
            let reads = effects.changed.iter().filter(|c| c.message == message).filter_map(|c| c.newly_read);
            let mut newly_read = Vec::new();
            state.name_slots(message, reads, |id, at_ms| newly_read.push((id.to_owned(), at_ms))).unwrap();
            out.push(OracleEffect::Changed {
                newly_read,
                tenant: receipt.tenant,
                conversation_id: receipt.conversation_id.unwrap(),
                message_id: receipt.message_id,
            });
        }
        let mut marks = effects.marks;
        marks.sort_unstable();
        marks.dedup();
        for moved in marks {
            let Some(mark) = state.read_mark_of(moved.conversation, moved.slot).unwrap() else { continue };
            let (tenant, conversation_id) = state.conversation_name(moved.conversation).unwrap();
            out.push(OracleEffect::MarkMoved { tenant, conversation_id, mark });
        }
        out
    }
}

impl Subject for Folded {
    fn apply(&mut self, at: receipts_testkit::At, event: &Event<'_>) -> Vec<OracleEffect> {
        let at = RecordMetadata { partition: at.partition, offset: at.offset, timestamp_ms: at.timestamp_ms };
        let effects = self.fold(at, Some(event));
        let effects = self.effects(at, effects);
        self.since.push((at, Some(event.clone().into_owned())));
        self.live();
        effects
    }

    fn pass(&mut self, at: receipts_testkit::At) -> Vec<OracleEffect> {
        let at = RecordMetadata { partition: at.partition, offset: at.offset, timestamp_ms: at.timestamp_ms };
        let mut effects = self.fold(at, None);
        // In the testkit a record without an event makes no dead letter.
        effects.dead_letters.retain(|l| l.reason != receipts_event::Reason::InvalidJson);
        let effects = self.effects(at, effects);
        self.since.push((at, None));
        self.live();
        effects
    }

    fn receipt(&self, tenant: &str, conversation_id: &str, message_id: &str) -> Receipt {
        let one = self.state().receipt(tenant, conversation_id, message_id).unwrap();
        // A batch of receipts has the same answer.
        let ids = [message_id, "no such message", message_id].map(str::to_owned);
        let many = self.state().receipts(tenant, conversation_id, &ids).unwrap();
        assert_eq!(many.iter().map(|receipt| receipt == &one).collect::<Vec<_>>(), [true, false, true]);
        for caller in callers(&one) {
            let own = self.state().receipt_sent_by(tenant, conversation_id, caller, message_id).unwrap();
            if one.sender_id.as_deref() == Some(caller) {
                assert_eq!(own, one, "the message that {caller} sent");
            } else {
                let nothing = Receipt::bare(tenant, Some(conversation_id), message_id, Status::NotFound);
                assert_eq!(own, nothing, "another sender's message for {caller}");
            }
        }
        one
    }

    fn find(&self, tenant: &str, message_id: &str) -> Receipt {
        let find = |sender_id: Option<&str>| {
            let ids = [message_id, "no such message", message_id].map(str::to_owned);
            let found = self.state().find_receipts(tenant, sender_id, &ids, self.candidates_max).unwrap();
            let [first, none, again] = <[FoundReceipt; 3]>::try_from(found).unwrap();
            assert_eq!(first, again, "equal ids have equal answers");
            assert_eq!((none.receipt.status, none.candidates), (Status::NotFound, 0));
            assert!(first.candidates <= self.candidates_max + 1);
            first.receipt
        };
        let receipt = find(None);
        for caller in callers(&receipt) {
            let own = find(Some(caller));
            match own.status {
                // A stranger's answer is the same as for an id that no message has (INV-STRANGER).
                Status::NotFound => {
                    assert_eq!(own, Receipt::bare(tenant, None, message_id, Status::NotFound));
                    assert_ne!(receipt.sender_id.as_deref(), Some(caller));
                }
                Status::Ambiguous => assert_eq!(own, receipt),
                _ if receipt.sender_id.as_deref() == Some(caller) => {
                    assert_eq!(own, receipt, "the first of all messages, and of those that {caller} sent");
                }
                _ => assert_eq!(own.sender_id.as_deref(), Some(caller), "another message of the same id"),
            }
            assert!(caller != "nobody" || own.status == Status::NotFound);
        }
        receipt
    }

    /// Walks the list as a consumer does, in pages of growing size.
    fn members(
        &self,
        tenant: &str,
        conversation_id: &str,
        message_id: &str,
        filter: MemberFilter,
    ) -> Result<Vec<Member>, Status> {
        let (mut members, mut from, mut limit) = (Vec::new(), 0, 1);
        loop {
            let page = self.state().members(tenant, conversation_id, message_id, filter, from, limit).unwrap();
            if page.receipt.status != Status::Ok {
                return Err(page.receipt.status);
            }
            assert!(page.members.len() <= limit);
            members.extend(page.members);
            let Some(next) = page.next_slot else { return Ok(members) };
            assert!(next > from, "a walk moves on");
            (from, limit) = (next, limit * 3);
        }
    }

    fn read_mark(&self, tenant: &str, conversation_id: &str, user_id: &str) -> Option<ReadMark> {
        self.state().read_mark(tenant, conversation_id, user_id).unwrap()
    }

    fn is_member(&self, tenant: &str, conversation_id: &str, user_id: &str) -> bool {
        self.state().is_member(tenant, conversation_id, user_id).unwrap()
    }
}

/// Returns the callers for questions about own messages (INV-STRANGER): the sender, some people of
/// the histories, and a stranger.
fn callers(receipt: &Receipt) -> impl Iterator<Item = &str> {
    receipt.sender_id.as_deref().into_iter().chain(["u0", "u1", "u2", "nobody"])
}
