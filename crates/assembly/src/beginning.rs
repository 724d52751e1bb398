//! Tells whether the first records of a topic lean on records that are not there: the mark of a
//! mirror that was begun after its source had been trimmed.
//!
//! It looks at a topic only before an empty store folds it, and writes nothing.

use anyhow::anyhow;
use receipts_event::{Body, Decoder};
use receipts_log::OwnedRecord;
use receipts_runtime::exit::Failure;
use std::collections::BTreeMap;

/// The fewest conversations without a beginning for which a topic is refused. A right log has some:
/// a read may come before its send, and a producer may forget a roster.
const LACKING_MIN: usize = 8;

/// What the first records tell.
#[derive(Debug, PartialEq, Eq)]
struct Beginning {
    /// The conversations of these records.
    conversations: usize,
    /// Those of them without a roster, a configuration, or a send that names its recipients.
    lacking: Vec<String>,
}

impl Beginning {
    /// Reads the first records of a topic that begins at offset 0. Records that are no events do
    /// not count.
    fn of(records: &[OwnedRecord], decoder: Decoder) -> Self {
        let mut has_begun: BTreeMap<(String, String), bool> = BTreeMap::new();
        for record in records {
            let (key, value) = (record.key.as_deref(), record.value.as_deref());
            let Ok(event) = decoder.decode(record.partition, key, value) else { continue };
            let Some(conversation) = event.conversation_id() else { continue };
            let begins = match &event.body {
                Body::ConversationConfigured(_) | Body::MembersChanged(_) => true,
                Body::MessageSent(sent) => sent.recipients.is_some(),
                _ => false,
            };
            *has_begun.entry((event.tenant.clone().into_owned(), conversation.to_owned())).or_default() |= begins;
        }
        let lacking = has_begun.iter().filter(|(_, begun)| !**begun).map(|((_, id), _)| id.clone());
        Self { conversations: has_begun.len(), lacking: lacking.collect() }
    }

    fn is_refused(&self) -> bool {
        self.lacking.len() >= LACKING_MIN && self.lacking.len() * 2 >= self.conversations
    }
}

/// Refuses a topic of which most of the first conversations have no beginning, and warns of fewer.
///
/// # Errors
/// A failure that says what to do, unless `is_accepted`.
pub(crate) fn check(topic: &str, records: &[OwnedRecord], decoder: Decoder, is_accepted: bool) -> Result<(), Failure> {
    let beginning = Beginning::of(records, decoder);
    let (lacking, conversations) = (beginning.lacking.len(), beginning.conversations);
    if lacking == 0 {
        return Ok(());
    }
    let example = &beginning.lacking[0];
    if beginning.is_refused() && !is_accepted {
        return Err(anyhow!(
            "the topic {topic} begins at offset 0, but the beginning of its events is missing: {lacking} of its first \
             {conversations} conversations have neither a roster nor recipients (one is {example}), as in a mirror that \
             was begun after its source had been trimmed. Their receipts would be wrong. Point --log-events-topic at a \
             topic that holds all events, or set log.accept_missing_beginning=true to fold what is there"
        )
        .into());
    }
    tracing::warn!(
        topic,
        lacking,
        conversations,
        example,
        "some of the first conversations of the topic have neither a roster nor recipients, so their messages have no \
         receipts: if this is a mirror, it may have been begun after its source was trimmed"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_event::{Unwrap, key, partition_of};
    use serde_json::{Value, json};

    const PARTITIONS: u32 = 4;
    const DECODER: Decoder = Decoder { partition_count: PARTITIONS, unwrap: Unwrap::None };

    fn record(event: &Value) -> OwnedRecord {
        let key = key("default", event["conversation_id"].as_str().expect("an id"));
        OwnedRecord {
            partition: partition_of(&key, PARTITIONS),
            offset: 0,
            timestamp_ms: 1,
            key: Some(key.into()),
            value: Some(event.to_string().into()),
            headers: Vec::new(),
        }
    }

    fn joined(id: &str) -> OwnedRecord {
        record(&json!({"type": "members.changed", "conversation_id": id, "joined": ["a", "b"]}))
    }

    fn sent(id: &str, recipients: Option<&str>) -> OwnedRecord {
        let mut event = json!({
            "type": "message.sent", "conversation_id": id, "message_id": "m1", "sender_id": "a", "sent_at_ms": 1
        });
        if let Some(recipient) = recipients {
            event["recipients"] = json!([recipient]);
        }
        record(&event)
    }

    fn read(id: &str) -> OwnedRecord {
        record(&json!({"type": "message.read", "conversation_id": id, "reader_id": "b", "message_ids": ["m1"]}))
    }

    fn is_refused(records: &[OwnedRecord]) -> bool {
        check("t", records, DECODER, false).is_err()
    }

    #[test]
    fn trimmed_beginning_is_refused_unless_accepted() {
        let old = (0..20).flat_map(|n| [sent(&format!("old{n}"), None), read(&format!("old{n}"))]);
        let new = (0..12).flat_map(|n| [joined(&format!("new{n}")), sent(&format!("new{n}"), None)]);
        let records: Vec<_> = old.chain(new).collect();
        assert!(is_refused(&records));
        check("t", &records, DECODER, true).expect("accepted");
        let failure = format!("{:?}", check("t", &records, DECODER, false).expect_err("refused"));
        assert!(failure.contains("20 of its first 32") && failure.contains("accept_missing_beginning"), "{failure}");
    }

    #[test]
    fn right_logs_are_never_refused() {
        let whole = |n: u32| [joined(&format!("g{n}")), sent(&format!("g{n}"), None), read(&format!("g{n}"))];
        assert!(!is_refused(&[]));
        assert!(!is_refused(&(0..100).flat_map(whole).collect::<Vec<_>>()));
        // A roster that comes behind its sends, as the fold allows.
        let late = |n: u32| [sent(&format!("g{n}"), None), joined(&format!("g{n}"))];
        assert!(!is_refused(&(0..100).flat_map(late).collect::<Vec<_>>()));
        // No rosters at all.
        let named = |n: u32| [sent(&format!("g{n}"), Some("b")), read(&format!("g{n}"))];
        assert!(!is_refused(&(0..100).flat_map(named).collect::<Vec<_>>()));
        // Some reads come before their sends, and a newcomer has forgotten the rosters.
        let early: Vec<_> = (0..30).map(|n| read(&format!("e{n}"))).collect();
        assert!(!is_refused(&(0..40).flat_map(whole).chain(early).collect::<Vec<_>>()));
        assert!(!is_refused(&(0..7).map(|n| sent(&format!("g{n}"), None)).collect::<Vec<_>>()));
    }
}
