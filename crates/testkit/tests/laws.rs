//! The oracle held to the laws that follow from the contract, over random histories. A failing seed is named in the
//! message; add it to `SEEDS_ONCE_FAILING`, so that it is run for ever.

use std::collections::{BTreeMap, BTreeSet};

use receipts_event::{Body, Event};
use receipts_fold::view::{Filter, Receipt, Status};
use receipts_testkit::compare::{Questions, agree, shrink};
use receipts_testkit::history::{History, Shape, Weights};
use receipts_testkit::random::Random;
use receipts_testkit::{At, Limits, Oracle, OracleEffect};

type Log = Vec<(At, Event<'static>)>;

/// Histories asked at their end.
const SEEDS: u64 = 150;
/// Histories asked everything after every event.
const SEEDS_STEPWISE: u64 = 25;
const SEEDS_ONCE_FAILING: [u64; 0] = [];
const FILTERS: [Filter; 3] = [Filter::Read, Filter::Unread, Filter::Departed];

fn seeds() -> impl Iterator<Item = u64> {
    SEEDS_ONCE_FAILING.into_iter().chain(0..SEEDS)
}

fn stepwise() -> impl Iterator<Item = u64> {
    SEEDS_ONCE_FAILING.into_iter().chain(0..SEEDS_STEPWISE)
}

/// Wild, with crowds just large enough for a second chunk of bits, so that asking everything is quick.
fn wild_and_small() -> Shape {
    Shape { p_mid_group: 0.02, p_large_group: 0.0, events: 220, ..Shape::wild() }
}

fn roomy() -> Limits {
    Limits { parked_count: 100_000, parked_age_ms: u64::MAX, ..Limits::default() }
}

fn tight() -> Limits {
    Limits { parked_count: 6, parked_age_ms: 20_000, ..Limits::default() }
}

fn folded(log: &[(At, Event<'_>)]) -> Oracle {
    let mut oracle = Oracle::new(roomy());
    for (at, event) in log {
        oracle.apply(*at, event);
    }
    oracle
}

fn questions(log: &Log) -> Questions {
    Questions::of(log.iter().map(|(_, event)| event))
}

/// The receipt of every message that the log names.
fn receipts(oracle: &Oracle, questions: &Questions) -> BTreeMap<(String, String, String), Receipt> {
    questions.messages.iter().map(|id| (id.clone(), oracle.receipt(&id.0, &id.1, &id.2))).collect()
}

/// A log of the same events at offsets apart, so that others fit in between.
fn spread(log: &Log) -> Log {
    log.iter().map(|(at, event)| (At { offset: at.offset * 4, ..*at }, event.clone())).collect()
}

#[test]
fn the_sum_closes_and_the_lists_are_what_the_counts_say_after_every_event() {
    for seed in stepwise() {
        let log = History::generate(seed, &wild_and_small());
        let asked = questions(&log);
        let mut oracle = Oracle::new(tight());
        let mut erased = false;
        for (at, event) in &log {
            oracle.apply(*at, event);
            erased |= matches!(event.body, Body::UserErased(_));
            for ((tenant, conversation, message), receipt) in receipts(&oracle, &asked) {
                let lists = FILTERS.map(|filter| oracle.members(&tenant, &conversation, &message, filter));
                let Some(counts) = receipt.counts else {
                    assert!(lists.iter().all(|list| *list == Err(receipt.status)), "seed {seed} {at:?}");
                    continue;
                };
                let sum = counts.read_count + counts.unread_count + counts.hidden_count + counts.departed_count;
                assert_eq!(sum, counts.audience_count, "seed {seed} {at:?} {message}");
                assert_eq!(counts.all_read, counts.unread_count == 0 && counts.hidden_count == 0);
                for (list, count) in lists.iter().zip([counts.read_count, counts.unread_count, counts.departed_count]) {
                    let length = list.as_ref().map_or(usize::MAX, Vec::len);
                    let fits = if erased { length <= count as usize } else { length == count as usize };
                    assert!(fits, "seed {seed} {at:?} {message}: {length} of {count}");
                }
            }
        }
    }
}

#[test]
fn counts_of_reads_and_versions_never_fall_while_ok_and_what_is_frozen_stays() {
    for seed in stepwise() {
        let log = History::generate(seed, &Shape { p_jump: 0.0, ..wild_and_small() });
        let asked = questions(&log);
        let mut oracle = Oracle::new(tight());
        let mut before = BTreeMap::new();
        for (at, event) in &log {
            oracle.apply(*at, event);
            let after = receipts(&oracle, &asked);
            for (id, old) in before.iter().filter(|(_, old): &(_, &Receipt)| old.status != Status::NotFound) {
                let new = &after[id];
                let context = format!("seed {seed} {at:?} {id:?}");
                assert!(old.version <= new.version, "{context}");
                assert_eq!((old.kind, old.sent_at_ms), (new.kind, new.sent_at_ms), "{context}");
                assert!(old.status == new.status || new.status == Status::Recalled, "{context}");
                if let (Some(old_counts), Some(new_counts)) = (old.counts, new.counts) {
                    assert_eq!(old_counts.audience_count, new_counts.audience_count, "{context}");
                    assert!(old_counts.read_count <= new_counts.read_count, "{context}");
                    assert!(old_counts.hidden_count <= new_counts.hidden_count, "{context}");
                    assert!(old.last_read_at_ms <= new.last_read_at_ms, "{context}");
                    // Of two different copies of the counts the higher version is the newer.
                    assert!(old_counts == new_counts || old.version < new.version, "{context}");
                }
            }
            before = after;
        }
    }
}

#[test]
fn what_changes_a_receipt_is_published_unless_it_is_a_leave_or_the_retention() {
    for seed in stepwise() {
        let log = History::generate(seed, &wild_and_small());
        let asked = questions(&log);
        let mut oracle = Oracle::new(tight());
        let mut before = receipts(&oracle, &asked);
        for (at, event) in &log {
            let effects = oracle.apply(*at, event);
            let published: BTreeSet<_> = effects
                .iter()
                .filter_map(|effect| match effect {
                    OracleEffect::Changed { tenant, conversation_id, message_id, .. } => {
                        Some((tenant.clone(), conversation_id.clone(), message_id.clone()))
                    }
                    _ => None,
                })
                .collect();
            let after = receipts(&oracle, &asked);
            let leave = matches!(event.body, Body::MembersChanged(_) | Body::UserErased(_));
            let hidden = matches!(&event.body, Body::MessageRead(body) if body.hidden);
            for (id, new) in &after {
                let between_two = before[id].user_id.is_some();
                assert!(
                    !hidden || !between_two || new.status == Status::NotFound || before[id] == *new,
                    "seed {seed} {at:?}"
                );
                let silent = leave || new.status == Status::NotFound;
                assert!(silent || before[id] == *new || published.contains(id), "seed {seed} {at:?} {id:?}");
            }
            for id in &published {
                assert!(before[id] != after[id], "seed {seed} {at:?} {id:?} published, though nothing changed");
                assert_eq!(after[id].version, Some(at.offset), "seed {seed} {at:?} {id:?}");
            }
            before = after;
        }
    }
}

#[test]
fn a_read_or_a_send_repeated_at_once_changes_no_answer() {
    for seed in seeds() {
        let log = spread(&History::generate(seed, &Shape::wild()));
        let mut twice = log.clone();
        for (at, event) in &log {
            if matches!(event.body, Body::MessageRead(_) | Body::ConversationRead(_) | Body::MessageSent(_)) {
                twice.push((At { offset: at.offset + 1, ..*at }, event.clone()));
            }
        }
        twice.sort_by_key(|(at, _)| at.offset);
        let (left, right) = (folded(&log), folded(&twice));
        assert_eq!(questions(&log).difference(&left, &right), None, "seed {seed}");
    }
}

/// Nothing hidden and nobody erased; reads by message only: what then counts does not hang on the order of the receipts.
fn open_reads() -> Shape {
    let weights = Weights { mark_by_message: 0, mark_by_time: 0, erased: 0, ..Shape::wild().weights };
    Shape { weights, p_hidden: 0.0, p_jump: 0.0, ..Shape::wild() }
}

#[test]
fn receipts_count_the_same_wherever_in_the_log_they_come() {
    for seed in seeds() {
        let log = History::generate(seed, &open_reads());
        let asked = questions(&log);
        let random = &mut Random::new(seed);
        // Every read gets a place of its own, before its send or after; all else stays in order.
        let keyed = log.iter().enumerate().map(|(i, (at, event))| {
            let is_read = matches!(event.body, Body::MessageRead(_));
            (if is_read { random.index(log.len()) } else { i }, *at, event.clone())
        });
        let mut keyed: Vec<_> = keyed.collect();
        keyed.sort_by_key(|(key, at, _)| (*key, at.offset));
        let moved: Log = keyed
            .into_iter()
            .zip(&log)
            .map(|((_, at, event), (place, _))| (At { offset: place.offset, ..at }, event))
            .collect();
        let (left, right) = (folded(&log), folded(&moved));
        for (tenant, conversation, message) in &asked.messages {
            let pair = [&left, &right].map(|oracle| {
                let receipt = oracle.receipt(tenant, conversation, message);
                let lists = FILTERS.map(|filter| oracle.members(tenant, conversation, message, filter));
                (receipt.status, receipt.counts, receipt.last_read_at_ms, lists.map(|list| list.map(ids)))
            });
            // The greatest time of each reader's first read may differ, so `last_read_at_ms` is only there in both or none.
            assert_eq!(pair[0].2.is_some(), pair[1].2.is_some(), "seed {seed} {message}");
            assert_eq!(
                (&pair[0].0, &pair[0].1, &pair[0].3),
                (&pair[1].0, &pair[1].1, &pair[1].3),
                "seed {seed} {message}"
            );
        }
    }
}

fn ids(list: Vec<receipts_fold::view::Member>) -> Vec<(String, bool)> {
    list.into_iter().map(|member| (member.user_id, member.left)).collect()
}

#[test]
fn what_happens_in_one_tenant_is_nothing_to_another() {
    for seed in seeds() {
        let log = History::generate(seed, &Shape::wild());
        let mut alone = Oracle::new(roomy());
        for (at, event) in &log {
            match &*event.tenant {
                "default" => alone.apply(*at, event),
                _ => alone.pass(*at),
            };
        }
        let mine: Log = log.iter().filter(|(_, event)| event.tenant == "default").cloned().collect();
        assert_eq!(questions(&mine).difference(&folded(&log), &alone), None, "seed {seed}");
    }
}

#[test]
fn an_erased_id_appears_in_no_answer_and_no_effect_again() {
    for seed in stepwise() {
        let weights = Weights { erased: 4, ..Shape::wild().weights };
        let log = History::generate(seed, &Shape { weights, ..wild_and_small() });
        let asked = questions(&log);
        let mut oracle = Oracle::new(tight());
        let mut erased: BTreeSet<(String, String)> = BTreeSet::new();
        for (at, event) in &log {
            let effects = oracle.apply(*at, event);
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
            for ((tenant, conversation, message), receipt) in receipts(&oracle, &asked) {
                said.extend(receipt.sender_id.into_iter().chain(receipt.user_id).map(|user| (tenant.clone(), user)));
                for filter in FILTERS {
                    let list = oracle.members(&tenant, &conversation, &message, filter).unwrap_or_default();
                    said.extend(list.into_iter().map(|member| (tenant.clone(), member.user_id)));
                }
            }
            for (tenant, conversation, user) in &asked.people {
                let mark = oracle.read_mark(tenant, conversation, user);
                said.extend(mark.map(|mark| (tenant.clone(), mark.reader_id)));
            }
            assert!(said.is_disjoint(&erased), "seed {seed} {at:?}");
        }
    }
}

#[test]
fn a_parked_record_is_a_dead_letter_once_or_never() {
    let mut reasons = BTreeSet::new();
    for seed in seeds() {
        let mut oracle = Oracle::new(tight());
        let mut dead = BTreeSet::new();
        for (at, event) in History::generate(seed, &Shape { p_early: 0.5, ..Shape::wild() }) {
            for effect in oracle.apply(at, &event) {
                if let OracleEffect::DeadLetter { offset, reason, ids } = effect {
                    assert!(offset <= at.offset && dead.insert(offset), "seed {seed} {at:?}: {offset} twice");
                    assert!(!ids.is_empty() && ids.iter().collect::<BTreeSet<_>>().len() == ids.len());
                    reasons.insert(reason);
                }
            }
        }
    }
    assert_eq!(reasons.into_iter().collect::<Vec<_>>(), ["no-roster", "parked-expired", "parked-overflow"]);
}

#[test]
fn read_marks_only_grow() {
    for seed in seeds() {
        let log = History::generate(
            seed,
            &Shape { weights: Weights { erased: 0, ..Shape::wild().weights }, ..Shape::wild() },
        );
        let asked = questions(&log);
        let mut oracle = Oracle::new(tight());
        let mut before = BTreeMap::new();
        for (at, event) in &log {
            oracle.apply(*at, event);
            for id in &asked.people {
                let mark = oracle.read_mark(&id.0, &id.1, &id.2);
                let up_to_ms = mark.as_ref().map(|mark| mark.up_to_sent_at_ms);
                assert!(mark.iter().all(|mark| mark.read_at_ms >= mark.up_to_sent_at_ms), "seed {seed} {at:?}");
                assert!(before.insert(id, up_to_ms).flatten() <= up_to_ms, "seed {seed} {at:?} {id:?}");
            }
        }
    }
}

#[test]
fn a_quiet_history_makes_no_dead_letters_and_a_wild_one_meets_every_status() {
    let mut met = BTreeSet::new();
    for seed in seeds() {
        let mut oracle = Oracle::new(tight());
        for (at, event) in History::generate(seed, &Shape::quiet()) {
            let effects = oracle.apply(at, &event);
            assert!(
                !effects.iter().any(|effect| matches!(effect, OracleEffect::DeadLetter { .. })),
                "seed {seed} {at:?}"
            );
        }
        let log = History::generate(seed, &Shape::wild());
        met.extend(
            receipts(&folded(&log), &questions(&log)).into_values().map(|receipt| format!("{:?}", receipt.status)),
        );
    }
    let all = ["NotFound", "NotRequested", "Ok", "Recalled", "Unsupported"];
    assert_eq!(met.iter().map(String::as_str).collect::<Vec<_>>(), all);
}

#[test]
fn two_oracles_agree_and_a_difference_shrinks_to_its_cause() {
    let log = History::generate(1, &Shape::wild());
    assert_eq!(agree(&log, &mut Oracle::new(tight()), &mut Oracle::new(tight()), 1), Ok(()));
    // One that keeps no read times differs as soon as a list has a reader: a roster, a send and a read.
    let blind = Limits { read_times: false, ..roomy() };
    let fails = |log: &[(At, Event<'static>)]| {
        agree(log, &mut Oracle::new(roomy()), &mut Oracle::new(blind.clone()), 1).is_err()
    };
    assert!(fails(&log));
    let small = shrink(log, fails);
    assert!(fails(&small) && (2..=3).contains(&small.len()), "{small:#?}");
}
