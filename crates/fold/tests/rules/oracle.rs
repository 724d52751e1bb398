//! INV-PREFIX, INV-SUM, INV-ONCE, INV-FROZEN: on random histories the fold answers as the naive
//! oracle does, with any memory and any number of deaths. The oracle follows the contract alone.
//!
//! A failing seed prints its shrunk history, as lines for a case file, and the command that replays
//! it. `RECEIPTS_TEST_SEEDS=FROM..TO` chooses seeds.

use crate::life::{Folded, Life};
use receipts_fold::Limits;
use receipts_testkit::Oracle;
use receipts_testkit::compare::agree;
use receipts_testkit::history::Shape;
use receipts_testkit::oracle::Limits as OracleLimits;
use receipts_testkit::property::holds;
use std::ops::Range;

fn limits(shape: &Shape) -> (Limits, OracleLimits) {
    // All budgets are met now and then.
    let fold = Limits {
        retention_ms: shape.retention_ms,
        parked_max: 20,
        parked_bytes: 4_000,
        parked_age_ms: 60_000,
        read_times: true,
        erasures_max: 8,
        policy_types_max: 30,
        ..Limits::default()
    };
    let oracle = OracleLimits {
        retention_ms: fold.retention_ms,
        parked_count: fold.parked_max,
        parked_bytes: fold.parked_bytes,
        parked_age_ms: fold.parked_age_ms,
        read_times: true,
        erasures_max: fold.erasures_max,
        policy_types_max: fold.policy_types_max,
        candidates_max: 2,
        // No page of these short histories expires as a whole, so the fold remembers every id.
        expired_ids_remembered: true,
    };
    (fold, oracle)
}

fn check(shape: &Shape, seeds: Range<u64>, life: impl Fn(u64) -> Life, ask_every: usize) {
    let (fold_limits, oracle_limits) = limits(shape);
    holds(seeds, shape, |seed, history| {
        let mut folded = Folded::new(fold_limits, life(seed)).looking_at(oracle_limits.candidates_max);
        agree(history, &mut Oracle::new(oracle_limits.clone()), &mut folded, ask_every)
            .map_err(|difference| format!("oracle first, fold second\n{difference}"))
    });
}

fn quiet(_: u64) -> Life {
    Life::QUIET
}

#[test]
fn fold_agrees_with_the_oracle_on_ordered_events() {
    check(&Shape::spine(), 0..100, quiet, 50);
}

#[test]
fn fold_agrees_with_the_oracle_on_quiet_histories() {
    check(&Shape::quiet(), 0..100, quiet, 50);
}

/// At the sizes where people, bits, indexes and departures begin a next page.
#[test]
fn fold_agrees_with_the_oracle_on_crowds() {
    check(&Shape::crowds(), 8_000..8_080, Life::random, 16);
}

/// Returns a wild shape without jumps past the retention. Once a page of 64 messages has expired,
/// the fold forgets their ids and parks events that name them. The oracle remembers all ids.
fn wild() -> Shape {
    Shape { p_jump: 0.0, ..Shape::wild() }
}

/// Returns a wild shape with such jumps, but with fewer messages than a page holds.
fn wild_and_short() -> Shape {
    Shape { events: 150, p_jump: 0.05, ..Shape::wild() }
}

#[test]
fn fold_agrees_with_the_oracle_on_wild_histories() {
    check(&wild(), 0..300, quiet, 20);
}

#[test]
fn fold_agrees_with_the_oracle_past_the_retention() {
    check(&wild_and_short(), 0..300, quiet, 20);
    check(
        &wild_and_short(),
        300..400,
        |_| Life { memory_bytes: 0, checkpoint_every: 2, die_every: 3, ..Life::QUIET },
        20,
    );
}

#[test]
fn dying_after_every_record_changes_nothing() {
    check(
        &wild(),
        1_000..1_040,
        |_| Life { memory_bytes: 64 << 20, checkpoint_every: 1, die_every: 1, ..Life::QUIET },
        50,
    );
}

/// INV-REPLAY: records after the checkpoint are folded a second time.
#[test]
fn dying_between_checkpoints_changes_nothing() {
    check(
        &wild(),
        4_000..4_060,
        |_| Life { memory_bytes: 64 << 20, checkpoint_every: 37, die_every: 11, ..Life::QUIET },
        50,
    );
    check(
        &Shape::quiet(),
        4_100..4_130,
        |_| Life { memory_bytes: 0, checkpoint_every: 50, die_every: 23, ..Life::QUIET },
        50,
    );
}

#[test]
fn tiny_cache_changes_no_answer() {
    check(&wild(), 2_000..2_060, |_| Life { memory_bytes: 0, checkpoint_every: 3, die_every: 7, ..Life::QUIET }, 50);
}

#[test]
fn checkpoints_without_deaths_change_nothing() {
    check(
        &Shape::quiet(),
        3_000..3_060,
        |_| Life { memory_bytes: 4 << 10, checkpoint_every: 17, die_every: u64::MAX, ..Life::QUIET },
        50,
    );
}

/// Long enough for segments of the id index to be sealed, searched, and reopened after a restart.
#[test]
fn fold_agrees_with_the_oracle_on_sealed_segments() {
    let long = |shape: Shape| Shape { events: 4_000, ..shape };
    let life = |_| Life { memory_bytes: 0, checkpoint_every: 97, die_every: 211, ..Life::QUIET };
    check(&long(wild()), 5_000..5_010, life, 400);
    // One id is sent at the same time in two conversations, in a segment that is sealed later.
    check(&long(wild()), 20_303..20_304, life, 400);
    check(&long(Shape::quiet()), 5_100..5_110, quiet, 400);
}

/// Checkpoints and deaths anywhere, values that become readable late, and little or much memory.
#[test]
fn random_lives_answer_as_the_oracle_does() {
    check(&wild(), 6_000..6_150, Life::random, 40);
    check(&Shape { events: 2_000, ..wild() }, 6_200..6_210, Life::random, 400);
}

/// INV-EXPIRED: if no later event names an expired message with an effect, no answer shows that it
/// was forgotten.
#[test]
fn fold_agrees_with_the_oracle_while_pages_expire() {
    let shape = Shape { events: 3_000, p_jump: 0.004, p_early: 0.0, p_duplicate: 0.0, ..Shape::wild() };
    let (fold, oracle) = limits(&shape);
    let fold = Limits { parked_max: usize::MAX, parked_bytes: u64::MAX, parked_age_ms: u64::MAX, ..fold };
    let oracle = OracleLimits {
        parked_count: usize::MAX,
        parked_bytes: u64::MAX,
        parked_age_ms: u64::MAX,
        // The fold forgets removed messages of an id.
        candidates_max: 100_000,
        ..oracle
    };
    holds(7_000..7_012, &shape, |seed, history| {
        let mut folded = Folded::new(fold, Life::random(seed)).looking_at(100_000);
        agree(history, &mut Oracle::new(oracle.clone()), &mut folded, 300)
    });
}
