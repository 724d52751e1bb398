//! One function per kind of span, by OpenTelemetry's semantic conventions 1.37 for HTTP and for
//! messaging. Must not take ids of users, messages or conversations, and so no path of a request.

use crate::context::TraceContext;
use crate::gathered::Gathered;
use crate::{LogNames, Traces};
use opentelemetry::global::BoxedSpan;
use opentelemetry::trace::{Link, Span as _, SpanBuilder, SpanKind, Status, Tracer as _};
use opentelemetry::{Context, KeyValue};
use std::borrow::Cow;
use std::net::SocketAddr;
use std::time::Duration;

/// A span that has begun. It ends when it is dropped.
pub struct Span {
    span: BoxedSpan,
    context: TraceContext,
}

impl Span {
    /// The context of this span, for the headers of what it causes.
    #[must_use]
    pub fn context(&self) -> &TraceContext {
        &self.context
    }

    /// Notes the status of an HTTP answer. Only answers from 500 on are a failure of the server.
    pub fn answered(&mut self, status: u16) {
        self.span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            self.fail(status.to_string());
        }
    }

    /// Notes a failure, by a name of few values.
    pub fn fail(&mut self, error_type: impl Into<Cow<'static, str>>) {
        self.span.set_attribute(KeyValue::new("error.type", error_type.into()));
        self.span.set_status(Status::error(""));
    }
}

impl Traces {
    /// An HTTP request, from its arrival to the head of its answer. `method` is `other` for
    /// methods that are not known.
    #[must_use]
    pub fn request(&self, method: &'static str, route: &str, parent: Option<&TraceContext>) -> Span {
        let (method, verb) = if method == "other" { ("_OTHER", "HTTP") } else { (method, method) };
        let attributes = [KeyValue::new("http.request.method", method), KeyValue::new("http.route", route.to_owned())];
        let span = SpanBuilder::from_name(format!("{verb} {route}")).with_kind(SpanKind::Server);
        self.start(span.with_attributes(attributes), parent)
    }

    /// A question of an edge to a projector.
    #[must_use]
    pub fn ask(&self, path: &'static str, to: Option<SocketAddr>, parent: &TraceContext) -> Span {
        let mut attributes = vec![KeyValue::new("http.request.method", "POST"), KeyValue::new("url.template", path)];
        if let Some(to) = to {
            attributes.push(KeyValue::new("server.address", to.ip().to_string()));
            attributes.push(KeyValue::new("server.port", i64::from(to.port())));
        }
        let span = SpanBuilder::from_name(format!("POST {path}")).with_kind(SpanKind::Client);
        self.start(span.with_attributes(attributes), Some(parent))
    }

    /// The append of the events of one request, until the log has acknowledged them.
    #[must_use]
    pub fn send_events(&self, count: usize, parent: Option<&TraceContext>) -> Span {
        let mut attributes = self.log.attributes("send", &self.log.events_topic);
        if count > 1 {
            attributes.push(KeyValue::new("messaging.batch.message_count", i64::try_from(count).unwrap_or(i64::MAX)));
        }
        let span = SpanBuilder::from_name(format!("send {}", self.log.events_topic)).with_kind(SpanKind::Producer);
        self.start(span.with_attributes(attributes), parent)
    }

    /// The fold of one record.
    #[must_use]
    pub fn fold_event(&self, partition: u32, offset: u64, parent: &TraceContext) -> Span {
        let mut attributes = self.log.attributes("process", &self.log.events_topic);
        attributes.push(KeyValue::new("messaging.consumer.group.name", self.log.group.clone()));
        attributes.extend(location(partition, offset));
        let span = SpanBuilder::from_name(format!("process {}", self.log.events_topic)).with_kind(SpanKind::Consumer);
        self.start(span.with_attributes(attributes), Some(parent))
    }

    /// The append of an update: a child of the newest change that it gathers, with links to the
    /// others.
    #[must_use]
    pub fn send_update(&self, changes: &Gathered) -> Span {
        let links = changes.others().iter().map(|other| Link::with_context(other.span_context().clone()));
        let span = SpanBuilder::from_name(format!("send {}", self.log.updates_topic))
            .with_kind(SpanKind::Producer)
            .with_attributes(self.log.attributes("send", &self.log.updates_topic))
            .with_links(links.collect());
        self.start(span, Some(changes.newest()))
    }

    /// The delivery of an update to one stream, which `took` this long since it came from the
    /// topic.
    #[must_use]
    pub fn deliver_update(&self, partition: u32, offset: u64, took: Duration, parent: &TraceContext) -> Span {
        let mut attributes = self.log.attributes("process", &self.log.updates_topic);
        attributes.extend(location(partition, offset));
        let span = SpanBuilder::from_name(format!("process {}", self.log.updates_topic))
            .with_kind(SpanKind::Consumer)
            .with_start_time(opentelemetry::time::now() - took);
        self.start(span.with_attributes(attributes), Some(parent))
    }

    fn start(&self, span: SpanBuilder, parent: Option<&TraceContext>) -> Span {
        let parent = parent.map_or_else(Context::new, TraceContext::as_parent);
        let span = self.tracer.build_with_context(span, &parent);
        let context = TraceContext::new(span.span_context().clone());
        Span { span, context }
    }
}

impl LogNames {
    fn attributes(&self, operation: &'static str, topic: &str) -> Vec<KeyValue> {
        vec![
            KeyValue::new("messaging.system", self.system),
            KeyValue::new("messaging.operation.name", operation),
            KeyValue::new("messaging.operation.type", operation),
            KeyValue::new("messaging.destination.name", topic.to_owned()),
        ]
    }
}

fn location(partition: u32, offset: u64) -> [KeyValue; 2] {
    [
        KeyValue::new("messaging.destination.partition.id", partition.to_string()),
        KeyValue::new("messaging.kafka.offset", i64::try_from(offset).unwrap_or(i64::MAX)),
    ]
}
