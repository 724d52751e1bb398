//! The data types of answers and updates, with the service's field names (`schemas/openapi.yaml`,
//! `schemas/update/v1`). Unknown fields are ignored. No logic.

pub use receipts_event::Kind;

use serde::{Deserialize, Serialize};

/// The status of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Status {
    /// The message has an audience, and the receipt has counts.
    Ok,
    /// There is no such message, or its retention is over.
    NotFound,
    /// The sender did not request a receipt.
    NotRequested,
    /// The group type did not support receipts when it was sent.
    Unsupported,
    /// The message was recalled.
    Recalled,
    /// The query named no conversation, and too many messages have the id: name the conversation.
    Ambiguous,
    /// The caller may not see the receipt. Users also get this for messages that do not exist.
    Forbidden,
    /// A status that this version of the client does not know.
    #[serde(other)]
    Other,
}

/// The receipt of one message. Of two copies the one with the higher `version` is newer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The tenant.
    pub tenant: String,
    /// Absent if the query named no conversation and the message was not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation_id: Option<String>,
    /// The message.
    pub message_id: String,
    /// The status.
    pub status: Status,
    /// Fixed when the message was sent; absent if not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// Absent if not found or erased.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender_id: Option<String>,
    /// Unix milliseconds; absent if not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at_ms: Option<u64>,
    /// Present exactly if the status is [`Status::Ok`].
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// The greatest read time, Unix milliseconds; absent before the first read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_read_at_ms: Option<u64>,
    /// The other party of a direct conversation with an audience of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    /// When that party read, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at_ms: Option<u64>,
    /// Absent if not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// The counts of a receipt: `read + unread + hidden + departed = audience`, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// People who must read the message.
    pub audience_count: u32,
    /// People who have read it openly; never falls.
    pub read_count: u32,
    /// Members who have not read it.
    pub unread_count: u32,
    /// People who have read it hidden.
    pub hidden_count: u32,
    /// People who left without reading it.
    pub departed_count: u32,
    /// `unread_count = 0 and hidden_count = 0`.
    pub all_read: bool,
}

/// The filter of a member list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Filter {
    /// People who have read the message openly.
    Read,
    /// Members who have not read it.
    Unread,
    /// People who left without reading it.
    Departed,
}

impl Filter {
    /// Returns the filter's name in a URL.
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
    /// The person.
    pub user_id: String,
    /// When the person read, Unix milliseconds; only in the list of readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_at_ms: Option<u64>,
    /// True if the person was on the roster and is not now.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub left: bool,
}

/// A page of a member list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MembersPage {
    /// At most the requested number; any page may have fewer members, or none.
    pub members: Vec<Member>,
    /// The cursor of the next page; `None` on the last page.
    pub next_cursor: Option<String>,
    /// True on the last page.
    pub is_finished: bool,
    /// The receipt from the same state as the page.
    pub receipt: Receipt,
}

/// How far a person has read a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMark {
    /// The person.
    pub reader_id: String,
    /// Absent if the mark was set to a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up_to_message_id: Option<String>,
    /// The time up to which messages count as read, Unix milliseconds.
    pub up_to_sent_at_ms: u64,
    /// When the mark was set, Unix milliseconds.
    pub read_at_ms: u64,
    /// Of two copies the one with the higher version is newer.
    pub version: u64,
}

/// The answer to posted events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The number of events; copies into partitions do not count.
    pub accepted: u64,
    /// A token: a read that waits for it sees all these events.
    pub position: String,
}

/// The answer to a query for several receipts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptsAnswer {
    /// One receipt per id, in the requested order.
    pub receipts: Vec<Receipt>,
    /// A token of the position up to which the log was folded.
    pub position: String,
}

/// The answer to a query for several read marks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMarksAnswer {
    /// One read mark or `None` per id, in the requested order.
    pub read_marks: Vec<Option<ReadMark>>,
    /// A token of the position up to which the log was folded.
    pub position: String,
}

/// An update of a stream.
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

/// The receipt of a message when the update was published, and its new readers. An update may come
/// twice, and an older one after a newer one: the higher `version` is right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptUpdate {
    /// The receipt. Its conversation, kind, sending time and version are always present.
    #[serde(flatten)]
    pub receipt: Receipt,
    /// People who read openly since the previous update, at most 100; the counts include all of
    /// them.
    pub newly_read: Vec<NewReader>,
    /// True if there were more than 100.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub newly_read_truncated: bool,
}

/// A person who read a message since the previous update.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewReader {
    /// The person.
    pub user_id: String,
    /// When the person read, Unix milliseconds.
    pub read_at_ms: u64,
}

/// The read mark of a direct conversation moved. A sender's client shows it as "read up to here".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadMarkUpdate {
    /// The tenant.
    pub tenant: String,
    /// The conversation.
    pub conversation_id: String,
    /// The person who sees the mark: the other member of the conversation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_id: Option<String>,
    /// The read mark.
    #[serde(flatten)]
    pub mark: ReadMark,
}

/// A ticket for a stream, which carries the caller's rights to a program without a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamTicket {
    /// The ticket. Who holds it can follow the stream.
    pub ticket: String,
    /// The address of the stream with the ticket in it, at the URL of the client.
    pub url: String,
    /// Until when it opens the stream, Unix milliseconds.
    pub expires_at_ms: u64,
}

#[cfg(test)]
mod tests;
