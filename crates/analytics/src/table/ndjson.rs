//! Rows of a file with one JSON object per line.

use super::text::Text;
use super::{Cursor, Read};
use serde_json::Value;
use std::io::{self, BufRead};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub(super) struct NdjsonRows {
    reader: Box<dyn BufRead>,
    compressed: Option<Arc<AtomicU64>>,
    at: u64,
}

impl NdjsonRows {
    pub(super) fn open(path: &Path, cursor: Cursor) -> io::Result<Self> {
        let (reader, compressed) = Text::open(path, cursor.bytes)?.into_parts();
        Ok(Self { reader, compressed, at: cursor.bytes })
    }

    pub(super) fn read_bytes(&self, uncompressed: u64) -> u64 {
        Text::read_bytes(self.compressed.as_ref(), uncompressed)
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Read>> {
        loop {
            let mut line = Vec::new();
            let is_first = self.at == 0;
            let read = self.reader.read_until(b'\n', &mut line)?;
            if read == 0 {
                return Ok(None);
            }
            self.at += read as u64;
            let line = line.strip_prefix(b"\xef\xbb\xbf").filter(|_| is_first).unwrap_or(&line).trim_ascii();
            if line.is_empty() {
                continue;
            }
            let text = || Value::from(String::from_utf8_lossy(line));
            return Ok(Some(match serde_json::from_slice(line) {
                Ok(Value::Object(mut values)) => {
                    let original = Value::Object(values.clone());
                    values.retain(|_, value| !value.is_null());
                    (Ok(values), original, self.at)
                }
                Ok(_) => (
                    Err("is not a JSON object: write one object per line, without an array".to_owned()),
                    text(),
                    self.at,
                ),
                Err(error) => (Err(format!("is not JSON: {error}")), text(), self.at),
            }));
        }
    }
}
