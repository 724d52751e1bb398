//! Invariants of a state's own pages, read directly: slots, bits, counters, space, and the digest
//! of all pages. Asks no question of a user.

use crate::lagging::Lagging;
use crate::life::{Folded, Life};
use receipts_fold::pages::{PEOPLE_PER_PAGE, PageKey, People, Table, TableId};
use receipts_fold::{Limits, State};
use receipts_store::Paged;
use receipts_testkit::history::Shape;
use receipts_testkit::property::holds;
use receipts_testkit::{At, Subject, laws};
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hasher};

type Fold = State<Paged<Lagging>>;

fn limits() -> Limits {
    Limits { parked_max: 20, parked_age_ms: 60_000, ..Limits::default() }
}

/// Returns the ids of a conversation's people by slot.
fn slots(fold: &Fold, conversation: u32) -> Vec<String> {
    let people = fold.conversation(conversation).unwrap().people;
    let pages = (0..people.div_ceil(PEOPLE_PER_PAGE)).map(|page| PageKey::new(conversation, page));
    let ids: Vec<String> = pages
        .flat_map(|key| {
            let page = Table::<People>::read(fold.pages(), key).unwrap().expect("a page of people");
            page.iter().map(|person| person.id.to_string()).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(ids.len(), people as usize, "one person per assigned slot");
    ids
}

/// INV-SLOT: slots are assigned in order of appearance, each to one person, and never to another.
#[test]
fn slot_belongs_to_one_person_for_ever() {
    let shape = Shape { p_mid_group: 0.2, p_large_group: 0.05, ..Shape::wild() };
    holds(0..40, &shape, |seed, log| {
        let mut folded = Folded::new(limits(), Life::random(seed));
        let mut before: BTreeMap<u32, Vec<String>> = BTreeMap::new();
        for (at, event) in log {
            folded.apply(*at, event);
            for conversation in 0..folded.state().conversations() {
                let now = slots(folded.state(), conversation);
                let then = before.remove(&conversation).unwrap_or_default();
                if !now.starts_with(&then) {
                    return Err(format!("{at:?}: slots of conversation {conversation} were {then:?} and are {now:?}"));
                }
                if now.iter().collect::<BTreeSet<_>>().len() != now.len() {
                    return Err(format!("{at:?}: a person has two slots in conversation {conversation}: {now:?}"));
                }
                before.insert(conversation, now);
            }
        }
        Ok(())
    });
}

/// INV-BITS: after every event, each message's counts are the numbers of its bits, and its lists
/// match its receipt.
#[test]
fn counts_are_the_numbers_of_bits_after_every_event() {
    let audit = |seed: u64, log: &receipts_testkit::property::Log| {
        let mut folded = Folded::new(limits(), Life::random(seed));
        for (at, event) in log {
            folded.apply(*at, event);
            let fold = folded.state();
            for message in fold.first_message()..fold.messages() {
                if let Some(why) = fold.audit(message).unwrap() {
                    return Err(format!("{at:?}: message {message}: {why}"));
                }
            }
        }
        Ok(())
    };
    holds(0..20, &laws::wild_and_small(), audit);
    holds(20..24, &Shape { p_large_group: 0.3, p_hidden: 0.4, ..laws::wild_and_small() }, audit);
}

/// The audit finds counts that differ from the numbers of bits, and bits of people outside the
/// audience.
#[test]
fn audit_finds_counts_that_contradict_bits() {
    use receipts_fold::pages::{Message, Messages};
    let folded = || {
        let mut folded = Folded::new(limits(), Life::QUIET);
        for (offset, event) in [
            r#"{"type":"members.changed","conversation_id":"g","joined":["ann","bob","cid"],"observers":["bot"]}"#,
            r#"{"type":"message.sent","conversation_id":"g","message_id":"m","sender_id":"ann","sent_at_ms":1,"need_read_receipt":true}"#,
            r#"{"type":"message.read","conversation_id":"g","reader_id":"bob","message_ids":["m"]}"#,
            r#"{"type":"members.changed","conversation_id":"g","left":["cid"]}"#,
        ]
        .iter()
        .enumerate()
        {
            let event = receipts_event::decode(event.as_bytes()).unwrap();
            folded.apply(At { partition: 0, offset: offset as u64, timestamp_ms: 10 }, &event);
        }
        folded
    };
    type Plant = fn(&mut Message);
    let audit = |plant: Plant| {
        let mut folded = folded();
        let mut page = Table::<Messages>::load_mut(folded.pages_mut(), PageKey::new(0u32, 0)).unwrap().unwrap();
        plant(page.at_mut(0).unwrap());
        folded.state().audit(0).unwrap()
    };
    assert_eq!(audit(|_| {}), None);
    let plants: [(Plant, &str); 7] = [
        (|m| m.read += 1, "counts (2, 2, 0)"),
        (|m| m.hidden += 1, "counts (2, 1, 1)"),
        (|m| m.audience += 1, "counts (3, 1, 0)"),
        (|m| _ = m.reads.read(0, None), "slot 0 has read it"),
        (|m| _ = m.reads.read(3, None), "slot 3 has read it"),
        (|m| _ = m.reads.read_hidden(3), "slot 3 has read it"),
        (|m| _ = m.reads.read_hidden(2), "its bits are (2, 1, 1)"),
    ];
    for (plant, sentence) in plants {
        let found = audit(plant).expect(sentence);
        assert!(found.contains(sentence), "{found}");
    }
}

/// Returns a hash over every page of a state, and over their keys.
fn digest(fold: &Fold) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut pages = fold.pages_of_partition().unwrap();
    for conversation in 0..fold.conversations() {
        let (tenant, id) = fold.conversation_name(conversation).unwrap();
        hasher.write(format!("{tenant}/{id}\n").as_bytes());
        pages.extend(fold.pages_of_conversation(conversation).unwrap());
    }
    for page in (fold.first_message()..fold.messages()).step_by(64) {
        pages.extend(fold.pages_of_messages(page).unwrap());
    }
    // Counters are in memory until a checkpoint writes them.
    for (table, key) in pages.into_iter().filter(|(table, _)| *table != TableId::Meta) {
        hasher.write_u8(table as u8);
        hasher.write_u64(key.a);
        hasher.write_u32(key.b);
        hasher.write(&fold.page_bytes(table, key).unwrap().unwrap_or_default());
    }
    for number in [fold.next_offset(), fold.newest_timestamp_ms(), fold.messages(), fold.conversations().into()] {
        hasher.write_u64(number);
    }
    hasher.write_u64(fold.parked() as u64);
    hasher.finish()
}

/// INV-PREFIX: the same prefix gives the same state, byte for byte, with any deaths and
/// checkpoints.
#[test]
fn refolds_and_deaths_keep_the_digest() {
    let lives = [
        |_: u64| Life { checkpoint_every: 1, die_every: 1, ..Life::QUIET },
        |_: u64| Life { memory_bytes: 0, checkpoint_every: 29, die_every: 1, ..Life::QUIET },
        Life::random,
    ];
    for (shape, from) in [(Shape { p_jump: 0.003, ..Shape::wild() }, 0), (Shape { events: 700, ..Shape::quiet() }, 100)]
    {
        holds(from..from + 20, &shape, |seed, log| {
            let mut straight = Folded::new(limits(), Life::QUIET);
            let mut others = lives.map(|life| Folded::new(limits(), life(seed)));
            for (at, event) in log {
                straight.apply(*at, event);
                let wanted = digest(straight.state());
                for (other, number) in others.iter_mut().zip(1..) {
                    other.apply(*at, event);
                    if digest(other.state()) != wanted {
                        return Err(format!("{at:?}: life {number} has another state"));
                    }
                }
            }
            Ok(())
        });
    }
}

/// INV-EXPIRED: pages, chunks and index of expired messages are removed, wherever the process dies.
#[test]
fn space_of_expired_messages_comes_back() {
    use receipts_fold::index::{BloomFilter, IndexPage};
    use receipts_fold::pages::{Chunk, MESSAGES_PER_PAGE, Messages};
    let keys = |fold: &Fold| {
        let pages = fold.pages();
        let messages = Table::<Messages>::keys(pages).unwrap();
        let chunks = Table::<Chunk>::keys(pages).unwrap();
        let index = Table::<IndexPage>::keys(pages).unwrap();
        let filters = Table::<BloomFilter>::keys(pages).unwrap();
        (messages, chunks, index, filters)
    };
    let met = Cell::new(0);
    let shape = Shape { events: 4_000, p_jump: 0.0, p_large_group: 0.6, ..Shape::wild() };
    holds(0..3, &shape, |seed, log| {
        let mut folded = Folded::new(limits(), Life::random(seed));
        log.iter().for_each(|(at, event)| _ = folded.apply(*at, event));
        let before = keys(folded.state());
        if before.0.len() < 4 || before.2.is_empty() || before.3.is_empty() {
            return Ok(()); // too few pages, as in a history that is being shrunk
        }
        met.set(met.get() + 1);
        // A month later the same people go on. Each new page removes four old ones.
        let (last, _) = log.last().expect("a history");
        let later = folded.state().newest_timestamp_ms() + shape.retention_ms + 1;
        for (i, (at, event)) in log.iter().enumerate() {
            let at = At { offset: last.offset + 1 + i as u64, timestamp_ms: later.max(at.timestamp_ms), ..*at };
            folded.apply(at, event);
        }
        let fold = folded.state();
        let (oldest, after) = (fold.first_message(), keys(fold));
        if oldest < before.0.len() as u64 * MESSAGES_PER_PAGE - MESSAGES_PER_PAGE {
            return Err(format!(
                "there were {} pages a month ago, and the first message is still {oldest}",
                before.0.len()
            ));
        }
        let first_segment = oldest / Life::QUIET.segment;
        for (what, first) in [
            ("message", after.0.first().map(|key| key.a * MESSAGES_PER_PAGE)),
            ("chunk", after.1.first().map(|key| key.a)),
            ("index page", after.2.first().map(|key| key.a.max(first_segment - 1) * Life::QUIET.segment)),
            ("filter", after.3.first().map(|key| key.a.max(first_segment - 1) * Life::QUIET.segment)),
        ] {
            // A segment is removed once it lies wholly below.
            if first.is_some_and(|first| first + Life::QUIET.segment < oldest) {
                return Err(format!("the first remaining {what} is {first:?}, but the oldest message is {oldest}"));
            }
        }
        Ok(())
    });
    assert!(met.get() > 0, "no history had pages to remove");
}
