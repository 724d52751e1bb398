//! The messages of a conversation, newest first: a linked list through the messages themselves with skips.
//!
//! Each message knows the one before it and one further back, chosen so that any place is found in O(log n) steps
//! (E. Myers, "An applicative random-access stack", 1983). The links stand in the messages, so they expire with them.

use crate::head::{Head, Root};

/// The links of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Of the message, Unix milliseconds.
    pub sent_at_ms: u64,
    /// The greatest of the conversation up to the message.
    pub sent_at_max: u64,
    /// The message before it.
    pub previous: Option<u64>,
    /// One further back.
    pub skip: Option<u64>,
}

/// Links a new message in front of the others.
pub fn push(head: &mut Head, message: u64, sent_at_ms: u64) -> Link {
    let previous = head.roots.first().map(|r| r.message);
    let mut root = Root { message, size: 1 };
    let skip = match head.roots[..] {
        [a, b, ..] if a.size == b.size => {
            head.roots.drain(..2);
            root.size = root.size.saturating_add(a.size).saturating_add(b.size);
            head.roots.first().map(|r| r.message)
        }
        _ => previous,
    };
    head.roots.insert(0, root);
    head.disorder_ms = head.disorder_ms.max(head.sent_at_max.saturating_sub(sent_at_ms));
    head.sent_at_max = head.sent_at_max.max(sent_at_ms);
    Link { sent_at_ms, sent_at_max: head.sent_at_max, previous, skip }
}

/// The newest message such that it and all before it were sent when at most `bound` was the latest `sent_at_ms`.
/// `link` gives the links of a message, `None` once it has expired, and with it all before it.
///
/// # Errors
/// Where `link` fails.
pub fn seek<E>(
    head: &Head,
    bound: u64,
    mut link: impl FnMut(u64) -> Result<Option<Link>, E>,
) -> Result<Option<(u64, Link)>, E> {
    let mut at = head.roots.first().map(|r| r.message);
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
    fn any_place_is_found_in_logarithmic_steps() {
        let mut head = Head::new("t", "c", 0);
        let links: Vec<Link> = (0..100_000).map(|i| push(&mut head, i, 10 * i)).collect();
        for bound in [0, 9, 10, 12_345, 500_000, 999_980, 999_990, u64::MAX] {
            let mut steps = 0;
            let found = seek(&head, bound, |m| {
                steps += 1;
                Ok::<_, ()>(Some(links[m as usize]))
            });
            assert_eq!(found.unwrap().unwrap().0, (bound / 10).min(99_999));
            assert!(steps < 100, "{steps} steps to {bound}");
        }
        assert!(head.roots.len() < 40);
    }

    #[test]
    fn nothing_is_found_before_the_first_message_or_in_an_empty_conversation() {
        let mut head = Head::new("t", "c", 0);
        assert_eq!(seek(&head, 5, |_| Ok::<_, ()>(None)), Ok(None));
        let link = push(&mut head, 0, 10);
        assert_eq!(seek(&head, 5, |_| Ok::<_, ()>(Some(link))), Ok(None));
    }

    #[test]
    fn of_messages_sent_at_the_same_time_the_newest_is_found() {
        for same in [2, 7, 100] {
            let mut head = Head::new("t", "c", 0);
            let links: Vec<Link> = (0..3_000).map(|i| push(&mut head, i, i / same)).collect();
            for bound in 0..(3_000 / same).min(60) {
                let found = seek(&head, bound, |m| Ok::<_, ()>(Some(links[m as usize]))).unwrap().unwrap().0;
                assert_eq!(found, (bound + 1) * same - 1);
            }
        }
    }
}
