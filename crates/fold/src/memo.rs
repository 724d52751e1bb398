//! Pages looked at during one question, each loaded at most once.

use crate::page::{Page, PageKey, Ref, Table};
use std::collections::VecDeque;

/// Pages of one table with a common first part of the key, by the second. Room is taken for what lies between the lowest and
/// the highest that were looked at, and not from 0 on: the end of a long list costs what its beginning does (INV-PAGING).
pub(crate) struct Memo<'a, P> {
    first: u32,
    pages: VecDeque<Option<Option<Ref<'a, P>>>>,
}

impl<P> Default for Memo<'_, P> {
    fn default() -> Self {
        Self { first: 0, pages: VecDeque::new() }
    }
}

impl<'a, P: Page> Memo<'a, P> {
    /// The page, if there is one.
    pub(crate) fn get<S: Table<P>>(&mut self, store: &'a S, a: u64, b: u32) -> Result<Option<&P>, S::Error> {
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
            self.pages[at] = Some(store.get(PageKey { a, b })?);
        }
        Ok(self.pages[at].as_ref().and_then(|p| p.as_deref()))
    }
}
