//! Finds the newest records of a topic that pass a filter: reads each partition's end, and then
//! further back, each time a larger part.
//!
//! Must not read more than it needs: the topic may be large.

use super::filter::Verdict;
use super::row::{Reader, Row};
use crate::analysis::Progress;
use anyhow::anyhow;
use receipts_analytics::{ProgressMonitor as _, Span};
use receipts_log::{Inspect, OwnedRecord, ReadError};
use receipts_runtime::exit::Failure;
use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

/// Offsets of a partition's first part, at least.
const PART_MIN: u64 = 100;
/// Offsets of a part, at most.
const PART_MAX: u64 = 1_000_000;
/// Partitions that are read at once: opening one waits for the brokers.
const AT_ONCE: usize = 8;
/// Attempts to ask the log, and the wait between them.
const ATTEMPTS: u32 = 5;
const RETRY: Duration = Duration::from_millis(500);

/// The result.
pub(super) struct Found {
    /// The newest records that pass, oldest first.
    pub(super) rows: Vec<Row>,
    /// Records that the filter could not judge.
    pub(super) unjudged: u64,
    /// Pairs of partition and the offset behind the last record that was looked at.
    pub(super) ends: Vec<(u32, u64)>,
}

/// What is known of a partition.
struct Part {
    partition: u32,
    first_offset: u64,
    /// Everything from here to the end is read.
    read_from: u64,
    end_offset: u64,
    size: u64,
    /// The time of the oldest record that was read, Unix milliseconds.
    oldest_ms: u64,
    rows: VecDeque<Row>,
    unjudged: u64,
}

impl Part {
    fn is_open(&self, lines: usize, enough_ms: Option<u64>) -> bool {
        self.read_from > self.first_offset
            && self.rows.len() < lines
            // Older records of this partition are older than all that are shown.
            && enough_ms.is_none_or(|ms| self.oldest_ms >= ms)
    }
}

/// Finds the newest `lines` records. Returns those that it has found so far if the operator stops
/// it.
///
/// # Errors
/// If the topic cannot be read.
pub(super) fn find(
    log: &dyn Inspect,
    reader: &Reader,
    lines: usize,
    progress: &mut Progress,
) -> Result<Found, Failure> {
    let count = attempt(|| log.partitions(reader.topic))?;
    let partitions: Vec<u32> = (0..count).collect();
    let mut parts: Vec<Part> = at_once(partitions, &|partition| {
        let bounds = attempt(|| log.bounds(reader.topic, partition))?;
        let size = (lines as u64).saturating_mul(2).clamp(PART_MIN, PART_MAX);
        Ok(Part {
            partition,
            first_offset: bounds.start,
            read_from: bounds.end,
            end_offset: bounds.end,
            size,
            oldest_ms: u64::MAX,
            rows: VecDeque::new(),
            unjudged: 0,
        })
    })?;
    let mut round = 0;
    loop {
        let enough_ms = nth_newest(&parts, lines);
        let (open, done): (Vec<Part>, Vec<Part>) = parts.into_iter().partition(|part| part.is_open(lines, enough_ms));
        parts = done;
        if open.is_empty() || progress.is_stopped() {
            parts.extend(open);
            break;
        }
        // The first round takes a moment, so nobody needs to see its progress.
        let offsets = open.iter().map(|part| part.size.min(part.read_from - part.first_offset)).sum();
        match round {
            0 => {}
            1 => progress.begin(offsets),
            _ => progress.added(offsets),
        }
        round += 1;
        let shown = &*progress;
        parts.extend(at_once(open, &|part| further_back(log, reader, lines, part, shown))?);
    }
    let mut ends: Vec<(u32, u64)> = parts.iter().map(|part| (part.partition, part.end_offset)).collect();
    ends.sort_unstable();
    let unjudged = parts.iter().map(|part| part.unjudged).sum();
    let mut rows: Vec<Row> = parts.into_iter().flat_map(|part| part.rows).collect();
    rows.sort_by_key(Row::order);
    rows.drain(..rows.len().saturating_sub(lines));
    Ok(Found { rows, unjudged, ends })
}

/// Returns the time of the oldest record that would be shown now; `None` while there are fewer.
fn nth_newest(parts: &[Part], lines: usize) -> Option<u64> {
    let mut times: Vec<u64> = parts.iter().flat_map(|part| &part.rows).map(|row| row.order().0).collect();
    if lines == 0 || times.len() < lines {
        return None;
    }
    let at = times.len() - lines;
    Some(*times.select_nth_unstable(at).1)
}

/// Reads the next part of a partition, backwards.
fn further_back(
    log: &dyn Inspect,
    reader: &Reader,
    lines: usize,
    mut part: Part,
    progress: &Progress,
) -> Result<Part, Failure> {
    let span = Span {
        partition: part.partition,
        first_offset: part.read_from.saturating_sub(part.size).max(part.first_offset),
        end_offset: part.read_from,
    };
    let (mut rows, mut unjudged, mut oldest_ms) = (VecDeque::new(), 0, part.oldest_ms);
    let kept = lines - part.rows.len();
    attempt(|| {
        (rows, unjudged) = (VecDeque::new(), 0);
        log.scan(reader.topic, span.partition, span.first_offset..span.end_offset, &mut |records| {
            for record in records {
                oldest_ms = oldest_ms.min(record.timestamp_ms);
                match reader.read(OwnedRecord::from(record)) {
                    Verdict::Passes(row) => {
                        rows.push_back(row);
                        if rows.len() > kept {
                            rows.pop_front();
                        }
                    }
                    Verdict::Unjudged => unjudged += 1,
                    Verdict::Fails => {}
                }
            }
            if progress.is_stopped() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
    })?;
    progress.advanced(span.offsets());
    rows.append(&mut part.rows);
    part.rows = rows;
    part.unjudged += unjudged;
    part.oldest_ms = oldest_ms;
    part.read_from = span.first_offset;
    part.size = (part.size * 4).min(PART_MAX);
    Ok(part)
}

/// Asks the log again after transient failures.
fn attempt<T>(mut ask: impl FnMut() -> Result<T, ReadError>) -> Result<T, Failure> {
    let mut left = ATTEMPTS;
    loop {
        left -= 1;
        match ask() {
            Err(ReadError::Retry(_)) if left > 0 => thread::sleep(RETRY),
            other => return Ok(other?),
        }
    }
}

/// Works on items on several threads. Keeps no order.
fn at_once<I: Send, T: Send>(
    items: Vec<I>,
    work: &(dyn Fn(I) -> Result<T, Failure> + Sync),
) -> Result<Vec<T>, Failure> {
    let threads = items.len().min(AT_ONCE);
    let left = Mutex::new(items);
    let next = || left.lock().ok().and_then(|mut left| left.pop());
    thread::scope(|scope| {
        let run = || std::iter::from_fn(next).map(work).collect::<Result<Vec<T>, Failure>>();
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let mut done = Vec::new();
        for thread in running {
            let result = thread.join().map_err(|_| anyhow!("a thread panicked; this is a bug: please report it"))?;
            done.extend(result?);
        }
        Ok(done)
    })
}
