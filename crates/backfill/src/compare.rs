//! The old system's tables, sorted so that a comparison with a running service needs little memory,
//! and the differences between the two. It asks no service: the caller does.
//!
//! Rows go into files by their message, each of about `BUCKET_BYTES`, and one file at a time is
//! in memory. Marks are all in memory, at about 200 bytes each.

use crate::Error;
use crate::columns::Input;
use crate::feed::{Feed, Position};
use crate::import::Plan;
use crate::rows::{Conversation, Reader};
use receipts_analytics::{ProgressMonitor, TemporaryFolder};
use receipts_event::UpTo;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::{BufRead as _, BufReader, BufWriter, Write as _};
use std::path::PathBuf;

/// The bytes of the tables per file of sorted rows; in memory they take about five times as much.
const BUCKET_BYTES: u64 = 16 << 20;
const BUCKETS_MAX: u64 = 512;

/// How the service and the tables differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DifferenceKind {
    /// The service does not have a message of the tables.
    MissingMessage,
    /// The service has the message without counts: recalled, not requested, unsupported, forbidden.
    NoReceipt,
    /// The tables say read, and the service says not read.
    MissingRead,
    /// The service says read, and the tables do not.
    ExtraRead,
    /// Both say read, at times further apart than the tolerance.
    TimeDiffers,
    /// The tables say read, and the reader is in no list of the message: not in its audience, or
    /// hidden if the message has hidden readers.
    NotInAudience,
    /// The tables say hidden, and the service names the reader.
    ShownThoughHidden,
    /// The service has no mark for a mark of the tables.
    MissingMark,
    /// The service's mark is earlier.
    MarkBehind,
    /// The service's mark is later.
    MarkAhead,
    /// A row of the tables cannot be read, so it was not compared.
    UnreadableRow,
}

impl std::fmt::Display for DifferenceKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// One difference. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its kind.
    pub kind: DifferenceKind,
    /// The tenant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tenant: String,
    /// The conversation.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub conversation_id: String,
    /// The message, unless it is about a mark.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// The reader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// The tables' time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub theirs_ms: Option<u64>,
    /// The service's time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ours_ms: Option<u64>,
    /// Anything else that helps: a status, a file and row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A read of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TheirRead {
    /// Its time; `None` if unknown.
    pub at_ms: Option<u64>,
    /// True if the reader must not be named.
    pub hidden: bool,
}

/// A mark of the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TheirMark {
    /// The last read message, if the mark names one.
    pub up_to_message_id: Option<String>,
    /// The time up to which messages are read, if the mark has one.
    pub up_to_sent_at_ms: Option<u64>,
    /// True if the reader must not be named.
    pub hidden: bool,
}

/// The reads of one message, by reader.
pub type Reads = BTreeMap<String, TheirRead>;
/// The marks of one conversation, by reader.
pub type Marks = BTreeMap<String, TheirMark>;
/// A conversation: tenant and id.
pub type Key = (String, String);

/// Conversations with their messages and reads.
pub type Conversations = BTreeMap<Key, BTreeMap<String, Reads>>;

/// A line of a sorted file: tenant, conversation, message, and the read if it is one.
type Line = (String, String, String, Option<(String, TheirRead)>);

/// The tables, sorted by message into files.
pub struct Tables {
    dir: TemporaryFolder,
    buckets: u64,
    /// Rows of messages and reads.
    pub rows: u64,
    /// The marks by conversation.
    pub marks: BTreeMap<Key, Marks>,
    /// The tenants of the rows.
    pub tenants: BTreeSet<String>,
}

impl Tables {
    /// Reads messages, reads and marks of a plan; members are not compared. `unreadable` gets each
    /// row that cannot be read.
    ///
    /// # Errors
    /// If a table or the temporary directory fails, or the monitor stops it.
    pub fn read(
        plan: &Plan,
        monitor: &dyn ProgressMonitor,
        unreadable: &mut dyn FnMut(Difference) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        crate::check(plan)?;
        let buckets = (crate::bytes(plan) / BUCKET_BYTES + 1).min(BUCKETS_MAX);
        let dir = TemporaryFolder::new()?;
        let mut tables = Self { dir, buckets, rows: 0, marks: BTreeMap::new(), tenants: BTreeSet::new() };
        let files: Result<Vec<_>, _> = (0..buckets).map(|number| File::create(tables.path(number))).collect();
        let files = files.map_err(Error::io("creating temporary files"))?;
        let mut files: Vec<BufWriter<File>> = files.into_iter().map(BufWriter::new).collect();
        for source in plan.sources.iter().filter(|source| source.input != Input::Members) {
            let reader = Reader::of(plan, source.input);
            let mut feed = Feed::open(plan, source, Position::default())?;
            while let Some(item) = feed.take()? {
                monitor.advanced(feed.counted().bytes);
                if monitor.is_stopped() {
                    return Err(Error::Stopped);
                }
                if let Err(reason) =
                    item.values.and_then(|values| tables.take(source.input, reader, &values, &mut files))
                {
                    let at = format!("{} row {}: {reason}", feed.path(&item.source).display(), item.source.number);
                    unreadable(Difference {
                        detail: Some(at),
                        ..difference(DifferenceKind::UnreadableRow, &Key::default())
                    })?;
                }
            }
        }
        for file in &mut files {
            file.flush().map_err(Error::io("writing temporary files"))?;
        }
        Ok(tables)
    }

    fn path(&self, bucket: u64) -> PathBuf {
        self.dir.path().join(format!("{bucket}.ndjson"))
    }

    fn take(
        &mut self,
        input: Input,
        reader: Reader<'_>,
        values: &serde_json::Map<String, serde_json::Value>,
        files: &mut [BufWriter<File>],
    ) -> Result<(), String> {
        let (conversation, message, read) = match input {
            Input::Members => return Ok(()),
            Input::Messages => {
                let message = reader.message(values)?;
                // Messages without a receipt are not compared.
                if !message.need_read_receipt || message.is_recalled {
                    return Ok(());
                }
                (message.conversation, message.message_id, None)
            }
            Input::Reads => {
                let Some(read) = reader.read(values)? else { return Ok(()) };
                let their = TheirRead { at_ms: read.read_at_ms, hidden: read.hidden };
                (read.conversation, read.message_id, Some((read.reader_id, their)))
            }
            Input::Marks => {
                let mark = reader.mark(values)?;
                let (message, sent_at) = match mark.up_to {
                    UpTo::Message(id) => (Some(id.into_owned()), None),
                    UpTo::SentAt(at) => (None, Some(at)),
                };
                let their = TheirMark { up_to_message_id: message, up_to_sent_at_ms: sent_at, hidden: mark.hidden };
                let Conversation { tenant, conversation_id } = mark.conversation;
                self.tenants.insert(tenant.clone());
                self.marks.entry((tenant, conversation_id)).or_default().insert(mark.reader_id, their);
                return Ok(());
            }
        };
        let Conversation { tenant, conversation_id } = conversation;
        if !self.tenants.contains(&tenant) {
            self.tenants.insert(tenant.clone());
        }
        let mut hasher = DefaultHasher::new();
        (&tenant, &conversation_id, &message).hash(&mut hasher);
        let file = &mut files[(hasher.finish() % self.buckets) as usize];
        let line: Line = (tenant, conversation_id, message, read);
        serde_json::to_writer(&mut *file, &line).map_err(|error| format!("writing a temporary file: {error}"))?;
        file.write_all(b"\n").map_err(|error| format!("writing a temporary file: {error}"))?;
        self.rows += 1;
        Ok(())
    }

    /// Returns the number of sorted files.
    pub fn buckets(&self) -> u64 {
        self.buckets
    }

    /// Returns a file's conversations with their messages and reads, and its number of rows.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn bucket(&self, number: u64) -> Result<(Conversations, u64), Error> {
        let failed = || Error::io(format!("reading {}", self.path(number).display()));
        let file = File::open(self.path(number)).map_err(failed())?;
        let (mut held, mut rows) = (Conversations::new(), 0);
        for line in BufReader::new(file).lines() {
            let line = line.map_err(failed())?;
            let (tenant, conversation, message, read): Line =
                serde_json::from_str(&line).map_err(|error| failed()(error.into()))?;
            let reads = held.entry((tenant, conversation)).or_default().entry(message).or_default();
            if let Some((reader, read)) = read {
                // Of two rows of one message and reader the first counts, as in an import.
                reads.entry(reader).or_insert(read);
            }
            rows += 1;
        }
        Ok((held, rows))
    }
}

/// Returns a difference without a message.
pub fn difference(kind: DifferenceKind, (tenant, conversation_id): &Key) -> Difference {
    Difference {
        kind,
        tenant: tenant.clone(),
        conversation_id: conversation_id.clone(),
        message_id: None,
        user_id: None,
        theirs_ms: None,
        ours_ms: None,
        detail: None,
    }
}

/// A message as the service answers it.
#[derive(Debug, Clone, Default)]
pub struct Ours {
    /// Its send time.
    pub sent_at_ms: u64,
    /// Open readers with times.
    pub read: BTreeMap<String, Option<u64>>,
    /// People who have not read it, departed ones included; `None` if the caller has not asked.
    pub unread: Option<BTreeSet<String>>,
    /// Hidden readers.
    pub hidden_count: u32,
}

/// Returns whether the lists of people who have not read are needed to compare a message.
pub fn needs_unread(reads: &Reads, marks: Option<&Marks>, read: &BTreeMap<String, Option<u64>>) -> bool {
    marks.is_some_and(|marks| !marks.is_empty()) || reads.keys().any(|reader| !read.contains_key(reader))
}

/// Compares a message. `marks` are those of its conversation: a mark at or after the message's send
/// time reads it. Reads of the service after `until_ms` are not compared.
pub fn compare(
    key: &Key,
    message_id: &str,
    reads: &Reads,
    marks: Option<&Marks>,
    ours: &Ours,
    (tolerance_ms, until_ms): (u64, u64),
) -> Vec<Difference> {
    let mut found = Vec::new();
    let mut add = |kind, user: &str, theirs_ms, ours_ms, detail| {
        let (message_id, user_id) = (Some(message_id.to_owned()), Some(user.to_owned()));
        found.push(Difference { message_id, user_id, theirs_ms, ours_ms, detail, ..difference(kind, key) });
    };
    let is_unread = |user: &str| ours.unread.as_ref().is_some_and(|unread| unread.contains(user));
    let covers = |mark: &TheirMark| mark.up_to_sent_at_ms.is_some_and(|up_to| up_to >= ours.sent_at_ms);
    for (user, their) in reads {
        match ours.read.get(user) {
            Some(at) if their.hidden => add(DifferenceKind::ShownThoughHidden, user, their.at_ms, *at, None),
            Some(at) => {
                // The service shows no read before the send.
                let wanted = their.at_ms.map(|at| at.max(ours.sent_at_ms));
                if let (Some(at), Some(wanted)) = (at, wanted)
                    && at.abs_diff(wanted) > tolerance_ms
                {
                    add(DifferenceKind::TimeDiffers, user, Some(wanted), Some(*at), None);
                }
            }
            None if is_unread(user) => add(DifferenceKind::MissingRead, user, their.at_ms, None, None),
            None if their.hidden && ours.hidden_count > 0 => {}
            None => {
                let hidden = ours.hidden_count;
                let detail = (hidden > 0).then(|| format!("or one of its {hidden} hidden readers"));
                add(DifferenceKind::NotInAudience, user, their.at_ms, None, detail);
            }
        }
    }
    for (user, mark) in marks.into_iter().flatten() {
        if !reads.contains_key(user) && covers(mark) && is_unread(user) {
            add(DifferenceKind::MissingRead, user, mark.up_to_sent_at_ms, None, Some("by its mark".to_owned()));
        }
    }
    for (user, at) in &ours.read {
        let is_marked = marks.and_then(|marks| marks.get(user)).is_some_and(covers);
        if !reads.contains_key(user) && !is_marked && at.is_none_or(|at| at <= until_ms) {
            add(DifferenceKind::ExtraRead, user, None, *at, None);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_difference_is_told_apart() {
        let read = |at, hidden| TheirRead { at_ms: Some(at), hidden };
        let reads: Reads = [
            ("same", read(1_000, false)),
            ("early", read(10, false)),
            ("late", read(9_000, false)),
            ("lost", read(1_000, false)),
            ("stranger", read(1_000, false)),
            ("hidden", read(1_000, true)),
            ("shown", read(1_000, true)),
        ]
        .map(|(user, read)| (user.to_owned(), read))
        .into();
        let mark = |up_to| TheirMark { up_to_message_id: None, up_to_sent_at_ms: Some(up_to), hidden: false };
        let marks: Marks = [("marked", mark(500)), ("behind", mark(400)), ("unread", mark(600))]
            .map(|(user, mark)| (user.to_owned(), mark))
            .into();
        let ours = Ours {
            sent_at_ms: 500,
            read: [
                ("same", 1_001),
                ("early", 500),
                ("late", 1_000),
                ("shown", 1_000),
                ("marked", 700),
                ("extra", 700),
                ("new", 8_000),
            ]
            .map(|(user, at)| (user.to_owned(), Some(at)))
            .into(),
            unread: Some(["lost", "unread", "behind"].map(str::to_owned).into()),
            hidden_count: 1,
        };
        let key = ("t".to_owned(), "c".to_owned());
        let found = compare(&key, "m", &reads, Some(&marks), &ours, (10, 5_000));
        let found: Vec<_> = found.iter().map(|found| (found.kind, found.user_id.as_deref().unwrap())).collect();
        use DifferenceKind::{ExtraRead, MissingRead, NotInAudience, ShownThoughHidden, TimeDiffers};
        let wanted = [
            (TimeDiffers, "late"),
            (MissingRead, "lost"),
            (ShownThoughHidden, "shown"),
            (NotInAudience, "stranger"),
            (MissingRead, "unread"),
            (ExtraRead, "extra"),
        ];
        assert_eq!(found, wanted);
    }
}
