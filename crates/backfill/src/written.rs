//! Which events of an import the log holds already, by their ids. Changes nothing.

use crate::Error;
use receipts_analytics::{Span, UpTo, Watch, read, span};
use receipts_event::decode;
use receipts_log::Inspect;

/// The id of an event of an import: its run and number.
pub(crate) fn event_id(run: &str, number: u64) -> String {
    format!("backfill-{run}-{number}")
}

fn number_of(run: &str, event_id: &str) -> Option<u64> {
    event_id.strip_prefix("backfill-")?.strip_prefix(run)?.strip_prefix('-')?.parse().ok()
}

/// Asks whether to stop, and tells nobody how far it is.
struct Quiet<'a>(&'a dyn Watch);

impl Watch for Quiet<'_> {
    fn advanced(&self, _: u64) {}

    fn is_stopped(&self) -> bool {
        self.0.is_stopped()
    }
}

/// By partition the greatest number of an event that stands at the offset beside it or later. Within a partition the log has
/// events in the order of their numbers, so all below stand there too.
pub(crate) fn written(log: &dyn Inspect, run: &str, from: &[u64], watch: &dyn Watch) -> Result<Vec<u64>, Error> {
    let mut written = vec![0; from.len()];
    for (partition, (greatest, from)) in (0..).zip(written.iter_mut().zip(from)) {
        let all = span(log, partition, UpTo::End)?;
        let rest = Span { first_offset: (*from).max(all.first_offset).min(all.end_offset), ..all };
        read(log, &rest, &Quiet(watch), &mut |records| {
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
    fn an_event_is_an_imports_by_its_run() {
        assert_eq!(number_of("ab", &event_id("ab", 17)), Some(17));
        for other in [event_id("a", 17), event_id("abc", 17), "backfill-ab-".to_owned(), "x".to_owned()] {
            assert_eq!(number_of("ab", &other), None, "{other}");
        }
        assert!(event_id(&"f".repeat(16), u64::MAX).len() <= receipts_event::ID_BYTES_MAX);
    }
}
