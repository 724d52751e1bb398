//! Compares the answers of two subjects to every question about a history, and shrinks a failing
//! history. Does not judge which subject is right.

use std::collections::BTreeSet;

use receipts_event::{Body, Event, UpTo};
use receipts_fold::view::MemberFilter;

use crate::subject::{At, OracleEffect, Subject};

/// The questions about a history: each message and person that it names, per conversation.
#[derive(Debug, Clone, Default)]
pub struct Questions {
    /// (tenant, conversation, message)
    pub messages: BTreeSet<(String, String, String)>,
    /// (tenant, conversation, user)
    pub people: BTreeSet<(String, String, String)>,
}

impl Questions {
    /// Collects the questions about some events.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a Event<'a>>) -> Self {
        let mut questions = Self::default();
        let (mut conversations, mut erased) = (BTreeSet::new(), BTreeSet::new());
        for event in events {
            let tenant = || event.tenant.to_string();
            if let Body::UserErased(body) = &event.body {
                erased.insert((tenant(), body.user_id.to_string()));
            }
            let Some(conversation) = event.conversation_id() else { continue };
            conversations.insert((tenant(), conversation.to_owned()));
            let mut message = |id: &str| questions.messages.insert((tenant(), conversation.into(), id.into()));
            match &event.body {
                Body::MessageSent(body) => _ = message(&body.message_id),
                Body::MessageRead(body) => body.message_ids.iter().for_each(|id| _ = message(id)),
                Body::MessageRecalled(body) => _ = message(&body.message_id),
                Body::ConversationRead(body) => {
                    if let UpTo::Message(id) = &body.up_to {
                        message(id);
                    }
                    questions.people.insert((tenant(), conversation.into(), body.reader_id.to_string()));
                }
                Body::MembersChanged(body) => {
                    body.left.iter().for_each(|user| {
                        questions.people.insert((tenant(), conversation.into(), user.to_string()));
                    });
                }
                _ => {}
            }
        }
        for (tenant, conversation) in conversations {
            let own = erased.iter().filter(|(of, _)| *of == tenant);
            questions.people.extend(own.map(|(_, user)| (tenant.clone(), conversation.clone(), user.clone())));
        }
        questions
    }

    /// Returns the first answer that differs between two subjects, as text. Compares lists as sets.
    pub fn difference(&self, left: &impl Subject, right: &impl Subject) -> Option<String> {
        for (tenant, conversation, message) in &self.messages {
            let asked = format!("{tenant} {conversation} {message}");
            let pair = (left.receipt(tenant, conversation, message), right.receipt(tenant, conversation, message));
            if pair.0 != pair.1 {
                return Some(format!("receipt {asked}:\n  {:?}\n  {:?}", pair.0, pair.1));
            }
            let pair = (left.find(tenant, message), right.find(tenant, message));
            if pair.0 != pair.1 {
                return Some(format!("find {tenant} {message}:\n  {:?}\n  {:?}", pair.0, pair.1));
            }
            for filter in [MemberFilter::Read, MemberFilter::Unread, MemberFilter::Departed] {
                let list = |list: Result<Vec<_>, _>| list.map(sorted);
                let pair = (
                    list(left.members(tenant, conversation, message, filter)),
                    list(right.members(tenant, conversation, message, filter)),
                );
                if pair.0 != pair.1 {
                    return Some(format!("members {asked} {filter:?}:\n  {:?}\n  {:?}", pair.0, pair.1));
                }
            }
        }
        self.people.iter().find_map(|(tenant, conversation, user)| {
            let pair = (left.read_mark(tenant, conversation, user), right.read_mark(tenant, conversation, user));
            if pair.0 != pair.1 {
                return Some(format!("mark {tenant} {conversation} {user}:\n  {:?}\n  {:?}", pair.0, pair.1));
            }
            let pair = (left.is_member(tenant, conversation, user), right.is_member(tenant, conversation, user));
            (pair.0 != pair.1)
                .then(|| format!("on the roster {tenant} {conversation} {user}: {} and {}", pair.0, pair.1))
        })
    }
}

fn sorted(mut list: Vec<receipts_fold::view::Member>) -> Vec<receipts_fold::view::Member> {
    list.sort_by(|a, b| a.user_id.cmp(&b.user_id));
    list
}

/// Folds a history into two subjects. Compares the effects of each event, and all answers after
/// every `ask_every` events and at the end.
///
/// # Errors
/// The first difference as text, with the record before it.
pub fn agree<'a>(
    history: &[(At, Event<'a>)],
    left: &mut impl Subject,
    right: &mut impl Subject,
    ask_every: usize,
) -> Result<(), String> {
    let questions = Questions::of(history.iter().map(|(_, event)| event));
    for (i, (at, event)) in history.iter().enumerate() {
        let pair = (OracleEffect::canonical(left.apply(*at, event)), OracleEffect::canonical(right.apply(*at, event)));
        let differs = if pair.0 != pair.1 {
            Some(format!("effects:\n  {:?}\n  {:?}", pair.0, pair.1))
        } else if (i + 1) % ask_every.max(1) == 0 || i + 1 == history.len() {
            questions.difference(left, right)
        } else {
            None
        };
        if let Some(differs) = differs {
            return Err(format!("after {at:?} {event:?}\n{differs}"));
        }
    }
    Ok(())
}

/// Shrinks a failing history: removes larger pieces first, then single events.
///
/// The result still fails, and fails no longer if any one of its events is removed.
pub fn shrink<'a>(
    mut history: Vec<(At, Event<'a>)>,
    fails: impl Fn(&[(At, Event<'a>)]) -> bool,
) -> Vec<(At, Event<'a>)> {
    let mut piece = history.len().next_power_of_two();
    while piece > 0 {
        let (mut from, mut shorter) = (0, false);
        while from < history.len() {
            let to = (from + piece).min(history.len());
            let rest: Vec<_> = history[..from].iter().chain(&history[to..]).cloned().collect();
            if fails(&rest) {
                history = rest;
                shorter = true;
            } else {
                from = to;
            }
        }
        if !(shorter && piece == 1) {
            piece /= 2;
        }
    }
    history
}

/// Returns a history as the `at` lines of a case file for `crates/fold/tests/cases`.
///
/// A case counts offsets from 0, so gaps between offsets are lost.
pub fn as_case_lines(history: &[(At, Event<'_>)]) -> String {
    let line = |(at, event): &(At, Event<'_>)| {
        format!("at {} {}\n", at.timestamp_ms, String::from_utf8_lossy(&event.to_json()))
    };
    history.iter().map(line).collect()
}
