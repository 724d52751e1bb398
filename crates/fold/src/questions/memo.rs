//! The pages that one question has read, each read at most once. Lives no longer than the question.

use crate::pages::{Page, PageKey, Ref, Table};
use std::collections::VecDeque;

/// Pages of one table that share the first part of the key, by the second part.
///
/// Takes memory for the keys between the lowest and the highest key that was read, not for those
/// from 0 on. So the end of a long list costs the same as its beginning (INV-PAGING).
pub(super) struct Memo<'a, P> {
    first: u32,
    /// `None` for a page not read yet, `Some(None)` for one that does not exist.
    pages: VecDeque<Option<Option<Ref<'a, P>>>>,
}

impl<P> Default for Memo<'_, P> {
    fn default() -> Self {
        Self { first: 0, pages: VecDeque::new() }
    }
}

impl<'a, P: Page> Memo<'a, P> {
    /// Returns the page, if it exists. Reads it from the store the first time.
    pub(super) fn get<S: Table<P>>(&mut self, store: &'a S, a: u64, b: u32) -> Result<Option<&P>, S::Error> {
        if self.pages.is_empty() {
            self.first = b;
        }
        while b < self.first {
            self.pages.push_front(None);
            self.first -= 1;
        }
        let at = (b - self.first) as usize;
        if self.pages.len() <= at {
            self.pages.resize_with(at + 1, || None);
        }
        if self.pages[at].is_none() {
            self.pages[at] = Some(store.read(PageKey { a, b })?);
        }
        Ok(self.pages[at].as_ref().and_then(|p| p.as_deref()))
    }
}
