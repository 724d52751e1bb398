//! The fold over a store in memory, with a life of checkpoints and deaths, put to the questions of the testkit.

use crate::lagging::Lagging;
use receipts_event::Event;
use receipts_fold::effects::Effects;
use receipts_fold::view::{Member, MemberFilter, ReadMark, Receipt, Status};
use receipts_fold::{Limits, RawRecord, RecordMetadata, State};
use receipts_store::{Backend, Paged};
use receipts_testkit::random::Random;
use receipts_testkit::{OracleEffect, Subject};

/// When the process dies, and how little memory it has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    /// Bytes for pages: 0 keeps hardly one.
    pub(crate) memory_bytes: usize,
    /// A checkpoint after so many records.
    pub(crate) checkpoint_every: u64,
    /// After how many records the process dies: another one goes on from the last checkpoint, and folds again what came since.
    pub(crate) die_every: u64,
    /// Messages of a stretch of the id index: few, so that short histories meet sealed ones and ones that go.
    pub(crate) stretch: u64,
    /// Entries of checkpoints that become readable with each record; all at once where that is the greatest number.
    pub(crate) entries_a_record: usize,
    /// Checkpoints and deaths by the dice of this seed, as often as told on average.
    pub(crate) by_chance: Option<u64>,
    /// Bytes that are encoded with each record, ahead of the checkpoint.
    pub(crate) drafted_a_record: usize,
}

impl Life {
    pub(crate) const QUIET: Self = Self {
        memory_bytes: 64 << 20,
        checkpoint_every: u64::MAX,
        die_every: u64::MAX,
        stretch: 64,
        entries_a_record: usize::MAX,
        by_chance: None,
        drafted_a_record: 0,
    };

    /// Another life for each seed: from hardly a page in memory to all, from a checkpoint a record to few, values readable at
    /// once or long after their checkpoint, and deaths anywhere.
    pub(crate) fn random(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut any = |of: &[u64]| *random.pick(of).unwrap();
        Self {
            memory_bytes: any(&[0, 4 << 10, 64 << 10, 64 << 20]) as usize,
            checkpoint_every: any(&[1, 3, 10, 40]),
            die_every: any(&[2, 15, 50, 200]),
            stretch: 64,
            entries_a_record: any(&[1, 7, u64::MAX]) as usize,
            by_chance: Some(seed),
            drafted_a_record: any(&[0, 1, 400, u64::MAX]) as usize,
        }
    }
}

/// A fold that dies and comes back.
pub(crate) struct Folded {
    life: Life,
    limits: Limits,
    backend: Lagging,
    state: Option<State<Paged<Lagging>>>,
    records: u64,
    random: Option<Random>,
    /// Since the last checkpoint; `None` for what was no event.
    since: Vec<(RecordMetadata, Option<Event<'static>>)>,
}

impl Folded {
    pub(crate) fn new(limits: Limits, life: Life) -> Self {
        let random = life.by_chance.map(Random::new);
        let backend = Lagging::default();
        let mut new = Self { life, limits, backend, state: None, records: 0, random, since: Vec::new() };
        new.open();
        new
    }

    fn open(&mut self) {
        self.state = None;
        self.backend.reopen();
        let pages = Paged::new(self.backend.clone(), 0, self.life.memory_bytes);
        self.state = Some(State::open_with_segments(pages, self.limits, self.life.stretch).unwrap());
    }

    pub(crate) fn state(&self) -> &State<Paged<Lagging>> {
        self.state.as_ref().unwrap()
    }

    /// The pages, to plant in them what never should be there.
    pub(crate) fn pages_mut(&mut self) -> &mut Paged<Lagging> {
        self.state.as_mut().unwrap().pages_mut()
    }

    pub(crate) fn checkpoint(&mut self) {
        let state = self.state.as_mut().unwrap();
        state.write_meta();
        let batch = state.pages().batch(state.next_offset());
        let number = self.backend.commit(batch).unwrap();
        state.pages_mut().saved(number);
        if self.life.entries_a_record == usize::MAX {
            self.backend.catch_up(usize::MAX);
        }
        state.pages_mut().trim(0);
        self.since.clear();
    }

    /// After each record: upkeep, checkpoints and deaths as the life has them.
    fn live(&mut self) {
        self.records += 1;
        self.backend.catch_up(self.life.entries_a_record);
        let pages = self.state.as_mut().unwrap().pages_mut();
        pages.trim(0);
        if self.life.drafted_a_record > 0 {
            pages.draft(self.life.drafted_a_record);
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
                // As the projector does; it must change nothing.
                state.prefetch(std::iter::once(event));
                state.apply(at, event, raw, &mut effects).unwrap();
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
        // The testkit leaves the record's own dead letter to the intake.
        effects.dead_letters.retain(|l| l.reason != receipts_event::Reason::InvalidJson);
        let effects = self.effects(at, effects);
        self.since.push((at, None));
        self.live();
        effects
    }

    fn receipt(&self, tenant: &str, conversation_id: &str, message_id: &str) -> Receipt {
        let one = self.state().receipt(tenant, conversation_id, message_id).unwrap();
        // Of many at once each is the same, whatever stands beside it.
        let ids = [message_id, "no such message", message_id].map(str::to_owned);
        let many = self.state().receipts(tenant, conversation_id, &ids).unwrap();
        assert_eq!(many.iter().map(|receipt| receipt == &one).collect::<Vec<_>>(), [true, false, true]);
        for asker in askers(&one) {
            let own = self.state().receipt_sent_by(tenant, conversation_id, asker, message_id).unwrap();
            if one.sender_id.as_deref() == Some(asker) {
                assert_eq!(own, one, "what {asker} sent");
            } else {
                let nothing = Receipt::bare(tenant, Some(conversation_id), message_id, Status::NotFound);
                assert_eq!(own, nothing, "somebody else's, to {asker}");
            }
        }
        one
    }

    fn find(&self, tenant: &str, message_id: &str) -> Receipt {
        let receipt = self.state().receipt_anywhere(tenant, message_id).unwrap();
        for asker in askers(&receipt) {
            let own = self.state().receipt_anywhere_sent_by(tenant, asker, message_id).unwrap();
            if receipt.sender_id.as_deref() == Some(asker) {
                assert_eq!(own, receipt, "of all messages, so of those that {asker} sent");
            } else if own.status == Status::NotFound {
                assert_eq!(own, Receipt::bare(tenant, None, message_id, Status::NotFound));
            } else {
                assert_eq!(own.sender_id.as_deref(), Some(asker), "another one of the same id");
            }
        }
        receipt
    }

    /// The list as a consumer walks it: page by page, of sizes that vary.
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

/// In whose names a message is asked for as well (INV-STRANGER): its sender's, those of people of these histories, and a
/// stranger's.
fn askers(receipt: &Receipt) -> impl Iterator<Item = &str> {
    receipt.sender_id.as_deref().into_iter().chain(["u0", "u1", "u2", "nobody"])
}
