//! Reads the event topic of the embedded log: all partitions, woken by the writer.
//!
//! It shares nothing with other readers, and it moves no partition: what it was assigned at its first poll it keeps
//! until it is dropped.

use super::file::File;
use crate::check::start_is_held;
use crate::port::{Assignment, Polled, ReadError, Reader, Topic};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the reader stands in a partition.
struct Place {
    /// The offset of the next record.
    next: u64,
    /// Whether the end at `next` was told.
    told: bool,
}

/// See [`Reader`].
pub(super) struct EmbeddedReader {
    file: Arc<File>,
    assignment: Arc<dyn Assignment>,
    /// By partition; those that `assigned` accepted.
    places: Vec<Place>,
    assigned: bool,
    /// The partition whose turn it is: each poll begins with another one, so that none starves.
    turn: usize,
    stopped: Option<String>,
}

impl EmbeddedReader {
    pub(super) fn new(file: Arc<File>, assignment: Arc<dyn Assignment>) -> Self {
        EmbeddedReader { file, assignment, places: Vec::new(), assigned: false, turn: 0, stopped: None }
    }

    /// Takes all partitions over.
    fn assign(&mut self) -> Result<(), String> {
        for partition in 0..self.file.partition_count() {
            let held = self.file.bounds(Topic::Events, partition).map_err(|error| error.to_string())?;
            let start = self
                .assignment
                .assigned(partition, held.start, held.end)
                .map_err(|error| format!("partition {partition} cannot be taken over: {error}"))?;
            self.places.push(Place { next: start, told: false });
            start_is_held("the embedded log", partition, start, held.start, held.end)?;
        }
        Ok(())
    }

    /// Hands over one partition's records and its end.
    fn hand_over(
        &mut self,
        at: usize,
        max: usize,
        each: &mut dyn FnMut(Polled<'_>),
    ) -> Result<ControlFlow<(), usize>, ReadError> {
        let partition = at as u32;
        let held = self.file.bounds(Topic::Events, partition)?;
        let place = &mut self.places[at];
        if place.next < held.start {
            // Trimmed while we read: the same as a start below the first offset.
            start_is_held("the embedded log", partition, place.next, held.start, held.end).map_err(ReadError::Stop)?;
        }
        let mut handed = 0;
        if place.next < held.end {
            place.told = false;
            let next = &mut place.next;
            handed = self.file.snapshot()?.each(Topic::Events, partition, *next..held.end, max, &mut |records| {
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

impl Reader for EmbeddedReader {
    fn poll(&mut self, max: usize, timeout: Duration, each: &mut dyn FnMut(Polled<'_>)) -> Result<usize, ReadError> {
        if let Some(sentence) = &self.stopped {
            return Err(ReadError::Stop(sentence.clone()));
        }
        if !self.assigned {
            self.assigned = true;
            if let Err(sentence) = self.assign() {
                self.stopped = Some(sentence.clone());
                return Err(ReadError::Stop(sentence));
            }
        }
        let places = &self.places;
        let ready = self.file.wait_for_events(Instant::now() + timeout, |held| {
            places.iter().zip(held).any(|(place, held)| place.next < held.next || !place.told)
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

    /// Nobody measures the lag of an embedded log.
    fn commit(&mut self, _partition: u32, _next_offset: u64) {}
}

impl Drop for EmbeddedReader {
    fn drop(&mut self) {
        let partitions: Vec<u32> = (0..self.places.len() as u32).collect();
        if !partitions.is_empty() {
            self.assignment.revoked(&partitions);
        }
    }
}
