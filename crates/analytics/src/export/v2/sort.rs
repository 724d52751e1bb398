//! Sorts the rows of a dataset in bounded memory: sorted runs on disk, and their merge. A row is
//! bytes whose order is that of the sort columns, then of the others, so nothing ties. It knows
//! datasets only by their schema.

use crate::Error;
use crate::export::batch::{BatchBuilder, Value};
use crate::export::datasets::Dataset;
use arrow_array::RecordBatch;
use arrow_row::{RowConverter, SortField};
use receipts_event::hex;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

/// Bytes of rows that are sorted in memory at a time.
const RUN_BYTES: usize = 64 << 20;
/// Rows that are converted at a time.
const BATCH_ROWS: usize = 1_024;
/// Bytes of text after which fewer rows are converted: an event may have megabytes.
const BATCH_BYTES: usize = 8 << 20;
/// Runs that are merged at a time; each takes under a megabyte.
const FAN_IN: usize = 128;
/// zstd's fastest usual level: sorted rows shrink to a fifth.
const LEVEL: i32 = 1;

/// A sorted run on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Run {
    name: String,
    pub(super) rows: u64,
    sha256: String,
}

impl Run {
    /// Returns whether its file is there and complete.
    pub(super) fn is_held(&self, folder: &Path) -> Result<bool, Error> {
        let path = folder.join(&self.name);
        let check = || -> io::Result<bool> {
            let mut file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                file => file?,
            };
            let mut hash = Sha256::new();
            io::copy(&mut file, &mut hash)?;
            Ok(hex(&hash.finalize()) == self.sha256)
        };
        check().map_err(Error::io(format!("reading {}", path.display())))
    }

    pub(super) fn remove(&self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(&self.name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io(format!("removing {}", path.display()))(error))
            }
            _ => Ok(()),
        }
    }
}

/// Converts between batches and the bytes of rows.
pub(super) struct Codec {
    dataset: Dataset,
    converter: RowConverter,
    /// The columns in the order of the bytes: the sort columns first.
    columns: Vec<usize>,
}

impl Codec {
    pub(super) fn new(dataset: Dataset) -> Self {
        let sorted = dataset.order().iter().map(|name| dataset.index_of(name).expect("a column"));
        let mut columns: Vec<usize> = sorted.collect();
        columns
            .extend((0..dataset.columns().len()).filter(|at| !dataset.order().contains(&dataset.columns()[*at].name)));
        let schema = dataset.schema();
        let fields = columns.iter().map(|at| SortField::new(schema.field(*at).data_type().clone()));
        let converter = RowConverter::new(fields.collect()).expect("rows of plain types are supported");
        Self { dataset, converter, columns }
    }

    /// Makes a batch of rows.
    pub(super) fn batch(&self, rows: &[Vec<u8>]) -> RecordBatch {
        let parser = self.converter.parser();
        let rows = rows.iter().map(|row| parser.parse(row));
        let sorted = self.converter.convert_rows(rows).expect("rows of this converter");
        let mut columns = vec![None; sorted.len()];
        for (at, column) in self.columns.iter().zip(sorted) {
            columns[*at] = Some(column);
        }
        let columns = columns.into_iter().map(|column| column.expect("every column")).collect();
        RecordBatch::try_new(self.dataset.schema(), columns).expect("the columns of the schema")
    }
}

/// Sorts the rows of one dataset and partition into runs.
pub(super) struct Sorter<'a> {
    folder: &'a Path,
    /// The beginning of the runs' names.
    name: String,
    codec: Codec,
    batch: BatchBuilder,
    bytes: Vec<u8>,
    /// Start and end in `bytes`.
    rows: Vec<(u32, u32)>,
    runs: Vec<Run>,
}

impl<'a> Sorter<'a> {
    pub(super) fn new(dataset: Dataset, partition: u32, folder: &'a Path) -> Self {
        Self {
            folder,
            name: format!("{}-{partition:05}", dataset.name()),
            codec: Codec::new(dataset),
            batch: BatchBuilder::new(dataset),
            bytes: Vec::new(),
            rows: Vec::new(),
            runs: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, row: &[Value<'_>]) -> Result<(), Error> {
        self.batch.push(row);
        if self.batch.rows() == BATCH_ROWS || self.batch.text_bytes() >= BATCH_BYTES {
            self.convert();
            if self.bytes.len() > RUN_BYTES {
                self.spill()?;
            }
        }
        Ok(())
    }

    /// Writes the remaining rows and returns the runs; none if there was no row.
    pub(super) fn finish(mut self) -> Result<Vec<Run>, Error> {
        self.convert();
        if !self.rows.is_empty() {
            self.spill()?;
        }
        Ok(self.runs)
    }

    fn convert(&mut self) {
        let batch = self.batch.finish();
        let columns: Vec<_> = self.codec.columns.iter().map(|at| batch.column(*at).clone()).collect();
        let rows = self.codec.converter.convert_columns(&columns).expect("columns of this converter");
        for row in &rows {
            let start = self.bytes.len() as u32;
            self.bytes.extend_from_slice(row.as_ref());
            self.rows.push((start, self.bytes.len() as u32));
        }
    }

    fn spill(&mut self) -> Result<(), Error> {
        let of = |(start, end): (u32, u32)| &self.bytes[start as usize..end as usize];
        self.rows.sort_unstable_by(|a, b| of(*a).cmp(of(*b)));
        let mut run = RunWriter::create(self.folder, format!("{}-{:05}.run", self.name, self.runs.len()))?;
        self.rows.iter().try_for_each(|row| run.push(of(*row)))?;
        self.runs.push(run.finish()?);
        self.bytes.clear();
        self.rows.clear();
        Ok(())
    }
}

/// Writes a run: each row after its length, compressed.
struct RunWriter {
    path: PathBuf,
    while_made: PathBuf,
    name: String,
    rows: u64,
    to: zstd::Encoder<'static, Hashing<File>>,
}

impl RunWriter {
    fn create(folder: &Path, name: String) -> Result<Self, Error> {
        let path = folder.join(&name);
        let while_made = folder.join(format!("{name}.tmp"));
        let create = || zstd::Encoder::new(Hashing::new(File::create(&while_made)?), LEVEL);
        let to = create().map_err(Error::io(format!("writing {}", path.display())))?;
        Ok(Self { path, while_made, name, rows: 0, to })
    }

    fn push(&mut self, row: &[u8]) -> Result<(), Error> {
        self.rows += 1;
        let mut write = || {
            self.to.write_all(&(row.len() as u32).to_le_bytes())?;
            self.to.write_all(row)
        };
        write().map_err(Error::io(format!("writing {}", self.path.display())))
    }

    fn finish(self) -> Result<Run, Error> {
        let (path, while_made) = (self.path, self.while_made);
        let finish = || {
            let (_, _, sha256) = self.to.finish()?.finish();
            fs::rename(&while_made, &path)?;
            Ok(sha256)
        };
        let sha256 = finish().map_err(Error::io(format!("writing {}", path.display())))?;
        Ok(Run { name: self.name, rows: self.rows, sha256 })
    }
}

/// The rows of several runs in order.
pub(super) struct Merge {
    runs: Vec<RunReader>,
    /// The next row of each run that has one.
    next: BinaryHeap<Reverse<(Vec<u8>, usize)>>,
}

impl Merge {
    /// Opens runs. If there are too many, it merges some into longer ones first and removes those.
    pub(super) fn open(
        folder: &Path,
        mut runs: Vec<Run>,
        name: &str,
        each: &mut dyn FnMut() -> Result<(), Error>,
    ) -> Result<Self, Error> {
        for longer in 0.. {
            if runs.len() <= FAN_IN {
                break;
            }
            let rest = runs.split_off(FAN_IN);
            let mut merge = Self::open_all(folder, &runs)?;
            let mut to = RunWriter::create(folder, format!("{name}-merged-{longer:05}.run"))?;
            while let Some(row) = merge.next()? {
                to.push(&row)?;
                if to.rows.is_multiple_of(BATCH_ROWS as u64) {
                    each()?;
                }
            }
            let merged = to.finish()?;
            runs.iter().try_for_each(|run| run.remove(folder))?;
            runs = rest;
            runs.push(merged);
        }
        Self::open_all(folder, &runs)
    }

    fn open_all(folder: &Path, runs: &[Run]) -> Result<Self, Error> {
        let mut merge = Self { runs: Vec::new(), next: BinaryHeap::new() };
        for run in runs {
            let mut reader = RunReader::open(folder, run)?;
            if let Some(row) = reader.next()? {
                merge.next.push(Reverse((row, merge.runs.len())));
            }
            merge.runs.push(reader);
        }
        Ok(merge)
    }

    /// Returns the next row.
    pub(super) fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let Some(mut first) = self.next.peek_mut() else { return Ok(None) };
        let Reverse((row, run)) = &mut *first;
        match self.runs[*run].next()? {
            Some(next) => Ok(Some(std::mem::replace(row, next))),
            None => Ok(Some(PeekMut::pop(first).0.0)),
        }
    }
}

struct RunReader {
    path: PathBuf,
    from: zstd::Decoder<'static, BufReader<File>>,
    left: u64,
}

impl RunReader {
    fn open(folder: &Path, run: &Run) -> Result<Self, Error> {
        let path = folder.join(&run.name);
        let open = || zstd::Decoder::new(File::open(&path)?);
        let from = open().map_err(Error::io(format!("reading {}", path.display())))?;
        Ok(Self { path, from, left: run.rows })
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let mut read = || {
            let mut length = [0; 4];
            self.from.read_exact(&mut length)?;
            let mut row = vec![0; u32::from_le_bytes(length) as usize];
            self.from.read_exact(&mut row)?;
            Ok(Some(row))
        };
        read().map_err(Error::io(format!("reading {}", self.path.display())))
    }
}

/// Counts and hashes the bytes that it passes on.
pub(super) struct Hashing<W> {
    to: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Hashing<W> {
    pub(super) fn new(to: W) -> Self {
        Self { to, hash: Sha256::new(), bytes: 0 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the writer, the number of bytes, and their SHA-256 as hex.
    pub(super) fn finish(self) -> (W, u64, String) {
        (self.to, self.bytes, hex(&self.hash.finalize()))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::cast::AsArray as _;

    #[test]
    fn large_rows_are_sorted_in_bounded_memory() {
        const ROWS: i64 = 90;
        let folder = tempfile::tempdir().unwrap();
        let mut sorter = Sorter::new(Dataset::Events, 0, folder.path());
        let event = "x".repeat(1 << 20);
        for offset in (0..ROWS).rev() {
            let (text, number, time) = (Value::Text("t"), Value::Integer, Value::Time(0));
            sorter
                .push(&[
                    text,
                    Value::Day(0),
                    text,
                    number(0),
                    number(offset),
                    time,
                    text,
                    Value::Null,
                    Value::Text(&event),
                ])
                .unwrap();
            assert!(sorter.batch.text_bytes() < BATCH_BYTES, "{} rows wait", sorter.batch.rows());
            assert!(sorter.bytes.len() <= RUN_BYTES + 2 * BATCH_BYTES, "{} bytes wait", sorter.bytes.len());
        }
        let runs = sorter.finish().unwrap();
        assert!(runs.len() > 1, "{runs:?}");
        let mut merge = Merge::open(folder.path(), runs, "events", &mut || Ok(())).unwrap();
        let codec = Codec::new(Dataset::Events);
        let at = Dataset::Events.index_of("offset").unwrap();
        for offset in 0..ROWS {
            let row = codec.batch(&[merge.next().unwrap().unwrap()]);
            assert_eq!(row.column(at).as_primitive::<arrow_array::types::Int64Type>().value(0), offset);
        }
        assert_eq!(merge.next().unwrap(), None);
    }
}
