//! Merges the receipts that several partitions or owners found for the same ids, by the rule of
//! [`Answers::find`](receipts_query::Answers::find). Asks none of them.

use receipts_fold::view::Receipt;
use receipts_query::Answer;

/// Merges several owners' answers into one; `None` if there are none. Each part holds one receipt
/// per id, in the same order.
pub fn merge_found(parts: impl IntoIterator<Item = Answer<Vec<Receipt>>>) -> Option<Answer<Vec<Receipt>>> {
    parts.into_iter().reduce(|mut best, part| {
        best.positions.merge(&part.positions);
        for (best, found) in best.value.iter_mut().zip(part.value) {
            if takes_precedence(&found, best) {
                *best = found;
            }
        }
        best
    })
}

/// Returns whether `one` answers instead of `other`: it has the greater `sent_at_ms` or, of equal
/// ones, the conversation id that sorts last. A receipt that was not found has neither.
fn takes_precedence(one: &Receipt, other: &Receipt) -> bool {
    (one.sent_at_ms, &one.conversation_id) > (other.sent_at_ms, &other.conversation_id)
}
