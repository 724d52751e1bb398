//! Reads the topic of dead letters: which records are there, why, and which of them would be right
//! now. Writes nothing.

mod letter;
mod plan;

pub use letter::{Filter, Letter, Origin, REPLAYED_FROM};
pub use plan::{Harm, LETTERS_MAX, Options, Plan, Planned, Refused};

use crate::fold::{read_topic, retrying};
use crate::{Error, ProgressMonitor, Span};
use receipts_event::Decoder;
use receipts_log::{Inspect, OwnedRecord, Topic};

/// Returns the ranges of the topic of dead letters, from the first letter of `since_ms` on.
///
/// # Errors
/// If the topic cannot be read.
pub fn spans(log: &dyn Inspect, since_ms: Option<u64>) -> Result<Vec<Span>, Error> {
    let partitions = retrying(|| log.partitions(Topic::DeadLetters))?;
    (0..partitions)
        .map(|partition| {
            let bounds = retrying(|| log.bounds(Topic::DeadLetters, partition))?;
            let first = match since_ms {
                Some(ms) => retrying(|| log.offset_at(Topic::DeadLetters, partition, ms))?.min(bounds.end),
                None => bounds.start,
            };
            Ok(Span { partition, first_offset: first.max(bounds.start), end_offset: bounds.end })
        })
        .collect()
}

/// Passes the dead letters in `spans` that the filter admits to `each`.
///
/// # Errors
/// If the topic cannot be read, `each` fails, or the monitor stops it.
pub fn read(
    log: &dyn Inspect,
    spans: &[Span],
    filter: &Filter,
    decoder: Decoder,
    monitor: &dyn ProgressMonitor,
    each: &mut dyn FnMut(Letter) -> Result<(), Error>,
) -> Result<(), Error> {
    for span in spans {
        read_topic(log, Topic::DeadLetters, span, monitor, &mut |records| {
            for record in records {
                let letter = Letter::new(OwnedRecord::from(record));
                if filter.admits(&letter, decoder) {
                    each(letter)?;
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}
