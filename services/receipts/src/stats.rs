//! `receipts stats`: reads its arguments and prints tables, JSON and a page. `receipts_analytics`
//! counts.

use crate::analysis::{self, Prefix, shown, time, write_summary};

use anyhow::Context as _;
use clap::Args;
use receipts_analytics::FoldReport;
use receipts_analytics::stats::page::{duration, page};
use receipts_analytics::stats::{self, Conversation, Groups, Message, Plan, Share, Stats as Figures};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::{Output, printable};
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub(crate) const EXAMPLES: &str = "Examples:
  receipts stats
  receipts stats --html /tmp/receipts.html --kafka-bootstrap localhost:9092
  receipts stats --since 2026-05-01T00:00:00Z --as-of 2026-06-01T00:00:00Z --tenant acme --json
  receipts stats --top 50 --data-dir /var/lib/receipts";

/// Arguments of `receipts stats`.
#[derive(Args)]
pub(crate) struct Stats {
    /// Also writes the statistics as a page with plots: one file that loads no other
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Counts only messages whose records have this time or a later one: RFC 3339 or Unix
    /// milliseconds
    #[arg(long, value_name = "TIME", value_parser = time, default_value = "0", hide_default_value = true)]
    since: u64,
    /// Counts only this tenant's conversations
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// Conversations or messages that each list names
    #[arg(long, value_name = "COUNT", default_value_t = 10, value_parser = clap::value_parser!(u16).range(0..=1_000))]
    top: u16,
    #[command(flatten)]
    prefix: Prefix,
}

/// The result as JSON.
#[derive(Serialize)]
struct Report {
    log: String,
    partitions: Vec<FoldReport>,
    #[serde(flatten)]
    stats: Figures,
}

/// Counts.
///
/// # Errors
/// If there is no log, or the log, the temporary disk or the page's file fails.
pub(crate) fn run(settings: Settings, asked: Stats, json: bool) -> Result<(), Failure> {
    analysis::run(settings, move |settings, progress| {
        let opened = receipts_assembly::open_existing_log(settings)?;
        let log = &*opened.log;
        let spans = asked.prefix.spans(log, 0..log.partition_count())?;
        progress.begin(spans.iter().map(|span| span.offsets()).sum());
        let scratch = asked.prefix.memory.scratch(settings, &opened.identity)?;
        let plan = Plan { since_ms: asked.since, tenant: asked.tenant.clone(), top: asked.top.into() };
        let (partitions, stats) = stats::stats(log, &spans, &scratch, &plan, progress)?;
        progress.end(&partitions);
        if let Some(path) = &asked.html {
            let text = page(&stats, &partitions, &opened.name).context("cannot make the page")?;
            write_whole(path, &text).with_context(|| format!("--html {}: cannot write the page", path.display()))?;
            tracing::info!(path = %path.display(), bytes = text.len(), "wrote the page");
        }
        let report = Report { log: opened.name, partitions, stats };
        Ok(Output::stdout(json).write(&report, |to| write_report(to, &report))?)
    })
}

/// Writes a file that is there whole or not at all.
fn write_whole(path: &Path, text: &str) -> io::Result<()> {
    let mut part = path.as_os_str().to_owned();
    part.push(".tmp");
    let part = PathBuf::from(part);
    let mut file = File::create(&part)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&part, path)
}

fn write_report(to: &mut dyn Write, report: &Report) -> io::Result<()> {
    report.partitions.iter().try_for_each(|told| write_summary(to, told))?;
    let Figures { messages: m, readers: r, after_24_hours: after, .. } = &report.stats;
    writeln!(
        to,
        "\n{} messages: {} with a receipt, {} not asked for, {} not supported, {} recalled",
        m.total, m.ok, m.not_requested, m.unsupported, m.recalled
    )?;
    if let Some(timeline) = &report.stats.timeline {
        writeln!(to, "sent from {} to {}", shown(timeline.first_sent_at_ms), shown(timeline.newest_sent_at_ms))?;
    }
    writeln!(
        to,
        "read rate {}: {} read of {} asked for; {} unread, {} hidden, {} departed",
        percent(r.read_percent),
        r.read_count,
        r.audience_count,
        r.unread_count,
        r.hidden_count,
        r.departed_count
    )?;
    writeln!(
        to,
        "24 hours after sending, of {} messages that are that old: {} unread; {} read within, {} later, {} untimed, {} hidden, \
         {} still unread, {} departed",
        after.messages,
        percent(after.unread_percent),
        after.read_within_count,
        after.read_later_count,
        after.read_untimed_count,
        after.hidden_count,
        after.unread_count,
        after.departed_count
    )?;
    let maybe = |ms: Option<u64>| ms.map_or_else(|| "-".to_owned(), duration);
    let rows = report.stats.by_audience.iter().map(|class| {
        let took = &class.time_to_read;
        vec![
            class.audience.clone(),
            class.messages.to_string(),
            percent(class.readers.read_percent),
            maybe(took.p50_ms),
            maybe(took.p90_ms),
            maybe(took.p99_ms),
        ]
    });
    table(to, "time to read, by audience", &["audience", "messages", "read rate", "p50", "p90", "p99"], 1, rows)?;
    names(to, "tenant", &report.stats.by_tenant)?;
    names(to, "group type", &report.stats.by_group_type)?;
    let hours = report.stats.by_hour.iter().filter(|hour| hour.reads > 0);
    let rows = hours.map(|hour| vec![format!("{:02}", hour.hour), hour.reads.to_string(), hour.readers.to_string()]);
    table(to, "readers by hour, UTC", &["hour", "reads", "readers"], 1, rows)?;
    for (title, list) in [
        ("largest conversations", &report.stats.largest_conversations),
        ("hottest conversations", &report.stats.hottest_conversations),
    ] {
        let rows = list.iter().map(
            |Conversation { tenant, conversation_id, group_type, members, messages, reads, .. }| {
                let names = [tenant, conversation_id, group_type].map(|name| printable(name).into_owned());
                names.into_iter().chain([members.to_string(), messages.to_string(), reads.to_string()]).collect()
            },
        );
        table(to, title, &["tenant", "conversation", "group type", "members", "messages", "reads"], 3, rows)?;
    }
    let head = ["tenant", "conversation", "message", "group type", "read", "audience", "read rate"];
    table(to, "most read messages", &head, 4, report.stats.most_read_messages.iter().map(|m| row(m, m.read_count)))?;
    let head = ["tenant", "conversation", "message", "group type", "unread", "audience", "read rate"];
    let unread = report.stats.most_unread_messages.iter().map(|m| row(m, m.unread_count));
    table(to, "largest unread, one message per conversation", &head, 4, unread)
}

fn row(m: &Message, count: u32) -> Vec<String> {
    let names = [&m.tenant, &m.conversation_id, &m.message_id, &m.group_type].map(|name| printable(name).into_owned());
    let numbers = [count.to_string(), m.audience_count.to_string(), percent(m.read_percent)];
    names.into_iter().chain(numbers).collect()
}

/// Writes the sums by name, with the further names as one row.
fn names(to: &mut dyn Write, what: &str, of: &Groups) -> io::Result<()> {
    let rest = (of.others > 0).then(|| (format!("({} others)", of.others), of.others_messages, &of.others_readers));
    let largest = of.largest.iter().map(|row| (printable(&row.name).into_owned(), row.messages, &row.readers));
    let rows = largest.chain(rest).map(|(name, messages, readers)| {
        vec![name, messages.to_string(), percent(readers.read_percent), readers.unread_count.to_string()]
    });
    table(to, &format!("by {what}"), &[what, "messages", "read rate", "unread"], 1, rows)
}

fn percent(share: Share) -> String {
    share.map_or_else(|| "-".to_owned(), |percent| format!("{percent:.1} %"))
}

/// Writes a table, with the first `names` columns left-aligned and the others right-aligned;
/// nothing if it has no rows.
fn table(
    to: &mut dyn Write,
    title: &str,
    head: &[&str],
    names: usize,
    rows: impl Iterator<Item = Vec<String>>,
) -> io::Result<()> {
    let head = head.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
    if rows.len() == 1 {
        return Ok(());
    }
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    writeln!(to, "\n{title}")?;
    for row in &rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| match column < names {
            true => format!("{cell:<width$}"),
            false => format!("{cell:>width$}"),
        });
        writeln!(to, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}
