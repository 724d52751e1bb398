//! Merges the receipts that several partitions or owners found for the same ids, by the rule of
//! [`Answers::find`](receipts_query::Answers::find). Asks none of them.

use receipts_fold::view::{FoundReceipt, Receipt, Status};
use receipts_query::Answer;

/// Merges several owners' answers into one; `None` if there are none. Each part holds one receipt
/// per id, in the same order.
pub fn merge_found(parts: impl IntoIterator<Item = Answer<Vec<FoundReceipt>>>) -> Option<Answer<Vec<FoundReceipt>>> {
    parts.into_iter().reduce(|mut best, part| {
        best.positions.merge(&part.positions);
        best.stale_s = best.stale_s.max(part.stale_s);
        for (best, found) in best.value.iter_mut().zip(part.value) {
            let candidates = best.candidates.saturating_add(found.candidates);
            if rank(&found.receipt) > rank(&best.receipt) {
                *best = found;
            }
            best.candidates = candidates;
        }
        best
    })
}

/// Returns the receipts that a caller sees, of parts that cover all partitions. An id is ambiguous
/// where one partition says so, or where more than `candidates_max` messages have it in all.
///
/// For a `sender_id` that is so only if one of the messages is that person's. To others the id is
/// not found, as if no message had it.
pub fn answer_found(
    found: Answer<Vec<FoundReceipt>>,
    sender_id: Option<&str>,
    candidates_max: u32,
) -> Answer<Vec<Receipt>> {
    let answer = |FoundReceipt { receipt, candidates }| {
        let may_know = sender_id.is_none() || receipt.status != Status::NotFound;
        if candidates > candidates_max && may_know {
            Receipt::bare(receipt.tenant, None, receipt.message_id, Status::Ambiguous)
        } else {
            receipt
        }
    };
    Answer { value: found.value.into_iter().map(answer).collect(), positions: found.positions, stale_s: found.stale_s }
}

/// The greater one answers: ambiguous before live, live before recalled, recalled before not found;
/// then the greater `sent_at_ms` and, of equal ones, the conversation id that sorts last.
fn rank(receipt: &Receipt) -> (u8, Option<u64>, Option<&str>) {
    let class = match receipt.status {
        Status::NotFound | Status::Forbidden => 0,
        Status::Recalled => 1,
        Status::Ok | Status::NotRequested | Status::Unsupported => 2,
        Status::Ambiguous => 3,
    };
    (class, receipt.sent_at_ms, receipt.conversation_id.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_query::Positions;

    fn part(partition: u32, conversation_id: Option<&str>, status: Status, sent_at_ms: u64, candidates: u32) -> Part {
        let receipt = Receipt::bare("t", conversation_id, "m", status);
        let receipt = Receipt { sent_at_ms: conversation_id.map(|_| sent_at_ms), ..receipt };
        Answer::fresh(vec![FoundReceipt { receipt, candidates }], Positions::applied(partition, 1))
    }

    type Part = Answer<Vec<FoundReceipt>>;

    fn answered(parts: &[Part], sender_id: Option<&str>) -> (Status, Option<String>) {
        let mut answers = [false, true].map(|reversed| {
            let mut parts = parts.to_vec();
            if reversed {
                parts.reverse();
            }
            let answer = answer_found(merge_found(parts).expect("parts"), sender_id, 100);
            assert_eq!(answer.positions.iter().count(), 2, "both partitions were asked");
            let [receipt] = <[Receipt; 1]>::try_from(answer.value).expect("one id");
            (receipt.status, receipt.conversation_id)
        });
        assert_eq!(answers[0], answers[1], "in any order");
        std::mem::replace(&mut answers[0], (Status::Ok, None))
    }

    #[test]
    fn live_copy_goes_before_a_recalled_one() {
        let recalled = part(0, Some("g1"), Status::Recalled, 900, 1);
        let live = part(1, Some("g2"), Status::NotRequested, 100, 1);
        let none = part(1, None, Status::NotFound, 0, 0);
        assert_eq!(answered(&[recalled.clone(), live], None), (Status::NotRequested, Some("g2".into())));
        assert_eq!(answered(&[recalled, none], None), (Status::Recalled, Some("g1".into())));
    }

    #[test]
    fn greatest_time_answers_and_then_the_conversation() {
        let of = |partition, conversation, sent_at_ms| part(partition, Some(conversation), Status::Ok, sent_at_ms, 1);
        assert_eq!(answered(&[of(0, "g1", 9), of(1, "g2", 7)], None), (Status::Ok, Some("g1".into())));
        assert_eq!(answered(&[of(0, "g1", 7), of(1, "g2", 7)], None), (Status::Ok, Some("g2".into())));
    }

    #[test]
    fn sum_over_partitions_may_be_ambiguous() {
        let of = |partition, candidates| part(partition, Some("g1"), Status::Ok, 1, candidates);
        assert_eq!(answered(&[of(0, 60), of(1, 40)], None).0, Status::Ok);
        assert_eq!(answered(&[of(0, 60), of(1, 41)], None), (Status::Ambiguous, None));
        let many = part(1, None, Status::Ambiguous, 0, 101);
        assert_eq!(answered(&[of(0, 1), many], None), (Status::Ambiguous, None));
    }

    /// INV-STRANGER
    #[test]
    fn strangers_do_not_learn_that_an_id_is_common() {
        let nothing_of_theirs = |partition| part(partition, None, Status::NotFound, 0, 101);
        assert_eq!(answered(&[nothing_of_theirs(0), nothing_of_theirs(1)], Some("eve")).0, Status::NotFound);
        let own = part(0, Some("g1"), Status::Ok, 1, 1);
        assert_eq!(answered(&[own, nothing_of_theirs(1)], Some("ann")).0, Status::Ambiguous);
    }
}
