//! The traces of records: the span of a record's fold, and the effects that it caused (INV-TRACE).
//! Nothing of it is in the state, and the fold knows nothing of it.

use crate::partition::{Decoded, FoldError, Partition};
use receipts_fold::effects::{Effects, MarkMoved, MessageChanged};
use receipts_log::Record;
use receipts_traces::{Span, TraceContext, Traces};
use std::ops::Range;

/// An older record belongs to a replay of history: its trace has ended long ago.
const AGE_MAX_MS: u64 = 3_600_000;

/// The effects of a partition whose records belong to traces, until they are published.
#[derive(Default)]
pub(crate) struct Traced {
    causes: Vec<Cause>,
    /// The span of a long record that is applied in part.
    open: Option<Span>,
}

/// A record that belongs to a trace, and its effects by their indexes.
struct Cause {
    context: TraceContext,
    changed: Range<usize>,
    marks: Range<usize>,
}

impl Traced {
    /// Notes the effects of the open span's record since `before`. Must be called before the
    /// effects are taken.
    fn note(&mut self, before: (usize, usize), effects: &Effects) {
        let Some(span) = &self.open else { return };
        let (changed, marks) = (before.0..effects.changed.len(), before.1..effects.marks.len());
        if !changed.is_empty() || !marks.is_empty() {
            self.causes.push(Cause { context: span.context().clone(), changed, marks });
        }
    }

    /// Forgets what was noted about effects that are not published.
    pub(crate) fn clear(&mut self) {
        self.causes.clear();
    }

    /// Takes what was noted about `effects`, which are taken with it: each context with the changes
    /// and marks of its record.
    pub(crate) fn take<'e>(
        &mut self,
        effects: &'e Effects,
    ) -> impl Iterator<Item = (TraceContext, &'e [MessageChanged], &'e [MarkMoved])> + use<'e> {
        let causes = std::mem::take(&mut self.causes).into_iter();
        causes.map(|cause| (cause.context, &effects.changed[cause.changed], &effects.marks[cause.marks]))
    }
}

impl Partition {
    /// As [`Partition::begin`], for a process with traces: if the record belongs to one, its fold
    /// is a span.
    #[cold]
    #[inline(never)]
    pub(crate) fn begin_traced(
        &mut self,
        traces: &Traces,
        record: &Record<'_>,
        event: &Decoded<'_>,
        messages_max: u32,
        now_ms: u64,
    ) -> Result<bool, FoldError> {
        let is_recent = now_ms.saturating_sub(record.timestamp_ms) < AGE_MAX_MS;
        let context = if is_recent { TraceContext::of_record(|name| record.headers.last(name)) } else { None };
        self.traced.open = context.map(|context| traces.fold_event(record.partition, record.offset, &context));
        let before = self.effect_counts();
        let is_whole = self.begin(record, event, messages_max)?;
        self.end_traced_slice(before, is_whole);
        Ok(is_whole)
    }

    /// Returns the counts of effects before a slice, for [`Self::end_traced_slice`].
    pub(crate) fn effect_counts(&self) -> (usize, usize) {
        (self.effects.changed.len(), self.effects.marks.len())
    }

    /// Notes the effects of a slice, and ends the span of a record that is applied to its end.
    pub(crate) fn end_traced_slice(&mut self, before: (usize, usize), is_whole: bool) {
        self.traced.note(before, &self.effects);
        if is_whole {
            self.traced.open = None;
        }
    }
}
