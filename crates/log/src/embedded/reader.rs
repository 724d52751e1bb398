//! Reads a topic of the embedded log, woken by the writer: the event topic as a whole for the projector, any partitions of
//! any topic for who follows them.
//!
//! It shares nothing with other readers, and it moves no partition: what a reader was assigned at its first poll it keeps
//! until it is dropped.

use super::file::File;
use crate::check::start_is_held;
use crate::port::{Assignment, OwnedRecord, Peek, Polled, ReadError, Reader, Tail, Topic};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where a reader stands in a partition.
struct Place {
    partition: u32,
    /// The offset of the next record.
    next: u64,
    /// Whether the end at `next` was told.
    told: bool,
}

/// See [`Tail`].
pub(super) struct EmbeddedTail {
    file: Arc<File>,
    topic: Topic,
    places: Vec<Place>,
    /// Whose turn it is: each poll begins with another partition, so that none starves.
    turn: usize,
    stopped: Option<String>,
}

impl EmbeddedTail {
    /// Follows nothing yet.
    pub(super) fn new(file: Arc<File>, topic: Topic) -> Self {
        EmbeddedTail { file, topic, places: Vec::new(), turn: 0, stopped: None }
    }

    /// Follows one partition more.
    pub(super) fn add(&mut self, partition: u32, start: u64) -> Result<(), ReadError> {
        let held = self.file.bounds(self.topic, partition)?;
        self.places.push(Place { partition, next: start, told: false });
        start_is_held("the embedded log", partition, start, held.start, held.end).map_err(ReadError::Stop)
    }

    /// Hands over one partition's records and its end.
    fn hand_over(
        &mut self,
        at: usize,
        max: usize,
        each: &mut dyn FnMut(Polled<'_>),
    ) -> Result<ControlFlow<(), usize>, ReadError> {
        let place = &mut self.places[at];
        let partition = place.partition;
        let held = self.file.bounds(self.topic, partition)?;
        if place.next < held.start {
            // Trimmed while we read: the same as a start below the first offset.
            start_is_held("the embedded log", partition, place.next, held.start, held.end).map_err(ReadError::Stop)?;
        }
        let mut handed = 0;
        if place.next < held.end {
            place.told = false;
            let next = &mut place.next;
            handed = self.file.snapshot()?.each(self.topic, partition, *next..held.end, max, &mut |records| {
                *next = records.last().map_or(*next, |record| record.offset + 1);
                each(Polled::Records(records));
            })?;
        }
        if place.next >= held.end && !place.told {
            place.told = true;
            each(Polled::End { partition, next_offset: place.next });
        }
        Ok(if handed < max { ControlFlow::Continue(handed) } else { ControlFlow::Break(()) })
    }
}

impl Tail for EmbeddedTail {
    fn poll(&mut self, max: usize, timeout: Duration, each: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError> {
        if let Some(sentence) = &self.stopped {
            return Err(ReadError::Stop(sentence.clone()));
        }
        let places = &self.places;
        let ready = self.file.wait_for(self.topic, Instant::now() + timeout, |held| {
            places.iter().any(|place| place.next < held[place.partition as usize].next || !place.told)
        });
        let count = self.places.len();
        if !ready || max == 0 || count == 0 {
            return Ok(0);
        }
        let mut handed = 0;
        self.turn = (self.turn + 1) % count;
        for step in 0..count {
            match self.hand_over((self.turn + step) % count, max - handed, each) {
                Ok(ControlFlow::Continue(more)) => handed += more,
                Ok(ControlFlow::Break(())) => return Ok(max),
                Err(error) => {
                    self.stopped = Some(error.to_string());
                    // What was handed over stands; the next poll tells.
                    return if handed > 0 { Ok(handed) } else { Err(error) };
                }
            }
        }
        Ok(handed)
    }
}

/// A partition of the event topic, for who wants to know it again.
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
    /// Follows those partitions that `assigned` accepted.
    tail: EmbeddedTail,
    assignment: Arc<dyn Assignment>,
    assigned: bool,
}

impl EmbeddedReader {
    pub(super) fn new(file: Arc<File>, assignment: Arc<dyn Assignment>) -> Self {
        EmbeddedReader { tail: EmbeddedTail::new(file, Topic::Events), assignment, assigned: false }
    }

    /// Takes all partitions over.
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

    /// Nobody measures the lag of an embedded log.
    fn commit(&mut self, _partition: u32, _next_offset: u64) {}
}

impl Drop for EmbeddedReader {
    fn drop(&mut self) {
        let partitions: Vec<u32> = self.tail.places.iter().map(|place| place.partition).collect();
        if !partitions.is_empty() {
            self.assignment.revoked(&partitions);
        }
    }
}
