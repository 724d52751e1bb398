//! The questions that edges ask projectors, their replies, and the state that a projector reports,
//! version 1.
//!
//! Knows no transport. Must not change the JSON within a version, because processes of two releases
//! talk to one another. A position is sent as its token.

use receipts_fold::view::MemberFilter;
use receipts_query::{Answer, LogTag, Positions, Unavailable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The path at which a projector reports its [`PeerState`] (GET).
pub const STATE_PATH: &str = "/internal/v1/state";
/// The path at which a projector takes a [`PeerRequest`] (POST).
pub const ASK_PATH: &str = "/internal/v1/ask";

/// The partitions that a projector owns, and how far it has folded them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerState {
    /// The `HOST:PORT` at which edges reach it; if absent, the address that this state came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Partitions of the log.
    pub partition_count: u32,
    /// True for a standby: edges ask owners first.
    pub standby: bool,
    /// The partitions that it answers for, and how far each is folded.
    pub positions: Positions,
    /// The log of the positions, if the projector knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogTag>,
    /// The same partitions by number; a partition that holds no event yet has no position.
    pub partitions: Vec<u32>,
    /// The owned partitions for which it has not heard from the log for a while, and for how many
    /// whole seconds. It still answers for those among `partitions`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stale: Vec<(u32, u64)>,
    /// The key that signs cursors if no secret is shared: all edges take the smallest key that they
    /// find. 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor_key: Option<String>,
}

/// A question, and how fresh its answer must be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerRequest {
    /// The position that the answer must cover.
    pub min: Positions,
    /// How long the projector waits until it has folded that far, in milliseconds.
    pub wait_ms: u64,
    /// The question.
    pub question: Question,
}

/// A projector's reply: an answer as JSON, or the reason why there is none.
///
/// [`Unavailable::Behind`] before `wait_ms` is over means that the log holds no record at the
/// position, so no other projector can answer either.
pub type PeerReply = Result<Answer<Value>, Unavailable>;

/// One call of [`Answers`](receipts_query::Answers) to one partition, or a search in several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Asks for the position alone.
    Position,
    /// [`Answers::ends`](receipts_query::Answers::ends). A projector of an earlier release does not
    /// know it, and no edge of that release has a token to ask it for.
    Ends {
        /// The greatest offsets of interest.
        most: Positions,
    },
    /// [`Answers::receipts`](receipts_query::Answers::receipts).
    Receipts {
        /// The conversation's tenant.
        tenant: String,
        /// The conversation.
        conversation_id: String,
        /// The messages.
        message_ids: Vec<String>,
        /// If set, finds only messages that this person sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender_id: Option<String>,
    },
    /// [`Answers::find`](receipts_query::Answers::find) within some partitions.
    Find {
        /// The partitions to search.
        partitions: Vec<u32>,
        /// The messages' tenant.
        tenant: String,
        /// The messages.
        message_ids: Vec<String>,
        /// If set, finds only messages that this person sent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender_id: Option<String>,
        /// The messages of an id that each partition looks at.
        #[serde(default = "candidates_max")]
        candidates_max: u32,
    },
    /// [`Answers::members`](receipts_query::Answers::members).
    Members {
        /// The conversation's tenant.
        tenant: String,
        /// The conversation.
        conversation_id: String,
        /// The message.
        message_id: String,
        /// The list.
        filter: MemberFilter,
        /// The first slot of the page.
        from_slot: u32,
        /// The most members of the page.
        limit: usize,
    },
    /// [`Answers::read_mark`](receipts_query::Answers::read_mark).
    ReadMark {
        /// The conversation's tenant.
        tenant: String,
        /// The conversation.
        conversation_id: String,
        /// The reader.
        user_id: String,
    },
    /// [`Answers::read_marks`](receipts_query::Answers::read_marks).
    ReadMarks {
        /// The conversation's tenant.
        tenant: String,
        /// The conversation.
        conversation_id: String,
        /// The readers.
        user_ids: Vec<String>,
    },
    /// [`Answers::are_erased`](receipts_query::Answers::are_erased).
    AreErased {
        /// The partition whose copy of the erasures counts.
        partition: u32,
        /// The people's tenant.
        tenant: String,
        /// The people.
        user_ids: Vec<String>,
    },
    /// [`Answers::is_member`](receipts_query::Answers::is_member).
    IsMember {
        /// The conversation's tenant.
        tenant: String,
        /// The conversation.
        conversation_id: String,
        /// The person.
        user_id: String,
    },
}

/// The bound of an edge that names none.
fn candidates_max() -> u32 {
    100
}

/// Decodes the answer of a reply.
///
/// # Errors
/// The reply's own error, or [`Unavailable::Failed`] if its value has another shape than the
/// question asks for.
pub fn decode_reply<T: DeserializeOwned>(reply: PeerReply) -> Result<Answer<T>, Unavailable> {
    let Answer { value, positions, stale_s } = reply?;
    let value = serde_json::from_value(value)
        .map_err(|error| Unavailable::Failed(format!("the answer has another version's shape: {error}")))?;
    Ok(Answer { value, positions, stale_s })
}
