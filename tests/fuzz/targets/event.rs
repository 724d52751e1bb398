//! Fuzzes the decoder of events. No bytes make it panic; a decoded event survives a round trip; a
//! rejection has a stable code and a pointer. Checks no meaning of events.

#![no_main]

use libfuzzer_sys::fuzz_target;
use receipts_event::{PROBLEMS_MAX, Reason, SENTENCE_BYTES_MAX, decode};
use receipts_fuzz::seeds;
use receipts_testkit::history::{History, Shape};

fuzz_target!(
    init: seeds::write_if_asked(|| {
        let shape = Shape { events: 150, ..Shape::wild() };
        let seeded = History::generate(1, &shape).into_iter().map(|(_, event)| event.to_json());
        seeds::golden_events().into_iter().chain(seeded.filter(|json| json.len() < 2_000)).collect()
    }),
    |bytes: &[u8]| {
        let event = match decode(bytes) {
            Ok(event) => event,
            Err(rejection) => {
                assert_eq!(Reason::from_code(rejection.reason.code()), Some(rejection.reason));
                assert!((1..=PROBLEMS_MAX).contains(&rejection.problems.len()));
                assert!(rejection.problems.iter().all(|p| p.pointer.is_empty() || p.pointer.starts_with('/')));
                assert!(rejection.problems.iter().all(|p| !p.detail.is_empty()));
                assert!((1..=SENTENCE_BYTES_MAX).contains(&rejection.to_string().len()));
                return;
            }
        };
        let json = event.to_json();
        assert_eq!(decode(&json).as_ref(), Ok(&event));
        let owned = event.clone().into_owned();
        assert_eq!(owned, event);
        assert_eq!(owned.to_json(), json);
        assert!(event.key_matches(&event.key()));
    }
);
