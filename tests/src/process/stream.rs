//! A client of a stream of updates, as `EventSource` is one. Connects again only where a test says
//! so.

use crate::TIMEOUT;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// An open stream.
pub struct Stream {
    lines: BufReader<TcpStream>,
    /// The `id` that was heard last.
    pub last_id: String,
    /// Events heard so far that only have the id to resume from: the first, and heartbeats.
    pub positions: usize,
}

/// An update on a stream.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The `event` field.
    pub name: String,
    /// The `data` field.
    pub update: Value,
}

impl Stream {
    /// Opens a stream and waits for its head.
    ///
    /// # Panics
    /// If it is refused.
    #[must_use]
    pub fn open(address: &str, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(TIMEOUT)).expect("a socket");
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        // By HTTP 1.0 the body is what comes until the end, and not in chunks.
        let request = format!("GET /v1/updates?{query} HTTP/1.0\r\nHost: {address}\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).expect("it answers") > 0, "{head}");
        }
        assert!(head.contains(" 200 ") && head.contains("text/event-stream"), "{head}");
        assert!(head.lines().all(|line| line.len() < 2_100), "a long header: {head}");
        Self { lines, last_id: String::new(), positions: 0 }
    }

    /// Returns the next update, and skips positions; `None` at the end.
    ///
    /// # Panics
    /// If nothing comes for long, or what comes is no stream of events.
    pub fn next_update(&mut self) -> Option<Event> {
        loop {
            let event = self.next_event()?;
            if event.name != "position" {
                return Some(event);
            }
        }
    }

    fn next_event(&mut self) -> Option<Event> {
        let (mut name, mut data) = (String::new(), None);
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).expect("something within the time") == 0 {
                return None;
            }
            match line.trim_end_matches('\n').split_once(": ") {
                None => {
                    self.positions += usize::from(name == "position");
                    return Some(Event { name, update: data.expect("an event has data") });
                }
                Some(("event", value)) => value.clone_into(&mut name),
                Some(("id", value)) => value.clone_into(&mut self.last_id),
                Some(("data", value)) => data = Some(serde_json::from_str(value).expect("JSON")),
                Some(("retry", _)) => {}
                Some(other) => panic!("no field of an event: {other:?}"),
            }
        }
    }

    /// Waits until an `id` was heard.
    ///
    /// # Panics
    /// If the stream ends before, or begins with something else than its position.
    pub fn wait_for_id(&mut self) {
        if self.last_id.is_empty() {
            let first = self.next_event().expect("a first event");
            assert_eq!((first.name.as_str(), first.update), ("position", serde_json::json!({})));
        }
    }
}
