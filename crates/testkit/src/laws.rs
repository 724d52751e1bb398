//! What follows from the contract for whoever folds a log: each law takes one, and says where it is broken. Must know no
//! subject: the oracle is held to the same laws as the fold.

use std::collections::{BTreeMap, BTreeSet};

use receipts_event::Body;
use receipts_fold::view::{Member, MemberFilter, Receipt, Status};

use crate::compare::Questions;
use crate::history::{Shape, Weights};
use crate::property::Log;
use crate::random::Random;
use crate::subject::{At, OracleEffect, Subject};

/// Whether a law holds; if not, where and why.
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

/// Wild, with crowds just large enough for a second page of people, so that asking everything after each event is quick.
pub fn wild_and_small() -> Shape {
    Shape { p_mid_group: 0.02, p_large_group: 0.0, events: 220, ..Shape::wild() }
}

/// Nothing hidden and nobody erased; reads by message only: what then counts does not hang on the order of the receipts.
pub fn open_reads() -> Shape {
    let weights = Weights { mark_by_message: 0, mark_by_time: 0, erased: 0, ..Shape::wild().weights };
    Shape { weights, p_hidden: 0.0, p_jump: 0.0, ..Shape::wild() }
}

/// Wild, with more erasures than usual.
pub fn many_erasures() -> Shape {
    Shape { weights: Weights { erased: 4, ..Shape::wild().weights }, ..wild_and_small() }
}

/// Wild, with nobody erased: erasure takes marks away.
pub fn no_erasures() -> Shape {
    Shape { weights: Weights { erased: 0, ..Shape::wild().weights }, ..Shape::wild() }
}

fn questions(log: &Log) -> Questions {
    Questions::of(log.iter().map(|(_, event)| event))
}

/// The receipt of every message that is asked for.
fn receipts(subject: &impl Subject, questions: &Questions) -> BTreeMap<Name, Receipt> {
    questions.messages.iter().map(|id| (id.clone(), subject.receipt(&id.0, &id.1, &id.2))).collect()
}

fn folded<S: Subject>(mut subject: S, log: &Log) -> S {
    for (at, event) in log {
        subject.apply(*at, event);
    }
    subject
}

/// INV-SUM, after every event; and the lists are as long as the counts say, but for who is erased.
///
/// # Errors
/// Where it does not.
pub fn the_sum_closes(mut subject: impl Subject, log: &Log) -> Held {
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

/// INV-VERSION and INV-FROZEN: while `ok`, reads and versions never fall, and of two different copies of the counts the
/// higher version is the newer. For logs without jumps past the retention.
///
/// # Errors
/// Where they do.
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
            require!((old.kind, old.sent_at_ms) == (new.kind, new.sent_at_ms), "what is frozen changes: {context}");
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

/// INV-UPDATE-LAST, of effects: what changes a receipt is published, unless it is a leave or the retention; what is
/// published changed, at the version of its record. A hidden read in a direct chat of two changes nothing.
///
/// # Errors
/// Where that is not so.
pub fn what_changes_a_receipt_is_published(mut subject: impl Subject, log: &Log) -> Held {
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
            require!(silent || published.contains(id), "{at:?} {id:?}: changed, and nothing is published");
        }
        for id in &published {
            require!(before[id] != after[id], "{at:?} {id:?}: published, though nothing changed");
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

/// INV-ONCE: a read or a send repeated at once changes no answer.
///
/// # Errors
/// The first answer that it changes.
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

/// INV-ONCE: receipts anywhere in the log, before their message or long after, once or often, count the same. For logs of
/// [`open_reads`], with room for all that is parked.
///
/// # Errors
/// The first message of which they do not.
pub fn receipts_count_the_same_wherever_they_come<S: Subject>(make: impl Fn() -> S, seed: u64, log: &Log) -> Held {
    let random = &mut Random::new(seed);
    // Every read gets a place of its own, and some a second one; all else stays in order.
    let mut placed = Vec::new();
    for (i, (at, event)) in log.iter().enumerate() {
        let is_read = matches!(event.body, Body::MessageRead(_));
        placed.push((if is_read { random.index(log.len()) } else { i }, at, event));
        if is_read && random.chance(0.3) {
            placed.push((random.index(log.len()), at, event));
        }
    }
    placed.sort_by_key(|(place, at, _)| (*place, at.offset));
    let mut moved = make();
    for ((_, at, event), offset) in placed.into_iter().zip(0..) {
        moved.apply(At { offset, ..*at }, event);
    }
    let straight = folded(make(), log);
    for (tenant, conversation, message) in questions(log).messages {
        let told = |subject: &S| {
            let receipt = subject.receipt(&tenant, &conversation, &message);
            let list = |filter| subject.members(&tenant, &conversation, &message, filter).map(without_times);
            // Whose read is the first may differ, and with it the times.
            (receipt.status, receipt.counts, receipt.last_read_at_ms.is_some(), FILTERS.map(list))
        };
        let (one, other) = (told(&straight), told(&moved));
        require!(one == other, "{tenant} {conversation} {message}:\n  {one:?}\n  {other:?}");
    }
    Ok(())
}

fn without_times(list: Vec<Member>) -> BTreeSet<(String, bool)> {
    list.into_iter().map(|member| (member.user_id, member.left)).collect()
}

/// INV-TENANT: what happens in another tenant only moves the partition's time.
///
/// # Errors
/// The first answer that it changes.
pub fn tenants_are_nothing_to_one_another<S: Subject>(make: impl Fn() -> S, log: &Log) -> Held {
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

/// INV-ERASED: from its erasure on an id is in no answer and in no effect.
///
/// # Errors
/// Where one is.
pub fn the_erased_are_named_nowhere(mut subject: impl Subject, log: &Log) -> Held {
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

/// INV-PARKED: a record is a dead letter once or never, and names every id once.
///
/// # Errors
/// Where that is not so.
pub fn a_record_is_a_dead_letter_once_or_never(mut subject: impl Subject, log: &Log) -> Held {
    let mut dead = BTreeSet::new();
    for (at, event) in log {
        for effect in subject.apply(*at, event) {
            if let OracleEffect::DeadLetter { offset, ids, .. } = effect {
                require!(offset <= at.offset && dead.insert(offset), "{at:?}: {offset} twice");
                let distinct = ids.iter().collect::<BTreeSet<_>>().len();
                require!(!ids.is_empty() && distinct == ids.len(), "{at:?}: {ids:?}");
            }
        }
    }
    Ok(())
}

/// INV-MARK: marks only grow, and are never read before what they reach was sent. For logs without erasures.
///
/// # Errors
/// Where they do not.
pub fn read_marks_only_grow(mut subject: impl Subject, log: &Log) -> Held {
    let asked = questions(log);
    let mut before = BTreeMap::new();
    for (at, event) in log {
        subject.apply(*at, event);
        for id in &asked.people {
            let mark = subject.read_mark(&id.0, &id.1, &id.2);
            let up_to_ms = mark.as_ref().map(|mark| mark.up_to_sent_at_ms);
            require!(mark.iter().all(|mark| mark.read_at_ms >= mark.up_to_sent_at_ms), "{at:?} {id:?}: read too soon");
            require!(before.insert(id, up_to_ms).flatten() <= up_to_ms, "{at:?} {id:?}: the mark went back");
        }
    }
    Ok(())
}
