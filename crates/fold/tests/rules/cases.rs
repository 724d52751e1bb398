//! Runs the text cases of `crates/fold/tests/cases` against the fold. Each case answers a user's
//! question.

use crate::life::{Folded, Life};
use receipts_fold::Limits;
use receipts_testkit::cases::{folder, load};

#[test]
fn every_text_case_holds_for_the_fold() {
    let cases = load(&folder()).unwrap();
    assert!(cases.len() >= 25, "only {} cases", cases.len());
    let mut failures = Vec::new();
    for case in cases {
        let limits = Limits {
            retention_ms: case.limits.retention_ms,
            parked_max: case.limits.parked_count,
            parked_bytes: case.limits.parked_bytes,
            parked_age_ms: case.limits.parked_age_ms,
            read_times: case.limits.read_times,
            erasures_max: case.limits.erasures_max,
            policy_types_max: case.limits.policy_types_max,
            ..Limits::default()
        };
        for life in [Life::QUIET, Life { memory_bytes: 0, checkpoint_every: 1, die_every: 1, ..Life::QUIET }] {
            if let Err(e) = case.run(&mut Folded::new(limits, life).looking_at(case.limits.candidates_max)) {
                failures.push(format!("{}: {e} ({life:?})", case.name));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}
