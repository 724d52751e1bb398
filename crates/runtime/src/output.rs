//! Results on standard output, for people or, with `--json`, for machines: one JSON object a line. Logs never go here.

use serde::Serialize;
use std::io::{self, Write};

/// Writes results, each as a line of JSON or as its text for people.
///
/// A reader that went away (`receipts stats | head -1`) is not an error: from then on [`Output::is_closed`] is true,
/// what is written vanishes, and a long command may stop early.
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
    /// Writes to `to`; as JSON lines if `json`.
    pub fn new(to: W, json: bool) -> Self {
        Self { to, json, closed: false }
    }

    /// True if results are JSON lines.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// True once the reader went away.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Writes one result: `value` as a line of JSON, or what `text` writes for people, who see lines, so `text` ends
    /// its own. Flushes, so that a reader at the other end of a pipe sees it now.
    ///
    /// # Errors
    /// If standard output cannot be written, for any reason but a reader that went away.
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
            text(&mut self.to)
        };
        match written.and_then(|()| self.to.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            other => other,
        }
    }

    /// Writes the one line that a ready service prints: its name and its addresses, each with what listens there.
    /// As JSON: `{"ready":"receipts-query","http":"http://127.0.0.1:8080"}`.
    ///
    /// # Errors
    /// As [`Output::write`].
    pub fn ready(&mut self, service: &str, addresses: &[(&str, String)]) -> io::Result<()> {
        let mut line = serde_json::Map::new();
        line.insert("ready".into(), service.into());
        for (what, address) in addresses {
            line.insert((*what).into(), address.as_str().into());
        }
        self.write(&line, |to| {
            write!(to, "{service} ready")?;
            for (what, address) in addresses {
                write!(to, " {what}={address}")?;
            }
            writeln!(to)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Gone;

    impl Write for Gone {
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
    fn every_result_is_a_line_of_json_or_its_text() {
        for (json, wanted) in [(true, "{\"messages\":3}\n"), (false, "3 messages\n")] {
            let mut bytes = Vec::new();
            let value = serde_json::json!({"messages": 3});
            Output::new(&mut bytes, json).write(&value, |to| writeln!(to, "3 messages")).expect("written");
            assert_eq!(String::from_utf8(bytes).expect("text"), wanted);
        }
    }

    #[test]
    fn a_reader_that_went_away_is_no_error() {
        for json in [true, false] {
            let mut output = Output::new(Gone, json);
            output.write("x", |to| writeln!(to, "x")).expect("no error");
            assert!(output.is_closed());
        }
    }
}
