//! The import that the tests begin with: all settings as by default. Must not know any table.

#![allow(clippy::unwrap_used, reason = "a test: what cannot go on has failed")]

use receipts_backfill::{Columns, Plan, Readings, Source, Untimed};
use std::path::Path;

/// An import of tables, with its files in a folder.
pub(crate) fn plan(dir: &Path, sources: Vec<Source>) -> Plan {
    Plan {
        sources,
        columns: Columns::default(),
        readings: Readings::default(),
        mapping: None,
        tenant: "default".to_owned(),
        untimed: Untimed::Unread,
        dry_run: false,
        progress: dir.join("progress.json"),
        rejects: dir.join("rejects.ndjson"),
        run: "r1".to_owned(),
        judgement: None,
        log: "a log".to_owned(),
    }
}
