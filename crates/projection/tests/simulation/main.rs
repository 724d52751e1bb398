//! INV-PREFIX, INV-ATOMIC, INV-REPLAY, INV-UPDATE-LAST, INV-DEADLETTER, INV-REFUSE, INV-HANDOVER: projector, store and log
//! on one thread, without a clock, with faults by seed. Two projectors share the partitions of a log; the real loop and the
//! real store run over a disk and a log in memory, which fail and die as told.
//!
//! A failure prints the one command that shows it again, with as few steps as still fail. `RECEIPTS_TEST_SEEDS=FROM..TO`
//! chooses seeds, `RECEIPTS_TEST_STEPS` how many steps of each.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod disk;
mod log;
mod world;

use receipts_testkit::property::{number, seeds};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use world::{Figures, World};

const STEPS: usize = 120;

fn once(seed: u64, steps: usize) -> Result<Figures, String> {
    catch_unwind(AssertUnwindSafe(|| World::new(seed, None).go(steps))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default())
    })
}

fn run(default: Range<u64>) -> Figures {
    let steps = number("RECEIPTS_TEST_STEPS", STEPS as u64) as usize;
    let (started, mut all) = (Instant::now(), Figures::default());
    let seeds = seeds(default);
    for seed in seeds.clone() {
        match once(seed, steps) {
            Ok(figures) => all.add(&figures),
            Err(why) => {
                let fewest = (0..steps).find(|steps| once(seed, *steps).is_err()).unwrap_or(steps);
                let why = once(seed, fewest).err().unwrap_or(why);
                panic!(
                    "{why}\n\nRECEIPTS_TEST_SEEDS={seed}..{} RECEIPTS_TEST_STEPS={fewest} cargo test -p receipts-projection \
                     --test simulation",
                    seed + 1
                );
            }
        }
    }
    let (count, seconds) = (seeds.end - seeds.start, started.elapsed().as_secs_f64());
    eprintln!("{count} seeds in {seconds:.1} s, {:.0} a minute: {all:?}", count as f64 / seconds * 60.0);
    all
}

#[test]
fn whatever_fails_and_whoever_dies_the_answers_are_the_oracles_and_nothing_is_lost() {
    let met = run(0..300);
    if std::env::var_os("RECEIPTS_TEST_SEEDS").is_none() {
        assert!(met.kills > 0 && met.power_cuts > 0 && met.deaths_at_a_write > 0 && met.refusals > 0, "{met:?}");
        assert!(met.rebalances > 0 && met.stops > 0 && met.trims > 0 && met.journals > 0, "{met:?}");
    }
}

/// The threads take turns as they like: what a seed shows once it may not show again, so nothing is shrunk.
#[test]
fn the_same_holds_while_a_thread_reads_ahead_of_one_loop_or_two() {
    for seed in seeds(0..8) {
        let loops = if seed % 2 == 0 { 2 } else { 1 };
        if let Err(why) = World::new(seed, Some(loops)).go(STEPS) {
            panic!("seed {seed}: {why}");
        }
    }
}

#[test]
#[ignore = "5,000 seeds, minutes; tests/run has them"]
fn thousands_of_seeds_more() {
    run(100_000..105_000);
}
