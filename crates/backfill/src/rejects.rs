//! The report of rejects: one line of JSON per rejected row, with file, row number, reason and
//! content.

use crate::Error;
use crate::columns::Input;
use receipts_analytics::table::Row;
use serde::Serialize;
use serde_json::Value;
use std::fs::OpenOptions;
use std::io::{BufWriter, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct Reject<'a> {
    table: Input,
    file: &'a Path,
    row: u64,
    reason: &'a str,
    original: &'a Value,
}

/// The open report.
pub(crate) struct Rejects {
    path: PathBuf,
    file: Option<BufWriter<std::fs::File>>,
    /// The length of this import's part of the file.
    bytes: u64,
}

impl Rejects {
    /// Opens the report and truncates it to `bytes`. The first reject creates the file.
    pub(crate) fn open(path: &Path, bytes: u64) -> Result<Self, Error> {
        let mut rejects = Self { path: path.to_owned(), file: None, bytes };
        if bytes > 0 || path.exists() {
            rejects.file()?;
        }
        Ok(rejects)
    }

    fn file(&mut self) -> Result<&mut BufWriter<std::fs::File>, Error> {
        if self.file.is_none() {
            let mut open = || -> std::io::Result<std::fs::File> {
                let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(&self.path)?;
                self.bytes = self.bytes.min(file.metadata()?.len());
                file.set_len(self.bytes)?;
                file.seek(SeekFrom::Start(self.bytes))?;
                Ok(file)
            };
            let file = open().map_err(Error::io(format!("writing {}", self.path.display())))?;
            self.file = Some(BufWriter::new(file));
        }
        Ok(self.file.as_mut().expect("just opened"))
    }

    pub(crate) fn push(&mut self, input: Input, file: &Path, row: &Row, reason: &str) -> Result<(), Error> {
        let reject = Reject { table: input, file, row: row.number, reason, original: &row.original };
        let mut line = serde_json::to_vec(&reject).expect("a reject has string keys only");
        line.push(b'\n');
        let doing = format!("writing {}", self.path.display());
        self.file()?.write_all(&line).map_err(Error::io(doing))?;
        self.bytes += line.len() as u64;
        Ok(())
    }

    /// Syncs the report to the disk and returns its length.
    pub(crate) fn sync(&mut self) -> Result<u64, Error> {
        let doing = format!("writing {}", self.path.display());
        if let Some(file) = &mut self.file {
            file.flush().and_then(|()| file.get_ref().sync_data()).map_err(Error::io(doing))?;
        }
        Ok(self.bytes)
    }
}
