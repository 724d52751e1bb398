//! The contexts of the changes that one update gathers. Makes no span.

use crate::context::TraceContext;

/// The most changes that a span links to, beside its parent.
pub const LINKS_MAX: usize = 31;

/// The contexts of changes, each once: the newest, which becomes the parent of the update's span,
/// and others, to which it links.
///
/// A context that is not sampled never displaces one that is: the trace of the latter would end
/// before the update.
#[derive(Debug, Clone, PartialEq)]
pub struct Gathered {
    newest: TraceContext,
    others: Vec<TraceContext>,
}

impl Gathered {
    /// Begins with the context of one change.
    #[must_use]
    pub fn new(context: TraceContext) -> Self {
        Self { newest: context, others: Vec::new() }
    }

    /// Adds the context of a later change. Beyond [`LINKS_MAX`] the oldest ones are left out.
    pub fn add(&mut self, context: TraceContext) {
        if context == self.newest || self.newest.is_sampled() && !context.is_sampled() {
            return;
        }
        let before = std::mem::replace(&mut self.newest, context);
        if before.is_sampled() && !self.others.contains(&before) {
            if self.others.len() == LINKS_MAX {
                self.others.remove(0);
            }
            self.others.push(before);
        }
    }

    /// Adds the contexts of later changes.
    pub fn add_all(&mut self, later: Self) {
        later.others.into_iter().chain([later.newest]).for_each(|context| self.add(context));
    }

    /// The context of the newest change.
    #[must_use]
    pub fn newest(&self) -> &TraceContext {
        &self.newest
    }

    pub(crate) fn others(&self) -> &[TraceContext] {
        &self.others
    }

    /// How many contexts are kept.
    #[must_use]
    pub fn count(&self) -> usize {
        1 + self.others.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(number: usize, sampled: bool) -> TraceContext {
        let text = format!("00-{:032x}-{number:016x}-0{}", 1, u8::from(sampled));
        TraceContext::of_headers(text.as_bytes(), std::iter::empty()).expect("a context")
    }

    #[test]
    fn newest_change_is_the_parent_and_others_are_links() {
        let mut gathered = Gathered::new(context(1, true));
        for number in [2, 2, 1, 3] {
            gathered.add(context(number, true));
        }
        assert_eq!(gathered.newest, context(3, true));
        assert_eq!(gathered.others, [1, 2].map(|number| context(number, true)));
    }

    #[test]
    fn links_are_bounded() {
        let mut gathered = Gathered::new(context(1, true));
        (2..100).for_each(|number| gathered.add(context(number, true)));
        assert_eq!(gathered.count(), 1 + LINKS_MAX);
        assert_eq!(gathered.others.last(), Some(&context(98, true)));
    }

    #[test]
    fn unsampled_change_does_not_end_a_sampled_trace() {
        let mut gathered = Gathered::new(context(1, false));
        gathered.add(context(2, true));
        gathered.add(context(3, false));
        assert_eq!(gathered, Gathered::new(context(2, true)));
        let mut earlier = Gathered::new(context(4, true));
        earlier.add_all(gathered);
        assert_eq!((earlier.newest, earlier.others), (context(2, true), vec![context(4, true)]));
    }
}
