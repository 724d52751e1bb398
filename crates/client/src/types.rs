//! The shapes of answers and updates: as the service writes them, in its own field names (`schemas/openapi.yaml`,
//! `schemas/update/v1`). Fields that this version does not know are ignored; holds no logic.

pub use receipts_event::Kind;

use serde::{Deserialize, Serialize};

/// What a receipt says about its message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
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
    /// The caller may not ask; to a user, that is also what does not exist.
    Forbidden,
    /// A status that this version of the client does not know.
    #[serde(other)]
    Other,
}

/// The answer about one message. Of two copies the one with the higher `version` is the newer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Whose.
    pub tenant: String,
    /// Absent where the message was asked for without a conversation and not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<String>,
    /// The message.
    pub message_id: String,
    /// What is said.
    pub status: Status,
    /// Frozen at the send; absent where not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Absent where not found, or erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_id: Option<String>,
    /// Unix milliseconds; absent where not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at_ms: Option<u64>,
    /// There where the status is [`Status::Ok`], and nowhere else.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// The greatest read time, Unix milliseconds; absent before the first read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_read_at_ms: Option<u64>,
    /// The other party of a direct chat with an audience of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// When that party read, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at_ms: Option<u64>,
    /// Absent where not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// The counts of a receipt: `read + unread + hidden + departed = audience`, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// How many must read it.
    pub audience_count: u32,
    /// How many have, openly; never falls.
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
pub enum Filter {
    /// Those who have read, openly.
    Read,
    /// Those who have not, and are still there.
    Unread,
    /// Those who have not, and left.
    Departed,
}

impl Filter {
    /// The filter as it stands in a URL.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Unread => "unread",
            Self::Departed => "departed",
        }
    }
}

/// One row of a member list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Who.
    pub user_id: String,
    /// When they read, Unix milliseconds; only in the list of those who have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at_ms: Option<u64>,
    /// True for those who once were on the roster and are not now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

/// A page of a member list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersPage {
    /// At most as many as asked for; a page may hold fewer, or none, before the last.
    pub members: Vec<Member>,
    /// Where the next page begins; `None` on the last.
    pub next_cursor: Option<String>,
    /// Whether this is the last page.
    pub is_finished: bool,
    /// The receipt in the same state as this page.
    pub receipt: Receipt,
}

/// Up to where a person has read a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMark {
    /// Who.
    pub reader_id: String,
    /// Absent where a time moved the mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_message_id: Option<String>,
    /// Unix milliseconds.
    pub up_to_sent_at_ms: u64,
    /// Unix milliseconds.
    pub read_at_ms: u64,
    /// Of two copies the one with the higher version is the newer.
    pub version: u64,
}

/// The answer to events that were written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// How many; copies into partitions do not count.
    pub accepted: u64,
    /// A token: a read that waits for it sees all of these events.
    pub position: String,
}

/// The answer to a batch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptsAnswer {
    /// One receipt for each id, in the order asked for.
    pub receipts: Vec<Receipt>,
    /// A token: up to where the log was folded.
    pub position: String,
}

/// What the stream of updates carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type")]
#[non_exhaustive]
pub enum Update {
    /// A message was sent, read or recalled.
    #[serde(rename = "receipt.updated")]
    Receipt(Box<ReceiptUpdate>),
    /// The read mark of a direct conversation has moved.
    #[serde(rename = "read_mark.updated")]
    ReadMark(Box<ReadMarkUpdate>),
}

/// The receipt of a message as it stood when the update was published, and who newly read it. The same update may come
/// twice, and an older one after a newer: the higher `version` holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptUpdate {
    /// The receipt; conversation, kind, time of sending and version are always there.
    #[serde(flatten)]
    pub receipt: Receipt,
    /// Who read openly since the update before, at most 100; the counts hold all of them.
    pub newly_read: Vec<NewReader>,
    /// Whether more than 100 did.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub newly_read_truncated: bool,
}

/// Who read a message since the update before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewReader {
    /// Who.
    pub user_id: String,
    /// Unix milliseconds.
    pub read_at_ms: u64,
}

/// A read mark of a direct conversation has moved: what a sender shows as "read up to here".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMarkUpdate {
    /// Whose.
    pub tenant: String,
    /// Where.
    pub conversation_id: String,
    /// Who is shown it: the one other member of the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_id: Option<String>,
    /// The mark.
    #[serde(flatten)]
    pub mark: ReadMark,
}

#[cfg(test)]
mod tests;
