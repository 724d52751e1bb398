//! Writes the sorted rows of a dataset to files that end at a size. Each file is complete or
//! absent. It sorts nothing.

use super::encode::Encoder;
use super::sort::{Codec, Hashing, Merge, Run};
use crate::Error;
use crate::export::Plan;
use crate::export::datasets::Dataset;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::path::Path;

/// Rows that are encoded at a time; a row group is a multiple of it.
pub(super) const BATCH_ROWS: usize = 8_192;
/// Bytes of rows after which fewer are encoded at a time.
const BATCH_BYTES: usize = 16 << 20;

/// A file of a dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::export) struct FileEntry {
    /// With its dataset's folder, as in `messages/part-00000.parquet`.
    pub(in crate::export) name: String,
    pub(in crate::export) rows: u64,
    pub(in crate::export) bytes: u64,
    pub(in crate::export) sha256: String,
}

/// Merges runs into the files of a dataset, at least one. Calls `advance` with rows as they are
/// written.
pub(super) fn write(
    dataset: Dataset,
    runs: Vec<Run>,
    folder: &Path,
    plan: &Plan,
    advance: &mut dyn FnMut(u64) -> Result<(), Error>,
) -> Result<Vec<FileEntry>, Error> {
    let codec = Codec::new(dataset);
    let mut merge = Merge::open(folder, runs, dataset.name(), &mut || advance(0))?;
    let mut files: Vec<FileEntry> = Vec::new();
    let mut rows = take(&mut merge)?;
    while !rows.is_empty() || files.is_empty() {
        let name = format!("{}/part-{:05}.{}", dataset.name(), files.len(), plan.format.ending());
        let local = folder.join("file.tmp");
        let failed = || Error::io(format!("encoding {}", plan.out.shown(&name)));
        let file = Hashing::new(File::create(&local).map_err(Error::io(format!("writing {}", local.display())))?);
        let mut encoder = Encoder::new(dataset, plan.format, file).map_err(failed())?;
        let mut file_rows = 0;
        while !rows.is_empty() {
            encoder.write(&codec.batch(&rows)).map_err(failed())?;
            file_rows += rows.len() as u64;
            advance(rows.len() as u64)?;
            rows = take(&mut merge)?;
            if encoder.may_end_at(plan.file_bytes) {
                break;
            }
        }
        let (_, bytes, sha256) = encoder.finish().map_err(failed())?.finish();
        plan.out.put_file(&name, &local)?;
        files.push(FileEntry { name, rows: file_rows, bytes, sha256 });
    }
    Ok(files)
}

fn take(merge: &mut Merge) -> Result<Vec<Vec<u8>>, Error> {
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while rows.len() < BATCH_ROWS && bytes < BATCH_BYTES {
        let Some(row) = merge.next()? else { break };
        bytes += row.len();
        rows.push(row);
    }
    Ok(rows)
}
