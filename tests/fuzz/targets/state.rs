//! Fuzzes a partition with one replaced page and a right checksum. Opening, any question and
//! further folding give an answer or an error, never a panic or an endless loop.

#![no_main]

use libfuzzer_sys::fuzz_target;
use receipts_event::Event;
use receipts_fold::effects::Effects;
use receipts_fold::view::MemberFilter;
use receipts_fold::{RecordMetadata, State};
use receipts_fuzz::fixture::{Fixture, fold, open};
use receipts_fuzz::seeds;
use receipts_store::{MemoryBackend, Paged};
use receipts_testkit::history::{EPOCH_MS, History, Shape};
use std::sync::LazyLock;

static FIXTURE: LazyLock<Fixture> = LazyLock::new(Fixture::new);

/// The events after the damage: another history of the same conversations and people.
static NEXT: LazyLock<Vec<Event<'static>>> = LazyLock::new(|| {
    let shape = Shape { events: 40, p_jump: 0.0, p_mid_group: 0.0, ..Shape::wild() };
    History::generate(8, &shape).into_iter().map(|(_, event)| event).collect()
});

fuzz_target!(
    init: {
        seeds::write_if_asked(|| {
            let pages = FIXTURE.pages.iter().enumerate().filter(|(_, (_, payload))| payload.len() < 6_000);
            pages.map(|(i, (_, payload))| [&(i as u16).to_le_bytes()[..], &[i as u8], payload].concat()).collect()
        });
    },
    |bytes: &[u8]| {
        let Some(([low, high, window], payload)) = bytes.split_first_chunk::<3>() else { return };
        let page = usize::from(u16::from_le_bytes([*low, *high])) % FIXTURE.pages.len();
        FIXTURE.with_page(page, payload, |backend| {
            let Ok(mut state) = open(backend) else { return };
            ask(&state, usize::from(*window));
            // A log has no offsets near the greatest number.
            if state.next_offset() < 1 << 62 && go_on(&mut state) {
                state.write_meta();
                _ = state.pages().batch(state.next_offset());
                ask(&state, usize::from(*window));
            }
        });
    }
);

/// The number of messages and people in the questions of one input, which selects them.
const ASKED: usize = 5;

/// Asks every kind of question about a sample.
fn ask(state: &State<Paged<MemoryBackend>>, window: usize) {
    for (tenant, conversation, message) in
        FIXTURE.messages.iter().cycle().skip(window % FIXTURE.messages.len()).take(ASKED)
    {
        if let Ok(receipt) = state.receipt(tenant, conversation, message)
            && let Some(c) = receipt.counts
        {
            let sum =
                [c.read_count, c.unread_count, c.hidden_count, c.departed_count].map(u64::from).iter().sum::<u64>();
            // INV-SUM. In a direct chat of two a hidden read counts as unread.
            assert_eq!(sum, u64::from(c.audience_count));
        }
        _ = state.find_receipt(tenant, None, message, 100);
        for filter in [MemberFilter::Read, MemberFilter::Unread, MemberFilter::Departed] {
            _ = state.members(tenant, conversation, message, filter, 0, 20);
            _ = state.members(tenant, conversation, message, filter, 500, 3);
        }
    }
    for (tenant, conversation, person) in FIXTURE.people.iter().cycle().skip(window % FIXTURE.people.len()).take(ASKED)
    {
        _ = state.read_mark(tenant, conversation, person);
        _ = state.is_member(tenant, conversation, person);
    }
    for message in (window as u64..state.messages().min(300)).step_by(64) {
        _ = state.receipt_of(message);
        _ = state.name_slots(message, [(1, ())], |_, ()| {});
    }
}

/// Folds on; returns false if the state reports an error.
fn go_on(state: &mut State<Paged<MemoryBackend>>) -> bool {
    let mut effects = Effects::default();
    for (i, event) in NEXT.iter().enumerate() {
        let offset = FIXTURE.next_offset().max(state.next_offset()).saturating_add(i as u64);
        let at = RecordMetadata { partition: 0, offset, timestamp_ms: EPOCH_MS + 1_000 * i as u64 };
        if !fold(state, at, event, &mut effects) {
            return false;
        }
        effects.clear();
    }
    true
}
