//! The import itself: members and messages side by side by time, then reads; events are numbered, appended in order and
//! awaited, and what is acknowledged is remembered every so often.

use crate::Error;
use crate::batch::{self, People, Window};
use crate::columns::{Columns, Input};
use crate::progress::Progress;
use crate::rejects::Rejects;
use crate::rows::{Member, Reader, Untimed};
use crate::written::{event_id, written};
use receipts_analytics::Watch;
use receipts_analytics::table::{Format, Place, Row, Table};
use receipts_event::{Event, partition_of};
use receipts_log::{Appended, Entry, Inspect, Topic, Writer};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

/// Events that are appended and not yet awaited.
const IN_FLIGHT_MAX: usize = 10_000;
/// Rows between two writings of the progress file.
const ROWS_BETWEEN_SAVES: u64 = 200_000;

/// A table to import.
#[derive(Debug, Clone)]
pub struct Source {
    /// What its rows are.
    pub input: Input,
    /// Where it is.
    pub path: PathBuf,
    /// How it is written.
    pub format: Format,
}

/// What is imported, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// At most one of each kind.
    pub sources: Vec<Source>,
    /// What their columns are called.
    pub columns: Columns,
    /// The tenant of rows that name none.
    pub tenant: String,
    /// What reads without a time are.
    pub untimed: Untimed,
    /// Judges all rows and writes nothing but the report of rejects.
    pub dry_run: bool,
    /// The progress file.
    pub progress: PathBuf,
    /// The report of rejects.
    pub rejects: PathBuf,
    /// Tells this import's events from others' where it begins: letters and digits, at most 64.
    pub run: String,
    /// The log's name, which must not change while an import goes on.
    pub log: String,
}

/// What an import has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows read, by table.
    pub rows: BTreeMap<Input, u64>,
    /// Rows that became no event, by table: they stand in the report.
    pub rejected: BTreeMap<Input, u64>,
    /// Rows of reads that say that somebody has not read a message.
    pub unread: u64,
    /// Rows of reads whose message and reader a row shortly before has.
    pub repeated: u64,
    /// Events, by type.
    pub events: BTreeMap<String, u64>,
}

/// What an import came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// Of the whole import, what was done before an interruption included.
    #[serde(flatten)]
    pub counts: Counts,
    /// Of this run: events that the log held already, from a run that was cut off.
    pub already_written: u64,
    /// Of this run: events appended and acknowledged.
    pub written: u64,
    /// Whether it went on from an earlier run.
    pub resumed: bool,
    /// By partition the offset behind the last event.
    pub next_offsets: BTreeMap<u32, u64>,
}

/// How many bytes there are to read.
///
/// # Errors
/// Where a table is not there.
pub fn bytes(plan: &Plan) -> Result<u64, Error> {
    let sizes = plan.sources.iter().map(|source| {
        let metadata = std::fs::metadata(&source.path);
        metadata.map(|m| m.len()).map_err(Error::io(format!("reading {}", source.path.display())))
    });
    sizes.sum()
}

/// Imports. What was interrupted goes on: nothing is lost, and no event stands twice in the log but one whose append was still on its way when the
/// process before was killed.
///
/// # Errors
/// Where a table, a file of our own or the log fail, or the watch stops it: [`Error`] says what to do.
pub fn import(log: &dyn Inspect, plan: &Plan, watch: &dyn Watch) -> Result<Done, Error> {
    let bounds = (0..log.partition_count()).map(|partition| log.bounds(Topic::Events, partition));
    let ends = bounds.map(|bounds| Ok(bounds?.end)).collect::<Result<Vec<u64>, Error>>()?;
    let held = if plan.dry_run { None } else { Progress::load(plan, ends.len())? };
    let resumed = held.is_some();
    let progress = held.map_or_else(|| Progress::begin(plan, ends), Ok)?;
    let mut import = Import::open(log, plan, watch, progress, resumed)?;
    if !import.progress.is_done {
        import.people_and_messages()?;
        import.reads()?;
        import.progress.is_done = true;
        import.save()?;
    }
    Ok(Done {
        counts: import.progress.counts,
        already_written: import.already_written,
        written: import.appended,
        resumed,
        next_offsets: import.next_offsets,
    })
}

struct Import<'a> {
    plan: &'a Plan,
    watch: &'a dyn Watch,
    writer: Arc<dyn Writer>,
    partitions: u32,
    tables: BTreeMap<Input, Table>,
    progress: Progress,
    rejects: Rejects,
    /// By partition the greatest number that the log holds already.
    held: Vec<u64>,
    in_flight: VecDeque<Appended>,
    rows_since_save: u64,
    people: People,
    window: Window,
    /// The row of members at hand, as read.
    member: Option<Member>,
    already_written: u64,
    appended: u64,
    next_offsets: BTreeMap<u32, u64>,
}

impl<'a> Import<'a> {
    fn open(
        log: &dyn Inspect,
        plan: &'a Plan,
        watch: &'a dyn Watch,
        progress: Progress,
        resumed: bool,
    ) -> Result<Self, Error> {
        let mut tables = BTreeMap::new();
        for Source { input, path, format } in &plan.sources {
            let place = progress.places.get(input).copied().unwrap_or_default();
            let table = Table::open(path, *format, place)?;
            if let Some(held) = table.columns() {
                plan.columns.check(*input, path, &held)?;
            }
            watch.skipped(place.bytes);
            tables.insert(*input, table);
        }
        let held = if resumed && !progress.is_done {
            written(log, &progress.run, &progress.ends, watch)?
        } else {
            vec![0; progress.ends.len()]
        };
        let rejects = Rejects::open(&plan.rejects, progress.rejects_bytes)?;
        if !plan.dry_run && !resumed {
            progress.save(&plan.progress)?;
        }
        Ok(Self {
            plan,
            watch,
            writer: log.writer(),
            partitions: log.partition_count(),
            tables,
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

    fn reader(&self) -> Reader<'a> {
        Reader { columns: &self.plan.columns, tenant: &self.plan.tenant, untimed: self.plan.untimed }
    }

    /// Rows of members and of messages; where members have times, each stands before the first message that is younger.
    fn people_and_messages(&mut self) -> Result<(), Error> {
        loop {
            let member_at = self.peek_member()?.map(|member| member.at_ms);
            let message = self.peek_message()?;
            let sent_at = message.as_ref().map(|message| message.sent_at_ms);
            match (member_at, message) {
                (None, None) => break,
                (Some(at), _) if at.is_none_or(|at| sent_at.is_none_or(|sent_at| at <= sent_at)) => {
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
                (Some(_), None) => unreachable!("without a message every member comes next"),
            }
            self.save_now_and_then()?;
        }
        let events = self.people.flush();
        self.emit(events)
    }

    /// The next row of members that says something.
    fn peek_member(&mut self) -> Result<Option<&Member>, Error> {
        while self.member.is_none() {
            let newest = self.progress.newest_ms.0;
            let reader = self.reader();
            let Some(row) = self.peek(Input::Members)? else { break };
            let member = row.values.as_ref().map_err(Clone::clone).and_then(|values| reader.member(values));
            match member {
                Ok(member) if member.at_ms.is_some_and(|at| at < newest) => {
                    self.reject(Input::Members, "at_ms is before that of a row above: sort the table by at_ms")?;
                }
                Ok(member) => self.member = Some(member),
                Err(reason) => self.reject(Input::Members, &reason)?,
            }
        }
        Ok(self.member.as_ref())
    }

    /// The next row of messages that says something.
    fn peek_message(&mut self) -> Result<Option<crate::rows::Message>, Error> {
        loop {
            let (members, newest) = self.progress.newest_ms;
            let reader = self.reader();
            let Some(row) = self.peek(Input::Messages)? else { return Ok(None) };
            let message = row.values.as_ref().map_err(Clone::clone).and_then(|values| reader.message(values));
            match message {
                // Members have times, so it would be given the roster of a later time.
                Ok(message) if members > 0 && message.sent_at_ms < newest => {
                    let reason = "sent_at_ms is before that of a row above: where members have at_ms, sort the table by sent_at_ms";
                    self.reject(Input::Messages, reason)?;
                }
                Ok(message) => return Ok(Some(message)),
                Err(reason) => self.reject(Input::Messages, &reason)?,
            }
        }
    }

    fn reads(&mut self) -> Result<(), Error> {
        loop {
            let reader = self.reader();
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
            self.save_now_and_then()?;
        }
        let events = self.window.flush();
        self.emit(events)
    }

    fn peek(&mut self, input: Input) -> Result<Option<&Row>, Error> {
        match self.tables.get_mut(&input) {
            None => Ok(None),
            Some(table) => Ok(table.peek()?),
        }
    }

    /// Goes on behind the row at hand.
    fn take(&mut self, input: Input) -> Result<Option<Row>, Error> {
        let Some(table) = self.tables.get_mut(&input) else { return Ok(None) };
        let before = table.place();
        let row = table.take()?;
        self.watch.advanced(table.place().bytes.saturating_sub(before.bytes));
        *self.progress.counts.rows.entry(input).or_default() += 1;
        self.rows_since_save += 1;
        Ok(row)
    }

    fn reject(&mut self, input: Input, reason: &str) -> Result<(), Error> {
        let source = self.plan.sources.iter().find(|source| source.input == input);
        if let (Some(row), Some(source)) = (self.take(input)?, source) {
            *self.progress.counts.rejected.entry(input).or_default() += 1;
            self.rejects.push(input, &source.path, &row, reason)?;
        }
        self.stop_or_go_on()
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
            Err(_) => return Err(Error::Append("the log dropped the append".to_owned())),
        };
        self.appended += 1;
        let next = self.next_offsets.entry(written.partition).or_default();
        *next = (*next).max(written.offset + 1);
        Ok(())
    }

    fn save_now_and_then(&mut self) -> Result<(), Error> {
        if self.rows_since_save >= ROWS_BETWEEN_SAVES {
            self.save()?;
        }
        self.stop_or_go_on()
    }

    fn stop_or_go_on(&mut self) -> Result<(), Error> {
        if !self.watch.is_stopped() {
            return Ok(());
        }
        // The next run begins where this one last remembered, and numbers the events from there as this one did: what was
        // written since is known by its numbers.
        self.await_all()?;
        Err(Error::Stopped)
    }

    fn await_all(&mut self) -> Result<(), Error> {
        while !self.in_flight.is_empty() {
            self.await_oldest()?;
        }
        Ok(())
    }

    /// Waits for everything and remembers it. What waits to be grouped goes out before: only at places that follow from the
    /// rows alone, so that a run that begins at the one before makes the same events of the same rows.
    fn save(&mut self) -> Result<(), Error> {
        let events = self.people.flush().into_iter().chain(self.window.flush()).collect();
        self.emit(events)?;
        self.await_all()?;
        self.progress.rejects_bytes = self.rejects.sync()?;
        self.rows_since_save = 0;
        if self.plan.dry_run {
            return Ok(());
        }
        let places = self.tables.iter().map(|(input, table)| (*input, table.place()));
        self.progress.places = places.collect::<BTreeMap<Input, Place>>();
        for (partition, next) in &self.next_offsets {
            let end = &mut self.progress.ends[*partition as usize];
            *end = (*end).max(*next);
        }
        self.progress.save(&self.plan.progress)
    }
}
