//! INV-FOLD-BUDGET: the budgets of the fold, counted (ADR 0036): what one tenant piles up costs the
//! others no page, no record and no byte. Measures no time.

use crate::watched::Watched;
use receipts_event::{Reason, decode};
use receipts_fold::effects::Effects;
use receipts_fold::pages::TableId;
use receipts_fold::view::Status;
use receipts_fold::{Limits, Pages, RawRecord, RecordMetadata, State};
use receipts_store::{Backend, Batch, Entry, MemoryBackend, Paged};
use serde_json::{Value, json};

const NOW_MS: u64 = 1_780_000_000_000;

/// A fold that counts what happens to its records.
struct Log<S> {
    fold: State<S>,
    now_ms: u64,
}

impl<S: Pages> Log<S> {
    fn new(pages: S, limits: Limits) -> Self {
        Self { fold: State::open(pages, limits).unwrap(), now_ms: NOW_MS }
    }

    fn post(&mut self, event: &Value) -> Effects {
        let value = serde_json::to_vec(event).unwrap();
        let event = decode(&value).unwrap();
        let at = RecordMetadata { partition: 0, offset: self.fold.next_offset(), timestamp_ms: self.now_ms };
        let (key, mut effects) = (event.key(), Effects::default());
        let raw = RawRecord { key: Some(&key), value: &value, headers: &Vec::new };
        self.fold.apply(at, &event, raw, &mut effects).unwrap();
        effects
    }

    fn join(&mut self, tenant: &str, people: &[&str]) {
        self.post(&json!({"type": "members.changed", "tenant": tenant, "conversation_id": "g", "joined": people}));
    }

    fn send(&mut self, tenant: &str, conversation: &str, message: &str, sent_at_ms: u64) -> Effects {
        self.post(&json!({"type": "message.sent", "tenant": tenant, "conversation_id": conversation,
            "message_id": message, "sender_id": "ann", "sent_at_ms": sent_at_ms, "need_read_receipt": true,
            "recipients": ["bob"]}))
    }

    fn read(&mut self, tenant: &str, message: &str) -> Effects {
        self.post(&json!({"type": "message.read", "tenant": tenant, "conversation_id": "g", "reader_id": "bob",
            "message_ids": [message]}))
    }

    fn erase(&mut self, tenant: &str, user: &str) -> Effects {
        self.post(&json!({"type": "user.erased", "tenant": tenant, "user_id": user, "partition": 0}))
    }
}

fn in_memory(limits: Limits) -> Log<Paged<MemoryBackend>> {
    Log::new(Paged::new(MemoryBackend::default(), 0, 1 << 30), limits)
}

/// Another tenant's erasures cost a send and a query no page. Own ones cost a small conversation no
/// more than its one page of people, however many they are.
#[test]
fn erasures_of_one_tenant_cost_others_nothing() {
    const ERASURES: u64 = 100_000;
    let mut log = Log::new(Watched::empty(), Limits::default());
    for tenant in ["loud", "quiet"] {
        log.join(tenant, &["ann", "bob", "cid"]);
        log.send(tenant, "g", "m0", 1);
    }
    let costs = |log: &mut Log<Watched>, tenant: &str, message: &str| {
        log.fold.pages().take_reads();
        let receipt = log.fold.receipt(tenant, "g", "m0").unwrap();
        let asked = log.fold.pages().take_reads().len();
        log.send(tenant, "g", message, 2);
        (receipt.counts.unwrap().departed_count, asked, log.fold.pages().take_reads().len())
    };
    let before = costs(&mut log, "quiet", "m1");
    for number in 0..ERASURES {
        log.erase("loud", if number == 7 { "bob" } else { "somebody" });
        log.erase("loud", &format!("u{number}"));
    }
    assert_eq!(costs(&mut log, "quiet", "m2"), before, "departed, reads of a query, reads of a send");
    let (departed, asked, sent) = costs(&mut log, "loud", "m1");
    assert_eq!(departed, 1, "bob");
    // One page of people, and the pages that a departure changes.
    assert!(asked <= before.1 + 1 && sent <= before.2 + 12, "{asked} and {sent} reads, of {before:?} without erasures");
    // The conversation has applied them all.
    assert!(costs(&mut log, "loud", "m2").1 <= before.1 + 1);
}

/// 45,000 reads of nothing by one tenant leave another one's early read where it is, and take no
/// more bytes than the budget.
#[test]
fn flood_of_one_tenant_costs_another_no_record() {
    let mut log = in_memory(Limits { parked_bytes: 1 << 20, ..Limits::default() });
    log.read("quiet", "m0");
    let empty = log.fold.memory_bytes();
    let mut lost = 0;
    for number in 0..45_000 {
        let letters = log.read("loud", &format!("x{number}")).dead_letters;
        assert!(letters.iter().all(|letter| letter.reason == Reason::ParkedOverflow));
        assert!(letters.iter().all(|letter| &*letter.parked.as_ref().unwrap().tenant == "loud"));
        lost += letters.len();
    }
    assert_eq!(log.fold.parked(), 45_001 - lost);
    assert!(log.fold.parked_bytes() <= 1 << 20 && log.fold.parked_bytes() > (1 << 20) - 500);
    // The index of what waits is counted (INV-MEMORY), and bounded by the budget too.
    let index = log.fold.memory_bytes() - empty;
    assert!(index >= 60 * log.fold.parked() && index < 1 << 20, "{index} bytes for {} records", log.fold.parked());
    log.send("quiet", "g", "m0", NOW_MS);
    assert_eq!(log.fold.receipt("quiet", "g", "m0").unwrap().counts.unwrap().read_count, 1);
}

#[test]
fn detail_names_the_setting_that_was_met() {
    let details = |limits: Limits, events: &[Value]| -> Vec<String> {
        let mut log = in_memory(limits);
        events.iter().flat_map(|event| log.post(event).dead_letters).map(|letter| letter.detail).collect()
    };
    let read =
        |id: &str| json!({"type": "message.read", "conversation_id": "g", "reader_id": "bob", "message_ids": [id]});
    let erase = |user: &str| json!({"type": "user.erased", "user_id": user, "partition": 0});
    let erase_of =
        |tenant: &str, user: &str| json!({"type": "user.erased", "tenant": tenant, "user_id": user, "partition": 0});
    let policy = |types: Value| json!({"type": "policy.changed", "read_receipts": types, "partition": 0});
    let of_other = json!({"type": "policy.changed", "tenant": "other", "read_receipts": {"a": true}, "partition": 0});
    let few = Limits { erasures_max: 4, policy_types_max: 10, ..Limits::default() };
    let cases: [(Limits, Vec<Value>, &[&str]); 6] = [
        (
            Limits { parked_max: 1, ..few },
            vec![read("a"), read("b")],
            &["\"a\"", "more than 1 records", "projector.parked_count"],
        ),
        (
            Limits { parked_bytes: 250, ..few },
            vec![read("a"), read("b")],
            &["more than 250 bytes", "projector.parked_bytes"],
        ),
        (Limits { parked_bytes: 50, ..few }, vec![read("a")], &["the record's", "projector.parked_bytes, 50"]),
        (
            few,
            vec![erase("a"), erase("b"), erase("c"), erase("d")],
            &["3 erased people", "three quarters", "projector.erasures_max (4)"],
        ),
        (
            few,
            vec![erase("a"), erase("b"), erase("c"), erase_of("t", "a"), erase_of("u", "a")],
            &["4 erased people", "projector.erasures_max"],
        ),
        (
            few,
            vec![policy(json!({"a": true, "b": true}))],
            &["2 group types", "a tenth", "projector.policy_types_max (10)"],
        ),
    ];
    for (limits, events, said) in cases {
        let details = details(limits, &events);
        assert_eq!(details.len(), 1, "{details:?}");
        assert!(said.iter().all(|part| details[0].contains(part)), "{details:?}, {said:?}");
    }
    let mut events: Vec<Value> = (0..10)
        .map(|n| json!({"type": "policy.changed", "tenant": format!("t{n}"), "read_receipts": {"a": true}, "partition": 0}))
        .collect();
    events.push(of_other);
    let details = details(few, &events);
    assert!(details.len() == 1 && details[0].contains("name 11 group types"), "{details:?}");
}

fn written(log: &mut Log<Paged<MemoryBackend>>) -> Vec<u8> {
    log.fold.write_meta();
    let batch: Batch = log.fold.pages().batch(log.fold.next_offset());
    let tables = batch.iter().map(|entry| match entry {
        Entry::Write(key, _) | Entry::Remove(key) => key[0],
    });
    let tables = tables.collect();
    let number = log.fold.pages().backend().clone().commit(batch).unwrap();
    log.fold.pages_mut().mark_saved(number);
    tables
}

/// A checkpoint writes the policy that has changed and no other one.
#[test]
fn policy_is_written_only_when_it_changes() {
    let mut log = in_memory(Limits::default());
    let policies = |tables: Vec<u8>| tables.into_iter().filter(|table| *table == TableId::Policies as u8).count();
    for tenant in 0..20 {
        log.post(&json!({"type": "policy.changed", "tenant": format!("t{tenant}"),
            "read_receipts": {"team": false}, "partition": 0}));
    }
    assert_eq!(policies(written(&mut log)), 20);
    log.join("t1", &["ann", "bob"]);
    log.send("t1", "g", "m1", 1);
    assert_eq!(policies(written(&mut log)), 0);
    log.post(&json!({"type": "policy.changed", "tenant": "t1", "read_receipts": {"*": false}, "partition": 0}));
    assert_eq!(policies(written(&mut log)), 1);
    // An empty policy removes the page.
    log.post(&json!({"type": "policy.changed", "tenant": "t1", "read_receipts": {}, "partition": 0}));
    assert_eq!(policies(written(&mut log)), 1);
    assert_eq!(log.fold.pages_of_partition().unwrap().len(), 1 + 19);
}

/// A search looks at no more messages of an id than its bound, and at none of another tenant.
#[test]
fn common_id_costs_no_more_than_the_bound() {
    const BOUND: u32 = 100;
    let mut log = Log::new(Watched::empty(), Limits::default());
    for number in 0..3_000u64 {
        log.send("loud", &format!("g{number}"), "1", number);
    }
    let find = |log: &Log<Watched>, tenant: &str, sender_id: Option<&str>| {
        log.fold.pages().take_reads();
        let found = log.fold.find_receipt(tenant, sender_id, "1", BOUND).unwrap();
        (found.receipt.status, found.candidates, log.fold.pages().take_reads().len())
    };
    assert_eq!(find(&log, "quiet", None), (Status::NotFound, 0, 0));
    assert_eq!(find(&log, "loud", None), (Status::Ambiguous, BOUND + 1, 0), "no page is read");
    let (status, candidates, reads) = find(&log, "loud", Some("ann"));
    assert_eq!((status, candidates), (Status::Ambiguous, BOUND + 1));
    assert!(reads <= 4, "the first message is hers: {reads} reads");
    let (status, _, reads) = find(&log, "loud", Some("eve"));
    assert_eq!(status, Status::NotFound, "nobody tells eve that others have the id");
    assert!(reads <= 3 * BOUND as usize, "{reads} reads");
    // Within the bound there is an answer.
    assert_eq!(log.fold.find_receipt("loud", None, "1", 3_000).unwrap().receipt.sent_at_ms, Some(2_999));
    // Equal ids of a batch are looked up once.
    log.fold.pages().take_reads();
    let ids = vec!["1".to_owned(); 100];
    let found = log.fold.find_receipts("loud", Some("eve"), &ids, BOUND).unwrap();
    assert_eq!((found.len(), log.fold.pages().take_reads().len()), (100, reads));
}

/// What waited for a message that has expired on arrival is counted.
#[test]
fn reads_of_a_message_expired_on_arrival_are_counted() {
    let limits = Limits { retention_ms: 1_000, parked_age_ms: u64::MAX, ..Limits::default() };
    let mut log = in_memory(limits);
    log.join("t", &["ann", "bob"]);
    log.read("t", "m");
    log.post(&json!({"type": "message.recalled", "tenant": "t", "conversation_id": "g", "message_id": "m"}));
    log.now_ms += 5_000;
    log.join("t", &["cid"]);
    log.now_ms = NOW_MS;
    let effects = log.send("t", "g", "m", 1);
    assert_eq!((effects.counters.expired, effects.dead_letters.len(), log.fold.parked()), (2, 0, 0));
    assert_eq!(log.fold.parked_bytes(), 0);
}
