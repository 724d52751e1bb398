//! Holds the fold to the laws of the contract, which the oracle keeps too
//! (`crates/testkit/src/laws.rs`). Each history has its own life: checkpoints and deaths anywhere,
//! and little or much memory.

use crate::life::{Folded, Life};
use receipts_fold::Limits;
use receipts_testkit::history::Shape;
use receipts_testkit::laws;
use receipts_testkit::property::holds;
use std::ops::Range;

/// Seeds of histories with questions at their end.
const SEEDS: Range<u64> = 0..120;
/// Seeds of histories with all questions after every event.
const STEPWISE: Range<u64> = 0..20;

fn roomy(seed: u64) -> Folded {
    let limits = Limits { parked_max: 100_000, parked_bytes: u64::MAX, parked_age_ms: u64::MAX, ..Limits::default() };
    Folded::new(limits, Life::random(seed))
}

fn tight(seed: u64) -> Folded {
    Folded::new(Limits { parked_max: 6, parked_age_ms: 20_000, ..Limits::default() }, Life::random(seed))
}

#[test]
fn sums_close_and_lists_match_counts() {
    holds(STEPWISE, &laws::wild_and_small(), |seed, log| laws::sums_close(tight(seed), log));
}

#[test]
fn counts_and_versions_never_fall_while_ok() {
    let shape = Shape { p_jump: 0.0, ..laws::wild_and_small() };
    holds(STEPWISE, &shape, |seed, log| laws::counts_and_versions_never_fall(tight(seed), log));
}

#[test]
fn receipt_changes_are_published_except_leaves_and_retention() {
    let shape = laws::wild_and_small();
    holds(STEPWISE, &shape, |seed, log| laws::receipt_changes_are_published(tight(seed), log));
}

#[test]
fn repeated_read_or_send_changes_no_answer() {
    holds(SEEDS, &Shape::wild(), |seed, log| laws::repeating_changes_nothing(|| roomy(seed), log));
}

#[test]
fn receipts_count_the_same_anywhere_in_the_log() {
    let law = |seed, log: &_| laws::receipts_count_the_same_anywhere(|| roomy(seed), seed, log);
    holds(SEEDS, &laws::open_reads(), law);
}

#[test]
fn tenants_do_not_affect_one_another() {
    holds(SEEDS, &Shape::wild(), |seed, log| laws::tenants_are_independent(|| roomy(seed), log));
}

#[test]
fn erased_id_appears_in_no_answer_or_effect() {
    holds(STEPWISE, &laws::many_erasures(), |seed, log| laws::erased_ids_are_named_nowhere(tight(seed), log));
}

#[test]
fn parked_record_becomes_at_most_one_dead_letter() {
    let shape = Shape { p_early: 0.5, ..Shape::wild() };
    holds(SEEDS, &shape, |seed, log| laws::dead_letters_are_sent_once(tight(seed), log));
}

#[test]
fn read_marks_only_grow() {
    holds(SEEDS, &laws::no_erasures(), |seed, log| laws::read_marks_only_grow(tight(seed), log));
}
