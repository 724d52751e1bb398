//! Rows of the text that PostgreSQL's COPY writes (its documentation of COPY, "Text Format"): one
//! line per row, tabs, `\N` for null, backslash escapes, and perhaps `\.` at the end.

use super::text::Text;
use super::{Cursor, Options, Read, invalid, row_of_fields};
use serde_json::Value;
use std::io::{self, BufRead};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

pub(super) struct CopyRows {
    reader: Box<dyn BufRead>,
    compressed: Option<Arc<AtomicU64>>,
    names: Vec<String>,
    delimiter: u8,
    null: Option<String>,
    at: u64,
}

impl CopyRows {
    pub(super) fn open(path: &Path, options: &Options, cursor: Cursor) -> io::Result<Self> {
        let (reader, compressed) = Text::open(path, 0)?.into_parts();
        let (delimiter, null) = (options.delimiter.unwrap_or(b'\t'), options.null.clone());
        let mut rows = Self { reader, compressed, names: Vec::new(), delimiter, null, at: 0 };
        rows.names = match &options.header {
            Some(names) => names.clone(),
            None => {
                let line = rows.line()?.unwrap_or_default();
                let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line);
                let names = rows.fields(line).map_err(|why| invalid(format!("the header line {why}")))?;
                if line.is_empty() { Vec::new() } else { names.into_iter().map(Option::unwrap_or_default).collect() }
            }
        };
        if cursor.rows > 0 {
            rows.at = cursor.bytes;
            (rows.reader, rows.compressed) = Text::open(path, cursor.bytes)?.into_parts();
        }
        Ok(rows)
    }

    pub(super) fn columns(&self) -> Option<Vec<String>> {
        (!self.names.is_empty()).then(|| self.names.clone())
    }

    pub(super) fn read_bytes(&self, uncompressed: u64) -> u64 {
        Text::read_bytes(self.compressed.as_ref(), uncompressed)
    }

    pub(super) fn next(&mut self) -> io::Result<Option<Read>> {
        let Some(line) = self.line()? else { return Ok(None) };
        if line == b"\\." {
            while let Some(line) = self.line()? {
                if !line.trim_ascii().is_empty() {
                    return Err(invalid("text follows the end mark \\. of COPY: cut the file there"));
                }
            }
            return Ok(None);
        }
        Ok(Some(match self.fields(&line) {
            Ok(fields) => row_of_fields(&self.names, fields, self.at),
            Err(why) => (Err(why.to_owned()), Value::from(String::from_utf8_lossy(&line)), self.at),
        }))
    }

    /// Returns the next line; a line end behind a backslash belongs to the line.
    fn line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        loop {
            let read = self.reader.read_until(b'\n', &mut line)?;
            self.at += read as u64;
            if line.is_empty() {
                return Ok(None);
            }
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            let backslashes = text.iter().rev().take_while(|byte| **byte == b'\\').count();
            if read == 0 || backslashes % 2 == 0 {
                let text = text.strip_suffix(b"\r").unwrap_or(text);
                return Ok(Some(text.to_vec()));
            }
        }
    }

    fn fields(&self, line: &[u8]) -> Result<Vec<Option<String>>, &'static str> {
        let mut fields = vec![Vec::new()];
        let mut starts = vec![0];
        let mut ends = Vec::new();
        let mut at = 0;
        while let Some(byte) = line.get(at) {
            let field = fields.last_mut().expect("there is a first field");
            at += 1;
            if *byte == self.delimiter {
                ends.push(at - 1);
                starts.push(at);
                fields.push(Vec::new());
            } else if *byte == b'\\' {
                let (unescaped, length) = unescape(&line[at..]);
                field.push(unescaped);
                at += length;
            } else {
                field.push(*byte);
            }
        }
        ends.push(line.len());
        let raw = starts.into_iter().zip(ends).map(|(start, end)| &line[start..end]);
        let values = fields.into_iter().zip(raw).map(|(field, raw)| {
            // Null is told from text before escapes are resolved.
            if raw == b"\\N" || self.null.as_ref().is_some_and(|null| null.as_bytes() == raw) {
                return Ok(None);
            }
            String::from_utf8(field).map(Some).map_err(|_| "is not UTF-8")
        });
        values.collect()
    }
}

/// Returns the byte that follows a backslash stands for, and the length of the escape.
fn unescape(rest: &[u8]) -> (u8, usize) {
    let number = |digits: &[u8], radix: u32, max: usize| {
        let length = digits.iter().take(max).take_while(|digit| char::from(**digit).is_digit(radix)).count();
        let value = digits[..length]
            .iter()
            .fold(0_u32, |sum, digit| sum * radix + char::from(*digit).to_digit(radix).unwrap_or(0));
        // As PostgreSQL does, only the lowest eight bits count.
        (u8::try_from(value & 0xff).unwrap_or(0), length)
    };
    match rest.first() {
        None => (b'\\', 0),
        Some(b'b') => (8, 1),
        Some(b'f') => (12, 1),
        Some(b'n') => (b'\n', 1),
        Some(b'r') => (b'\r', 1),
        Some(b't') => (b'\t', 1),
        Some(b'v') => (11, 1),
        Some(b'0'..=b'7') => number(rest, 8, 3),
        Some(b'x') if rest.get(1).is_some_and(u8::is_ascii_hexdigit) => {
            let (byte, length) = number(&rest[1..], 16, 2);
            (byte, length + 1)
        }
        Some(other) => (*other, 1),
    }
}
