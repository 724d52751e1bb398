//! The fold held to the laws that follow from the contract, the same as the oracle is (`crates/testkit/src/laws.rs`), each
//! history in a life of its own: checkpoints and deaths anywhere, memory for little or for all.

use crate::life::{Folded, Life};
use receipts_fold::Limits;
use receipts_testkit::history::Shape;
use receipts_testkit::laws;
use receipts_testkit::property::holds;
use std::ops::Range;

/// Histories asked at their end.
const SEEDS: Range<u64> = 0..120;
/// Histories asked everything after every event.
const STEPWISE: Range<u64> = 0..20;

fn roomy(seed: u64) -> Folded {
    let limits = Limits { parked_max: 100_000, parked_age_ms: u64::MAX, ..Limits::default() };
    Folded::new(limits, Life::random(seed))
}

fn tight(seed: u64) -> Folded {
    Folded::new(Limits { parked_max: 6, parked_age_ms: 20_000, ..Limits::default() }, Life::random(seed))
}

#[test]
fn the_sum_closes_and_the_lists_are_what_the_counts_say_after_every_event() {
    holds(STEPWISE, &laws::wild_and_small(), |seed, log| laws::the_sum_closes(tight(seed), log));
}

#[test]
fn counts_of_reads_and_versions_never_fall_while_ok_and_what_is_frozen_stays() {
    let shape = Shape { p_jump: 0.0, ..laws::wild_and_small() };
    holds(STEPWISE, &shape, |seed, log| laws::counts_and_versions_never_fall(tight(seed), log));
}

#[test]
fn what_changes_a_receipt_is_published_unless_it_is_a_leave_or_the_retention() {
    let shape = laws::wild_and_small();
    holds(STEPWISE, &shape, |seed, log| laws::what_changes_a_receipt_is_published(tight(seed), log));
}

#[test]
fn a_read_or_a_send_repeated_at_once_changes_no_answer() {
    holds(SEEDS, &Shape::wild(), |seed, log| laws::repeating_changes_nothing(|| roomy(seed), log));
}

#[test]
fn receipts_count_the_same_wherever_in_the_log_they_come() {
    let law = |seed, log: &_| laws::receipts_count_the_same_wherever_they_come(|| roomy(seed), seed, log);
    holds(SEEDS, &laws::open_reads(), law);
}

#[test]
fn what_happens_in_one_tenant_is_nothing_to_another() {
    holds(SEEDS, &Shape::wild(), |seed, log| laws::tenants_are_nothing_to_one_another(|| roomy(seed), log));
}

#[test]
fn an_erased_id_appears_in_no_answer_and_no_effect_again() {
    holds(STEPWISE, &laws::many_erasures(), |seed, log| laws::the_erased_are_named_nowhere(tight(seed), log));
}

#[test]
fn a_parked_record_is_a_dead_letter_once_or_never() {
    let shape = Shape { p_early: 0.5, ..Shape::wild() };
    holds(SEEDS, &shape, |seed, log| laws::a_record_is_a_dead_letter_once_or_never(tight(seed), log));
}

#[test]
fn read_marks_only_grow() {
    holds(SEEDS, &laws::no_erasures(), |seed, log| laws::read_marks_only_grow(tight(seed), log));
}
