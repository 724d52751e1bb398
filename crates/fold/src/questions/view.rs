//! The answers: receipts, member lists and read marks. Their serialised form is the contract's
//! JSON; a changed field changes the contract.

use receipts_event::Kind;
use serde::{Deserialize, Serialize};

/// The status of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// The message has an audience, and the receipt has its counts.
    Ok,
    /// There is no such message, or it has expired.
    NotFound,
    /// The sender did not ask for receipts.
    NotRequested,
    /// The group type did not support receipts when the message was sent.
    Unsupported,
    /// The message was recalled.
    Recalled,
    /// The question named no conversation, and more messages have the id than it looks at.
    Ambiguous,
    /// The caller may not ask. Only the HTTP edge answers this.
    Forbidden,
}

/// The answer about one message. Always `read + unread + hidden + departed = audience` (INV-SUM).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The tenant.
    pub tenant: String,
    /// Absent if the question named no conversation and the message was not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<String>,
    /// The message id.
    pub message_id: String,
    /// The status.
    pub status: Status,
    /// Kind of the conversation when the message was sent. Absent if not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Absent if not found or erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sender_id: Option<String>,
    /// Unix milliseconds. Absent if not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sent_at_ms: Option<u64>,
    /// Present if the status is `ok`.
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
    /// Of two copies the one with the higher version is newer. Absent if not found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

impl Receipt {
    /// Makes a receipt with a status and nothing else about its message.
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

/// The answer about an id that may stand in any conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundReceipt {
    /// The receipt of the message that answers for the id.
    #[serde(flatten)]
    pub receipt: Receipt,
    /// The number of messages with the id that the search met, up to one more than its bound. For
    /// the merge of several partitions only: it must not reach a caller.
    #[serde(default)]
    pub candidates: u32,
}

/// The counts of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// People who must read the message.
    pub audience_count: u32,
    /// People who have read it openly.
    pub read_count: u32,
    /// People who have not read it and have not left since its send.
    pub unread_count: u32,
    /// People who have read it hidden.
    pub hidden_count: u32,
    /// People who have not read it and left after its send.
    pub departed_count: u32,
    /// `unread_count = 0 and hidden_count = 0`.
    pub all_read: bool,
}

/// The list of a message's audience that a question asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MemberFilter {
    /// People who have read the message openly.
    Read,
    /// People who have not read it and have not left since its send.
    Unread,
    /// People who have not read it and left after its send.
    Departed,
}

/// One member of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The member.
    pub user_id: String,
    /// When the member read, Unix milliseconds. Only in the list `read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_at_ms: Option<u64>,
    /// Whether the member was on the roster once and is not now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

/// A page of a member list, in slot order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Members {
    /// At most the number that the question allowed.
    pub members: Vec<Member>,
    /// The slot from which the next page begins; `None` at the end.
    pub next_slot: Option<u32>,
    /// The receipt of the message in the same state.
    pub receipt: Receipt,
}

/// The point up to which a reader has read a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMark {
    /// The reader.
    pub reader_id: String,
    /// The message up to which the person read, if the event named one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up_to_message_id: Option<String>,
    /// The reader has read up to this `sent_at_ms`, Unix milliseconds.
    pub up_to_sent_at_ms: u64,
    /// When the reader read, Unix milliseconds.
    pub read_at_ms: u64,
    /// Offset of the event that moved the mark.
    pub version: u64,
}
