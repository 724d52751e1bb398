//! The oracle held to the laws that follow from the contract, over random histories: it judges the
//! fold, and this judges it. A failing seed is made small and says how to run it again.

use std::collections::BTreeSet;
use std::ops::Range;

use receipts_event::Event;
use receipts_testkit::compare::{Questions, agree, shrink};
use receipts_testkit::history::{History, Shape};
use receipts_testkit::property::{each_seed, holds};
use receipts_testkit::{At, Limits, Oracle, OracleEffect, laws};

/// Histories asked at their end.
const SEEDS: Range<u64> = 0..150;
/// Histories asked everything after every event.
const STEPWISE: Range<u64> = 0..25;

fn roomy() -> Oracle {
    Oracle::new(roomy_limits())
}

fn roomy_limits() -> Limits {
    Limits { parked_count: 100_000, parked_bytes: u64::MAX, parked_age_ms: u64::MAX, ..Limits::default() }
}

fn tight() -> Oracle {
    Oracle::new(Limits { parked_count: 6, parked_age_ms: 20_000, ..Limits::default() })
}

#[test]
fn sums_close_and_lists_match_counts() {
    holds(STEPWISE, &laws::wild_and_small(), |_, log| laws::sums_close(tight(), log));
}

#[test]
fn counts_and_versions_never_fall_while_ok() {
    let shape = Shape { p_jump: 0.0, ..laws::wild_and_small() };
    holds(STEPWISE, &shape, |_, log| laws::counts_and_versions_never_fall(tight(), log));
}

#[test]
fn receipt_changes_are_published_except_leaves_and_retention() {
    holds(STEPWISE, &laws::wild_and_small(), |_, log| laws::receipt_changes_are_published(tight(), log));
}

#[test]
fn repeated_read_or_send_changes_no_answer() {
    holds(SEEDS, &Shape::wild(), |_, log| laws::repeating_changes_nothing(roomy, log));
}

#[test]
fn receipts_count_the_same_anywhere_in_the_log() {
    holds(SEEDS, &laws::open_reads(), |seed, log| laws::receipts_count_the_same_anywhere(roomy, seed, log));
}

#[test]
fn tenants_do_not_affect_one_another() {
    holds(SEEDS, &Shape::wild(), |_, log| laws::tenants_are_independent(roomy, log));
}

#[test]
fn erased_id_appears_in_no_answer_or_effect() {
    holds(STEPWISE, &laws::many_erasures(), |_, log| laws::erased_ids_are_named_nowhere(tight(), log));
}

#[test]
fn parked_record_becomes_at_most_one_dead_letter() {
    let shape = Shape { p_early: 0.5, ..Shape::wild() };
    holds(SEEDS, &shape, |_, log| laws::dead_letters_are_sent_once(tight(), log));
    // Of every kind there were some.
    let mut reasons = BTreeSet::new();
    for seed in 0..20 {
        let mut oracle = tight();
        let effects = History::generate(seed, &shape).into_iter().flat_map(|(at, event)| oracle.apply(at, &event));
        reasons.extend(effects.filter_map(|effect| match effect {
            OracleEffect::DeadLetter { reason, .. } => Some(reason),
            _ => None,
        }));
    }
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["no-roster", "parked-expired", "parked-overflow"]);
}

#[test]
fn read_marks_only_grow() {
    holds(SEEDS, &laws::no_erasures(), |_, log| laws::read_marks_only_grow(tight(), log));
}

#[test]
fn quiet_history_is_clean_wild_one_meets_every_status() {
    let mut met = BTreeSet::new();
    each_seed(0..150, |seed| {
        let mut oracle = tight();
        for (at, event) in History::generate(seed, &Shape::quiet()) {
            let effects = oracle.apply(at, &event);
            let dead = effects.iter().any(|effect| matches!(effect, OracleEffect::DeadLetter { .. }));
            assert!(!dead, "seed {seed} {at:?}");
        }
        let log = History::generate(seed, &Shape::wild());
        let mut oracle = roomy();
        log.iter().for_each(|(at, event)| _ = oracle.apply(*at, event));
        let asked = Questions::of(log.iter().map(|(_, event)| event)).messages;
        let receipts =
            asked.iter().map(|(tenant, conversation, message)| oracle.receipt(tenant, conversation, message));
        met.extend(receipts.map(|receipt| format!("{:?}", receipt.status)));
    });
    let all = ["NotFound", "NotRequested", "Ok", "Recalled", "Unsupported"];
    assert_eq!(met.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

#[test]
fn oracles_agree_and_differences_shrink_to_their_cause() {
    let log = History::generate(1, &Shape::wild());
    assert_eq!(agree(&log, &mut tight(), &mut tight(), 1), Ok(()));
    // One that keeps no read times differs as soon as a list has a reader: a roster, a send and a
    // read.
    let blind = Limits { read_times: false, ..roomy_limits() };
    let fails = |log: &[(At, Event<'static>)]| agree(log, &mut roomy(), &mut Oracle::new(blind.clone()), 1).is_err();
    assert!(fails(&log));
    let small = shrink(log, fails);
    assert!(fails(&small) && (2..=3).contains(&small.len()), "{small:#?}");
}
