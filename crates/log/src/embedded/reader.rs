//! Reads topics of the embedded log and waits for the writer: all partitions of the event topic for
//! the projector, and any partitions of any topic for tails.
//!
//! Readers share nothing. A reader keeps the partitions of its first poll until it is dropped.

use super::file::File;
use crate::check::start_is_held;
use crate::port::{Assignment, OwnedRecord, Peek, Polled, ReadError, Reader, Tail, Topic};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The position of a reader in a partition.
struct Cursor {
    partition: u32,
    /// The offset of the next record.
    next: u64,
    /// True if the end at `next` was reported.
    end_reported: bool,
}

/// See [`Tail`].
pub(super) struct EmbeddedTail {
    file: Arc<File>,
    topic: Topic,
    cursors: Vec<Cursor>,
    /// The index of the cursor that the last poll began with. Each poll begins with the next one,
    /// so that no partition starves.
    first: usize,
    stopped: Option<String>,
}

impl EmbeddedTail {
    /// Creates a tail without partitions.
    pub(super) fn new(file: Arc<File>, topic: Topic) -> Self {
        EmbeddedTail { file, topic, cursors: Vec::new(), first: 0, stopped: None }
    }

    /// Adds a partition.
    pub(super) fn add(&mut self, partition: u32, start: u64) -> Result<(), ReadError> {
        let bounds = self.file.bounds(self.topic, partition)?;
        // Added before the check, so that the reader's drop releases a refused partition too.
        self.cursors.push(Cursor { partition, next: start, end_reported: false });
        start_is_held("the embedded log", partition, start, bounds.start, bounds.end).map_err(ReadError::Stop)
    }

    /// Passes on the records of one partition and its end. Breaks once `max` records are reached.
    fn poll_partition(
        &mut self,
        at: usize,
        max: usize,
        each: &mut dyn FnMut(Polled<'_>),
    ) -> Result<ControlFlow<(), usize>, ReadError> {
        let cursor = &mut self.cursors[at];
        let partition = cursor.partition;
        let bounds = self.file.bounds(self.topic, partition)?;
        if cursor.next < bounds.start {
            // Trimmed while we read: the same error as a start below the first offset.
            start_is_held("the embedded log", partition, cursor.next, bounds.start, bounds.end)
                .map_err(ReadError::Stop)?;
        }
        let mut count = 0;
        if cursor.next < bounds.end {
            cursor.end_reported = false;
            let next = &mut cursor.next;
            count = self.file.snapshot()?.each(self.topic, partition, *next..bounds.end, max, &mut |records| {
                *next = records.last().map_or(*next, |record| record.offset + 1);
                each(Polled::Records(records));
            })?;
        }
        if cursor.next >= bounds.end && !cursor.end_reported {
            cursor.end_reported = true;
            each(Polled::End { partition, next_offset: cursor.next });
        }
        Ok(if count < max { ControlFlow::Continue(count) } else { ControlFlow::Break(()) })
    }
}

impl Tail for EmbeddedTail {
    fn poll(&mut self, max: usize, timeout: Duration, each: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError> {
        if let Some(sentence) = &self.stopped {
            return Err(ReadError::Stop(sentence.clone()));
        }
        let cursors = &self.cursors;
        let ready = self.file.wait_for(self.topic, Instant::now() + timeout, |bounds| {
            cursors.iter().any(|cursor| cursor.next < bounds[cursor.partition as usize].next || !cursor.end_reported)
        });
        let partitions = self.cursors.len();
        if !ready || max == 0 || partitions == 0 {
            return Ok(0);
        }
        let mut count = 0;
        self.first = (self.first + 1) % partitions;
        for step in 0..partitions {
            match self.poll_partition((self.first + step) % partitions, max - count, each) {
                Ok(ControlFlow::Continue(more)) => count += more,
                Ok(ControlFlow::Break(())) => return Ok(max),
                Err(error) => {
                    self.stopped = Some(error.to_string());
                    // The caller has records of this poll already, so the next poll returns the
                    // error.
                    return if count > 0 { Ok(count) } else { Err(error) };
                }
            }
        }
        Ok(count)
    }
}

/// A partition of the event topic, for looking at single records.
struct Partition<'a> {
    file: &'a File,
    partition: u32,
}

impl Peek for Partition<'_> {
    fn record(&self, offset: u64) -> Result<Option<OwnedRecord>, ReadError> {
        let mut found = None;
        let one = offset..offset.saturating_add(1);
        self.file.snapshot()?.each(Topic::Events, self.partition, one, 1, &mut |records| {
            found = records.first().map(OwnedRecord::from);
        })?;
        Ok(found)
    }
}

/// See [`Reader`].
pub(super) struct EmbeddedReader {
    /// Follows the partitions that `assigned` accepted.
    tail: EmbeddedTail,
    assignment: Arc<dyn Assignment>,
    assigned: bool,
}

impl EmbeddedReader {
    pub(super) fn new(file: Arc<File>, assignment: Arc<dyn Assignment>) -> Self {
        EmbeddedReader { tail: EmbeddedTail::new(file, Topic::Events), assignment, assigned: false }
    }

    /// Takes over all partitions.
    fn assign(&mut self) -> Result<(), ReadError> {
        for partition in 0..self.tail.file.partition_count() {
            let Range { start: first, end } = self.tail.file.bounds(Topic::Events, partition)?;
            let log = Partition { file: &self.tail.file, partition };
            let start = self
                .assignment
                .assigned(partition, first, end, &log)
                .map_err(|error| ReadError::Stop(format!("partition {partition} cannot be taken over: {error}")))?;
            self.tail.add(partition, start)?;
        }
        Ok(())
    }
}

impl Reader for EmbeddedReader {
    fn poll(&mut self, max: usize, timeout: Duration, each: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError> {
        if !self.assigned {
            self.assigned = true;
            if let Err(error) = self.assign() {
                self.tail.stopped = Some(error.to_string());
                return Err(error);
            }
        }
        self.tail.poll(max, timeout, each)
    }

    /// Does nothing: no tool measures the lag of an embedded log.
    fn commit(&mut self, _partition: u32, _next_offset: u64) {}
}

impl Drop for EmbeddedReader {
    fn drop(&mut self) {
        let partitions: Vec<u32> = self.tail.cursors.iter().map(|cursor| cursor.partition).collect();
        if !partitions.is_empty() {
            self.assignment.revoked(&partitions);
        }
    }
}
