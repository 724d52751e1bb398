//! INV-SNAPSHOT: the digest of analysts and auditors equals the digest of a snapshot of the same
//! state.

use crate::common::{LoggedHistory, PARTITIONS, scratch};
use receipts_analytics::{UpTo, digest, span};
use receipts_store::Backend as _;
use receipts_store::snapshot::{PendingSnapshot, Provenance as Header, hex};

#[test]
fn a_state_and_its_snapshot_have_one_digest() {
    for seed in 0..6 {
        let history = LoggedHistory::new(seed);
        for partition in 0..PARTITIONS {
            let mut folded =
                scratch().fold(&history.log, &span(&history.log, partition, UpTo::End).unwrap(), &()).unwrap();
            let shown = digest(&folded.state, partition, &()).unwrap();
            let batch = folded.state.pages().batch(folded.state.next_offset());
            let saved = folded.state.pages().backend().commit(batch).unwrap();
            folded.state.pages_mut().mark_saved(saved);
            folded.state.pages().backend().wait().unwrap();
            let header = Header {
                log: "a log".into(),
                partition,
                partition_count: PARTITIONS,
                limits: scratch().limits,
                taken_ms: 0,
                program: String::new(),
            };
            let source = folded.state.pages().backend().snapshot_source();
            let taking = PendingSnapshot::begin(&source, header).unwrap().unwrap();
            let (_, summary, _) = taking.write(std::io::sink(), |_| Ok(())).unwrap();
            assert_eq!(hex(&summary.digest), shown, "seed {seed}, partition {partition}");
        }
    }
}
