//! The spans of the service: their names, attributes and parents, and trace contexts in headers.
//!
//! Sends nothing and samples nothing: `receipts-runtime` installs a tracer that does. Until then
//! [`traces`] returns `None`, and its callers do nothing at all. INV-TRACE: it must not put ids of
//! users, messages or conversations into a span.

mod context;
mod gathered;
mod span;

pub use context::{TRACEPARENT, TRACESTATE, TraceContext, current, within};
pub use gathered::{Gathered, LINKS_MAX};
pub use span::Span;

use opentelemetry::global::BoxedTracer;
use std::sync::OnceLock;

static TRACES: OnceLock<Traces> = OnceLock::new();

/// The names of a process's log, which its spans show.
#[derive(Debug, Clone)]
pub struct LogNames {
    /// `messaging.system`: `kafka`, or the name of the embedded log.
    pub system: &'static str,
    /// The topic of events.
    pub events_topic: String,
    /// The topic of updates.
    pub updates_topic: String,
    /// The projector's consumer group.
    pub group: String,
}

/// Makes spans: one method per kind of span.
pub struct Traces {
    tracer: BoxedTracer,
    log: LogNames,
}

/// Turns traces on for the rest of the process. Returns false if they are on already.
pub fn install(tracer: BoxedTracer, log: LogNames) -> bool {
    TRACES.set(Traces { tracer, log }).is_ok()
}

/// Returns the maker of spans; `None` while traces are off.
pub fn traces() -> Option<&'static Traces> {
    TRACES.get()
}
