//! What the questions answer: receipts, member lists, read marks. Serialised, these are the contract's JSON.

use receipts_event::Kind;
use serde::{Deserialize, Serialize};

/// What a receipt says about its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The message has an audience, and the receipt its counts.
    Ok,
    /// No such message, or it is past its retention.
    NotFound,
    /// The sender did not ask.
    NotRequested,
    /// The group type did not support receipts when it was sent.
    Unsupported,
    /// The message was recalled.
    Recalled,
    /// The caller may not ask; only the HTTP edge gives this one.
    Forbidden,
}

/// The answer about one message. `read + unread + hidden + departed = audience`, always.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Whose.
    pub tenant: String,
    /// Absent where the message was asked for without a conversation and not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<String>,
    /// The message.
    pub message_id: String,
    /// What is said.
    pub status: Status,
    /// Frozen at the send; absent where not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Absent where not found or erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_id: Option<String>,
    /// Unix milliseconds; absent where not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_at_ms: Option<u64>,
    /// Only where the status is `ok`.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// The greatest read time, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_read_at_ms: Option<u64>,
    /// The other party of a direct chat with an audience of one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// When that party read, Unix milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_at_ms: Option<u64>,
    /// Of two copies the higher is the newer; absent where not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

impl Receipt {
    /// A receipt that says nothing of its message but the status.
    pub fn bare(
        tenant: impl Into<String>,
        conversation_id: Option<&str>,
        message_id: impl Into<String>,
        status: Status,
    ) -> Self {
        Self {
            tenant: tenant.into(),
            conversation_id: conversation_id.map(Into::into),
            message_id: message_id.into(),
            status,
            kind: None,
            sender_id: None,
            sent_at_ms: None,
            counts: None,
            last_read_at_ms: None,
            user_id: None,
            read_at_ms: None,
            version: None,
        }
    }
}

/// The counts of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// How many must read it.
    pub audience_count: u32,
    /// How many have, openly.
    pub read_count: u32,
    /// How many have not, and are still there.
    pub unread_count: u32,
    /// How many have, hidden.
    pub hidden_count: u32,
    /// How many have not, and left.
    pub departed_count: u32,
    /// `unread_count = 0 and hidden_count = 0`.
    pub all_read: bool,
}

/// Which members a list names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberFilter {
    /// Those who have read, openly.
    Read,
    /// Those who have not, and are still there.
    Unread,
    /// Those who have not, and left.
    Departed,
}

/// One row of a member list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub user_id: String,
    /// When they read, Unix milliseconds; only in the list of those who have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_at_ms: Option<u64>,
    /// True for those who once were on the roster and are not now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

/// A stretch of a member list, in slot order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// At most as many as asked for.
    pub members: Vec<Member>,
    /// The slot to go on from; `None` at the end.
    pub next_slot: Option<u32>,
    /// The receipt in the same state.
    pub receipt: Receipt,
}

/// Up to where a reader has read a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMark {
    /// Who.
    pub reader_id: String,
    /// The message, where the mark was moved by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_to_message_id: Option<String>,
    /// Unix milliseconds.
    pub up_to_sent_at_ms: u64,
    /// Unix milliseconds.
    pub read_at_ms: u64,
    /// The offset of the event that moved it.
    pub version: u64,
}
