//! Finds the events of an import that the log already holds, by their ids. It only reads.
//!
//! Keeps INV-BACKFILL.

use crate::Error;
use receipts_analytics::{ProgressMonitor, Span, StopOnly, UpTo, read, span};
use receipts_event::decode;
use receipts_log::Inspect;

/// Returns the id of an import's event, made of its run and number.
pub(crate) fn event_id(run: &str, number: u64) -> String {
    format!("backfill-{run}-{number}")
}

fn number_of(run: &str, event_id: &str) -> Option<u64> {
    event_id.strip_prefix("backfill-")?.strip_prefix(run)?.strip_prefix('-')?.parse().ok()
}

/// Returns by partition the greatest number of an event at or after the offset in `from`. A
/// partition holds events in the order of their numbers, so all lower numbers are there too.
pub(crate) fn greatest_written(
    log: &dyn Inspect,
    run: &str,
    from: &[u64],
    monitor: &dyn ProgressMonitor,
) -> Result<Vec<u64>, Error> {
    let mut written = vec![0; from.len()];
    for (partition, (greatest, from)) in (0..).zip(written.iter_mut().zip(from)) {
        let all = span(log, partition, UpTo::End)?;
        let rest = Span { first_offset: (*from).max(all.first_offset).min(all.end_offset), ..all };
        read(log, &rest, &StopOnly(monitor), &mut |records| {
            for record in records {
                let event = record.value.and_then(|value| decode(value).ok());
                let number = event.and_then(|event| number_of(run, event.event_id.as_deref()?));
                *greatest = (*greatest).max(number.unwrap_or(0));
            }
            Ok(())
        })?;
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_ids_belong_to_one_run() {
        assert_eq!(number_of("ab", &event_id("ab", 17)), Some(17));
        for other in [event_id("a", 17), event_id("abc", 17), "backfill-ab-".to_owned(), "x".to_owned()] {
            assert_eq!(number_of("ab", &other), None, "{other}");
        }
        assert!(event_id(&"f".repeat(16), u64::MAX).len() <= receipts_event::ID_BYTES_MAX);
    }
}
