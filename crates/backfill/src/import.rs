//! The import: members and messages merged by time, then reads. It numbers the events, appends them
//! in order, awaits the acknowledgements, and saves its progress from time to time.
//!
//! Keeps INV-BACKFILL.

use crate::Error;
use crate::batch::{self, People, Window};
use crate::columns::{Columns, Input};
use crate::draft::Judgement;
use crate::feed::{Feed, Item, Position};
use crate::mapping::Mapping;
use crate::progress::Progress;
use crate::readings::Readings;
use crate::rejects::{RejectReason, Rejects, note};
use crate::rows::{Member, Reader, Untimed};
use crate::sources::{Source, check};
use crate::written::{event_id, greatest_written};
use receipts_analytics::ProgressMonitor;
use receipts_event::{Event, partition_of};
use receipts_log::{Entry, Inspect, PendingAppend, Topic, Writer};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

/// Events that are appended and not yet acknowledged, at most.
const IN_FLIGHT_MAX: usize = 10_000;
/// Rows between two saves of the progress file.
const ROWS_BETWEEN_SAVES: u64 = 200_000;

/// The tables to import, and the settings of the import.
#[derive(Debug, Clone)]
pub struct Plan {
    /// At most one table of each kind.
    pub sources: Vec<Source>,
    /// The column names in the tables.
    pub columns: Columns,
    /// The units and zones of times in the tables that no mapping reads.
    pub readings: Readings,
    /// The mapping of the tables that it has a section for; the others have our columns.
    pub mapping: Option<Mapping>,
    /// The tenant of rows without one.
    pub tenant: String,
    /// The meaning of reads without a time.
    pub untimed: Untimed,
    /// Checks all rows, and writes only the report of rejects.
    pub dry_run: bool,
    /// The path of the progress file.
    pub progress: PathBuf,
    /// The path of the report of rejects.
    pub rejects: PathBuf,
    /// Identifies the events of this import; used if the import is new. Letters and digits, at most
    /// 64.
    pub run: String,
    /// The judgement of [`crate::Draft`], kept for the reports of resumed runs.
    pub judgement: Option<Judgement>,
    /// The name of the log, which must not change while an import is unfinished.
    pub log: String,
}

/// The counts of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows read, by table.
    pub rows: BTreeMap<Input, u64>,
    /// Rows that the mapping's `where` leaves out, by table.
    pub left_out: BTreeMap<Input, u64>,
    /// Rows that gave no event, by table; the report lists them.
    pub rejected: BTreeMap<Input, u64>,
    /// The reasons of rejected rows, by table, with the first examples.
    #[serde(default)]
    pub reasons: BTreeMap<Input, BTreeMap<String, RejectReason>>,
    /// Rows of reads that record an unread message.
    pub unread: u64,
    /// Rows of reads that repeat the message and reader of a recent row.
    pub repeated: u64,
    /// Events, by type.
    pub events: BTreeMap<String, u64>,
}

/// The result of an import.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ImportReport {
    /// The counts of the whole import, interrupted runs included.
    #[serde(flatten)]
    pub counts: Counts,
    /// What the import does to receipts, as judged before it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub judgement: Option<Judgement>,
    /// Events of this run that the log already held from an interrupted run.
    pub already_written: u64,
    /// Events of this run that were appended and acknowledged.
    pub written: u64,
    /// True if an earlier run was resumed.
    pub resumed: bool,
    /// The offset after the last event, by partition.
    pub next_offsets: BTreeMap<u32, u64>,
}

/// Returns whether an earlier run has begun the import: it was judged then.
pub fn is_begun(plan: &Plan) -> bool {
    plan.progress.exists()
}

/// Runs an import, or resumes an interrupted one. No event is lost. An event is in the log twice
/// only if its append was under way when the earlier process was killed.
///
/// # Errors
/// If a table, a file of the import or the log fails, or the monitor stops the run. [`Error`] says
/// what to do.
pub fn import(log: &dyn Inspect, plan: &Plan, monitor: &dyn ProgressMonitor) -> Result<ImportReport, Error> {
    let bounds = (0..log.partition_count()).map(|partition| log.bounds(Topic::Events, partition));
    let ends = bounds.map(|bounds| Ok(bounds?.end)).collect::<Result<Vec<u64>, Error>>()?;
    let held = if plan.dry_run { None } else { Progress::load(plan, ends.len())? };
    let resumed = held.is_some();
    let progress = held.map_or_else(|| Progress::begin(plan, ends), Ok)?;
    let mut import = Import::open(log, plan, monitor, progress, resumed)?;
    if !import.progress.is_done {
        import.people_without_time()?;
        import.people_and_messages()?;
        import.reads()?;
        import.marks()?;
        import.progress.is_done = true;
        import.save()?;
    }
    Ok(ImportReport {
        judgement: import.progress.judgement,
        counts: import.progress.counts,
        already_written: import.already_written,
        written: import.appended,
        resumed,
        next_offsets: import.next_offsets,
    })
}

struct Import<'a> {
    plan: &'a Plan,
    monitor: &'a dyn ProgressMonitor,
    writer: Arc<dyn Writer>,
    partitions: u32,
    feeds: BTreeMap<Input, Feed>,
    progress: Progress,
    rejects: Rejects,
    /// The greatest event number that the log already holds, by partition.
    held: Vec<u64>,
    in_flight: VecDeque<PendingAppend>,
    rows_since_save: u64,
    people: People,
    window: Window,
    /// The decoded next row of members.
    member: Option<Member>,
    already_written: u64,
    appended: u64,
    next_offsets: BTreeMap<u32, u64>,
}

impl<'a> Import<'a> {
    fn open(
        log: &dyn Inspect,
        plan: &'a Plan,
        monitor: &'a dyn ProgressMonitor,
        progress: Progress,
        resumed: bool,
    ) -> Result<Self, Error> {
        let mut feeds = BTreeMap::new();
        check(plan)?;
        for source in &plan.sources {
            let position = progress.cursors.get(&source.input).copied().unwrap_or_default();
            let feed = Feed::open(plan, source, position)?;
            let is_read_again = source.input == Input::Members && progress.is_second_pass;
            monitor.skipped(if is_read_again {
                source.files.iter().map(|file| file.bytes).sum()
            } else {
                feed.read_bytes()
            });
            feeds.insert(source.input, feed);
        }
        let held = if resumed && !progress.is_done {
            greatest_written(log, &progress.run, &progress.ends, monitor)?
        } else {
            vec![0; progress.ends.len()]
        };
        let rejects = Rejects::open(&plan.rejects, progress.rejects_bytes)?;
        if !plan.dry_run && !resumed {
            progress.save(&plan.progress)?;
        }
        Ok(Self {
            plan,
            monitor,
            writer: log.writer(),
            partitions: log.partition_count(),
            feeds,
            progress,
            rejects,
            held,
            in_flight: VecDeque::new(),
            rows_since_save: 0,
            people: People::default(),
            window: Window::default(),
            member: None,
            already_written: 0,
            appended: 0,
            next_offsets: BTreeMap::new(),
        })
    }

    fn reader(&self, input: Input) -> Reader<'a> {
        Reader::of(self.plan, input)
    }

    /// Imports the members without a time, who come before all messages wherever they stand. Those
    /// with a time are read again, so that no table is held in memory.
    fn people_without_time(&mut self) -> Result<(), Error> {
        if self.progress.is_second_pass {
            return Ok(());
        }
        loop {
            let reader = self.reader(Input::Members);
            let Some(row) = self.peek(Input::Members)? else { break };
            match row.values.as_ref().map_err(Clone::clone).and_then(|values| reader.member(values)) {
                Err(reason) => self.reject(Input::Members, &reason)?,
                Ok(member) => {
                    self.take(Input::Members)?;
                    if member.at_ms.is_some() {
                        self.progress.timed_members += 1;
                    } else {
                        let events = self.people.push(member);
                        self.emit(events)?;
                    }
                }
            }
            self.save_if_due()?;
        }
        let events = self.people.flush();
        self.emit(events)?;
        self.count(Input::Members);
        self.progress.is_second_pass = true;
        let members = self.plan.sources.iter().find(|source| source.input == Input::Members);
        if let Some(members) = members.filter(|_| self.progress.timed_members > 0) {
            self.feeds.insert(Input::Members, Feed::open(self.plan, members, Position::default())?);
        }
        Ok(())
    }

    /// Imports members and messages. A member with a time precedes the first later message.
    fn people_and_messages(&mut self) -> Result<(), Error> {
        loop {
            let member_at = self.peek_member()?.map(|member| member.at_ms);
            let message = self.peek_message()?;
            let sent_at = message.as_ref().map(|message| message.sent_at_ms);
            match (member_at, message) {
                (None, None) => break,
                (Some(at), _) if sent_at.is_none_or(|sent_at| at <= Some(sent_at)) => {
                    self.take(Input::Members)?;
                    if let Some(member) = self.member.take() {
                        self.progress.newest_ms.0 = self.progress.newest_ms.0.max(at.unwrap_or(0));
                        let events = self.people.push(member);
                        self.emit(events)?;
                    }
                }
                (_, Some(message)) => {
                    self.take(Input::Messages)?;
                    self.progress.newest_ms.1 = self.progress.newest_ms.1.max(message.sent_at_ms);
                    let events = self.people.flush();
                    self.emit(events)?;
                    self.emit(batch::message(message))?;
                }
                (Some(_), None) => unreachable!("without a message, the next row is a member"),
            }
            self.save_if_due()?;
        }
        let events = self.people.flush();
        self.emit(events)
    }

    /// Returns the next row of members with a time. Skips those of the first pass, which also
    /// rejected the invalid ones.
    fn peek_member(&mut self) -> Result<Option<&Member>, Error> {
        while self.member.is_none() {
            let newest = self.progress.newest_ms.0;
            let reader = self.reader(Input::Members);
            let Some(row) = self.peek(Input::Members)? else { break };
            let member = row.values.as_ref().map_err(Clone::clone).and_then(|values| reader.member(values));
            match member {
                Ok(member) if member.at_ms.is_some_and(|at| at < newest) => {
                    self.reject(Input::Members, "at_ms is earlier than in a row above: sort the table by at_ms")?;
                }
                Ok(member) if member.at_ms.is_some() => self.member = Some(member),
                Ok(_) | Err(_) => {
                    self.take(Input::Members)?;
                    self.stop_if_asked()?;
                }
            }
        }
        Ok(self.member.as_ref())
    }

    /// Returns the next valid row of messages; rejects invalid rows before it.
    fn peek_message(&mut self) -> Result<Option<crate::rows::Message>, Error> {
        loop {
            let (members, newest) = self.progress.newest_ms;
            let reader = self.reader(Input::Messages);
            let Some(row) = self.peek(Input::Messages)? else { return Ok(None) };
            let message = row.values.as_ref().map_err(Clone::clone).and_then(|values| reader.message(values));
            match message {
                // Members have times here, so this message would get the roster of a later time.
                Ok(message) if members > 0 && message.sent_at_ms < newest => {
                    let reason = "sent_at_ms is earlier than in a row above: if members have at_ms, sort the table by sent_at_ms";
                    self.reject(Input::Messages, reason)?;
                }
                Ok(message) => return Ok(Some(message)),
                Err(reason) => self.reject(Input::Messages, &reason)?,
            }
        }
    }

    fn reads(&mut self) -> Result<(), Error> {
        loop {
            let reader = self.reader(Input::Reads);
            let Some(row) = self.peek(Input::Reads)? else { break };
            match row.values.as_ref().map_err(Clone::clone).and_then(|values| reader.read(values)) {
                Err(reason) => self.reject(Input::Reads, &reason)?,
                Ok(read) => {
                    self.take(Input::Reads)?;
                    match read {
                        None => self.progress.counts.unread += 1,
                        Some(read) => self.progress.counts.repeated += u64::from(!self.window.push(read)),
                    }
                }
            }
            if self.window.is_full() {
                let events = self.window.flush();
                self.emit(events)?;
            }
            self.save_if_due()?;
        }
        let events = self.window.flush();
        self.emit(events)
    }

    /// Imports read marks. They come after the reads, so that a single read keeps its own time.
    fn marks(&mut self) -> Result<(), Error> {
        loop {
            let reader = self.reader(Input::Marks);
            let Some(row) = self.peek(Input::Marks)? else { break };
            match row.values.as_ref().map_err(Clone::clone).and_then(|values| reader.mark(values)) {
                Err(reason) => self.reject(Input::Marks, &reason)?,
                Ok(mark) => {
                    self.take(Input::Marks)?;
                    self.emit(vec![batch::mark(mark)])?;
                }
            }
            self.save_if_due()?;
        }
        Ok(())
    }

    fn peek(&mut self, input: Input) -> Result<Option<&Item>, Error> {
        match self.feeds.get_mut(&input) {
            None => Ok(None),
            Some(feed) => feed.peek(),
        }
    }

    /// Consumes the next row of a table.
    fn take(&mut self, input: Input) -> Result<Option<Item>, Error> {
        let Some(feed) = self.feeds.get_mut(&input) else { return Ok(None) };
        let item = feed.take()?;
        self.count(input);
        self.rows_since_save += 1;
        Ok(item)
    }

    /// Adds the rows that a feed has consumed to the counts.
    fn count(&mut self, input: Input) {
        let Some(feed) = self.feeds.get_mut(&input) else { return };
        let counted = feed.counted();
        if input == Input::Members && self.progress.is_second_pass {
            return;
        }
        self.monitor.advanced(counted.bytes);
        let counts = &mut self.progress.counts;
        *counts.rows.entry(input).or_default() += counted.rows;
        if counted.left_out > 0 {
            *counts.left_out.entry(input).or_default() += counted.left_out;
        }
    }

    fn reject(&mut self, input: Input, reason: &str) -> Result<(), Error> {
        if let (Some(row), Some(feed)) = (self.take(input)?, self.feeds.get(&input)) {
            let path = feed.path(&row.source);
            *self.progress.counts.rejected.entry(input).or_default() += 1;
            note(self.progress.counts.reasons.entry(input).or_default(), path, &row.source, reason);
            self.rejects.push(input, path, &row.source, reason)?;
        }
        self.stop_if_asked()
    }

    fn emit(&mut self, events: Vec<Event<'static>>) -> Result<(), Error> {
        for mut event in events {
            let number = self.progress.next;
            self.progress.next += 1;
            *self.progress.counts.events.entry(event.type_name().to_owned()).or_default() += 1;
            let key = event.key();
            if self.plan.dry_run {
                continue;
            }
            if number <= self.held[partition_of(&key, self.partitions) as usize] {
                self.already_written += 1;
                continue;
            }
            event.event_id = Some(event_id(&self.progress.run, number).into());
            self.in_flight.push_back(self.writer.append(Entry::event(key, event.to_json(), None)));
            if self.in_flight.len() >= IN_FLIGHT_MAX {
                self.await_oldest()?;
            }
        }
        Ok(())
    }

    fn await_oldest(&mut self) -> Result<(), Error> {
        let Some(appended) = self.in_flight.pop_front() else { return Ok(()) };
        let written = match appended.blocking_recv() {
            Ok(Ok(written)) => written,
            Ok(Err(error)) => return Err(Error::Append(error.to_string())),
            Err(_) => return Err(Error::Append("the log ended without an answer".to_owned())),
        };
        self.appended += 1;
        let next = self.next_offsets.entry(written.partition).or_default();
        *next = (*next).max(written.offset + 1);
        Ok(())
    }

    fn save_if_due(&mut self) -> Result<(), Error> {
        if self.rows_since_save >= ROWS_BETWEEN_SAVES {
            self.save()?;
        }
        self.stop_if_asked()
    }

    fn stop_if_asked(&mut self) -> Result<(), Error> {
        if !self.monitor.is_stopped() {
            return Ok(());
        }
        // The next run starts at the last save and gives the events the same numbers, so it finds
        // the events written since then by their numbers.
        self.await_all()?;
        Err(Error::Stopped)
    }

    fn await_all(&mut self) -> Result<(), Error> {
        while !self.in_flight.is_empty() {
            self.await_oldest()?;
        }
        Ok(())
    }

    /// Awaits all acknowledgements and saves the progress. Buffered rows are emitted first. Saves
    /// happen only at points that the rows alone determine, so a resumed run groups the same rows
    /// into the same events.
    fn save(&mut self) -> Result<(), Error> {
        let events = self.people.flush().into_iter().chain(self.window.flush()).collect();
        self.emit(events)?;
        self.await_all()?;
        Input::ALL.into_iter().for_each(|input| self.count(input));
        self.progress.rejects_bytes = self.rejects.sync()?;
        self.rows_since_save = 0;
        if self.plan.dry_run {
            return Ok(());
        }
        let cursors = self.feeds.iter().map(|(input, feed)| (*input, feed.position()));
        self.progress.cursors = cursors.collect::<BTreeMap<Input, Position>>();
        for (partition, next) in &self.next_offsets {
            let end = &mut self.progress.ends[*partition as usize];
            *end = (*end).max(*next);
        }
        self.progress.save(&self.plan.progress)
    }
}
