//! The laws that follow from the contract. Each law folds a log into a subject and reports where
//! the subject breaks it. Knows no subject: the oracle and the fold keep the same laws.

use std::collections::{BTreeMap, BTreeSet};

use receipts_event::Body;
use receipts_fold::view::{Member, MemberFilter, Receipt, Status};

use crate::compare::Questions;
use crate::history::{Shape, Weights};
use crate::property::Log;
use crate::random::Random;
use crate::subject::{At, OracleEffect, Subject, reason};

/// The result of a law: where and why it is broken.
pub type Held = Result<(), String>;

const FILTERS: [MemberFilter; 3] = [MemberFilter::Read, MemberFilter::Unread, MemberFilter::Departed];

/// Tenant, conversation, message.
type Name = (String, String, String);

macro_rules! require {
    ($is_so:expr, $($why:tt)+) => {
        if !$is_so {
            return Err(format!($($why)+));
        }
    };
}

/// Returns a wild shape whose groups have at most two pages of people, so that all questions after
/// each event are quick.
pub fn wild_and_small() -> Shape {
    Shape { p_mid_group: 0.02, p_large_group: 0.0, events: 220, ..Shape::wild() }
}

/// Returns a wild shape without hidden reads, erasures and read marks: counts do not depend on the
/// order of receipts then.
pub fn open_reads() -> Shape {
    let weights = Weights { mark_by_message: 0, mark_by_time: 0, erased: 0, ..Shape::wild().weights };
    Shape { weights, p_hidden: 0.0, p_jump: 0.0, ..Shape::wild() }
}

/// Returns a wild shape with more erasures.
pub fn many_erasures() -> Shape {
    Shape { weights: Weights { erased: 4, ..Shape::wild().weights }, ..wild_and_small() }
}

/// Returns a wild shape without erasures, because an erasure removes read marks.
pub fn no_erasures() -> Shape {
    Shape { weights: Weights { erased: 0, ..Shape::wild().weights }, ..Shape::wild() }
}

fn questions(log: &Log) -> Questions {
    Questions::of(log.iter().map(|(_, event)| event))
}

/// Returns the receipt of every message of the questions.
fn receipts(subject: &impl Subject, questions: &Questions) -> BTreeMap<Name, Receipt> {
    questions.messages.iter().map(|id| (id.clone(), subject.receipt(&id.0, &id.1, &id.2))).collect()
}

fn folded<S: Subject>(mut subject: S, log: &Log) -> S {
    for (at, event) in log {
        subject.apply(*at, event);
    }
    subject
}

/// INV-SUM: after every event the counts add up, and the lists are as long as the counts, without
/// erased members.
///
/// # Errors
/// The first contradiction.
pub fn sums_close(mut subject: impl Subject, log: &Log) -> Held {
    let asked = questions(log);
    let mut erased = false;
    for (at, event) in log {
        subject.apply(*at, event);
        erased |= matches!(event.body, Body::UserErased(_));
        for ((tenant, conversation, message), receipt) in receipts(&subject, &asked) {
            let lists = FILTERS.map(|filter| subject.members(&tenant, &conversation, &message, filter));
            let Some(counts) = receipt.counts else {
                require!(
                    lists.iter().all(|list| *list == Err(receipt.status)),
                    "{at:?} {message}: a list without counts"
                );
                continue;
            };
            let sum = counts.read_count + counts.unread_count + counts.hidden_count + counts.departed_count;
            require!(sum == counts.audience_count, "{at:?} {message}: the sum is {sum} in {counts:?}");
            let all_read = counts.unread_count == 0 && counts.hidden_count == 0;
            require!(counts.all_read == all_read, "{at:?} {message}: all_read in {counts:?}");
            for (list, count) in lists.iter().zip([counts.read_count, counts.unread_count, counts.departed_count]) {
                let length = list.as_ref().map_or(usize::MAX, Vec::len);
                let fits = if erased { length <= count as usize } else { length == count as usize };
                require!(fits, "{at:?} {message}: {length} in a list of {count}");
            }
        }
    }
    Ok(())
}

/// INV-VERSION and INV-FROZEN: while the status is `ok`, reads and versions never fall. Of two
/// different copies of the counts, the higher version is newer. For logs without jumps past the
/// retention.
///
/// # Errors
/// The first violation.
pub fn counts_and_versions_never_fall(mut subject: impl Subject, log: &Log) -> Held {
    let asked = questions(log);
    let mut before = BTreeMap::new();
    for (at, event) in log {
        subject.apply(*at, event);
        let after = receipts(&subject, &asked);
        for (id, old) in before.iter().filter(|(_, old): &(_, &Receipt)| old.status != Status::NotFound) {
            let new = &after[id];
            let context = format!("{at:?} {id:?}\n  {old:?}\n  {new:?}");
            require!(old.version <= new.version, "the version falls: {context}");
            require!((old.kind, old.sent_at_ms) == (new.kind, new.sent_at_ms), "a frozen field changes: {context}");
            require!(old.status == new.status || new.status == Status::Recalled, "the status changes: {context}");
            if let (Some(old_counts), Some(new_counts)) = (old.counts, new.counts) {
                require!(old_counts.audience_count == new_counts.audience_count, "the audience changes: {context}");
                require!(old_counts.read_count <= new_counts.read_count, "reads fall: {context}");
                require!(old_counts.hidden_count <= new_counts.hidden_count, "hidden reads fall: {context}");
                require!(old.last_read_at_ms <= new.last_read_at_ms, "the last read falls: {context}");
                require!(old_counts == new_counts || old.version < new.version, "two copies, one version: {context}");
            }
        }
        before = after;
    }
    Ok(())
}

/// INV-UPDATE-LAST for effects: every change of a receipt is published, except those by a leave or
/// by the retention. Every published receipt changed, at the version of its record. A hidden read
/// in a direct chat of two changes nothing.
///
/// # Errors
/// The first violation.
pub fn receipt_changes_are_published(mut subject: impl Subject, log: &Log) -> Held {
    let asked = questions(log);
    let mut before = receipts(&subject, &asked);
    for (at, event) in log {
        let published: BTreeSet<Name> = subject.apply(*at, event).into_iter().filter_map(changed).collect();
        let after = receipts(&subject, &asked);
        let leave = matches!(event.body, Body::MembersChanged(_) | Body::UserErased(_));
        let hidden = matches!(&event.body, Body::MessageRead(body) if body.hidden);
        for (id, new) in &after {
            let between_two = before[id].user_id.is_some();
            let invisible = !hidden || !between_two || new.status == Status::NotFound || before[id] == *new;
            require!(invisible, "{at:?} {id:?}: a hidden read shows in a direct chat");
            let silent = leave || new.status == Status::NotFound || before[id] == *new;
            require!(silent || published.contains(id), "{at:?} {id:?}: changed, but nothing is published");
        }
        for id in &published {
            require!(before[id] != after[id], "{at:?} {id:?}: published, but nothing changed");
            require!(after[id].version == Some(at.offset), "{at:?} {id:?}: published at another version");
        }
        before = after;
    }
    Ok(())
}

fn changed(effect: OracleEffect) -> Option<Name> {
    match effect {
        OracleEffect::Changed { tenant, conversation_id, message_id, .. } => {
            Some((tenant, conversation_id, message_id))
        }
        _ => None,
    }
}

/// INV-ONCE: an immediately repeated read or send changes no answer.
///
/// # Errors
/// The first changed answer.
pub fn repeating_changes_nothing<S: Subject>(make: impl Fn() -> S, log: &Log) -> Held {
    let apart = |at: &At| At { offset: at.offset * 2, ..*at };
    let (mut once, mut twice) = (make(), make());
    for (at, event) in log {
        once.apply(apart(at), event);
        twice.apply(apart(at), event);
        if matches!(event.body, Body::MessageRead(_) | Body::ConversationRead(_) | Body::MessageSent(_)) {
            twice.apply(At { offset: at.offset * 2 + 1, ..*at }, event);
        }
    }
    questions(log).difference(&once, &twice).map_or(Ok(()), Err)
}

/// INV-ONCE: receipts count the same anywhere in the log, before their message or long after, once
/// or often. For logs of [`open_reads`], with room for all parked records.
///
/// # Errors
/// The first message with other counts.
pub fn receipts_count_the_same_anywhere<S: Subject>(make: impl Fn() -> S, seed: u64, log: &Log) -> Held {
    let random = &mut Random::new(seed);
    // Every read moves to a random index, and some are repeated at a second one. Other events stay
    // in order.
    let mut shuffled = Vec::new();
    for (i, (at, event)) in log.iter().enumerate() {
        let is_read = matches!(event.body, Body::MessageRead(_));
        shuffled.push((if is_read { random.index(log.len()) } else { i }, at, event));
        if is_read && random.chance(0.3) {
            shuffled.push((random.index(log.len()), at, event));
        }
    }
    shuffled.sort_by_key(|(index, at, _)| (*index, at.offset));
    let mut moved = make();
    for ((_, at, event), offset) in shuffled.into_iter().zip(0..) {
        moved.apply(At { offset, ..*at }, event);
    }
    let straight = folded(make(), log);
    for (tenant, conversation, message) in questions(log).messages {
        let answers = |subject: &S| {
            let receipt = subject.receipt(&tenant, &conversation, &message);
            let list = |filter| subject.members(&tenant, &conversation, &message, filter).map(without_times);
            // Another read may be the first one, with another time.
            (receipt.status, receipt.counts, receipt.last_read_at_ms.is_some(), FILTERS.map(list))
        };
        let (one, other) = (answers(&straight), answers(&moved));
        require!(one == other, "{tenant} {conversation} {message}:\n  {one:?}\n  {other:?}");
    }
    Ok(())
}

fn without_times(list: Vec<Member>) -> BTreeSet<(String, bool)> {
    list.into_iter().map(|member| (member.user_id, member.left)).collect()
}

/// INV-TENANT: an event of another tenant only moves the partition's time.
///
/// # Errors
/// The first changed answer.
pub fn tenants_are_independent<S: Subject>(make: impl Fn() -> S, log: &Log) -> Held {
    let mut alone = make();
    for (at, event) in log {
        match &*event.tenant {
            "default" => alone.apply(*at, event),
            _ => alone.pass(*at),
        };
    }
    let mine = Questions::of(log.iter().map(|(_, event)| event).filter(|event| event.tenant == "default"));
    mine.difference(&folded(make(), log), &alone).map_or(Ok(()), Err)
}

/// INV-ERASED: after its erasure an id is in no answer and in no effect.
///
/// # Errors
/// The first answer or effect with an erased id.
pub fn erased_ids_are_named_nowhere(mut subject: impl Subject, log: &Log) -> Held {
    let asked = questions(log);
    let mut erased: BTreeSet<(String, String)> = BTreeSet::new();
    for (at, event) in log {
        let effects = subject.apply(*at, event);
        if let Body::UserErased(body) = &event.body {
            erased.insert((event.tenant.to_string(), body.user_id.to_string()));
        }
        let mut said: BTreeSet<(String, String)> = BTreeSet::new();
        for effect in effects {
            match effect {
                OracleEffect::Changed { tenant, newly_read, .. } => {
                    said.extend(newly_read.into_iter().map(|(user, _)| (tenant.clone(), user)));
                }
                OracleEffect::MarkMoved { tenant, mark, .. } => _ = said.insert((tenant, mark.reader_id)),
                OracleEffect::DeadLetter { .. } => {}
            }
        }
        for ((tenant, conversation, message), receipt) in receipts(&subject, &asked) {
            said.extend(receipt.sender_id.into_iter().chain(receipt.user_id).map(|user| (tenant.clone(), user)));
            for filter in FILTERS {
                let list = subject.members(&tenant, &conversation, &message, filter).unwrap_or_default();
                said.extend(list.into_iter().map(|member| (tenant.clone(), member.user_id)));
            }
        }
        for (tenant, conversation, user) in &asked.people {
            let mark = subject.read_mark(tenant, conversation, user);
            said.extend(mark.map(|mark| (tenant.clone(), mark.reader_id)));
        }
        let named: Vec<_> = said.intersection(&erased).collect();
        require!(named.is_empty(), "{at:?}: {named:?}");
    }
    Ok(())
}

/// INV-PARKED: a record is at most one dead letter, which names every id once.
///
/// # Errors
/// The first violation.
pub fn dead_letters_are_sent_once(mut subject: impl Subject, log: &Log) -> Held {
    let mut dead = BTreeSet::new();
    for (at, event) in log {
        for effect in subject.apply(*at, event) {
            if let OracleEffect::DeadLetter { offset, ids, reason } = effect {
                require!(offset <= at.offset && dead.insert(offset), "{at:?}: {offset} twice");
                let distinct = ids.iter().collect::<BTreeSet<_>>().len();
                let names_messages = reason != reason::OVER_BUDGET;
                require!(names_messages != ids.is_empty() && distinct == ids.len(), "{at:?}: {reason} {ids:?}");
            }
        }
    }
    Ok(())
}

/// INV-MARK: marks only grow, and their read time is never before their `up_to_sent_at_ms`. For
/// logs without erasures.
///
/// # Errors
/// The first violation.
pub fn read_marks_only_grow(mut subject: impl Subject, log: &Log) -> Held {
    let asked = questions(log);
    let mut before = BTreeMap::new();
    for (at, event) in log {
        subject.apply(*at, event);
        for id in &asked.people {
            let mark = subject.read_mark(&id.0, &id.1, &id.2);
            let up_to_ms = mark.as_ref().map(|mark| mark.up_to_sent_at_ms);
            require!(
                mark.iter().all(|mark| mark.read_at_ms >= mark.up_to_sent_at_ms),
                "{at:?} {id:?}: the read time is before the send"
            );
            require!(before.insert(id, up_to_ms).flatten() <= up_to_ms, "{at:?} {id:?}: the mark went back");
        }
    }
    Ok(())
}
