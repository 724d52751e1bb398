//! Pages looked at during one question, each loaded at most once.

use crate::page::{Page, PageKey, Ref, Table};

/// Pages of one table with a common first part of the key, by the second.
pub(crate) struct Memo<'a, P> {
    pages: Vec<Option<Option<Ref<'a, P>>>>,
}

impl<P> Default for Memo<'_, P> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<'a, P: Page> Memo<'a, P> {
    /// The page, if there is one.
    pub(crate) fn get<S: Table<P>>(&mut self, store: &'a S, a: u64, b: u32) -> Result<Option<&P>, S::Error> {
        let at = b as usize;
        if self.pages.len() <= at {
            self.pages.resize_with(at + 1, || None);
        }
        if self.pages[at].is_none() {
            self.pages[at] = Some(store.get(PageKey { a, b })?);
        }
        Ok(self.pages[at].as_ref().and_then(|p| p.as_deref()))
    }
}
