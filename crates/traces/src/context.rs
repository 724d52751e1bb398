//! Trace contexts in headers, by W3C Trace Context level 1. Makes no span.

use opentelemetry::trace::{
    FutureExt as _, SpanContext, SpanId, TraceContextExt as _, TraceFlags, TraceId, TraceState, WithContext,
};
use opentelemetry::{Context, trace};
use std::fmt;
use std::ops::Deref;
use std::str::FromStr as _;
use std::sync::Arc;

/// The header with the trace, the span and whether it is sampled.
pub const TRACEPARENT: &str = "traceparent";
/// The header with what tracing systems add for themselves.
pub const TRACESTATE: &str = "tracestate";

/// The bytes of a `traceparent` of version 00: `00-TRACE-SPAN-FLAGS`.
const TRACEPARENT_BYTES: usize = 55;
/// The longest `tracestate` that is passed on, bytes; the members at its end are left out beyond.
/// The standard asks for at least as many.
const TRACESTATE_BYTES_MAX: usize = 512;

/// A span of some process, as headers name it. Cheap to clone.
#[derive(Clone, PartialEq)]
pub struct TraceContext(Arc<SpanContext>);

impl TraceContext {
    pub(crate) fn new(context: SpanContext) -> Self {
        Self(Arc::new(context))
    }

    pub(crate) fn span_context(&self) -> &SpanContext {
        &self.0
    }

    /// The same for the library, as the parent of spans.
    pub(crate) fn as_parent(&self) -> Context {
        Context::new().with_remote_span_context((*self.0).clone())
    }

    /// Reads the values of the two headers. Returns `None` if `traceparent` is malformed; a
    /// malformed `tracestate` is left out.
    ///
    /// The library's own reader takes ids of any length, which the standard forbids.
    #[must_use]
    pub fn of_headers<'a>(traceparent: &[u8], tracestates: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let text = std::str::from_utf8(traceparent).ok()?;
        let (known, rest) = text.split_at_checked(TRACEPARENT_BYTES)?;
        let mut fields = known.split('-');
        let mut hex = |digits: usize| {
            let is_hex = |field: &&str| field.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
            fields.next().filter(|field| field.len() == digits).filter(is_hex)
        };
        let (version, trace, span, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        // Later versions may append fields, and 255 is no version.
        let is_known = if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
        if !is_known || version == "ff" {
            return None;
        }
        let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
        let (trace, span) = (TraceId::from_hex(trace).ok()?, SpanId::from_hex(span).ok()?);
        let context = SpanContext::new(trace, span, flags, true, state(tracestates));
        context.is_valid().then(|| Self::new(context))
    }

    /// As [`Self::of_headers`], of a record whose last header of a name `last` returns.
    #[must_use]
    pub fn of_record<V: Deref<Target = [u8]>>(last: impl Fn(&str) -> Option<V>) -> Option<Self> {
        let tracestate = last(TRACESTATE);
        Self::of_headers(&last(TRACEPARENT)?, tracestate.iter().map(|state| &**state))
    }

    /// Passes the headers of this context to `put`: `traceparent`, and `tracestate` unless it is
    /// empty.
    pub fn put_headers(&self, mut put: impl FnMut(&'static str, String)) {
        let context = &*self.0;
        let flags = (context.trace_flags() & TraceFlags::SAMPLED).to_u8();
        put(TRACEPARENT, format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id()));
        let state = context.trace_state().header();
        if !state.is_empty() {
            put(TRACESTATE, state);
        }
    }

    /// Returns the number of the trace, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.0.trace_id().to_string()
    }

    /// Tells whether spans of this trace are sent.
    #[must_use]
    pub fn is_sampled(&self) -> bool {
        self.0.is_sampled()
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.trace_id(), self.0.span_id())
    }
}

/// Reads the members of all `tracestate` headers, as many as are passed on.
fn state<'a>(headers: impl Iterator<Item = &'a [u8]>) -> TraceState {
    let mut kept = String::new();
    let texts = headers.filter_map(|header| std::str::from_utf8(header).ok());
    for member in texts.flat_map(|text| text.split(',')).map(str::trim).filter(|member| !member.is_empty()) {
        if kept.len() + member.len() >= TRACESTATE_BYTES_MAX {
            break;
        }
        if !kept.is_empty() {
            kept.push(',');
        }
        kept.push_str(member);
    }
    TraceState::from_str(&kept).unwrap_or_default()
}

/// Returns the context that [`within`] gave to the code that runs now.
#[must_use]
pub fn current() -> Option<TraceContext> {
    trace::get_active_span(|span| Some(span.span_context().clone()))
        .filter(SpanContext::is_valid)
        .map(TraceContext::new)
}

/// Gives a future a context, which [`current`] returns within it.
pub fn within<F: Future>(context: &TraceContext, future: F) -> WithContext<F> {
    future.with_context(context.as_parent())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn read(traceparent: &str, tracestates: &[&str]) -> Option<Vec<String>> {
        let states = tracestates.iter().map(|state| state.as_bytes());
        let context = TraceContext::of_headers(traceparent.as_bytes(), states)?;
        let mut headers = Vec::new();
        context.put_headers(|_, value| headers.push(value));
        Some(headers)
    }

    #[test]
    fn headers_are_passed_on_as_they_came() {
        for flags in ["00", "01"] {
            let parent = format!("00-{TRACE}-{SPAN}-{flags}");
            assert_eq!(read(&parent, &[]), Some(vec![parent.clone()]));
            assert_eq!(read(&parent, &["a=1, b=2", "c=3"]), Some(vec![parent, "a=1,b=2,c=3".to_owned()]));
        }
    }

    #[test]
    fn fields_of_later_versions_are_left_out() {
        let ours = Some(vec![format!("00-{TRACE}-{SPAN}-01")]);
        assert_eq!(read(&format!("cc-{TRACE}-{SPAN}-01"), &[]), ours);
        assert_eq!(read(&format!("cc-{TRACE}-{SPAN}-01-later"), &[]), ours);
        assert_eq!(read(&format!("00-{TRACE}-{SPAN}-03"), &[]), ours, "unknown flags");
    }

    /// INV-TRACE
    #[test]
    fn malformed_contexts_are_ignored() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        for end in 0..good.len() {
            assert_eq!(read(&good[..end], &[]), None, "{}", &good[..end]);
        }
        let (no_trace, no_span) = ("0".repeat(32), "0".repeat(16));
        for bad in [
            format!("{good}-"),
            format!("{good}0"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{no_trace}-{SPAN}-01"),
            format!("00-{TRACE}-{no_span}-01"),
            good.to_uppercase(),
            good.replace('-', "_"),
            good.replace('a', "g"),
            good.replace('a', "é"),
        ] {
            assert_eq!(read(&bad, &[]), None, "{bad}");
        }
    }

    #[test]
    fn bad_or_long_states_do_not_lose_the_trace() {
        let parent = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(read(&parent, &["no pair"]), Some(vec![parent.clone()]));
        let members: Vec<String> = (0..40).map(|at| format!("m{at}={}", "x".repeat(20))).collect();
        let passed = read(&parent, &[&members.join(",")]).unwrap();
        assert!(passed[1].len() <= TRACESTATE_BYTES_MAX && passed[1].starts_with("m0="), "{passed:?}");
        assert!(members.iter().any(|member| passed[1].ends_with(member.as_str())), "whole members: {passed:?}");
    }
}
