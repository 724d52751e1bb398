//! Valid events round-trip, and any bytes decode without a panic.

use std::borrow::Cow;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use receipts_event::{
    Body, ConversationConfigured, ConversationRead, Event, Kind, MembersChanged, MessageRead, MessageRecalled,
    MessageSent, PolicyChanged, TENANT_DEFAULT, TIME_MS_MAX, UpTo, UserErased, decode, key,
};

type Id = Cow<'static, str>;

fn id() -> impl Strategy<Value = Id> {
    let wild = vec(any::<char>(), 1..=32).prop_map(|chars| chars.into_iter().collect::<String>());
    prop_oneof![4 => "[a-z0-9:/-]{1,12}", 2 => wild, 1 => Just("x".repeat(128)), 1 => Just("é".repeat(64))]
        .prop_map(Cow::Owned)
}

fn tenant() -> impl Strategy<Value = Id> {
    prop_oneof![Just(Cow::Borrowed(TENANT_DEFAULT)), id().prop_map(|id| Cow::Owned(id.replace('/', "_")))]
}

fn time_ms() -> impl Strategy<Value = u64> {
    prop_oneof![0..=TIME_MS_MAX, Just(0), Just(TIME_MS_MAX)]
}

fn body() -> impl Strategy<Value = Body<'static>> {
    let kind = prop_oneof![Just(Kind::Direct), Just(Kind::Group)];
    let ids = || vec(id(), 0..6);
    let up_to = prop_oneof![id().prop_map(UpTo::Message), time_ms().prop_map(UpTo::SentAt)];
    prop_oneof![
        (id(), kind, option::of(id())).prop_map(|(conversation_id, kind, group_type)| {
            Body::ConversationConfigured(ConversationConfigured { conversation_id, kind, group_type })
        }),
        (id(), ids(), ids(), ids()).prop_map(|(conversation_id, joined, left, observers)| {
            Body::MembersChanged(MembersChanged { conversation_id, joined, left, observers })
        }),
        (id(), id(), id(), time_ms(), any::<bool>(), option::of(ids())).prop_map(
            |(conversation_id, message_id, sender_id, sent_at_ms, need_read_receipt, recipients)| {
                Body::MessageSent(MessageSent {
                    conversation_id,
                    message_id,
                    sender_id,
                    sent_at_ms,
                    need_read_receipt,
                    recipients,
                })
            }
        ),
        (id(), id(), vec(id(), 1..=100), option::of(time_ms()), any::<bool>()).prop_map(
            |(conversation_id, reader_id, message_ids, read_at_ms, hidden)| {
                Body::MessageRead(MessageRead { conversation_id, reader_id, message_ids, read_at_ms, hidden })
            }
        ),
        (id(), id(), up_to, option::of(time_ms()), any::<bool>()).prop_map(
            |(conversation_id, reader_id, up_to, read_at_ms, hidden)| {
                Body::ConversationRead(ConversationRead { conversation_id, reader_id, up_to, read_at_ms, hidden })
            }
        ),
        (id(), id()).prop_map(|(conversation_id, message_id)| {
            Body::MessageRecalled(MessageRecalled { conversation_id, message_id })
        }),
        (proptest::collection::btree_map(id(), any::<bool>(), 0..40), option::of(any::<u32>())).prop_map(
            |(read_receipts, partition)| {
                let read_receipts = read_receipts.into_iter().collect();
                Body::PolicyChanged(PolicyChanged { read_receipts, partition })
            }
        ),
        (id(), option::of(any::<u32>()))
            .prop_map(|(user_id, partition)| Body::UserErased(UserErased { user_id, partition })),
    ]
}

fn event() -> impl Strategy<Value = Event<'static>> {
    (tenant(), option::of(id()), body()).prop_map(|(tenant, event_id, body)| Event { tenant, event_id, body })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn events_round_trip(event in event()) {
        let json = event.to_json();
        let decoded = decode(&json);
        prop_assert_eq!(decoded.as_ref(), Ok(&event));
        let owned = decoded.unwrap().into_owned();
        prop_assert_eq!(&owned, &event);
        prop_assert_eq!(owned.to_json(), json);
    }

    #[test]
    fn an_event_matches_no_longer_or_shorter_key(event in event(), more in any::<u8>()) {
        let mut bytes = event.key();
        prop_assert_eq!(&bytes, &key(&event.tenant, event.conversation_id().unwrap_or("")));
        prop_assert!(event.key_matches(&bytes));
        bytes.push(more);
        prop_assert!(!event.key_matches(&bytes));
        bytes.truncate(bytes.len() - 2);
        prop_assert!(!event.key_matches(&bytes));
    }

    #[test]
    fn any_bytes_are_decoded_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes).map_err(|rejection| rejection.to_string());
    }

    #[test]
    fn an_event_with_changed_bytes_decodes_without_a_panic(
        event in event(),
        changes in vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), prop::sample::select(&b"{}[]\",:\\0-.e"[..])]), 1..4),
    ) {
        let mut json = event.to_json();
        for (at, byte) in changes {
            let at = at.index(json.len());
            json[at] = byte;
        }
        match decode(&json) {
            Ok(event) => {
                let again = event.to_json();
                prop_assert_eq!(decode(&again), Ok(event));
            }
            Err(rejection) => prop_assert!(!rejection.problems.is_empty() && !rejection.to_string().is_empty()),
        }
    }
}
