//! Walks over a whole state by number, as in exports and audits: they meet each item once, and
//! agree with questions by name. Change nothing.

use crate::life::{Folded, Life};
use receipts_fold::Limits;
use receipts_fold::pages::codec::{Reader, Writer};
use receipts_fold::pages::{
    Chunk, ConversationPage, Departures, Erasure, Messages, Meta, Page, PageKey, Parked, People, Policy, ReadMarks,
    Role, Table, TableId,
};
use receipts_fold::view::{MemberFilter, Status};
use receipts_fold::{Origin, State};
use receipts_store::Paged;
use receipts_testkit::history::Shape;
use receipts_testkit::property::holds;
use receipts_testkit::{At, Subject};
use std::collections::BTreeSet;

type Fold = State<Paged<crate::lagging::Lagging>>;

const FILTERS: [MemberFilter; 3] = [MemberFilter::Read, MemberFilter::Unread, MemberFilter::Departed];

/// Returns limits that keep parked records to the end.
fn limits() -> Limits {
    Limits { parked_age_ms: u64::MAX, ..Limits::default() }
}

fn folded(log: &receipts_testkit::property::Log) -> Folded {
    let mut folded = Folded::new(limits(), Life::QUIET);
    log.iter().for_each(|(at, event)| _ = folded.apply(*at, event));
    folded.checkpoint();
    folded
}

/// From any slot on, a roster has its members in slot order, page by page, without erased ones.
#[test]
fn roster_walk_is_exact_from_any_slot() {
    holds(0..16, &Shape::crowds(), |_, log| {
        let folded = folded(log);
        let fold = folded.state();
        for conversation in 0..fold.conversations() {
            let about = fold.conversation(conversation).unwrap();
            let mut wanted = Vec::new();
            for slot in 0..about.people {
                let page = Table::<People>::read(fold.pages(), PageKey::new(conversation, slot / 64)).unwrap().unwrap();
                let person = page.at(slot % 64).unwrap();
                let shown = fold.is_member(&about.tenant, &about.conversation_id, &person.id).unwrap()
                    && !fold.is_erased(&about.tenant, &person.id);
                wanted.push(shown.then(|| (person.id.to_string(), person.role)));
            }
            let members = wanted.iter().flatten().filter(|(_, role)| *role == Role::Member).count();
            if members > about.members as usize {
                return Err(format!("{about:?} has {members} members by name"));
            }
            for from in [0, 1, 62, 63, 64, 65, 127, 128, about.people.saturating_sub(1), about.people, u32::MAX] {
                let (mut met, mut next) = (Vec::new(), Some(from));
                while let Some(slot) = next {
                    let page = fold.roster_page(conversation, slot).unwrap();
                    met.extend(page.people);
                    if page.next_slot.is_some_and(|after| after <= slot || after % 64 != 0 || after >= about.people) {
                        return Err(format!("from {slot} on to {:?} of {about:?}", page.next_slot));
                    }
                    next = page.next_slot;
                }
                let wanted: Vec<_> = wanted.iter().skip(from as usize).flatten().cloned().collect();
                if met != wanted {
                    return Err(format!("from {from} of {about:?}:\n  {met:?}\n  {wanted:?}"));
                }
            }
        }
        Ok(())
    });
}

#[test]
fn message_by_number_equals_message_by_name() {
    holds(0..10, &Shape { p_jump: 0.02, ..Shape::wild() }, |_, log| {
        let folded = folded(log);
        let fold = folded.state();
        let newest = log.iter().map(|(at, _)| at.timestamp_ms).max().unwrap_or(0);
        assert_eq!(fold.newest_timestamp_ms(), newest);
        assert_eq!(fold.origin(), None, "a new state has no origin");
        let mut met = 0;
        for number in fold.first_message()..fold.messages() + 1 {
            let Some(placed) = fold.located_receipt(number).unwrap() else {
                assert_eq!(fold.members_of(number, MemberFilter::Read, 0, 9).unwrap(), None);
                continue;
            };
            met += 1;
            let about = fold.conversation(placed.conversation).unwrap();
            let of = (&*about.tenant, &*about.conversation_id, &*placed.receipt.message_id);
            let by_name = fold.receipt(of.0, of.1, of.2).unwrap();
            if by_name != placed.receipt {
                return Err(format!("{number}:\n  {:?}\n  {by_name:?}", placed.receipt));
            }
            for filter in FILTERS {
                let list = fold.members_of(number, filter, 1, 3).unwrap();
                if list != Some(fold.members(of.0, of.1, of.2, filter, 1, 3).unwrap()) {
                    return Err(format!("{filter:?} of {number}: {list:?}"));
                }
            }
        }
        let live = log.iter().filter_map(|(_, event)| match &event.body {
            receipts_event::Body::MessageSent(e) => Some((&*event.tenant, &*e.conversation_id, &*e.message_id)),
            _ => None,
        });
        let live: BTreeSet<_> =
            live.filter(|of| fold.receipt(of.0, of.1, of.2).unwrap().status != Status::NotFound).collect();
        if live.len() == met { Ok(()) } else { Err(format!("{met} by number and {} by name", live.len())) }
    });
}

/// A state reports the settings of its fold after a restart.
#[test]
fn opened_state_reports_its_settings() {
    let dies = Life { checkpoint_every: 1, die_every: 1, ..Life::QUIET };
    let mut folded = Folded::new(limits(), dies);
    assert_eq!(folded.state().origin(), None);
    folded.pass(At { partition: 0, offset: 0, timestamp_ms: 1 });
    assert_eq!(folded.state().origin(), Some(&Origin { limits: limits(), last: None }));
}

fn keys<P: Page>(fold: &Fold, into: &mut BTreeSet<(TableId, PageKey)>)
where
    Paged<crate::lagging::Lagging>: Table<P>,
{
    into.extend(Table::<P>::keys(fold.pages()).unwrap().into_iter().map(|key| (P::TABLE, key)));
}

fn is_written<P: Page>(fold: &Fold, key: PageKey, bytes: &[u8]) -> bool
where
    Paged<crate::lagging::Lagging>: Table<P>,
{
    let mut writer = Writer::default();
    Table::<P>::read(fold.pages(), key).unwrap().expect("its key is there").encode(&mut writer);
    let mut reader = Reader::new(bytes);
    writer.bytes == bytes && P::decode(&mut reader).is_ok() && reader.end().is_ok()
}

/// A comparison of two states covers all their pages except lookup pages.
#[test]
fn numbered_pages_are_all_pages_of_the_store() {
    holds(0..8, &Shape { events: 900, p_large_group: 0.2, ..Shape::wild() }, |_, log| {
        let folded = folded(log);
        let fold = folded.state();
        let mut named: BTreeSet<(TableId, PageKey)> = fold.pages_of_partition().unwrap().into_iter().collect();
        for conversation in 0..fold.conversations() {
            named.extend(fold.pages_of_conversation(conversation).unwrap());
        }
        for message in (fold.first_message()..fold.messages()).step_by(64) {
            // Any message of a page names the page.
            assert_eq!(fold.pages_of_messages(message).unwrap(), fold.pages_of_messages(message + 63).unwrap());
            named.extend(fold.pages_of_messages(message).unwrap());
        }
        let mut held = BTreeSet::new();
        keys::<Meta>(fold, &mut held);
        keys::<ConversationPage>(fold, &mut held);
        keys::<People>(fold, &mut held);
        keys::<ReadMarks>(fold, &mut held);
        keys::<Departures>(fold, &mut held);
        keys::<Messages>(fold, &mut held);
        keys::<Chunk>(fold, &mut held);
        keys::<Parked>(fold, &mut held);
        keys::<Erasure>(fold, &mut held);
        keys::<Policy>(fold, &mut held);
        if let Some(missing) = held.difference(&named).next() {
            return Err(format!("no number names {missing:?}"));
        }
        for &(table, key) in &named {
            let bytes = fold.page_bytes(table, key).unwrap();
            if bytes.is_some() != held.contains(&(table, key)) {
                return Err(format!("{table:?} {key:?} does not match its bytes"));
            }
            let Some(bytes) = bytes else { continue };
            let is_written = match table {
                TableId::Meta => is_written::<Meta>,
                TableId::Conversations => is_written::<ConversationPage>,
                TableId::People => is_written::<People>,
                TableId::ReadMarks => is_written::<ReadMarks>,
                TableId::Departures => is_written::<Departures>,
                TableId::Messages => is_written::<Messages>,
                TableId::Chunks => is_written::<Chunk>,
                TableId::Parked => is_written::<Parked>,
                TableId::Erasures => is_written::<Erasure>,
                _ => is_written::<Policy>,
            };
            if !is_written(fold, key, &bytes) {
                return Err(format!("{table:?} {key:?} has other bytes"));
            }
        }
        for table in [TableId::Names, TableId::PeopleIndex, TableId::Index, TableId::BloomFilters, TableId::Origin] {
            assert!(fold.page_bytes(table, PageKey::new(0u32, 0)).is_err(), "{table:?} is a lookup table");
        }
        Ok(())
    });
}
