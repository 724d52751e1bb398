//! Writes results to standard output, for people or, with `--json`, as one JSON object per line.
//! Must not write logs, nor a control character of an id to a terminal, which would obey it.

use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, Write};

/// Returns an id, or another text from outside, as a terminal can show it: control characters are
/// escaped, and so are those that change the direction of the text.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, |c| c.is_control() || is_direction(c))
}

/// Returns text of several lines as a terminal can show it. Lines stay lines, so ids within need
/// [`printable`].
pub(crate) fn printable_lines(text: &str) -> Cow<'_, str> {
    escaped(text, |c| (c.is_control() && !matches!(c, '\n' | '\t')) || is_direction(c))
}

/// The marks that embed or override a direction (Unicode Standard Annex 9).
fn is_direction(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, is_bad: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_bad) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_bad(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    Cow::Owned(safe)
}

/// Writes results, each as a line of JSON or as text for people.
///
/// A closed pipe (`receipts stats | head -1`) is not an error: from then on [`Output::is_closed`]
/// is true, writes do nothing, and a long command may stop early.
pub struct Output<W: Write = io::Stdout> {
    to: W,
    json: bool,
    closed: bool,
}

impl Output {
    /// Writes to standard output.
    #[must_use]
    pub fn stdout(json: bool) -> Self {
        Self::new(io::stdout(), json)
    }
}

impl<W: Write> Output<W> {
    /// Writes to `to`, as JSON lines if `json`.
    pub fn new(to: W, json: bool) -> Self {
        Self { to, json, closed: false }
    }

    /// True if results are JSON lines.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// True once the reader has closed the pipe.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes one result: `value` as a line of JSON, or the lines that `text` writes for people.
    /// Flushes, so that the reader of a pipe sees the result now. Control characters but newlines
    /// and tabs are escaped in text.
    ///
    /// # Errors
    /// If standard output cannot be written, unless the reader has closed the pipe.
    pub fn write<T: Serialize + ?Sized>(
        &mut self,
        value: &T,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let written = if self.json {
            serde_json::to_writer(&mut self.to, value).map_err(io::Error::from).and_then(|()| self.to.write_all(b"\n"))
        } else {
            let mut bytes = Vec::new();
            text(&mut bytes)
                .and_then(|()| self.to.write_all(printable_lines(&String::from_utf8_lossy(&bytes)).as_bytes()))
        };
        match written.and_then(|()| self.to.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            other => other,
        }
    }

    /// Writes the ready line of a service: its name, and its addresses with their labels. As JSON:
    /// `{"ready":"receipts-query","http":"http://127.0.0.1:8080"}`.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn ready(&mut self, service: &str, addresses: &[(&str, String)]) -> io::Result<()> {
        let mut line = serde_json::Map::new();
        line.insert("ready".into(), service.into());
        for (label, address) in addresses {
            line.insert((*label).into(), address.as_str().into());
        }
        self.write(&line, |to| {
            write!(to, "{service} ready")?;
            for (label, address) in addresses {
                write!(to, " {label}={address}")?;
            }
            writeln!(to)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct ClosedPipe;

    impl Write for ClosedPipe {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn ready_line(json: bool) -> String {
        let mut bytes = Vec::new();
        let addresses = [("http", "http://127.0.0.1:8080".to_owned()), ("log", "embedded".to_owned())];
        Output::new(&mut bytes, json).ready("receipts serve", &addresses).expect("written");
        String::from_utf8(bytes).expect("text")
    }

    #[test]
    fn a_ready_service_prints_one_line_with_its_addresses() {
        assert_eq!(ready_line(false), "receipts serve ready http=http://127.0.0.1:8080 log=embedded\n");
    }

    #[test]
    fn the_ready_line_is_one_object_for_machines() {
        let parsed: serde_json::Value = serde_json::from_str(&ready_line(true)).expect("JSON");
        assert_eq!(
            parsed,
            serde_json::json!({"ready": "receipts serve", "http": "http://127.0.0.1:8080", "log": "embedded"})
        );
    }

    #[test]
    fn a_result_is_a_json_line_or_text() {
        for (json, wanted) in [(true, "{\"messages\":3}\n"), (false, "3 messages\n")] {
            let mut bytes = Vec::new();
            let value = serde_json::json!({"messages": 3});
            Output::new(&mut bytes, json).write(&value, |to| writeln!(to, "3 messages")).expect("written");
            assert_eq!(String::from_utf8(bytes).expect("text"), wanted);
        }
    }

    #[test]
    fn control_characters_reach_no_terminal() {
        let id = "a\u{1b}[2J\r\u{9b}\u{7f}\u{202e}é\n";
        assert_eq!(printable(id), r"a\u{1b}[2J\r\u{9b}\u{7f}\u{202e}é\n");
        assert!(matches!(printable("zoë 👍"), Cow::Borrowed("zoë 👍")));
        let mut bytes = Vec::new();
        Output::new(&mut bytes, false).write("x", |to| writeln!(to, "one\ttwo {id}")).expect("written");
        assert_eq!(String::from_utf8(bytes).expect("text"), "one\ttwo a\\u{1b}[2J\\r\\u{9b}\\u{7f}\\u{202e}é\n\n");
    }

    #[test]
    fn a_closed_pipe_is_no_error() {
        for json in [true, false] {
            let mut output = Output::new(ClosedPipe, json);
            output.write("x", |to| writeln!(to, "x")).expect("no error");
            assert!(output.is_closed());
        }
    }
}
