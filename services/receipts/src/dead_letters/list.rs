//! `receipts dead-letters list`: counts letters by reason and prints the newest.

use super::{Which, begin, open, text};
use crate::analysis::{Progress, shown};
use clap::Args;
use receipts_analytics::dead_letters::{self, Letter, Origin};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::{Output, printable};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};

/// Arguments of `receipts dead-letters list`.
#[derive(Args)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    /// Rows at most, the newest; 0 prints the numbers alone
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: usize,
}

/// The result as JSON.
#[derive(Serialize)]
struct Report {
    log: String,
    topic: String,
    count: u64,
    reasons: Vec<Count>,
    letters: Vec<Row>,
}

/// The letters of one reason.
#[derive(Serialize)]
struct Count {
    /// `null` for records that no projector wrote.
    reason: Option<String>,
    count: u64,
    first_at_ms: u64,
    last_at_ms: u64,
}

/// One letter.
#[derive(Serialize)]
struct Row {
    at_ms: u64,
    partition: u32,
    offset: u64,
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<Origin>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    left_out: Option<String>,
}

impl Row {
    fn new(letter: Letter) -> Self {
        let Letter { reason, detail, origin, left_out, record, .. } = letter;
        Self {
            at_ms: record.timestamp_ms,
            partition: record.partition,
            offset: record.offset,
            reason,
            origin,
            key: record.key.as_deref().map(text),
            detail,
            left_out,
        }
    }
}

/// Lists.
///
/// # Errors
/// If there is no log, the log fails, or the operator stops it.
pub(super) fn run(settings: &Settings, list: &List, progress: &mut Progress, json: bool) -> Result<(), Failure> {
    let filter = list.which.filter();
    let opened = open(settings, &filter)?;
    begin(progress, &opened.spans);
    let mut reasons = BTreeMap::<Option<String>, Count>::new();
    let mut newest = BTreeMap::new();
    dead_letters::read(&*opened.log.log, &opened.spans, &filter, opened.decoder, progress, &mut |letter| {
        let at_ms = letter.record.timestamp_ms;
        let count = reasons.entry(letter.reason.clone()).or_insert_with(|| Count {
            reason: letter.reason.clone(),
            count: 0,
            first_at_ms: at_ms,
            last_at_ms: at_ms,
        });
        count.count += 1;
        count.first_at_ms = count.first_at_ms.min(at_ms);
        count.last_at_ms = count.last_at_ms.max(at_ms);
        newest.insert((at_ms, letter.record.partition, letter.record.offset), letter);
        if newest.len() > list.limit {
            newest.pop_first();
        }
        Ok(())
    })?;
    progress.clear();
    let mut reasons: Vec<Count> = reasons.into_values().collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
    let report = Report {
        log: opened.log.name,
        topic: settings.log.dead_letters_topic.clone(),
        count: reasons.iter().map(|reason| reason.count).sum(),
        reasons,
        letters: newest.into_values().map(Row::new).collect(),
    };
    Ok(Output::stdout(json).write(&report, |to| write_report(to, &report))?)
}

fn write_report(to: &mut dyn Write, report: &Report) -> io::Result<()> {
    writeln!(to, "{} dead letters in {} of {}", report.count, report.topic, report.log)?;
    for Count { reason, count, first_at_ms, last_at_ms } in &report.reasons {
        let reason = reason.as_deref().unwrap_or("(not of a projector)");
        writeln!(to, "  {count:>8}  {reason:<22}  {} to {}", shown(*first_at_ms), shown(*last_at_ms))?;
    }
    for row in &report.letters {
        let reason = row.reason.as_deref().unwrap_or("-");
        let origin = row.origin.as_ref().map_or_else(|| "-".to_owned(), |o| format!("{}:{}", o.partition, o.offset));
        let key = row.key.as_deref().map_or_else(|| "no key".into(), |key| format!("key {}", printable(key)));
        writeln!(
            to,
            "\n{}  {}:{}  {}  was at {origin}, {key}\n    {}",
            shown(row.at_ms),
            row.partition,
            row.offset,
            printable(reason),
            printable(&row.detail)
        )?;
    }
    let left = report.count - report.letters.len() as u64;
    if left > 0 && !report.letters.is_empty() {
        writeln!(to, "\n{left} older ones are not shown (--limit)")?;
    }
    Ok(())
}
