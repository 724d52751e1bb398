//! The limits of the format: the last valid and the first invalid value, and hostile input.

use std::borrow::Cow;

use receipts_event::{
    Body, LISTED_IDS_MAX, MESSAGE_IDS_MAX, POLICY_ENTRIES_MAX, PROBLEMS_MAX, Reason, Rejection, SENTENCE_BYTES_MAX,
    decode,
};

fn ids(count: usize) -> String {
    let ids: Vec<String> = (0..count).map(|n| format!(r#""u{n}""#)).collect();
    format!("[{}]", ids.join(","))
}

fn rejection(json: &str) -> Rejection {
    decode(json.as_bytes()).expect_err("this is not an event")
}

#[test]
fn the_three_lists_of_members_share_one_limit() {
    let json = |joined, left, observers| {
        format!(
            r#"{{"type":"members.changed","conversation_id":"c","joined":{},"left":{},"observers":{}}}"#,
            ids(joined),
            ids(left),
            ids(observers)
        )
    };
    assert!(decode(json(LISTED_IDS_MAX, 0, 0).as_bytes()).is_ok());
    assert!(decode(json(LISTED_IDS_MAX - 2, 1, 1).as_bytes()).is_ok());
    let over_in_all = rejection(&json(LISTED_IDS_MAX - 1, 1, 1));
    assert_eq!((over_in_all.reason, over_in_all.problems[0].pointer.as_str()), (Reason::LimitExceeded, ""));
    let over_in_one = rejection(&json(0, LISTED_IDS_MAX + 1, 0));
    assert_eq!((over_in_one.reason, over_in_one.problems[0].pointer.as_str()), (Reason::LimitExceeded, "/left"));
}

#[test]
fn every_other_list_has_its_own_limit() {
    let sent = |count| {
        let recipients = ids(count);
        format!(
            r#"{{"type":"message.sent","conversation_id":"c","message_id":"m","sender_id":"s","sent_at_ms":0,"recipients":{recipients}}}"#
        )
    };
    let read = |count| {
        format!(r#"{{"type":"message.read","conversation_id":"c","reader_id":"r","message_ids":{}}}"#, ids(count))
    };
    let policy = |count: usize| {
        let entries: Vec<String> = (0..count).map(|n| format!(r#""t{n}":true"#)).collect();
        format!(r#"{{"type":"policy.changed","read_receipts":{{{}}}}}"#, entries.join(","))
    };
    for (fits, over, pointer) in [
        (sent(LISTED_IDS_MAX), sent(LISTED_IDS_MAX + 1), "/recipients"),
        (read(MESSAGE_IDS_MAX), read(MESSAGE_IDS_MAX + 1), "/message_ids"),
        (policy(POLICY_ENTRIES_MAX), policy(POLICY_ENTRIES_MAX + 1), "/read_receipts"),
    ] {
        assert!(decode(fits.as_bytes()).is_ok(), "{pointer}");
        let over = rejection(&over);
        assert_eq!((over.reason, over.problems[0].pointer.as_str()), (Reason::LimitExceeded, pointer));
    }
}

#[test]
fn unescaped_strings_are_borrowed() {
    let json = br#"{"type":"message.read","tenant":"acme","conversation_id":"g\u0031","reader_id":"r","message_ids":["m1","\ud83d\ude42"]}"#;
    let event = decode(json).unwrap();
    assert!(matches!(event.tenant, Cow::Borrowed("acme")));
    let Body::MessageRead(body) = &event.body else { panic!("{event:?}") };
    assert!(matches!((&body.conversation_id, &body.reader_id), (Cow::Owned(_), Cow::Borrowed("r"))));
    assert_eq!(body.conversation_id, "g1");
    assert!(matches!(body.message_ids.as_slice(), [Cow::Borrowed("m1"), Cow::Owned(escaped)] if escaped == "🙂"));
}

#[test]
fn unknown_fields_only_need_valid_grammar() {
    for unknown in [
        r#""x":1e999"#,
        r#""x":"\ud800""#,
        r#""x":{"x":1,"x":2},"x":null"#,
        r#""user_id":"","user_id":7"#,
        r#""hidden":"\udfff""#,
    ] {
        let members = [r#""type":"message.recalled""#, r#""conversation_id":"c""#, r#""message_id":"m""#, unknown];
        for first in 0..members.len() {
            let mut members = members;
            members.rotate_left(first);
            let json = format!("{{{}}}", members.join(","));
            assert!(decode(json.as_bytes()).is_ok(), "{json}");
        }
    }
}

#[test]
fn deep_nesting_never_overflows() {
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let ignored = format!(r#"{{"type":"user.erased","user_id":"u","x":{deep}}}"#);
    assert!(decode(ignored.as_bytes()).is_ok());
    for json in [
        format!(r#"{{"type":"members.changed","conversation_id":"c","joined":{deep}}}"#),
        format!(r#"{{"type":"policy.changed","read_receipts":{{"a":{deep}}}}}"#),
        format!(r#"{{"type":{deep}}}"#),
    ] {
        assert_eq!(rejection(&json).reason, Reason::InvalidField);
    }
    assert_eq!(rejection(&deep).reason, Reason::InvalidJson);
    assert_eq!(rejection(&deep[..deep.len() - 1]).reason, Reason::InvalidJson);
}

#[test]
fn invalid_utf_8_is_rejected_at_any_position() {
    for (head, tail) in [
        (&br#"{"type":"user.erased","user_id":""#[..], &br#""}"#[..]),
        (br#"{"type":"user.erased","user_id":"u","unknown":""#, br#""}"#),
        (br#"{"type":"user.erased","user_id":"u","unknown"#, br#"":1}"#),
    ] {
        for bytes in [&b"\xff"[..], b"\xc0\xaf", b"\xed\xa0\x80", b"\xf0\x9f"] {
            let rejection = decode(&[head, bytes, tail].concat()).unwrap_err();
            assert_eq!(rejection.reason, Reason::InvalidJson);
            assert_eq!(rejection.to_string(), format!("the event is not UTF-8 at byte {}", head.len()));
        }
    }
}

#[test]
fn a_value_full_of_mistakes_yields_a_bounded_rejection() {
    let empty = vec![r#""""#; LISTED_IDS_MAX].join(",");
    let json = format!(r#"{{"type":"members.changed","conversation_id":"c","joined":[{empty}]}}"#);
    let rejection = rejection(&json);
    assert_eq!((rejection.reason, rejection.problems.len()), (Reason::InvalidField, PROBLEMS_MAX));
    assert_eq!(rejection.problems[99].pointer, "/joined/99");
    assert!(rejection.to_string().len() <= SENTENCE_BYTES_MAX);
}

#[test]
fn an_unknown_type_is_named_in_part_only() {
    let rejection = rejection(&format!(r#"{{"type":"{}"}}"#, "é".repeat(10_000)));
    assert_eq!(rejection.reason, Reason::UnknownType);
    assert!(rejection.problems[0].detail.len() < 128, "{rejection}");
}
