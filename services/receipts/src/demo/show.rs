//! Prints the service's answers, as lines for people or one JSON object per line. Must not invent
//! figures: each was answered or measured.

use super::ask::{Page, Timed};
use super::chat::Featured;
use super::{live, story};
use receipts_fold::view::{Member, ReadMark, Receipt, Status};
use receipts_runtime::output::Output;
use serde::Serialize;
use serde_json::json;
use std::io;
use std::time::Duration;

/// Members of a page that are shown to people.
const MEMBERS_SHOWN: usize = 3;

/// The measurements of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) events: u64,
    pub(crate) conversations: u64,
    pub(crate) written_ms: u64,
    pub(crate) folded_ms: u64,
    pub(crate) folded_per_s: u64,
}

/// Prints the receipts of one answer.
pub(crate) fn receipts(output: &mut Output, featured: &[Featured], answer: &Timed<Vec<Receipt>>) -> io::Result<()> {
    heading(output, &format!("Receipts ({} in one query, {})", answer.value.len(), took(answer.took)))?;
    for (message, receipt) in featured.iter().zip(&answer.value) {
        output.write(&json!({"text": message.text, "receipt": receipt}), |to| {
            writeln!(to, "  “{}”, {} in {}", message.text, message.sender_id, message.conversation_id)?;
            writeln!(to, "      {}", sentence(receipt))?;
            if message.remark.is_empty() { Ok(()) } else { writeln!(to, "      ({})", message.remark) }
        })?;
    }
    Ok(())
}

/// Prints the first members of a list.
pub(crate) fn list(output: &mut Output, message: &Featured, filter: &str, answer: &Timed<Page>) -> io::Result<()> {
    let Page { members, receipt } = &answer.value;
    let value = json!({
        "list": {
            "filter": filter, "message_id": message.message_id, "took_us": micros(answer.took), "members": members,
            "receipt": receipt,
        }
    });
    output.write(&value, |to| {
        let count = receipt.counts.map_or(0, |counts| match filter {
            "read" => counts.read_count,
            "unread" => counts.unread_count,
            _ => counts.departed_count,
        });
        let sent_at_ms = receipt.sent_at_ms.unwrap_or_default();
        let names = members.iter().take(MEMBERS_SHOWN).map(|member| name(member, sent_at_ms));
        let more = if count as usize > MEMBERS_SHOWN { ", …" } else { "" };
        let (page, took) = (members.len(), took(answer.took));
        let names = names.collect::<Vec<_>>().join(", ");
        writeln!(to, "  {filter:9} {:>7}  page of {page} in {took}", grouped(u64::from(count)))?;
        if names.is_empty() { Ok(()) } else { writeln!(to, "      {names}{more}") }
    })
}

/// Prints a read mark.
pub(crate) fn read_mark(output: &mut Output, conversation_id: &str, mark: &ReadMark) -> io::Result<()> {
    output.write(&json!({"conversation_id": conversation_id, "read_mark": mark}), |to| {
        let up_to = mark
            .up_to_message_id
            .as_deref()
            .map_or_else(|| mark.up_to_sent_at_ms.to_string(), |id| format!("message {id}"));
        let delay = span(mark.read_at_ms.saturating_sub(mark.up_to_sent_at_ms));
        writeln!(to, "  {} has read {conversation_id} up to {up_to}, {delay} after it was sent", mark.reader_id)
    })
}

/// Prints the measurements of the run.
pub(crate) fn figures(output: &mut Output, figures: &Figures) -> io::Result<()> {
    output.write(&json!({"figures": figures}), |to| {
        writeln!(to, "\nMeasured in this run")?;
        writeln!(
            to,
            "  {} events of {} conversations:\n      written durably within {:.1} s, all folded {:.1} s after the first",
            grouped(figures.events),
            grouped(figures.conversations),
            seconds(figures.written_ms),
            seconds(figures.folded_ms)
        )?;
        writeln!(
            to,
            "  {} events a second from producer through log into answers",
            grouped(figures.folded_per_s)
        )
    })
}

/// Prints the disk space at the end.
pub(crate) fn disk(output: &mut Output, store_bytes: u64, log_bytes: Option<u64>) -> io::Result<()> {
    output.write(&json!({"disk": {"store_bytes": store_bytes, "log_bytes": log_bytes}}), |to| {
        write!(to, "  {} of store on disk", megabytes(store_bytes))?;
        if let Some(log_bytes) = log_bytes {
            write!(to, ", {} of embedded log", megabytes(log_bytes))?;
        }
        writeln!(to)
    })
}

/// Prints the pages to open and the commands to type next, below a hint.
pub(crate) fn commands(output: &mut Output, hint: &str, url: &str, commands: &[String]) -> io::Result<()> {
    let pages = [format!("{url}/"), format!("{url}/#/message/{}/{}", story::EVERYONE_ID, live::FIRST_ID)];
    output.write(&json!({"pages": pages, "commands": commands}), |to| {
        writeln!(to, "\n{hint}")?;
        writeln!(to, "  open {}   two phones to try receipts on", pages[0])?;
        writeln!(to, "  open {}\n      an announcement that 100,000 people are reading", pages[1])?;
        commands.iter().try_for_each(|command| writeln!(to, "  {command}"))
    })
}

/// Prints a heading, for people only.
pub(crate) fn heading(output: &mut Output, text: &str) -> io::Result<()> {
    if output.is_json() { Ok(()) } else { output.write(text, |to| writeln!(to, "\n{text}")) }
}

/// Formats a receipt as a sentence.
fn sentence(receipt: &Receipt) -> String {
    match (receipt.status, receipt.counts) {
        (Status::Ok, Some(counts)) => {
            if let Some(other) = &receipt.user_id {
                let delay =
                    receipt.read_at_ms.zip(receipt.sent_at_ms).map(|(read, sent)| span(read.saturating_sub(sent)));
                return delay
                    .map_or_else(|| format!("not read by {other}"), |delay| format!("read by {other} after {delay}"));
            }
            let mut text =
                format!("read by {} of {}", grouped(counts.read_count.into()), grouped(counts.audience_count.into()));
            for (count, what) in
                [(counts.unread_count, "unread"), (counts.hidden_count, "hidden"), (counts.departed_count, "left")]
            {
                if count > 0 {
                    text += &format!(" · {} {what}", grouped(count.into()));
                }
            }
            if counts.all_read { text + " · all read" } else { text }
        }
        (Status::NotRequested, _) => "no receipt: not requested".to_owned(),
        (Status::Unsupported, _) => "no receipt: not supported here".to_owned(),
        (Status::Recalled, _) => "recalled".to_owned(),
        (Status::NotFound, _) => "not found".to_owned(),
        (Status::Ambiguous, _) => "too many messages have this id: name the conversation".to_owned(),
        (Status::Forbidden, _) => "not visible to this caller".to_owned(),
        (Status::Ok, None) => "without counts".to_owned(),
    }
}

fn name(member: &Member, sent_at_ms: u64) -> String {
    let after = member.read_at_ms.map(|at_ms| format!(" after {}", span(at_ms.saturating_sub(sent_at_ms))));
    let left = if member.left { ", left" } else { "" };
    match after {
        Some(after) => format!("{}{after}{left}", member.user_id),
        None => member.user_id.clone(),
    }
}

/// Formats 12345 as 12,345.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a duration as people say it.
fn span(ms: u64) -> String {
    match ms.div_ceil(1_000) {
        seconds @ 0..=99 => format!("{seconds} s"),
        seconds @ 100..=5_999 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

fn took(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1_000.0)
}

fn micros(took: Duration) -> u64 {
    u64::try_from(took.as_micros()).unwrap_or(u64::MAX)
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1_000.0
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receipt(rest: &str) -> Receipt {
        let text = format!(r#"{{"tenant":"default","message_id":"m","sent_at_ms":1000,{rest}}}"#);
        serde_json::from_str(&text).expect("a receipt")
    }

    #[test]
    fn a_receipt_reads_as_a_person_would_say_it() {
        let group = receipt(
            r#""status":"ok","audience_count":1005,"read_count":1002,"unread_count":0,"hidden_count":2,"departed_count":1,"all_read":false"#,
        );
        assert_eq!(sentence(&group), "read by 1,002 of 1,005 · 2 hidden · 1 left");
        let direct = r#""status":"ok","kind":"direct","user_id":"bob","audience_count":1,"read_count":1,"unread_count":0,"hidden_count":0,"departed_count":0,"all_read":true"#;
        assert_eq!(sentence(&receipt(&format!(r#"{direct},"read_at_ms":49000"#))), "read by bob after 48 s");
        assert_eq!(sentence(&receipt(r#""status":"recalled""#)), "recalled");
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (100_000, "100,000"), (1_234_567, "1,234,567")]
        {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn times_are_rounded_to_what_matters() {
        for (ms, text) in [(800, "1 s"), (99_000, "99 s"), (125_000, "2 min"), (7_200_000, "2 h")] {
            assert_eq!(span(ms), text);
        }
    }
}
