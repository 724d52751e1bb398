//! What is encoded ahead of a checkpoint, while events go on: INV-ATOMIC, the checkpoint holds the state as it is then.

use crate::life::{Folded, Life};
use receipts_fold::Limits;
use receipts_store::Batch;
use receipts_testkit::history::Shape;
use receipts_testkit::property::holds;
use receipts_testkit::random::Random;
use receipts_testkit::{Subject, laws};

fn batch(folded: &Folded) -> Batch {
    let state = folded.state();
    state.pages().batch(state.next_offset())
}

#[test]
fn a_checkpoint_is_the_same_byte_for_byte_whatever_was_encoded_ahead_of_it() {
    let shape = Shape { p_mid_group: 0.1, ..laws::wild_and_small() };
    holds(0..60, &shape, |seed, log| {
        let mut random = Random::new(seed);
        let mut plain = Folded::new(Limits::default(), Life::QUIET);
        let mut drafted = Folded::new(Limits::default(), Life::QUIET);
        for (at, event) in log {
            plain.apply(*at, event);
            drafted.apply(*at, event);
            if random.chance(0.6) {
                drafted.pages_mut().draft([1, 100, 3_000, usize::MAX][random.index(4)]);
            }
            if random.chance(0.1) && batch(&plain) != batch(&drafted) {
                return Err(format!("{at:?}: the checkpoints differ"));
            }
            if random.chance(0.02) {
                plain.checkpoint();
                drafted.checkpoint();
            }
        }
        Ok(())
    });
}

/// A checkpoint is only made once it is drafted: it must come, however much changes meanwhile.
#[test]
fn a_draft_comes_to_its_end_though_pages_change_all_the_time() {
    holds(0..10, &laws::wild_and_small(), |_, log| {
        let mut folded = Folded::new(Limits::default(), Life::QUIET);
        let mut since = 0;
        let mut drafts = 0;
        for (at, event) in log {
            folded.apply(*at, event);
            since += 1;
            // A page a record, and a record changes more than one.
            if folded.pages_mut().draft(1) {
                (since, drafts) = (0, drafts + 1);
                folded.checkpoint();
            }
            if since > 100 {
                return Err(format!("{at:?}: {since} records, and no end"));
            }
        }
        if drafts == 0 { Err("no draft came to its end".into()) } else { Ok(()) }
    });
}
