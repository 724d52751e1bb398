//! Decides whether a state may be folded on from this log under these settings, and words a
//! refusal. Opens and repairs nothing.

use receipts_fold::{LastRecord, Limits, Origin};
use receipts_log::{Peek, ReadError};
use std::path::Path;

/// The log and the settings of this start.
pub(crate) struct Current<'a> {
    /// The first offset that the log still holds.
    pub(crate) first_offset: u64,
    /// The offset after the last record.
    pub(crate) end_offset: u64,
    pub(crate) limits: &'a Limits,
    /// The directory to name in advice.
    pub(crate) data_dir: &'a Path,
    pub(crate) log: &'a dyn Peek,
}

/// Why a state may not be folded on.
pub(crate) enum Refusal {
    /// The state contradicts the log or the settings. The sentence says what to do.
    Contradiction(String),
    /// The log cannot be read.
    Log(ReadError),
}

impl Current<'_> {
    /// Proves that a state whose next offset is `next` may be folded on (INV-REFUSE, INV-SAME-LOG).
    ///
    /// # Errors
    /// If going on would skip a record, mix two logs, or mix two settings.
    pub(crate) fn check_origin(&self, partition: u32, next: u64, origin: Option<&Origin>) -> Result<(), Refusal> {
        let Self { first_offset, end_offset, .. } = *self;
        let refuse = |sentence| Err(Refusal::Contradiction(sentence));
        if next < first_offset {
            return refuse(format!(
                "the log begins at offset {first_offset}, the store needs it from {next} on: the records between are lost. \
                 Start with a newer store, or lengthen the topic's retention and write the log again"
            ));
        }
        if next > end_offset {
            return refuse(format!(
                "the store is at offset {next}, ahead of the log, which ends at {end_offset}: the topic was made anew or lost records. \
                 Point --data-dir at an empty directory to rebuild from this log"
            ));
        }
        let Some(origin) = origin else { return Ok(()) };
        let changed = changed(&origin.limits, self.limits);
        if !changed.is_empty() {
            let whole = match first_offset {
                0 => String::new(),
                first => format!("; the log begins at offset {first}, so earlier records would be missing"),
            };
            return refuse(format!(
                "the store was folded with other settings ({}), and its answers would mix both. Set them back, or fold the \
                 log anew with the new ones: stop this process, run `receipts rebuild --even-if-different --data-dir {}` with the \
                 settings of this process, and start it again{whole}",
                changed.join(", "),
                self.data_dir.display()
            ));
        }
        match origin.last {
            Some(last) => self.check_last_record(partition, last),
            None => Ok(()),
        }
    }

    /// Compares the last folded record with the one in the log. A recreated topic may already be
    /// longer than the store; then only its records show the difference.
    fn check_last_record(&self, partition: u32, last: LastRecord) -> Result<(), Refusal> {
        let LastRecord { offset, fingerprint } = last;
        if offset < self.first_offset {
            // Retention has removed our last record. Nothing is skipped, because the log still
            // holds the next record. A recreated topic would go unnoticed only if it was trimmed
            // too, because it begins at 0.
            tracing::warn!(
                partition,
                offset,
                first_offset = self.first_offset,
                "the last record that the store folded is no longer in the log, so the projector cannot check that the log is \
                 the same one; no record between is missing"
            );
            return Ok(());
        }
        let advice = "Point --kafka-bootstrap and --log-events-topic, or --data-dir, at the log and the store that belong \
                      together, or point --data-dir at an empty directory to rebuild from this log";
        match self.log.record(offset).map_err(Refusal::Log)? {
            Some(record) if record.fingerprint() == fingerprint => Ok(()),
            Some(_) => Err(Refusal::Contradiction(format!(
                "the record at offset {offset} is another one than the store was folded from: the topic was made anew, or \
                 its records were replaced. {advice}"
            ))),
            None => Err(Refusal::Contradiction(format!(
                "the log begins at {} but holds no record at offset {offset}, where the store's last one was: the topic was \
                 compacted, or made anew. Set its cleanup.policy to delete. {advice}",
                self.first_offset
            ))),
        }
    }
}

/// Returns the settings that differ, each with its old and new value.
fn changed(then: &Limits, now: &Limits) -> Vec<String> {
    let pairs = [
        ("retention_ms", then.retention_ms.to_string(), now.retention_ms.to_string()),
        ("parked_count", then.parked_max.to_string(), now.parked_max.to_string()),
        ("parked_bytes", then.parked_bytes.to_string(), now.parked_bytes.to_string()),
        ("parked_age_ms", then.parked_age_ms.to_string(), now.parked_age_ms.to_string()),
        ("read_times", then.read_times.to_string(), now.read_times.to_string()),
        ("unwrap", then.unwrap.name().to_owned(), now.unwrap.name().to_owned()),
        ("erasures_max", then.erasures_max.to_string(), now.erasures_max.to_string()),
        ("policy_types_max", then.policy_types_max.to_string(), now.policy_types_max.to_string()),
    ];
    let changed = pairs.into_iter().filter(|(_, then, now)| then != now);
    changed.map(|(name, then, now)| format!("projector.{name} was {then} and is {now}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_event::Unwrap;
    use receipts_log::OwnedRecord;

    /// A log of one record, at offset 8.
    struct One;

    fn record() -> OwnedRecord {
        let key = Some(bytes::Bytes::from_static(b"default/g1"));
        OwnedRecord { partition: 0, offset: 8, timestamp_ms: 7, key, value: None, headers: Vec::new() }
    }

    impl Peek for One {
        fn record(&self, offset: u64) -> Result<Option<OwnedRecord>, ReadError> {
            Ok((offset == 8).then(record))
        }
    }

    fn refused(first_offset: u64, next: u64, limits: Limits, last: Option<LastRecord>) -> Option<String> {
        let current =
            Current { first_offset, end_offset: 20, limits: &Limits::default(), data_dir: Path::new("/d"), log: &One };
        match current.check_origin(0, next, Some(&Origin { limits, last })) {
            Ok(()) => None,
            Err(Refusal::Contradiction(sentence)) => Some(sentence),
            Err(Refusal::Log(error)) => panic!("{error}"),
        }
    }

    fn last(offset: u64, fingerprint: u64) -> Option<LastRecord> {
        Some(LastRecord { offset, fingerprint })
    }

    #[test]
    fn a_store_goes_on_from_its_last_record() {
        assert_eq!(refused(0, 9, Limits::default(), last(8, record().fingerprint())), None);
        assert_eq!(refused(0, 9, Limits::default(), None), None, "a store of a version that did not record its origin");
    }

    #[test]
    fn another_record_at_the_last_offset_is_refused() {
        let sentence = refused(0, 9, Limits::default(), last(8, 1)).expect("refused");
        assert!(sentence.contains("offset 8") && sentence.contains("made anew"), "{sentence}");
    }

    #[test]
    fn missing_last_record_is_refused_unless_retention_removed_it() {
        let sentence = refused(0, 8, Limits::default(), last(7, 1)).expect("refused");
        assert!(sentence.contains("compacted"), "{sentence}");
        assert_eq!(refused(8, 8, Limits::default(), last(7, 1)), None);
        assert!(refused(9, 8, Limits::default(), last(7, 1)).expect("refused").contains("are lost"));
    }

    #[test]
    fn changed_settings_are_refused_by_name() {
        let then = Limits { retention_ms: 5, read_times: false, unwrap: Unwrap::Confluent, ..Limits::default() };
        let sentence = refused(3, 9, then, last(8, record().fingerprint())).expect("refused");
        assert!(sentence.contains("projector.retention_ms was 5 and is 2592000000"), "{sentence}");
        assert!(sentence.contains("projector.read_times was false and is true"), "{sentence}");
        assert!(sentence.contains("projector.unwrap was confluent and is none"), "{sentence}");
        assert!(sentence.contains("`receipts rebuild --even-if-different --data-dir /d`"), "{sentence}");
        assert!(sentence.contains("begins at offset 3") && !sentence.contains("parked"), "{sentence}");
    }
}
