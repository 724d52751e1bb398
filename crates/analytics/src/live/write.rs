//! Writes the rows of a range of pages as data files: to the temporary directory first, because
//! their names hold their digests. Holds at most one row group of a file in memory.

use super::changes::{PAGE, Subject, name_hash};
use super::delta::{Delta, Stats, Written};
use super::ranges::{DataFile, Rewrite};
use super::rows::{self, Batches, Message, Sink};
use crate::export::Dataset;
use crate::export::batch::Value;
use crate::export::parquet_properties;
use crate::{Error, ProgressMonitor};
use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use parquet::arrow::ArrowWriter;
use receipts_event::hex;
use receipts_projection::partition::Fold;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;
use tempfile::NamedTempFile;

/// A file with more conversations than this may hold any conversation, as far as this process
/// knows.
const CONVERSATIONS_MAX: usize = 50_000;

/// Where a range's rows come from and go to.
pub(super) struct Writer<'a> {
    pub(super) state: &'a Fold,
    pub(super) partition: u32,
    pub(super) dataset: Dataset,
    pub(super) schema: SchemaRef,
    pub(super) table: &'a Delta,
    /// Where files are made.
    pub(super) folder: &'a Path,
    pub(super) now_ms: u64,
    pub(super) monitor: &'a dyn ProgressMonitor,
}

/// A file that is being written.
struct Open {
    to: ArrowWriter<File>,
    temporary: NamedTempFile,
    stats: Stats,
    batches: Batches,
    first_page: u64,
    oldest_ms: u64,
    conversations: Option<BTreeSet<u64>>,
}

impl Writer<'_> {
    /// Writes a range. Files whose bytes `held` has already are not uploaded again. Returns the
    /// files of the range, and those of them that a commit must add.
    pub(super) fn write(&self, rewrite: &Rewrite, held: &[DataFile]) -> Result<(Vec<DataFile>, Vec<Written>), Error> {
        let (mut files, mut written) = (Vec::new(), Vec::new());
        let mut rows = Rows { writer: self, open: None, first_page: rewrite.pages.start, message: None };
        for page in rewrite.pages.clone() {
            if self.monitor.is_stopped() {
                return Err(Error::Stopped);
            }
            let numbers = page * PAGE..(page + 1) * PAGE;
            rows::make(self.state, self.partition, self.dataset, numbers, self.monitor, &mut rows)?;
            rows.message = None;
            if rows.open.as_ref().is_some_and(|file| file.bytes() >= rewrite.file_bytes) {
                self.close(rows.open.take(), page + 1, held, &mut files, &mut written)?;
                rows.first_page = page + 1;
            }
        }
        self.close(rows.open.take(), rewrite.pages.end, held, &mut files, &mut written)?;
        Ok((files, written))
    }

    fn open(&self, first_page: u64) -> Result<Open, Error> {
        let temporary = NamedTempFile::new_in(self.folder).map_err(Error::io("creating a temporary file"))?;
        let file = temporary.reopen().map_err(Error::io("opening a temporary file"))?;
        // Rows stand in the log's order, and not in the order of an export.
        let properties = parquet_properties(self.dataset).into_builder().set_sorting_columns(None).build();
        let to = ArrowWriter::try_new(file, self.schema.clone(), Some(properties)).map_err(encoding)?;
        let conversations = (rows::subject(self.dataset) == Subject::Messages).then(BTreeSet::new);
        let (stats, batches) = (Stats::new(&self.schema)?, Batches::new(self.dataset));
        Ok(Open { to, temporary, stats, batches, first_page, oldest_ms: u64::MAX, conversations })
    }

    fn close(
        &self,
        open: Option<Open>,
        end_page: u64,
        held: &[DataFile],
        files: &mut Vec<DataFile>,
        written: &mut Vec<Written>,
    ) -> Result<(), Error> {
        let Some(mut open) = open else { return Ok(()) };
        if let Some(batch) = open.batches.rest()? {
            open.add(&batch)?;
        }
        let Open { to, temporary, stats, first_page, oldest_ms, conversations, .. } = open;
        to.close().map_err(encoding)?;
        let mut hash = Sha256::new();
        let mut bytes = File::open(temporary.path()).map_err(Error::io("reading a temporary file"))?;
        let length = io::copy(&mut bytes, &mut hash).map_err(Error::io("reading a temporary file"))?;
        let digest = hex(&hash.finalize()[..8]);
        let mut file = DataFile {
            partition: self.partition,
            pages: first_page..end_page,
            oldest_ms,
            digest,
            bytes: length,
            written_ms: self.now_ms,
            conversations,
        };
        match held.iter().find(|held| held.name() == file.name()) {
            Some(same) => file.written_ms = same.written_ms,
            None => {
                self.table.put(&file.name(), temporary.path())?;
                written.push(Written { name: file.name(), bytes: length, stats: stats.finish()? });
            }
        }
        files.push(file);
        Ok(())
    }
}

/// The rows of one range on their way to files.
struct Rows<'w, 'a> {
    writer: &'w Writer<'a>,
    open: Option<Open>,
    first_page: u64,
    message: Option<Message>,
}

impl Sink for Rows<'_, '_> {
    fn message(&mut self, message: Message) {
        self.message = Some(message);
    }

    fn row(&mut self, row: &[Value<'_>]) -> Result<(), Error> {
        if self.open.is_none() {
            self.open = Some(self.writer.open(self.first_page)?);
        }
        let file = self.open.as_mut().expect("just opened");
        // Once a message, with its first row.
        if let Some(message) = self.message.take() {
            file.note(&message);
        }
        match file.batches.add(row)? {
            Some(batch) => file.add(&batch),
            None => Ok(()),
        }
    }
}

impl Open {
    fn note(&mut self, message: &Message) {
        self.oldest_ms = self.oldest_ms.min(message.timestamp_ms);
        if let Some(known) = &mut self.conversations {
            known.insert(name_hash(&message.tenant, &message.conversation_id));
            if known.len() > CONVERSATIONS_MAX {
                self.conversations = None;
            }
        }
    }

    fn add(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        self.stats.add(batch)?;
        self.to.write(batch).map_err(encoding)
    }

    fn bytes(&self) -> u64 {
        (self.to.bytes_written() + self.to.in_progress_size()) as u64
    }
}

fn encoding(error: parquet::errors::ParquetError) -> Error {
    Error::io("encoding a data file")(io::Error::other(error))
}
