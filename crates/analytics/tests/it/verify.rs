//! INV-VERIFY: a store that differs from the fold of its log is found, with the location of the
//! difference.

use crate::common::{LoggedHistory, SLED, Stored, folded, scratch, with_state};
use receipts_analytics::verify::{self, Verdict};
use receipts_fold::index::IndexPage;
use receipts_fold::pages::{
    ConversationPage, Departures, Erasure, Messages, PageKey, People, PeopleIndex, ReadMarks, Role, Table,
};
use receipts_store::{Paged, SledBackend, SledStore};
use std::path::Path;

/// Changes a page, if there is one to change, and returns its name.
type Plant = fn(&mut Stored) -> Option<PageKey>;

fn verdict(history: &LoggedHistory, dir: &Path) -> Verdict {
    let store = SledStore::open_strict(dir, SLED).unwrap();
    verify::partition(&history.log, &store, 0, &scratch(), &()).unwrap()
}

/// Changes the first page of a table for which `change` returns true.
fn plant<P: receipts_fold::pages::Page>(state: &mut Stored, change: impl Fn(&mut P) -> bool) -> Option<PageKey>
where
    Paged<SledBackend>: Table<P, Error = receipts_store::Error>,
{
    for key in Table::<P>::keys(state.pages()).unwrap() {
        let mut page = Table::<P>::load_mut(state.pages_mut(), key).unwrap().unwrap();
        if change(&mut page) {
            return Some(key);
        }
    }
    None
}

/// INV-VERIFY: up to the store's offset, at the end of the log or before it.
#[test]
fn store_equal_to_its_log_is_good_anywhere() {
    for seed in 0..4 {
        let history = LoggedHistory::new(seed);
        let all = history.records[0].len();
        for records in [0, 1, all / 2, all] {
            let dir = tempfile::tempdir().unwrap();
            folded(&history, records, dir.path());
            let verdict = verdict(&history, dir.path());
            assert!(verdict.is_good(), "seed {seed}, {records} records: {verdict:#?}");
            assert_eq!(verdict.digest_of_log, verdict.digest_of_store);
            let next = records.checked_sub(1).map_or(0, |last| history.records[0][last].0.offset + 1);
            assert_eq!(verdict.report.next_offset, next);
        }
    }
}

/// INV-VERIFY: other settings of a store are reported before their consequences.
#[test]
fn settings_that_differ_are_the_first_difference() {
    let history = LoggedHistory::new(0);
    let dir = tempfile::tempdir().unwrap();
    folded(&history, history.records[0].len(), dir.path());
    let store = SledStore::open_strict(dir.path(), SLED).unwrap();
    let mut other = scratch();
    other.limits.parked_age_ms += 1;
    let verdict = verify::partition(&history.log, &store, 0, &other, &()).unwrap();
    let first = verdict.first_difference.unwrap();
    assert_eq!(first.location, "settings of partition 0");
    assert_ne!(first.log, first.store);
}

/// INV-VERIFY, INV-BITS: each kind of page, changed by hand with a valid checksum.
#[test]
fn every_planted_difference_is_found_and_named() {
    let plants: [(&str, Plant); 8] = [
        ("message ", |state| {
            plant::<Messages>(state, |page| {
                let unread = |page: &Messages, at: usize| page.at(at).is_some_and(|m| m.audience > 0 && m.slots > 0);
                let Some(at) = (0..page.len()).find(|at| unread(page, *at)) else { return false };
                page.at_mut(at).unwrap().audience += 1;
                true
            })
        }),
        ("message ", |state| {
            plant::<Messages>(state, |page| {
                let Some(at) = (0..page.len()).find(|at| page.at(*at).is_some_and(|m| m.read > 0)) else {
                    return false;
                };
                page.at_mut(at).unwrap().last_read_at_ms += 1;
                true
            })
        }),
        ("table Conversations", |state| {
            plant::<ConversationPage>(state, |head| {
                head.group_type = "planted".into();
                true
            })
        }),
        ("table People", |state| {
            plant::<People>(state, |page| {
                let Some(member) = (0..64).find(|at| page.at(*at).is_some_and(|p| p.role == Role::Observer)) else {
                    return false;
                };
                page.at_mut(member).unwrap().role = Role::None;
                true
            })
        }),
        ("table ReadMarks", |state| {
            plant::<ReadMarks>(state, |page| {
                let mark = page.slots.iter_mut().find_map(|(mark, _)| mark.as_mut());
                mark.map(|mark| mark.read_at_ms += 1).is_some()
            })
        }),
        ("table Departures", |state| {
            plant::<Departures>(state, |page| {
                page.departures[0].1 += 1;
                true
            })
        }),
        ("table Erasures", |state| {
            plant::<Erasure>(state, |erased| {
                erased.user_id = "somebody else".into();
                true
            })
        }),
        (" of conversation ", |state| {
            plant::<PeopleIndex>(state, |page| {
                *page = PeopleIndex::default();
                true
            })
        }),
    ];
    let histories: Vec<LoggedHistory> = (0..20).map(LoggedHistory::new).collect();
    for (number, (place, plant)) in plants.into_iter().enumerate() {
        // Uses the first history with such a page: not every history has a large group or an
        // erasure.
        let planted = histories.iter().find_map(|history| {
            let dir = tempfile::tempdir().unwrap();
            folded(history, history.records[0].len(), dir.path());
            with_state(dir.path(), plant).map(|key| (history, dir, key))
        });
        let (history, dir, key) = planted.expect("some history has such a page");
        let verdict = verdict(history, dir.path());
        let first = verdict.first_difference.as_ref().map(|first| first.location.clone()).unwrap_or_default();
        assert!(!verdict.is_good() && first.contains(place), "plant {number} at {key:?}: {verdict:#?}");
    }
}

/// INV-VERIFY: a sealed segment of the index of ids lacks a message that its page has.
#[test]
fn a_message_missing_from_a_sealed_segment_is_found() {
    // A segment is sealed once two newer ones are full.
    let sends = 3 * receipts_fold::index::SEGMENT_MESSAGES as usize + 10;
    let history = LoggedHistory::of_sends(sends);
    let dir = tempfile::tempdir().unwrap();
    folded(&history, history.records[0].len(), dir.path());
    assert!(verdict(&history, dir.path()).is_good());
    let planted = with_state(dir.path(), |state| {
        plant::<IndexPage>(state, |page| {
            let has_some = *page != IndexPage::default();
            *page = IndexPage::default();
            has_some
        })
    });
    let planted = planted.expect("a segment is sealed");
    let verdict = verdict(&history, dir.path());
    let first = verdict.first_difference.as_ref().map(|first| (first.location.as_str(), first.store.as_str()));
    assert!(
        first.is_some_and(|(place, store)| place.starts_with("message m") && store.contains("not_found")),
        "{planted:?}: {verdict:#?}"
    );
}
