//! INV-DECODE: a page that decodes but contradicts others is an error, never a panic or an endless
//! loop. The cases come from `tests/fuzz`.

use receipts_event::decode;
use receipts_fold::effects::Effects;
use receipts_fold::pages::codec::{Reader, Writer};
use receipts_fold::pages::{ConversationPage, Departures, Messages, Meta, Page, PageKey, People, Table};
use receipts_fold::view::MemberFilter;
use receipts_fold::{Error, Limits, RawRecord, RecordMetadata, State};
use receipts_store::{Backend, MemoryBackend, Paged};

type Fold = State<Paged<MemoryBackend>>;
const FIRST: PageKey = PageKey { a: 0, b: 0 };

fn apply(state: &mut Fold, json: &str) -> receipts_fold::Result<(), receipts_store::Error> {
    let at = RecordMetadata { partition: 0, offset: state.next_offset(), timestamp_ms: 1_780_000_000_000 };
    let event = decode(json.as_bytes()).unwrap();
    let raw = RawRecord { key: Some(b"default/g"), value: json.as_bytes(), headers: &Vec::new };
    state.apply(at, &event, raw, &mut Effects::default())
}

/// Returns a group of three with one leave and two messages.
fn group() -> Fold {
    let mut state = State::open(Paged::new(MemoryBackend::default(), 0, 1 << 20), Limits::default()).unwrap();
    for json in [
        r#"{"type":"members.changed","conversation_id":"g","joined":["alice","bob","carol"]}"#,
        r#"{"type":"members.changed","conversation_id":"g","left":["carol"]}"#,
        r#"{"type":"message.sent","conversation_id":"g","message_id":"m1","sender_id":"alice","sent_at_ms":10,"need_read_receipt":true}"#,
        r#"{"type":"message.sent","conversation_id":"g","message_id":"m2","sender_id":"alice","sent_at_ms":20,"need_read_receipt":true}"#,
    ] {
        apply(&mut state, json).unwrap();
    }
    state
}

fn change<P: Page>(state: &mut Fold, change: impl FnOnce(&mut P))
where
    Paged<MemoryBackend>: Table<P, Error = receipts_store::Error>,
{
    let mut page = Table::<P>::load_mut(state.pages_mut(), FIRST).unwrap().unwrap();
    change(&mut page);
}

/// Checkpoints a state and opens it again.
fn again(state: &mut Fold) -> receipts_fold::Result<Fold, receipts_store::Error> {
    let backend = state.pages().backend().clone();
    backend.commit(state.pages().batch(state.next_offset())).unwrap();
    State::open(Paged::new(backend, 0, 1 << 20), Limits::default())
}

fn is_broken<T>(result: receipts_fold::Result<T, receipts_store::Error>) -> bool {
    matches!(result, Err(Error::Broken(_)))
}

const LEAVE: &str = r#"{"type":"members.changed","conversation_id":"g","left":["bob"]}"#;
const JOIN: &str = r#"{"type":"members.changed","conversation_id":"g","joined":["dave"]}"#;
const SEND: &str =
    r#"{"type":"message.sent","conversation_id":"g","message_id":"m3","sender_id":"alice","sent_at_ms":30}"#;
const MARK: &str = r#"{"type":"conversation.read","conversation_id":"g","reader_id":"bob","up_to_sent_at_ms":99}"#;

#[test]
fn roster_with_too_many_erasures_is_an_error() {
    let mut state = group();
    change(&mut state, |head: &mut ConversationPage| head.erasures_seen = 9);
    assert!(is_broken(state.receipt("default", "g", "m1")));
    assert!(is_broken(apply(&mut state, LEAVE)));
}

#[test]
fn message_with_too_many_slots_is_an_error() {
    for slots in [4, 65, u32::MAX] {
        let mut state = group();
        change(&mut state, |page: &mut Messages| page.at_mut(0).unwrap().slots = slots);
        assert!(is_broken(state.receipt("default", "g", "m1")));
        assert!(is_broken(state.find_receipt("default", None, "m1", 100)));
        assert!(is_broken(state.receipt_of(0)));
        assert!(is_broken(state.members("default", "g", "m1", MemberFilter::Read, 0, 9)));
        assert!(state.receipt("default", "g", "m2").is_ok());
    }
}

#[test]
fn counters_without_messages_are_an_error() {
    for change_meta in [
        |meta: &mut Meta| meta.next_message = u64::MAX,
        |meta: &mut Meta| meta.next_message = 1,
        |meta: &mut Meta| meta.next_message = 3,
        |meta: &mut Meta| meta.oldest_page = 1,
    ] {
        let mut state = group();
        state.write_meta();
        change(&mut state, change_meta);
        assert!(is_broken(again(&mut state)));
    }
}

#[test]
fn page_without_messages_is_an_error() {
    let mut state = group();
    state.write_meta();
    change(&mut state, |page: &mut Messages| *page = Messages::new(0));
    assert!(is_broken(again(&mut state)));
}

#[test]
fn page_with_a_wrong_first_message_is_an_error() {
    let mut state = group();
    state.write_meta();
    change(&mut state, |page: &mut Messages| {
        let mut writer = Writer::default();
        page.encode(&mut writer);
        writer.bytes[1] = 64;
        *page = Messages::decode(&mut Reader::new(&writer.bytes)).unwrap();
    });
    assert!(is_broken(apply(&mut state, MARK)), "links that form a circle");
    assert!(is_broken(again(&mut state)));
}

#[test]
fn contradictory_people_departures_or_members_are_errors() {
    let mut state = group();
    change(&mut state, |page: &mut People| *page = People::default());
    assert!(is_broken(apply(&mut state, JOIN)));

    let mut state = group();
    change(&mut state, |page: &mut Departures| page.departures.clear());
    assert!(is_broken(apply(&mut state, LEAVE)));

    for event in [LEAVE, SEND] {
        let mut state = group();
        change(&mut state, |head: &mut ConversationPage| head.members = 0);
        assert!(is_broken(apply(&mut state, event)));
    }
}

#[test]
fn empty_index_of_people_is_an_error() {
    let mut state = group();
    change(&mut state, |head: &mut ConversationPage| (head.people, head.index_pages) = (0, u32::MAX));
    assert!(is_broken(apply(&mut state, JOIN)));
}

#[test]
fn membership_that_ends_before_its_start_survives() {
    let mut state = group();
    change(&mut state, |page: &mut People| page.at_mut(1).unwrap().membership.as_mut().unwrap().from = 1 << 40);
    apply(&mut state, LEAVE).unwrap();
    state.write_meta();
    assert!(again(&mut state).unwrap().receipt("default", "g", "m1").is_ok());
}

#[test]
fn overflowing_read_time_is_shown_as_the_maximum() {
    let mut state = group();
    change(&mut state, |page: &mut Messages| {
        let m = page.at_mut(0).unwrap();
        m.reads.read(1, Some(u64::MAX - 1));
        m.read = 1;
    });
    let list = state.members("default", "g", "m1", MemberFilter::Read, 0, 9).unwrap();
    assert_eq!(list.members[0].read_at_ms, Some(u64::MAX));
}

/// Ids have at least one byte, and the bound of a page's count relies on it: else a written page
/// could be refused.
#[test]
fn message_without_an_id_is_malformed() {
    let page = [3, 119, 50, 1, 90, 5, 1, 0, 0, 3, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 58, 0, 0, 0, 0, 6, 1];
    let padded = [&page[..], &[0; 20]].concat();
    assert!(Messages::decode(&mut Reader::new(&padded)).is_err());
}
