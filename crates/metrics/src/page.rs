//! Writes the page of all metrics, `docs/metrics.md`.

use crate::catalogue::{BUCKETS_SECONDS, SECTIONS};
use std::fmt::Write as _;

/// Returns the text of `docs/metrics.md`.
pub fn page() -> String {
    let buckets: Vec<String> = BUCKETS_SECONDS.iter().map(f64::to_string).collect();
    let mut page = format!(
        "# Metrics\n\n\
         `GET /metrics` of every binary answers in the text format of Prometheus. Made from \
         `crates/metrics/src/catalogue.rs`;\nRECEIPTS_TEST_BLESS=1 cargo test -p receipts-metrics writes it again.\n\n\
         Counters begin at 0 with the process. Histograms have the bounds {} s.\n\
         The standard `process_*` metrics (CPU seconds, resident and virtual bytes, open and allowed descriptors, threads,\n\
         start time) stand beside them. [Operating](operating.md) has the dashboard and the alerts.\n",
        buckets.join(", ")
    );
    for section in SECTIONS {
        _ = write!(page, "\n## {}\nExported by: {}.\n\n", section.title, section.binaries);
        page.push_str("| metric | kind | labels | meaning |\n| --- | --- | --- | --- |\n");
        for entry in section.entries {
            let labels: Vec<String> = entry.labels.iter().map(|label| format!("`{label}`")).collect();
            _ = writeln!(page, "| `{}` | {} | {} | {} |", entry.name, entry.kind.name(), labels.join(", "), entry.help);
        }
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Entry, Kind};
    use std::collections::BTreeSet;
    use std::path::Path;

    fn entries() -> impl Iterator<Item = &'static Entry> {
        SECTIONS.iter().flat_map(|section| section.entries)
    }

    #[test]
    fn document_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metrics.md");
        if std::env::var_os("RECEIPTS_TEST_BLESS").is_some() {
            std::fs::write(&path, page()).expect("writable");
        }
        let found = std::fs::read_to_string(&path).expect("docs/metrics.md");
        assert_eq!(found, page(), "RECEIPTS_TEST_BLESS=1 cargo test -p receipts-metrics");
    }

    /// The conventions of Prometheus: <https://prometheus.io/docs/practices/naming/>.
    #[test]
    fn names_follow_the_conventions() {
        let mut names = BTreeSet::new();
        for Entry { name, kind, help, labels } in entries() {
            assert!(names.insert(name), "{name} stands twice");
            assert!(name.starts_with("receipts_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(!help.is_empty() && !help.ends_with('.') && !help.contains(['|', '\n']), "{name}: {help}");
            assert!(!labels.iter().any(|label| ["le", "job", "instance"].contains(label)), "{name}: {labels:?}");
        }
    }
}
