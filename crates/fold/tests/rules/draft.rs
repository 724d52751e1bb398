//! INV-ATOMIC: a checkpoint with pre-encoded pages holds the state at its own time, not at the time
//! of the encoding.

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
fn pre_encoding_does_not_change_a_checkpoint() {
    let shape = Shape { p_mid_group: 0.1, ..laws::wild_and_small() };
    holds(0..60, &shape, |seed, log| {
        let mut random = Random::new(seed);
        let mut plain = Folded::new(Limits::default(), Life::QUIET);
        let mut pre_encoded = Folded::new(Limits::default(), Life::QUIET);
        for (at, event) in log {
            plain.apply(*at, event);
            pre_encoded.apply(*at, event);
            if random.chance(0.6) {
                pre_encoded.pages_mut().pre_encode([1, 100, 3_000, usize::MAX][random.index(4)]);
            }
            if random.chance(0.1) && batch(&plain) != batch(&pre_encoded) {
                return Err(format!("{at:?}: the checkpoints differ"));
            }
            if random.chance(0.02) {
                plain.checkpoint();
                pre_encoded.checkpoint();
            }
        }
        Ok(())
    });
}

/// A checkpoint waits for the end of the pre-encoding, which must come while pages keep changing.
#[test]
fn pre_encoding_ends_while_pages_keep_changing() {
    holds(0..10, &laws::wild_and_small(), |_, log| {
        let mut folded = Folded::new(Limits::default(), Life::QUIET);
        let mut since = 0;
        let mut ends = 0;
        for (at, event) in log {
            folded.apply(*at, event);
            since += 1;
            // One page per record is encoded, and a record changes more than one.
            if folded.pages_mut().pre_encode(1) {
                (since, ends) = (0, ends + 1);
                folded.checkpoint();
            }
            if since > 100 {
                return Err(format!("{at:?}: no end after {since} records"));
            }
        }
        if ends == 0 { Err("no pre-encoding ended".into()) } else { Ok(()) }
    });
}
