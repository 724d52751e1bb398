//! INV-PREFIX, INV-SUM, INV-ONCE, INV-FROZEN: over random histories the fold answers as the naive oracle does, which was
//! written from the contract alone, however little memory it has and however often it dies on the way.
//!
//! A failing seed prints a history made small, as lines for a case file, and the command that runs it again.
//! `RECEIPTS_TEST_SEEDS=FROM..TO` chooses seeds.

use crate::life::{Folded, Life};
use receipts_fold::Limits;
use receipts_testkit::Oracle;
use receipts_testkit::compare::agree;
use receipts_testkit::history::Shape;
use receipts_testkit::oracle::Limits as OracleLimits;
use receipts_testkit::property::holds;
use std::ops::Range;

fn limits(shape: &Shape) -> (Limits, OracleLimits) {
    let fold = Limits { retention_ms: shape.retention_ms, parked_max: 20, parked_age_ms: 60_000, read_times: true };
    let oracle = OracleLimits {
        retention_ms: fold.retention_ms,
        parked_count: fold.parked_max,
        parked_age_ms: fold.parked_age_ms,
        read_times: true,
        // Pages of these short histories are never full of expired messages: the fold remembers each.
        expired_ids_remembered: true,
    };
    (fold, oracle)
}

fn check(shape: &Shape, seeds: Range<u64>, life: impl Fn(u64) -> Life, ask_every: usize) {
    let (fold_limits, oracle_limits) = limits(shape);
    holds(seeds, shape, |seed, history| {
        let mut folded = Folded::new(fold_limits, life(seed));
        agree(history, &mut Oracle::new(oracle_limits.clone()), &mut folded, ask_every)
            .map_err(|difference| format!("oracle first, fold second\n{difference}"))
    });
}

fn quiet(_: u64) -> Life {
    Life::QUIET
}

#[test]
fn the_fold_agrees_with_the_oracle_on_sends_and_reads_in_order() {
    check(&Shape::spine(), 0..100, quiet, 50);
}

#[test]
fn the_fold_agrees_with_the_oracle_on_quiet_histories() {
    check(&Shape::quiet(), 0..100, quiet, 50);
}

/// At the sizes where people, bits, indexes and leaves go on to a next page.
#[test]
fn the_fold_agrees_with_the_oracle_on_crowds_that_come_go_and_are_erased() {
    check(&Shape::crowds(), 8_000..8_080, Life::random, 16);
}

/// Without jumps past the retention: once a page of 64 messages has expired as a whole the fold forgets their ids, and
/// parks what names them, where the oracle remembers for ever.
fn wild() -> Shape {
    Shape { p_jump: 0.0, ..Shape::wild() }
}

/// With them, but with fewer messages than a page holds.
fn wild_and_short() -> Shape {
    Shape { events: 150, p_jump: 0.05, ..Shape::wild() }
}

#[test]
fn the_fold_agrees_with_the_oracle_on_wild_histories() {
    check(&wild(), 0..300, quiet, 20);
}

#[test]
fn the_fold_agrees_with_the_oracle_on_histories_longer_than_the_retention() {
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

/// INV-REPLAY: what came after the checkpoint is folded a second time.
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
fn a_cache_of_hardly_a_page_changes_nothing() {
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

/// Long enough for stretches of the id index to be sealed, asked, and met again after a restart.
#[test]
fn the_fold_agrees_with_the_oracle_on_histories_longer_than_what_is_kept_in_memory() {
    let long = |shape: Shape| Shape { events: 4_000, ..shape };
    let life = |_| Life { memory_bytes: 0, checkpoint_every: 97, die_every: 211, ..Life::QUIET };
    check(&long(wild()), 5_000..5_010, life, 400);
    // One id sent at the same time in two conversations, in a stretch that was sealed since.
    check(&long(wild()), 20_303..20_304, life, 400);
    check(&long(Shape::quiet()), 5_100..5_110, quiet, 400);
}

/// Checkpoints at any place, values that become readable long after, deaths in between, memory for little or for all.
#[test]
fn whatever_the_life_of_a_process_it_answers_as_the_oracle_does() {
    check(&wild(), 6_000..6_150, Life::random, 40);
    check(&Shape { events: 2_000, ..wild() }, 6_200..6_210, Life::random, 400);
}

/// INV-EXPIRED: where nothing names what has expired but to no effect, forgetting it shows nowhere.
#[test]
fn the_fold_agrees_with_the_oracle_while_whole_pages_are_forgotten() {
    let shape = Shape { events: 3_000, p_jump: 0.004, p_early: 0.0, p_duplicate: 0.0, ..Shape::wild() };
    let (fold, oracle) = limits(&shape);
    let fold = Limits { parked_max: usize::MAX, parked_age_ms: u64::MAX, ..fold };
    let oracle = OracleLimits { parked_count: usize::MAX, parked_age_ms: u64::MAX, ..oracle };
    holds(7_000..7_012, &shape, |seed, history| {
        let mut folded = Folded::new(fold, Life::random(seed));
        agree(history, &mut Oracle::new(oracle.clone()), &mut folded, 300)
    });
}
