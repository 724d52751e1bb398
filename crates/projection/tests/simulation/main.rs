//! INV-PREFIX, INV-ATOMIC, INV-REPLAY, INV-UPDATE-LAST, INV-DEADLETTER, INV-REFUSE, INV-HANDOVER:
//! runs projectors, store and log on one thread, without a clock, with faults chosen by a seed. Two
//! projectors share the partitions of a log. The real worker and the real store run over a
//! simulated disk and log, which fail and die on demand. Uses no real disk or Kafka.
//!
//! A failure prints the command that repeats it, with the fewest steps that still fail.
//! `RECEIPTS_TEST_SEEDS=FROM..TO` chooses seeds, `RECEIPTS_TEST_STEPS` the steps of each, and
//! `RECEIPTS_TEST_TELL` prints every step.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod checkpoints;
mod disk;
mod log;
mod world;

use receipts_testkit::property::{number, scaled, seeds};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use world::{Figures, World};

const STEPS: usize = 120;

fn once(seed: u64, workers: Option<u32>, steps: usize) -> Result<Figures, String> {
    catch_unwind(AssertUnwindSafe(|| World::new(seed, workers).go(steps))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default())
    })
}

fn run(default: Range<u64>) -> Figures {
    let steps = number("RECEIPTS_TEST_STEPS", STEPS as u64) as usize;
    let (started, mut all) = (Instant::now(), Figures::default());
    let seeds = seeds(default);
    for seed in seeds.clone() {
        match once(seed, None, steps) {
            Ok(figures) => all.add(&figures),
            Err(why) => {
                let fewest = (0..steps).find(|steps| once(seed, None, *steps).is_err()).unwrap_or(steps);
                let why = once(seed, None, fewest).err().unwrap_or(why);
                panic!(
                    "seed {seed}: {why}\n\nRun this again with:\n  RECEIPTS_TEST_SEEDS={seed}..{} RECEIPTS_TEST_STEPS={fewest} \
                     cargo test -p receipts-projection --test simulation projectors_match_the_oracle_through_all_failures",
                    seed + 1
                );
            }
        }
    }
    let (count, seconds) = (seeds.end - seeds.start, started.elapsed().as_secs_f64());
    eprintln!("{count} seeds in {seconds:.1} s, {:.0} per minute: {all:?}", count as f64 / seconds * 60.0);
    all
}

#[test]
fn projectors_match_the_oracle_through_all_failures() {
    let met = run(0..scaled(300, 20_000));
    if std::env::var_os("RECEIPTS_TEST_SEEDS").is_none() {
        assert!(met.kills > 0 && met.power_cuts > 0 && met.deaths_at_a_write > 0 && met.refusals > 0, "{met:?}");
        assert!(met.rebalances > 0 && met.stops > 0 && met.trims > 0 && met.journals > 0, "{met:?}");
        assert!(met.taken_up > 0, "{met:?}");
    }
}

/// The threads interleave freely, so a seed may not fail again. Therefore the steps are not
/// reduced.
#[test]
fn projectors_that_read_ahead_match_the_oracle() {
    for seed in seeds(0..scaled(8, 100)) {
        let workers = if seed % 2 == 0 { 2 } else { 1 };
        if let Err(why) = once(seed, Some(workers), STEPS) {
            panic!(
                "seed {seed}: {why}\n\nRun this again with:\n  RECEIPTS_TEST_SEEDS={seed}..{} \
                 cargo test -p receipts-projection --test simulation projectors_that_read_ahead_match_the_oracle",
                seed + 1
            );
        }
    }
}
