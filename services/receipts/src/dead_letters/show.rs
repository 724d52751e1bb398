//! `receipts dead-letters show`: prints one letter whole, and what a replay would do with it.

use super::{begin, open, text};
use crate::analysis::{Progress, shown};
use anyhow::anyhow;
use clap::Args;
use receipts_analytics::dead_letters::{self, Filter, Letter, Options, Origin, Plan};
use receipts_log::OwnedRecord;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::{Output, printable};
use serde::Serialize;
use serde_json::Value;
use std::io::{self, Write};

/// Arguments of `receipts dead-letters show`.
#[derive(Args)]
pub(crate) struct Show {
    /// Partition and offset of the letter, as `list` prints them
    #[arg(value_name = "PARTITION:OFFSET", value_parser = location)]
    at: (u32, u64),
}

fn location(text: &str) -> Result<(u32, u64), String> {
    let parts =
        text.split_once(':').and_then(|(partition, offset)| Some((partition.parse().ok()?, offset.parse().ok()?)));
    parts.ok_or_else(|| "is not PARTITION:OFFSET".to_owned())
}

/// The result as JSON.
#[derive(Serialize)]
struct Report {
    partition: u32,
    offset: u64,
    at_ms: u64,
    reason: Option<String>,
    detail: String,
    origin: Option<Origin>,
    record_timestamp_ms: Option<u64>,
    left_out: Option<String>,
    headers: Vec<(String, Option<String>)>,
    key: Option<String>,
    /// JSON as it is, other text as a string, other bytes as their escapes.
    value: Option<Value>,
    replay: Verdict,
}

/// What a replay would do.
#[derive(Serialize)]
struct Verdict {
    /// `write`, `replayed` or `refuse`.
    action: &'static str,
    /// The partition of events to which it would be written.
    #[serde(skip_serializing_if = "Option::is_none")]
    partition: Option<u32>,
    /// The reason of a refusal, or the kind of harm.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    sentence: String,
}

impl Verdict {
    fn of(plan: &Plan) -> Self {
        if let Some(planned) = plan.planned.first() {
            let harm = planned.harm.map(|harm| format!("; such letters {}", harm.meaning())).unwrap_or_default();
            let is_own = planned.letter.record.key.as_deref() == Some(&planned.key[..]);
            let how = if is_own { "" } else { ", with --rekey alone, under the key of its own fields" };
            return Self {
                action: "write",
                partition: Some(planned.partition),
                reason: planned.harm.map(|harm| harm.code().to_owned()),
                sentence: format!("writes it to partition {}{how}{harm}", planned.partition),
            };
        }
        match plan.refused.first_key_value() {
            Some((reason, refused)) => Self {
                action: "refuse",
                partition: None,
                reason: Some(reason.clone()),
                sentence: format!("refuses it ({reason}): {}", refused.detail),
            },
            None => Self {
                action: "replayed",
                partition: None,
                reason: None,
                sentence: "writes nothing, because it was replayed already".to_owned(),
            },
        }
    }
}

/// Shows.
///
/// # Errors
/// If there is no such letter, the log fails, or the operator stops it.
pub(super) fn run(settings: &Settings, show: &Show, progress: &mut Progress, json: bool) -> Result<(), Failure> {
    let filter = Filter { at: Some(show.at), ..Filter::default() };
    let opened = open(settings, &filter)?;
    let (partition, offset) = show.at;
    let log = &*opened.log.log;
    let missing = || {
        anyhow!(
            "there is no dead letter at {partition}:{offset} of {}: `receipts dead-letters list` prints their locations",
            settings.log.dead_letters_topic
        )
    };
    let span = opened.spans.iter().find(|span| span.partition == partition).ok_or_else(missing)?;
    let is_within = (span.first_offset..span.end_offset).contains(&offset);
    let one = receipts_analytics::Span { first_offset: offset, end_offset: offset + 1, ..*span };
    let mut found = None;
    if is_within {
        dead_letters::read(log, &[one], &filter, opened.decoder, &(), &mut |letter| {
            found = Some(letter);
            Ok(())
        })?;
    }
    let letter = found.ok_or_else(missing)?;
    begin(progress, &[]);
    let options = Options { decoder: opened.decoder, rekey: true, only_harmless: false };
    let plan = Plan::make(log, &[one], &filter, options, &*progress)?;
    progress.clear();
    let report = report(letter, Verdict::of(&plan));
    Ok(Output::stdout(json).write(&report, |to| write_report(to, &report))?)
}

fn report(letter: Letter, replay: Verdict) -> Report {
    let Letter { reason, detail, origin, record_timestamp_ms, left_out, record } = letter;
    let OwnedRecord { partition, offset, timestamp_ms, key, value, headers } = record;
    let value = value.map(|value| serde_json::from_slice(&value).unwrap_or_else(|_| Value::from(text(&value))));
    Report {
        partition,
        offset,
        at_ms: timestamp_ms,
        reason,
        detail,
        origin,
        record_timestamp_ms,
        left_out,
        headers: headers.into_iter().map(|(name, value)| (name, value.as_deref().map(text))).collect(),
        key: key.as_deref().map(text),
        value,
        replay,
    }
}

fn write_report(to: &mut dyn Write, report: &Report) -> io::Result<()> {
    let or =
        |text: Option<&str>, other: &str| text.map_or_else(|| other.to_owned(), |text| printable(text).into_owned());
    writeln!(to, "dead letter {}:{}, written {}", report.partition, report.offset, shown(report.at_ms))?;
    writeln!(to, "reason     {}", or(report.reason.as_deref(), "none: no projector wrote this record"))?;
    writeln!(to, "detail     {}", printable(&report.detail))?;
    if let Some(origin) = &report.origin {
        write!(
            to,
            "record     {}, partition {}, offset {}",
            printable(&origin.topic),
            origin.partition,
            origin.offset
        )?;
        match report.record_timestamp_ms {
            Some(ms) => writeln!(to, ", of {}", shown(ms))?,
            None => writeln!(to)?,
        }
    }
    if let Some(parts) = &report.left_out {
        writeln!(to, "left out   {}", printable(parts))?;
    }
    for (name, value) in &report.headers {
        writeln!(to, "header     {}: {}", printable(name), or(value.as_deref(), "(null)"))?;
    }
    writeln!(to, "key        {}", or(report.key.as_deref(), "(none)"))?;
    match &report.value {
        None => writeln!(to, "value      (none)")?,
        Some(Value::String(text)) => writeln!(to, "value      {}", printable(text))?,
        Some(json) => writeln!(to, "value\n{}", serde_json::to_string_pretty(json).map_err(io::Error::from)?)?,
    }
    writeln!(to, "replay     {}", printable(&report.replay.sentence))
}
