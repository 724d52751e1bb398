//! INV-PREFIX, INV-SUM, INV-ONCE, INV-FROZEN: over random histories the fold answers as the naive oracle does, which was
//! written from the contract alone, however little memory it has and however often it dies on the way.
//!
//! A failing seed prints a history made small, as lines for a case file. `RECEIPTS_TEST_SEEDS=FROM..TO` chooses seeds.

#![allow(clippy::unwrap_used, reason = "a test: what cannot go on has failed")]

mod common;

use common::{Folded, Life};
use receipts_fold::Limits;
use receipts_testkit::compare::{agree, as_case_lines, shrink};
use receipts_testkit::history::{History, Shape};
use receipts_testkit::oracle::Limits as OracleLimits;
use receipts_testkit::{At, Oracle};
use std::ops::Range;

fn seeds(default: Range<u64>) -> Range<u64> {
    let Ok(text) = std::env::var("RECEIPTS_TEST_SEEDS") else { return default };
    let (from, to) = text.split_once("..").expect("RECEIPTS_TEST_SEEDS=FROM..TO");
    from.parse().unwrap()..to.parse().unwrap()
}

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

fn check(shape: &Shape, seeds: Range<u64>, life: Life, ask_every: usize) {
    let (fold_limits, oracle_limits) = limits(shape);
    let run = |history: &[(At, receipts_event::Event<'static>)]| {
        agree(history, &mut Oracle::new(oracle_limits.clone()), &mut Folded::new(fold_limits, life), ask_every)
    };
    for seed in seeds {
        let history = History::generate(seed, shape);
        if let Err(difference) = run(&history) {
            let small = shrink(history, |h| run(h).is_err());
            let difference = run(&small).err().unwrap_or(difference);
            panic!(
                "seed {seed} (RECEIPTS_TEST_SEEDS={seed}..{}): oracle first, fold second\n{difference}\n\n{}",
                seed + 1,
                as_case_lines(&small)
            );
        }
    }
}

#[test]
fn the_fold_agrees_with_the_oracle_on_sends_and_reads_in_order() {
    check(&Shape::spine(), seeds(0..100), Life::QUIET, 50);
}

#[test]
fn the_fold_agrees_with_the_oracle_on_quiet_histories() {
    check(&Shape::quiet(), seeds(0..100), Life::QUIET, 50);
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
    check(&wild(), seeds(0..300), Life::QUIET, 20);
}

#[test]
fn the_fold_agrees_with_the_oracle_on_histories_longer_than_the_retention() {
    check(&wild_and_short(), seeds(0..300), Life::QUIET, 20);
    check(
        &wild_and_short(),
        seeds(300..400),
        Life { memory_bytes: 0, checkpoint_every: 2, die_every: 3, ..Life::QUIET },
        20,
    );
}

#[test]
fn dying_after_every_record_changes_nothing() {
    check(
        &wild(),
        seeds(1_000..1_040),
        Life { memory_bytes: 64 << 20, checkpoint_every: 1, die_every: 1, ..Life::QUIET },
        50,
    );
}

/// INV-REPLAY: what came after the checkpoint is folded a second time.
#[test]
fn dying_between_checkpoints_changes_nothing() {
    check(
        &wild(),
        seeds(4_000..4_060),
        Life { memory_bytes: 64 << 20, checkpoint_every: 37, die_every: 11, ..Life::QUIET },
        50,
    );
    check(
        &Shape::quiet(),
        seeds(4_100..4_130),
        Life { memory_bytes: 0, checkpoint_every: 50, die_every: 23, ..Life::QUIET },
        50,
    );
}

#[test]
fn a_cache_of_hardly_a_page_changes_nothing() {
    check(&wild(), seeds(2_000..2_060), Life { memory_bytes: 0, checkpoint_every: 3, die_every: 7, ..Life::QUIET }, 50);
}

#[test]
fn checkpoints_without_deaths_change_nothing() {
    check(
        &Shape::quiet(),
        seeds(3_000..3_060),
        Life { memory_bytes: 4 << 10, checkpoint_every: 17, die_every: u64::MAX, ..Life::QUIET },
        50,
    );
}

/// Long enough for stretches of the id index to be sealed, asked, and met again after a restart.
#[test]
fn the_fold_agrees_with_the_oracle_on_histories_longer_than_what_is_kept_in_memory() {
    let long = |shape: Shape| Shape { events: 4_000, ..shape };
    let life = Life { memory_bytes: 0, checkpoint_every: 97, die_every: 211, ..Life::QUIET };
    check(&long(wild()), seeds(5_000..5_010), life, 400);
    // One id sent at the same time in two conversations, in a stretch that was sealed since.
    check(&long(wild()), 20_303..20_304, life, 400);
    check(&long(Shape::quiet()), seeds(5_100..5_110), Life::QUIET, 400);
}
