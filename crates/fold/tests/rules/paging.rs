//! INV-PAGING: in walks through member lists during the fold, no member appears twice. A member who
//! is in the list from the start to the end of the walk appears exactly once.

use receipts_event::{Body, Event};
use receipts_fold::effects::Effects;
use receipts_fold::view::{MemberFilter, Status};
use receipts_fold::{Limits, RawRecord, RecordMetadata, State};
use receipts_store::{MemoryBackend, Paged};
use receipts_testkit::history::{History, Shape};
use receipts_testkit::property::each_seed;
use receipts_testkit::random::Random;
use std::collections::{BTreeMap, BTreeSet};

type Fold = State<Paged<MemoryBackend>>;

struct Message {
    tenant: String,
    conversation_id: String,
    message_id: String,
}

/// A running walk.
struct Walk {
    of: Message,
    filter: MemberFilter,
    next_slot: Option<u32>,
    /// The members of the list at the start.
    before: BTreeSet<String>,
    seen: BTreeMap<String, usize>,
}

fn page(
    fold: &Fold,
    of: &Message,
    filter: MemberFilter,
    from: u32,
    limit: usize,
) -> Option<(Vec<String>, Option<u32>)> {
    let page = fold.members(&of.tenant, &of.conversation_id, &of.message_id, filter, from, limit).unwrap();
    assert!(page.members.len() <= limit);
    let ids = page.members.into_iter().map(|member| member.user_id).collect();
    (page.receipt.status == Status::Ok).then_some((ids, page.next_slot))
}

/// Returns all current members of a list; `None` if there is no list.
fn whole(fold: &Fold, of: &Message, filter: MemberFilter) -> Option<BTreeSet<String>> {
    let (ids, next) = page(fold, of, filter, 0, usize::MAX)?;
    assert_eq!(next, None, "one page without a limit is the whole list");
    Some(ids.into_iter().collect())
}

/// Statistics of the walks.
#[derive(Debug, Default)]
struct Met {
    begun: u64,
    pages: u64,
    /// The walks whose list had changed at their end.
    changed: u64,
}

/// Reads one page; returns true at the end of the walk.
fn step(walk: &mut Walk, fold: &Fold, random: &mut Random, met: &mut Met) -> bool {
    let Some(from) = walk.next_slot else { return true };
    // A recall ends the list and the walk.
    let Some((ids, next)) = page(fold, &walk.of, walk.filter, from, 1 + random.index(40)) else { return true };
    met.pages += 1;
    ids.into_iter().for_each(|id| *walk.seen.entry(id).or_default() += 1);
    walk.next_slot = next;
    if next.is_some() {
        return false;
    }
    for (id, times) in &walk.seen {
        assert_eq!(*times, 1, "{id} appears twice in {:?} of {}", walk.filter, walk.of.message_id);
    }
    let after = whole(fold, &walk.of, walk.filter).expect("a list at the end of its walk");
    met.changed += u64::from(after != walk.before);
    // No member returns to a list, so a member who is in it at both ends was never out of it.
    for id in walk.before.intersection(&after) {
        assert!(walk.seen.contains_key(id), "{id} is missing in {:?} of {}", walk.filter, walk.of.message_id);
    }
    true
}

#[test]
fn concurrent_walks_name_stable_members_exactly_once() {
    let mut met = Met::default();
    each_seed(0..150, |seed| {
        let mut random = Random::new(seed);
        let shape = Shape { events: 400, p_jump: 0.0, p_mid_group: 0.5, p_large_group: 0.2, ..Shape::wild() };
        let mut fold = State::open(Paged::new(MemoryBackend::default(), 0, 1 << 20), Limits::default()).unwrap();
        let (mut effects, mut sent, mut walks) = (Effects::default(), Vec::new(), Vec::<Walk>::new());
        for (at, event) in History::generate(seed, &shape) {
            apply(
                &mut fold,
                RecordMetadata { partition: 0, offset: at.offset, timestamp_ms: at.timestamp_ms },
                &event,
                &mut effects,
            );
            if let Body::MessageSent(message) = &event.body {
                sent.push((
                    event.tenant.to_string(),
                    message.conversation_id.to_string(),
                    message.message_id.to_string(),
                ));
            }
            walks.retain_mut(|walk| !random.chance(0.3) || !step(walk, &fold, &mut random, &mut met));
            if random.chance(0.3)
                && let Some((tenant, conversation_id, message_id)) = random.pick(&sent).cloned()
            {
                let of = Message { tenant, conversation_id, message_id };
                let filter = [MemberFilter::Read, MemberFilter::Unread, MemberFilter::Departed][random.index(3)];
                let Some(before) = whole(&fold, &of, filter).filter(|list| !list.is_empty()) else { continue };
                met.begun += 1;
                walks.push(Walk { of, filter, next_slot: Some(0), before, seen: BTreeMap::new() });
            }
        }
        for mut walk in walks {
            while !step(&mut walk, &fold, &mut random, &mut met) {}
        }
    });
    assert!(met.begun > 4_000 && met.pages > 10_000 && met.changed > 300, "{met:?}");
}

fn apply(fold: &mut Fold, at: RecordMetadata, event: &Event<'_>, effects: &mut Effects) {
    let (key, value) = (event.key(), event.to_json());
    fold.apply(at, event, RawRecord { key: Some(&key), value: &value, headers: &Vec::new }, effects).unwrap();
    effects.clear();
}
