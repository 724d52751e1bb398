//! Turns a posted body into log entries: splits it, checks every event, and finds the key of each.
//!
//! It must not write, and must not change an event beyond adding a missing tenant or partition.

use crate::edge::audit::Act;
use crate::edge::caller::Caller;
use crate::edge::scopes::Scope;
use crate::problem::{Code, Item, Problem};
use crate::request::Format;
use bytes::Bytes;
use receipts_event::{Body, Event, copies, names_field, with_field};
use receipts_log::Entry;
use receipts_traces::Span;
use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// The most events of one body; the contract's number.
pub const EVENTS_MAX: usize = 1_000;

/// What the events of a body are checked against.
pub(crate) struct Reading<'a> {
    /// The caller that posted them.
    pub(crate) caller: &'a Caller,
    /// Partitions of the event topic.
    pub(crate) partition_count: u32,
    /// The most control events of one body.
    pub(crate) control_events_max: usize,
}

/// The checked events of a body.
#[derive(Debug)]
pub(crate) struct PostedEvents {
    /// Events in the body.
    pub(crate) event_count: usize,
    /// The entries in the order of the events, each with the index of its event. A control event
    /// without a partition has an entry per partition.
    pub(crate) entries: Vec<(usize, Entry)>,
    /// The events that have an audit line, by index.
    pub(crate) acts: Vec<(usize, Act)>,
    /// Whether the body is one event instead of a list.
    single: bool,
}

impl PostedEvents {
    /// Returns the JSON Pointer of the event with this index.
    pub(crate) fn pointer(&self, index: usize) -> String {
        if self.single { String::new() } else { format!("/{index}") }
    }

    /// If traces are on, begins the span of the append, and gives each entry its context.
    pub(crate) fn trace(&mut self) -> Option<Span> {
        let traces = receipts_traces::traces()?;
        let span = traces.send_events(self.event_count, receipts_traces::current().as_ref());
        for (_, entry) in &mut self.entries {
            span.context().put_headers(|name, value| entry.headers.push((name.to_owned(), Some(value.into()))));
        }
        Some(span)
    }

    /// Reads a posted body. An event without a tenant gets the caller's.
    ///
    /// # Errors
    /// A 400 that names every offending item, or else a 403 that names every event for which the
    /// caller lacks a scope, and that scope. Nothing of the body may be written then
    /// (INV-ALL-OR-NOTHING).
    pub(crate) fn read(body: &Bytes, format: Format, reading: &Reading<'_>) -> Result<Self, Problem> {
        let (events, single) = match format {
            Format::Lines => (lines(body)?, false),
            Format::Json => match body.iter().find(|byte| !byte.is_ascii_whitespace()) {
                Some(b'[') => (array(body)?, false),
                _ => (vec![body.trim_ascii()], true),
            },
        };
        if events.is_empty() {
            return Err(Problem::invalid("", "must hold at least one event"));
        }
        let mut posted =
            Self { event_count: events.len(), entries: Vec::with_capacity(events.len()), acts: Vec::new(), single };
        let (mut invalid, mut lacking, mut control_events) = (Vec::new(), Vec::new(), 0);
        for (index, value) in events.into_iter().enumerate() {
            let event = PostedEvent { body, value, index, reading };
            match event.read_into(&mut posted) {
                Ok(Read { scope, is_control }) => {
                    control_events += usize::from(is_control);
                    if control_events > reading.control_events_max {
                        return Err(too_many_control_events(posted.pointer(index), reading.control_events_max));
                    }
                    if !reading.caller.scopes.has(scope) {
                        let detail = format!("needs the scope {}", scope.name()).into();
                        lacking.push(Item { pointer: posted.pointer(index), detail });
                    }
                }
                Err(problems) => {
                    let prefix = posted.pointer(index);
                    let items = problems.into_iter();
                    invalid.extend(items.map(|item| Item { pointer: prefix.clone() + &item.pointer, ..item }));
                }
            }
        }
        if !invalid.is_empty() {
            return Err(Problem::new(Code::Invalid).items(invalid));
        }
        if !lacking.is_empty() {
            let detail = format!("nothing was written: the caller lacks a scope for {} of the events", lacking.len());
            return Err(Problem::new(Code::Forbidden).items(lacking).detail(detail));
        }
        Ok(posted)
    }
}

/// One event of a body, and what its entries need.
struct PostedEvent<'a> {
    body: &'a Bytes,
    value: &'a [u8],
    index: usize,
    reading: &'a Reading<'a>,
}

/// What reading an event found out about it.
struct Read {
    /// The scope that writing it needs.
    scope: Scope,
    /// Whether it belongs to partitions instead of a conversation.
    is_control: bool,
}

impl PostedEvent<'_> {
    /// Appends the entries of the event.
    ///
    /// # Errors
    /// The invalid items, by pointers into the event.
    fn read_into(&self, posted: &mut PostedEvents) -> Result<Read, Vec<Item>> {
        let &Reading { caller, partition_count, .. } = self.reading;
        let tenant = caller.tenant.as_str();
        let event = receipts_event::decode(self.value).map_err(|rejection| {
            let items = rejection.problems.into_iter();
            items.map(|problem| Item { pointer: problem.pointer, detail: problem.detail.into() }).collect::<Vec<_>>()
        })?;
        let lacks_tenant = event.tenant != tenant && !names_field(self.value, "tenant");
        if event.tenant != tenant && !lacks_tenant {
            return Err(vec![Item { pointer: "/tenant".to_owned(), detail: "must be the caller's tenant".into() }]);
        }
        let key = match event.conversation_id() {
            Some(conversation_id) => receipts_event::key(tenant, conversation_id),
            None => receipts_event::control_key(tenant),
        };
        let key = Bytes::from(key);
        let value = if lacks_tenant {
            Bytes::from(with_field(self.value, "tenant", &serde_json::json!(tenant).to_string()))
        } else {
            self.body.slice_ref(self.value)
        };
        posted.acts.extend(self.act(&event).map(|act| (self.index, act)));
        let mut push =
            |partition, value| posted.entries.push((self.index, Entry::event(key.clone(), value, partition)));
        let is_control = is_control(&event);
        match (is_control, event.partition()) {
            (false, _) => push(None, value),
            (true, Some(partition)) if partition < partition_count => push(Some(partition), value),
            (true, Some(_)) => {
                let detail = format!("must be below the partition count, {partition_count}").into();
                return Err(vec![Item { pointer: "/partition".to_owned(), detail }]);
            }
            (true, None) => {
                for (partition, copy) in copies(&value, partition_count) {
                    push(Some(partition), copy.into());
                }
            }
        }
        Ok(Read { scope: Scope::to_write(&event, caller.user.as_deref()), is_control })
    }

    /// Returns the act that an audit line tells of this event.
    fn act(&self, event: &Event<'_>) -> Option<Act> {
        match &event.body {
            Body::PolicyChanged(_) => Some(Act::Policy),
            Body::UserErased(erased) => Some(Act::Erasure { own: self.reading.caller.is(&erased.user_id) }),
            _ => None,
        }
    }
}

/// Whether an event belongs to partitions instead of a conversation.
fn is_control(event: &Event<'_>) -> bool {
    matches!(event.body, Body::PolicyChanged(_) | Body::UserErased(_))
}

fn too_many_control_events(pointer: String, max: usize) -> Problem {
    let detail = format!(
        "a body may hold at most {max} control events (policy.changed, user.erased): post the others in further bodies, \
         or raise http.control_events_max"
    );
    Problem::invalid(pointer, detail)
}

fn too_many() -> Problem {
    Problem::invalid("", format!("must hold at most {EVENTS_MAX} events"))
}

/// Returns the events of NDJSON, one per line. Blank lines are skipped, and pointers do not count
/// them.
fn lines(body: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let mut events = Vec::new();
    for line in body.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        if events.len() == EVENTS_MAX {
            return Err(too_many());
        }
        events.push(line);
    }
    Ok(events)
}

/// Returns the events of a JSON array, each with its own bytes.
fn array(body: &[u8]) -> Result<Vec<&[u8]>, Problem> {
    let mut events = Vec::new();
    let mut json = serde_json::Deserializer::from_slice(body);
    let read = json.deserialize_seq(Elements(&mut events)).and_then(|()| json.end());
    match read {
        Ok(()) => Ok(events),
        Err(_) if events.len() > EVENTS_MAX => Err(too_many()),
        Err(error) => Err(Problem::invalid(format!("/{}", events.len()), format!("must be JSON: {error}"))),
    }
}

/// Collects the elements of an array with their bytes. It stops one above the maximum.
struct Elements<'e, 'a>(&'e mut Vec<&'a [u8]>);

impl<'de: 'a, 'a> Visitor<'de> for Elements<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        while let Some(element) = elements.next_element::<&'de RawValue>()? {
            self.0.push(element.get().as_bytes());
            if self.0.len() > EVENTS_MAX {
                return Err(A::Error::custom("too many events"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::scopes::Scopes;
    use proptest::prelude::*;
    use serde_json::Value;

    const READ: &str = r#"{"type":"message.read" , "conversation_id":"g1","reader_id":"b","message_ids":["m1"]}"#;

    fn read(body: &str, format: Format, tenant: &str) -> Result<Vec<(usize, Entry)>, Vec<u8>> {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let caller = service(tenant);
        PostedEvents::read(&body, format, &Reading { caller: &caller, partition_count: 4, control_events_max: 2 })
            .map(|posted| posted.entries)
            .map_err(|problem| format!("{problem:?}").into())
    }

    fn service(tenant: &str) -> Caller {
        Caller { tenant: tenant.to_owned(), user: None, service: None, scopes: Scopes::ALL, expires: None }
    }

    fn values(body: &str, tenant: &str) -> Vec<String> {
        let entries = read(body, Format::Json, tenant).unwrap();
        entries.into_iter().map(|(_, entry)| String::from_utf8(entry.value.unwrap().to_vec()).unwrap()).collect()
    }

    #[test]
    fn events_of_arrays_and_lines_keep_their_bytes() {
        assert_eq!(values(&format!(" [ {READ} ,\n{READ}]"), "default"), [READ, READ]);
        assert_eq!(values(&format!("\r\n{READ} "), "default"), [READ]);
        let lines = read(&format!("\n{READ}\r\n \n{READ}"), Format::Lines, "default").unwrap();
        assert_eq!(lines.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1]);
        assert!(lines.iter().all(|(_, entry)| entry.value.as_deref() == Some(READ.as_bytes())));
    }

    #[test]
    fn event_without_tenant_gets_only_the_callers_tenant() {
        let named = format!(r#"{{"tenant":"ac\"me",{}"#, &READ[1..]);
        assert_eq!(values(READ, "ac\"me"), [named]);
        let null = READ.replace(" , ", r#","tenant" : null ,"#);
        assert_eq!(values(&null, "acme"), [null.replace("null", "\"acme\"")]);
        assert_eq!(values(&null, "default"), [null]);
    }

    #[test]
    fn control_event_is_copied_into_every_partition() {
        let erased = r#"{"type":"user.erased","user_id":"u","partition":null}"#;
        let entries = read(erased, Format::Json, "acme").unwrap();
        assert_eq!(entries.len(), 4);
        for (partition, (index, entry)) in entries.iter().enumerate() {
            let event = receipts_event::decode(entry.value.as_deref().unwrap()).unwrap();
            assert_eq!((*index, entry.partition), (0, Some(partition as u32)));
            assert_eq!((event.partition(), &*event.tenant), (Some(partition as u32), "acme"));
            assert_eq!(entry.key.as_deref(), Some(&b"acme/"[..]));
        }
    }

    proptest! {
        #[test]
        fn accepted_events_decode_to_their_key(
            tenant in "[a-z\"\\\\ é]{1,4}", conversation in "[a-z/\"\\\\ é]{1,4}", spaced in any::<bool>(), named in any::<bool>(),
        ) {
            let mut event = serde_json::json!({"type": "message.recalled", "conversation_id": conversation, "message_id": "m"});
            if named {
                event["tenant"] = Value::from(tenant.clone());
            }
            let body = if spaced { serde_json::to_string_pretty(&event).unwrap() } else { event.to_string() };
            for (_, entry) in read(&body, Format::Json, &tenant).unwrap() {
                let value = entry.value.unwrap();
                let written = receipts_event::decode(&value).unwrap();
                prop_assert!(written.key_matches(&entry.key.unwrap()));
                prop_assert_eq!(&*written.tenant, tenant.as_str());
            }
        }

        #[test]
        fn no_body_makes_reading_panic(body in "[\\[\\]{}\",:a-z\\n 0-9]{0,60}", lines in any::<bool>()) {
            let format = if lines { Format::Lines } else { Format::Json };
            let _ = read(&body, format, "acme");
        }
    }
}
