//! Rows of a CSV file. Quotes are doubled within quotes, as in RFC 4180; there are no escapes.

use super::text::Text;
use super::{Cursor, Options, Read, row_of_fields};
use std::io::{self, BufRead};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// The delimiters that a header line is searched for; of equally frequent ones the first counts.
const DELIMITERS: [u8; 4] = [b',', b';', b'\t', b'|'];

pub(super) struct CsvRows {
    reader: csv::Reader<Box<dyn BufRead>>,
    compressed: Option<Arc<AtomicU64>>,
    names: Vec<String>,
    null: Option<String>,
    /// The position at which `reader` began.
    base: u64,
    sniffed: Option<char>,
}

impl CsvRows {
    pub(super) fn open(path: &Path, options: &Options, cursor: Cursor) -> io::Result<Self> {
        let (delimiter, sniffed) = match (options.delimiter, &options.header) {
            (Some(delimiter), _) => (delimiter, None),
            (None, Some(_)) => (b',', None),
            (None, None) => {
                let found = sniff(path)?;
                (found, (found != b',').then(|| char::from(found)))
            }
        };
        let reader = |at: u64| -> io::Result<_> {
            let (reader, compressed) = Text::open(path, at)?.into_parts();
            let mut builder = csv::ReaderBuilder::new();
            let builder = builder.flexible(true).has_headers(false).delimiter(delimiter);
            Ok((builder.from_reader(reader), compressed))
        };
        let (names, first_row) = match &options.header {
            Some(names) => (names.clone(), 0),
            None => {
                let (mut reader, _) = reader(0)?;
                let mut line = csv::StringRecord::new();
                reader.read_record(&mut line)?;
                (line.iter().map(str::to_owned).collect(), reader.position().byte())
            }
        };
        let base = if cursor.rows > 0 { cursor.bytes } else { first_row };
        let (reader, compressed) = reader(base)?;
        Ok(Self { reader, compressed, names, null: options.null.clone(), base, sniffed })
    }

    pub(super) fn columns(&self) -> Option<Vec<String>> {
        (!self.names.is_empty()).then(|| self.names.clone())
    }

    pub(super) fn sniffed(&self) -> Option<char> {
        self.sniffed
    }

    pub(super) fn read_bytes(&self, uncompressed: u64) -> u64 {
        Text::read_bytes(self.compressed.as_ref(), uncompressed)
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Read>> {
        let mut record = csv::ByteRecord::new();
        if !self.reader.read_byte_record(&mut record)? {
            return Ok(None);
        }
        let bytes = self.base + self.reader.position().byte();
        if record.iter().any(|field| std::str::from_utf8(field).is_err()) {
            let shown = record.iter().map(String::from_utf8_lossy).collect::<Vec<_>>();
            return Ok(Some((Err("is not UTF-8".to_owned()), shown.into(), bytes)));
        }
        let fields = record.iter().map(|field| {
            let field = String::from_utf8_lossy(field).into_owned();
            Some(field).filter(|field| self.null.as_ref() != Some(field))
        });
        Ok(Some(row_of_fields(&self.names, fields.collect(), bytes)))
    }
}

/// Returns the delimiter that the first line has most often outside of quotes.
fn sniff(path: &Path) -> io::Result<u8> {
    let mut line = Vec::new();
    let (mut reader, _) = Text::open(path, 0)?.into_parts();
    io::Read::take(&mut reader, 1 << 16).read_until(b'\n', &mut line)?;
    let mut counts = [0_usize; DELIMITERS.len()];
    let mut is_quoted = false;
    for byte in line {
        match DELIMITERS.iter().position(|delimiter| *delimiter == byte) {
            _ if byte == b'"' => is_quoted = !is_quoted,
            Some(at) if !is_quoted => counts[at] += 1,
            _ => {}
        }
    }
    let most = (0..DELIMITERS.len()).rev().max_by_key(|at| counts[*at]).unwrap_or(0);
    Ok(DELIMITERS[most])
}
