//! The skip list of a conversation's messages, newest first (ADR 0006, INV-COVER). Reads no page
//! itself: the caller passes the links.
//!
//! Each message links to the one before it and to one further back, chosen so that a search takes
//! O(log n) steps (E. Myers, "An applicative random-access stack", 1983). The links are parts of
//! the messages and expire with them.

use crate::pages::{ConversationPage, SkipRoot};

/// The links of a message, with the times that a search compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkipLink {
    /// `sent_at_ms` of the message, Unix milliseconds.
    pub sent_at_ms: u64,
    /// The greatest `sent_at_ms` of the conversation up to the message, Unix milliseconds.
    pub sent_at_max: u64,
    /// The message before it.
    pub previous: Option<u64>,
    /// A message further back, or the same.
    pub skip: Option<u64>,
}

/// Links a new message in front of the others, and returns its link.
pub fn push(page: &mut ConversationPage, message: u64, sent_at_ms: u64) -> SkipLink {
    let previous = page.roots.first().map(|r| r.message);
    let mut root = SkipRoot { message, size: 1 };
    let skip = match page.roots[..] {
        [a, b, ..] if a.size == b.size => {
            page.roots.drain(..2);
            root.size = root.size.saturating_add(a.size).saturating_add(b.size);
            page.roots.first().map(|r| r.message)
        }
        _ => previous,
    };
    page.roots.insert(0, root);
    page.disorder_ms = page.disorder_ms.max(page.sent_at_max.saturating_sub(sent_at_ms));
    page.sent_at_max = page.sent_at_max.max(sent_at_ms);
    SkipLink { sent_at_ms, sent_at_max: page.sent_at_max, previous, skip }
}

/// Finds the newest message whose `sent_at_max` is at most `bound`: it and all before it were sent
/// by then.
///
/// `link` returns the link of a message, and `None` for a removed one; all messages before that one
/// are removed too.
///
/// # Errors
/// If `link` fails.
pub fn seek<E>(
    page: &ConversationPage,
    bound: u64,
    mut link: impl FnMut(u64) -> Result<Option<SkipLink>, E>,
) -> Result<Option<(u64, SkipLink)>, E> {
    let mut at = page.roots.first().map(|r| r.message);
    while let Some(message) = at {
        let Some(here) = link(message)? else { return Ok(None) };
        if here.sent_at_max <= bound {
            return Ok(Some((message, here)));
        }
        at = here.previous;
        if let Some(skip) = here.skip
            && here.skip != here.previous
            && link(skip)?.is_some_and(|l| l.sent_at_max > bound)
        {
            at = Some(skip);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bound_is_found_in_logarithmic_steps() {
        let mut page = ConversationPage::new("t", "c", 0);
        let links: Vec<SkipLink> = (0..100_000).map(|i| push(&mut page, i, 10 * i)).collect();
        for bound in [0, 9, 10, 12_345, 500_000, 999_980, 999_990, u64::MAX] {
            let mut steps = 0;
            let found = seek(&page, bound, |m| {
                steps += 1;
                Ok::<_, ()>(Some(links[m as usize]))
            });
            assert_eq!(found.unwrap().unwrap().0, (bound / 10).min(99_999));
            assert!(steps < 100, "{steps} steps to {bound}");
        }
        assert!(page.roots.len() < 40);
    }

    #[test]
    fn search_before_the_first_message_finds_none() {
        let mut page = ConversationPage::new("t", "c", 0);
        assert_eq!(seek(&page, 5, |_| Ok::<_, ()>(None)), Ok(None));
        let link = push(&mut page, 0, 10);
        assert_eq!(seek(&page, 5, |_| Ok::<_, ()>(Some(link))), Ok(None));
    }

    #[test]
    fn newest_of_equal_times_is_found() {
        for same in [2, 7, 100] {
            let mut page = ConversationPage::new("t", "c", 0);
            let links: Vec<SkipLink> = (0..3_000).map(|i| push(&mut page, i, i / same)).collect();
            for bound in 0..(3_000 / same).min(60) {
                let found = seek(&page, bound, |m| Ok::<_, ()>(Some(links[m as usize]))).unwrap().unwrap().0;
                assert_eq!(found, (bound + 1) * same - 1);
            }
        }
    }
}
