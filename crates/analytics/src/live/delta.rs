//! One Delta table: its versions, its data files, and commits. The only module that knows the
//! table format's library. It does not know datasets, ranges or the log.

use super::stamp::Stamp;
use crate::Error;
use arrow_array::{Array as _, Int64Array, RecordBatch, StringArray, StructArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use delta_kernel::committer::FileSystemCommitter;
use delta_kernel::engine::arrow_conversion::TryIntoKernel as _;
use delta_kernel::engine::arrow_data::ArrowEngineData;
use delta_kernel::engine_data::FilteredEngineData;
use delta_kernel::expressions::ColumnName;
use delta_kernel::schema::StructType;
use delta_kernel::transaction::create_table::create_table;
use delta_kernel::transaction::{CommitResult, Imperative, Transaction, UpdateTableOperation};
use delta_kernel::{FileMeta, KernelError, Snapshot, SnapshotRef};
use delta_kernel_default_engine::executor::tokio::TokioMultiThreadExecutor;
use delta_kernel_default_engine::parquet::DataFileMetadata;
use delta_kernel_default_engine::stats::FileStatsAccumulator;
use delta_kernel_default_engine::{DefaultEngine, DefaultEngineBuilder, build_add_file_metadata};
use receipts_objects::Destination;
use std::collections::BTreeSet;
use std::io::Read as _;
use std::sync::Arc;
use url::Url;

/// Who writes, as the commits say it.
const ENGINE: &str = concat!("receipts/", env!("CARGO_PKG_VERSION"));
/// The domain whose metadata is the newest [`Stamp`].
const DOMAIN: &str = "receipts.live";
/// Columns with a least and a greatest value per file. None of them names a person, because the log
/// of the table keeps these values.
const INDEXED: [&str; 6] = ["tenant", "day", "conversation_id", "message_id", "sent_at", "recorded_at"];
/// A version between two checkpoints costs readers one more request.
const CHECKPOINT_VERSIONS: u64 = 20;

/// A table, at its newest version as far as this process knows.
pub(super) struct Delta {
    engine: DefaultEngine<TokioMultiThreadExecutor>,
    destination: Destination,
    folder: String,
    root: Url,
    snapshot: Option<SnapshotRef>,
}

/// A data file of the newest version.
pub(super) struct Active {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) modified_ms: u64,
}

/// A data file that was written for a commit.
pub(super) struct Written {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) stats: StructArray,
}

/// A version as its commit describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// Its number.
    pub version: u64,
    /// When it was committed, Unix milliseconds.
    pub committed_ms: u64,
    /// The position token that it stands for; `None` if another program made the version.
    pub position: Option<String>,
    /// The number of erasures that its rows respect.
    pub(super) erasures: u64,
    /// Data files that the commit added.
    pub(super) added: Vec<String>,
}

/// Collects a file's least and greatest values.
pub(super) struct Stats(FileStatsAccumulator);

impl Stats {
    pub(super) fn new(schema: &SchemaRef) -> Result<Self, Error> {
        let kernel = in_kernel(schema)?;
        let columns: Vec<ColumnName> = indexed(schema).map(|name| ColumnName::new([name])).collect();
        Ok(Self(FileStatsAccumulator::new(&columns, &kernel)))
    }

    pub(super) fn add(&mut self, batch: &RecordBatch) -> Result<(), Error> {
        self.0.merge(batch).map_err(|error| failed("computing statistics", error))
    }

    pub(super) fn finish(self) -> Result<StructArray, Error> {
        let stats = self.0.finish().map_err(|error| failed("computing statistics", error))?;
        stats.ok_or_else(|| failed("computing statistics", "there are no rows"))
    }
}

/// Returns a schema in the library's types.
fn in_kernel(schema: &SchemaRef) -> Result<StructType, Error> {
    schema.as_ref().try_into_kernel().map_err(|error| failed("reading a schema", error))
}

fn indexed(schema: &SchemaRef) -> impl Iterator<Item = &'static str> {
    INDEXED.into_iter().filter(|name| schema.column_with_name(name).is_some())
}

fn failed(doing: impl Into<String>, error: impl ToString) -> Error {
    Error::Table { doing: doing.into(), detail: error.to_string() }
}

impl Delta {
    /// Opens the table in a folder of the destination; it may not exist yet.
    pub(super) fn open(destination: &Destination, folder: &str) -> Result<Self, Error> {
        let (store, root) = destination.store(folder)?;
        let executor = TokioMultiThreadExecutor::new_owned_runtime(Some(1), Some(2));
        let executor = executor.map_err(|error| failed("starting a thread", error))?;
        let engine = DefaultEngineBuilder::new(store).with_task_executor(Arc::new(executor)).build();
        let mut table =
            Self { engine, destination: destination.clone(), folder: folder.to_owned(), root, snapshot: None };
        if !table.commits()?.is_empty() {
            table.snapshot = Some(table.at(None)?);
        }
        Ok(table)
    }

    /// Returns the path or URL, for messages.
    pub(super) fn shown(&self) -> String {
        self.destination.location(&self.folder)
    }

    fn failed(&self, doing: &str, error: KernelError) -> Error {
        failed(format!("{doing} {}", self.shown()), error)
    }

    fn at(&self, version: Option<u64>) -> Result<SnapshotRef, Error> {
        let mut builder = Snapshot::builder_for(self.root.as_str());
        if let Some(version) = version {
            builder = builder.at_version(version);
        }
        builder.build(&self.engine).map_err(|error| self.failed("opening", error))
    }

    /// Returns the newest version, if the table exists.
    pub(super) fn version(&self) -> Option<u64> {
        self.snapshot.as_ref().map(|snapshot| snapshot.version())
    }

    /// Returns what the newest version stands for.
    pub(super) fn stamp(&self) -> Result<Option<Stamp>, Error> {
        let Some(snapshot) = &self.snapshot else { return Ok(None) };
        let json = snapshot.get_domain_metadata(DOMAIN, &self.engine).map_err(|error| self.failed("reading", error))?;
        Ok(json.and_then(|json| serde_json::from_str(&json).ok()))
    }

    /// Returns whether the table has exactly the columns of a schema.
    pub(super) fn has_columns(&self, schema: &SchemaRef) -> Result<bool, Error> {
        let wanted = in_kernel(schema)?;
        let columns = |schema: &StructType| -> Vec<String> {
            schema
                .fields()
                .map(|field| format!("{} {:?} {}", field.name(), field.data_type(), field.nullable))
                .collect()
        };
        Ok(self.snapshot.as_ref().is_none_or(|snapshot| columns(&snapshot.schema()) == columns(&wanted)))
    }

    /// Lists the data files of the newest version, or of an older one.
    pub(super) fn active(&self, version: Option<u64>) -> Result<Vec<Active>, Error> {
        let mut active = Vec::new();
        let snapshot = match version {
            Some(version) => self.at(Some(version))?,
            None => match &self.snapshot {
                Some(snapshot) => Arc::clone(snapshot),
                None => return Ok(active),
            },
        };
        self.scanned(&snapshot, &mut |rows, selected| {
            let (names, bytes, modified) =
                (texts(&rows, "path")?, numbers(&rows, "size")?, numbers(&rows, "modificationTime")?);
            active.extend(selected.iter().enumerate().filter(|(_, selected)| **selected).map(|(at, _)| Active {
                name: names.value(at).to_owned(),
                bytes: bytes.value(at).unsigned_abs(),
                modified_ms: modified.value(at).unsigned_abs(),
            }));
            Ok(())
        })?;
        Ok(active)
    }

    fn scanned(
        &self,
        snapshot: &SnapshotRef,
        each: &mut dyn FnMut(RecordBatch, Vec<bool>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let scan = Arc::clone(snapshot).scan_builder().build().map_err(|error| self.failed("reading", error))?;
        for metadata in scan.scan_metadata(&self.engine).map_err(|error| self.failed("reading", error))? {
            let (data, mut selected) = metadata.map_err(|error| self.failed("reading", error))?.scan_files.into_parts();
            let data = ArrowEngineData::try_from_engine_data(data).map_err(|error| self.failed("reading", error))?;
            let rows = data.record_batch().clone();
            // Rows beyond the selection are selected.
            selected.resize(rows.num_rows(), true);
            each(rows, selected)?;
        }
        Ok(())
    }

    /// Commits a version: adds files and removes others. The first version makes the table.
    pub(super) fn commit(
        &mut self,
        schema: &SchemaRef,
        stamp: &Stamp,
        added: &[Written],
        removed: &BTreeSet<String>,
        now_ms: u64,
    ) -> Result<u64, Error> {
        let committer = Box::new(FileSystemCommitter::new());
        let shown = self.shown();
        let wrong = |error: KernelError| failed(format!("writing {shown}"), error);
        let committed = match self.snapshot.clone() {
            None => {
                self.destination.make_folder(&self.folder)?;
                let kernel = in_kernel(schema)?;
                let columns: Vec<&str> = indexed(schema).collect();
                let properties = [
                    ("delta.feature.domainMetadata".to_owned(), "supported".to_owned()),
                    ("delta.dataSkippingStatsColumns".to_owned(), columns.join(",")),
                    // This process removes old versions itself, in step with the data files.
                    ("delta.enableExpiredLogCleanup".to_owned(), "false".to_owned()),
                ];
                let transaction = create_table(self.root.as_str(), Arc::new(kernel), ENGINE, true)
                    .with_table_properties(properties)
                    .build(&self.engine, committer)
                    .map_err(wrong)?;
                let transaction = self.stamped(self.with_files(transaction, added, now_ms)?, stamp)?;
                outcome(transaction.commit(&self.engine).map_err(wrong)?, &shown)?
            }
            Some(snapshot) => {
                let mut transaction = Arc::clone(&snapshot)
                    .update_table(UpdateTableOperation::Write, ENGINE, true)
                    .build(&self.engine, committer)
                    .map_err(wrong)?;
                if !removed.is_empty() {
                    self.scanned(&snapshot, &mut |rows, mut selected| {
                        let names = texts(&rows, "path")?;
                        for (at, selected) in selected.iter_mut().enumerate() {
                            *selected = *selected && removed.contains(names.value(at));
                        }
                        if selected.contains(&true) {
                            let data = Box::new(ArrowEngineData::new(rows));
                            transaction.remove_files(FilteredEngineData::try_new(data, selected).map_err(&wrong)?);
                        }
                        Ok(())
                    })?;
                }
                let transaction = self.stamped(self.with_files(transaction, added, now_ms)?, stamp)?;
                outcome(transaction.commit(&self.engine).map_err(wrong)?, &shown)?
            }
        };
        let (version, snapshot) = committed;
        self.snapshot = Some(match snapshot {
            Some(snapshot) => snapshot,
            None => self.at(None)?,
        });
        if version % CHECKPOINT_VERSIONS == CHECKPOINT_VERSIONS - 1 {
            self.checkpoint(None)?;
        }
        Ok(version)
    }

    fn with_files<S>(
        &self,
        mut transaction: Transaction<S, Imperative>,
        added: &[Written],
        now_ms: u64,
    ) -> Result<Transaction<S, Imperative>, Error> {
        if added.is_empty() {
            return Ok(transaction);
        }
        let wrong = |error: KernelError| self.failed("writing", error);
        let context = transaction.write_state().map_err(wrong)?.write_context_builder().build().map_err(wrong)?;
        for file in added {
            let location = self.root.join(&file.name).map_err(|error| failed("naming a file", error))?;
            let meta = FileMeta::new(location, i64::try_from(now_ms).unwrap_or(i64::MAX), file.bytes);
            let metadata = DataFileMetadata::new(meta, file.stats.clone());
            transaction.add_files(build_add_file_metadata(metadata, &context).map_err(wrong)?);
        }
        Ok(transaction)
    }

    /// Adds the position to a commit: for the next process as the domain's metadata, and for people
    /// as the commit's `userMetadata`, which `DESCRIBE HISTORY` shows.
    fn stamped<S>(
        &self,
        transaction: Transaction<S, Imperative>,
        stamp: &Stamp,
    ) -> Result<Transaction<S, Imperative>, Error> {
        let schema: SchemaRef = Arc::new(Schema::new(vec![Field::new("userMetadata", DataType::Utf8, true)]));
        let kernel = in_kernel(&schema)?;
        let row = RecordBatch::try_new(schema, vec![Arc::new(StringArray::from(vec![stamp.for_people()]))]);
        let row = row.map_err(|error| failed("describing a version", error))?;
        let json = serde_json::to_string(stamp).expect("a stamp has string keys only");
        Ok(transaction
            .with_commit_info(Box::new(ArrowEngineData::new(row)), Arc::new(kernel))
            .with_domain_metadata(DOMAIN.to_owned(), json))
    }

    /// Writes a checkpoint of the newest version, or of an older one.
    pub(super) fn checkpoint(&mut self, version: Option<u64>) -> Result<(), Error> {
        let snapshot = match (version, &self.snapshot) {
            (None, Some(snapshot)) => Arc::clone(snapshot),
            _ => self.at(version)?,
        };
        let written =
            snapshot.checkpoint(&self.engine, None).map_err(|error| self.failed("writing a checkpoint of", error))?;
        if version.is_none() {
            self.snapshot = Some(written.1);
        }
        Ok(())
    }

    /// Reads the newest version anew, from the commits and checkpoints that are there.
    pub(super) fn reopen(&mut self) -> Result<(), Error> {
        self.snapshot = Some(self.at(None)?);
        Ok(())
    }

    /// Lists the versions whose commits are there, in order: number and name of the commit's file.
    pub(super) fn commits(&self) -> Result<Vec<(u64, String)>, Error> {
        let listed = self.destination.list(&format!("{}/_delta_log", self.folder))?;
        let number = |name: &str| name.rsplit('/').next()?.strip_suffix(".json")?.parse::<u64>().ok();
        Ok(listed.into_iter().filter_map(|object| Some((number(&object.name)?, object.name))).collect())
    }

    /// Reads a commit.
    pub(super) fn read_commit(&self, version: u64, name: &str) -> Result<Version, Error> {
        let mut text = String::new();
        let read = self.destination.read(name)?.read_to_string(&mut text);
        read.map_err(Error::io(format!("reading {}", self.destination.location(name))))?;
        let mut read = Version { version, committed_ms: 0, position: None, erasures: 0, added: Vec::new() };
        for line in text.lines() {
            let action: serde_json::Value = serde_json::from_str(line)
                .map_err(|error| failed(format!("reading {}", self.destination.location(name)), error))?;
            if let Some(name) = action["add"]["path"].as_str() {
                read.added.push(name.to_owned());
            }
            let info = &action["commitInfo"];
            if let Some(ms) = info["timestamp"].as_u64() {
                read.committed_ms = ms;
            }
            if let Some(stamp) = info["userMetadata"].as_str().and_then(super::stamp::UserMetadata::parse) {
                read.position = Some(stamp.position);
                read.erasures = stamp.erasures;
            }
        }
        Ok(read)
    }

    /// Lists every object of the table's folder.
    pub(super) fn objects(&self) -> Result<Vec<receipts_objects::Object>, Error> {
        Ok(self.destination.list(&self.folder)?)
    }

    /// Removes an object by its listed name.
    pub(super) fn delete(&self, name: &str) -> Result<(), Error> {
        Ok(self.destination.delete(name)?)
    }

    /// Removes files of a directory whose writing a kill cut short, once they are old enough.
    pub(super) fn sweep_staged(&self, grace_ms: u64, now_ms: u64) -> Result<(), Error> {
        Ok(self.destination.sweep_staged(&self.folder, now_ms.saturating_sub(grace_ms))?)
    }

    /// Uploads a data file.
    pub(super) fn put(&self, name: &str, file: &std::path::Path) -> Result<(), Error> {
        self.destination.put_file(&format!("{}/{name}", self.folder), file, &mut |_| {})?;
        Ok(())
    }
}

fn outcome<S: std::fmt::Debug>(
    result: CommitResult<S, Imperative>,
    shown: &str,
) -> Result<(u64, Option<SnapshotRef>), Error> {
    match result {
        CommitResult::Committed(done) => Ok((done.commit_version(), done.post_commit_snapshot().cloned())),
        CommitResult::Conflicted(conflict) => Err(Error::Refused(format!(
            "another process wrote version {} of {shown} meanwhile: one `receipts export --follow` writes a folder",
            conflict.conflict_version()
        ))),
        CommitResult::Retryable(retry) => Err(failed(format!("writing {shown}"), retry.error)),
    }
}

fn texts(rows: &RecordBatch, column: &str) -> Result<StringArray, Error> {
    let array = rows.column_by_name(column).and_then(|array| array.as_any().downcast_ref::<StringArray>());
    array.cloned().ok_or_else(|| failed("reading a table's files", format!("there is no text column {column}")))
}

fn numbers(rows: &RecordBatch, column: &str) -> Result<Int64Array, Error> {
    let array = rows.column_by_name(column).and_then(|array| array.as_any().downcast_ref::<Int64Array>());
    array.cloned().ok_or_else(|| failed("reading a table's files", format!("there is no number column {column}")))
}
