//! The shapes of requests and answers as the OpenAPI document tells them.
//!
//! Nothing here is ever made: the true types stand in the fold, which knows no OpenAPI, and in the handlers. Tests hold
//! every answer to these.

#![allow(dead_code, reason = "only their schemas are used")]

use utoipa::{IntoParams, ToSchema};

/// Which messages a batch asks about.
#[derive(ToSchema)]
pub(crate) struct ReceiptsQuery {
    /// Their conversation; absent or null to look in all conversations of the tenant.
    #[schema(min_length = 1, max_length = 128, example = "g1")]
    conversation_id: Option<String>,
    /// The messages; one that is named twice is answered twice.
    #[schema(min_items = 1, max_items = 100, example = json!(["m1", "m2"]))]
    message_ids: Vec<String>,
}

/// The answer to a batch.
#[derive(ToSchema)]
pub(crate) struct ReceiptsAnswer {
    /// One receipt for each id, in the order asked for.
    #[schema(min_items = 1, max_items = 100)]
    receipts: Vec<Receipt>,
    /// The token that the header `Receipts-Position` holds too.
    position: String,
}

/// What a receipt says about its message.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Status {
    Ok,
    NotFound,
    NotRequested,
    Unsupported,
    Recalled,
    Forbidden,
}

/// Direct chat or group.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Kind {
    Direct,
    Group,
}

/// The answer about one message. `read + unread + hidden + departed = audience`, always; only a receipt with the status
/// `ok` has counts. In a batch `forbidden` says that the caller may not ask.
#[derive(ToSchema)]
#[schema(example = json!({
    "tenant": "default", "conversation_id": "g1", "message_id": "m1", "status": "ok", "kind": "group",
    "sender_id": "alice", "sent_at_ms": 1_780_000_000_000_u64, "audience_count": 5, "read_count": 2, "unread_count": 2,
    "hidden_count": 0, "departed_count": 1, "all_read": false, "last_read_at_ms": 1_780_000_004_000_u64, "version": 1234
}))]
pub(crate) struct Receipt {
    /// Whose.
    tenant: String,
    /// Absent where the message was asked for without a conversation and not found.
    #[schema(nullable = false)]
    conversation_id: Option<String>,
    message_id: String,
    status: Status,
    /// Frozen at the send.
    #[schema(nullable = false)]
    kind: Option<Kind>,
    /// Absent where not found, or erased.
    #[schema(nullable = false)]
    sender_id: Option<String>,
    /// Unix milliseconds.
    #[schema(nullable = false)]
    sent_at_ms: Option<u64>,
    /// How many must read it.
    #[schema(nullable = false)]
    audience_count: Option<u32>,
    /// The number of people who have read it openly; never falls.
    #[schema(nullable = false)]
    read_count: Option<u32>,
    /// The number of people who have not read it and are still in the conversation.
    #[schema(nullable = false)]
    unread_count: Option<u32>,
    /// How many have, hidden.
    #[schema(nullable = false)]
    hidden_count: Option<u32>,
    /// How many have not, and left.
    #[schema(nullable = false)]
    departed_count: Option<u32>,
    /// `unread_count = 0 and hidden_count = 0`.
    #[schema(nullable = false)]
    all_read: Option<bool>,
    /// The greatest read time, Unix milliseconds.
    #[schema(nullable = false)]
    last_read_at_ms: Option<u64>,
    /// The other party of a direct chat with an audience of one.
    #[schema(nullable = false)]
    user_id: Option<String>,
    /// That party's read time, Unix milliseconds.
    #[schema(nullable = false)]
    read_at_ms: Option<u64>,
    /// Of two copies the one with the higher version is the newer.
    #[schema(nullable = false)]
    version: Option<u64>,
}

/// One row of a member list.
#[derive(ToSchema)]
pub(crate) struct Member {
    user_id: String,
    /// When they read, Unix milliseconds; only in the list of those who have.
    #[schema(nullable = false)]
    read_at_ms: Option<u64>,
    /// True for those who once were on the roster and are not now; absent for all others.
    #[schema(nullable = false)]
    left: Option<bool>,
}

/// A page of a member list.
#[derive(ToSchema)]
pub(crate) struct MembersPage {
    /// At most as many as asked for; a page may hold fewer, or none, before the last.
    #[schema(max_items = 1000)]
    members: Vec<Member>,
    /// Where the next page begins; null on the last.
    #[schema(required = true)]
    next_cursor: Option<String>,
    /// Whether this is the last page.
    is_finished: bool,
    /// The receipt in the same state as this page.
    receipt: Receipt,
}

/// Up to where a person has read a conversation.
#[derive(ToSchema)]
#[schema(example = json!({
    "reader_id": "bob", "up_to_message_id": "m7", "up_to_sent_at_ms": 1_780_000_000_000_u64,
    "read_at_ms": 1_780_000_004_000_u64, "version": 4711
}))]
pub(crate) struct ReadMark {
    reader_id: String,
    /// Absent where a time moved the mark.
    #[schema(nullable = false)]
    up_to_message_id: Option<String>,
    /// Unix milliseconds.
    up_to_sent_at_ms: u64,
    /// Unix milliseconds.
    read_at_ms: u64,
    /// Of two copies the one with the higher version is the newer.
    version: u64,
}

/// How far behind the log the service is.
#[derive(ToSchema)]
pub(crate) struct ReadinessAnswer {
    /// Whether every partition is within the configured lag.
    caught_up: bool,
    /// Partitions that are answered for.
    partitions: u32,
    /// Those of them that are within the lag.
    partitions_caught_up: u32,
    /// Records written and not yet folded; absent while unknown.
    #[schema(nullable = false)]
    lag_records: Option<u64>,
}

/// An offending item.
#[derive(ToSchema)]
pub(crate) struct ProblemItem {
    /// A JSON Pointer into the body (`/3/message_ids/0`; of NDJSON the first number is that of the event, blank lines not
    /// counted), empty for the whole body; for anything else a slash and the name of the path parameter, query
    /// parameter or header.
    pointer: String,
    /// What is wrong there, for a person.
    detail: String,
}

/// An error, by RFC 9457. More members may stand beside these.
#[derive(ToSchema)]
pub(crate) struct Problem {
    /// What went wrong; stable.
    r#type: String,
    /// The same, for a person.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What exactly went wrong, for a person.
    #[schema(nullable = false)]
    detail: Option<String>,
    /// Which items are at fault.
    #[schema(nullable = false, max_items = 100)]
    errors: Option<Vec<ProblemItem>>,
    /// With `not-found` and `not-ok` about a message: its receipt.
    #[schema(nullable = false)]
    receipt: Option<Receipt>,
}

/// Ids in a path are percent-encoded, a slash as `%2F`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct MessagePath {
    /// The conversation, percent-encoded, a slash as `%2F`. Browsers and many clients take `.` and `..` out of a path, encoded
    /// or not: such ids are asked for by `POST /v1/receipts/query`.
    #[param(min_length = 1, max_length = 128, example = "g1")]
    conversation_id: String,
    /// The message, likewise.
    #[param(min_length = 1, max_length = 128, example = "m1")]
    message_id: String,
}

/// Ids in a path are percent-encoded, a slash as `%2F`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct ReaderPath {
    /// The conversation, percent-encoded, a slash as `%2F`. Where a client takes `.` and `..` out of a path, read marks of such ids
    /// are out of its reach.
    #[param(min_length = 1, max_length = 128, example = "g1")]
    conversation_id: String,
    /// The person, likewise.
    #[param(min_length = 1, max_length = 128, example = "bob")]
    user_id: String,
}

/// Which members a list names.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum MemberFilter {
    Read,
    Unread,
    Departed,
}

/// What a page of a list is to hold.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParameters {
    /// Which list.
    #[param(inline)]
    filter: MemberFilter,
    /// How many members at most.
    #[param(minimum = 1, maximum = 1000, default = 100, nullable = false)]
    limit: Option<u32>,
    /// `next_cursor` of the page before; absent for the first page.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// What a stream is of, and from where it goes on.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamParameters {
    /// The conversation; this or `sender_id`.
    #[param(min_length = 1, max_length = 128, nullable = false, example = "g1")]
    conversation_id: Option<String>,
    /// The person; this or `conversation_id`.
    #[param(min_length = 1, max_length = 128, nullable = false)]
    sender_id: Option<String>,
    /// The `id` of an event of such a stream, or a position of the event log: a token of an answer. `Last-Event-ID` wins
    /// over it. A partition that a token does not name is read from its beginning, so for a sender it has to be one that
    /// stands for all: a stream's own, or that of a query without `conversation_id`.
    #[param(nullable = false)]
    since: Option<String>,
}
