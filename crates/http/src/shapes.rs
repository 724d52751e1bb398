//! The shapes of answers and parameters for the OpenAPI document, of types that cannot derive their
//! own.
//!
//! No code constructs them. The real types are in the fold, which must not depend on OpenAPI, and
//! in JSON writers. The tests of this crate check every answer against these shapes.

#![allow(dead_code, reason = "only their schemas are used")]

use crate::problem::Item;
use utoipa::{IntoParams, ToSchema};

/// The answer to a batch.
#[derive(ToSchema)]
pub(crate) struct ReceiptsAnswer {
    /// One receipt for each id, in the order of the request.
    #[schema(min_items = 1, max_items = 100)]
    receipts: Vec<Receipt>,
    /// The same token as in the header `Receipts-Position`.
    position: String,
}

/// The status of a message.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Status {
    Ok,
    NotFound,
    NotRequested,
    Unsupported,
    Recalled,
    Ambiguous,
    Forbidden,
}

/// The kind of a conversation.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum Kind {
    Direct,
    Group,
}

/// The receipt of one message. Always `read + unread + hidden + departed = audience`. Only a
/// receipt with the status `ok` has counts. In a batch, `forbidden` means that the caller may not
/// see the receipt.
#[derive(ToSchema)]
#[schema(example = json!({
    "tenant": "default", "conversation_id": "g1", "message_id": "m1", "status": "ok", "kind": "group",
    "sender_id": "alice", "sent_at_ms": 1_780_000_000_000_u64, "audience_count": 5, "read_count": 2, "unread_count": 2,
    "hidden_count": 0, "departed_count": 1, "all_read": false, "last_read_at_ms": 1_780_000_004_000_u64, "version": 1234
}))]
pub(crate) struct Receipt {
    /// The tenant of the message.
    tenant: String,
    /// Absent if the query named no conversation and the message was not found.
    #[schema(nullable = false)]
    conversation_id: Option<String>,
    message_id: String,
    status: Status,
    /// Frozen by the send.
    #[schema(nullable = false)]
    kind: Option<Kind>,
    /// Absent if the message was not found or the sender was erased.
    #[schema(nullable = false)]
    sender_id: Option<String>,
    /// Unix milliseconds.
    #[schema(nullable = false)]
    sent_at_ms: Option<u64>,
    /// The number of people who must read it; frozen by the send.
    #[schema(nullable = false)]
    audience_count: Option<u32>,
    /// The number of people who have read it openly; never falls.
    #[schema(nullable = false)]
    read_count: Option<u32>,
    /// The number of people who have not read it and are still in the conversation.
    #[schema(nullable = false)]
    unread_count: Option<u32>,
    /// The number of hidden readers, who are never named.
    #[schema(nullable = false)]
    hidden_count: Option<u32>,
    /// The number of people who left after the send without reading it.
    #[schema(nullable = false)]
    departed_count: Option<u32>,
    /// `unread_count = 0 and hidden_count = 0`.
    #[schema(nullable = false)]
    all_read: Option<bool>,
    /// The latest read time, Unix milliseconds.
    #[schema(nullable = false)]
    last_read_at_ms: Option<u64>,
    /// The other party of a direct conversation with an audience of one.
    #[schema(nullable = false)]
    user_id: Option<String>,
    /// That party's read time, Unix milliseconds.
    #[schema(nullable = false)]
    read_at_ms: Option<u64>,
    /// The copy with the higher version is the newer one.
    #[schema(nullable = false)]
    version: Option<u64>,
}

/// One row of a member list.
#[derive(ToSchema)]
pub(crate) struct Member {
    user_id: String,
    /// When the member read, Unix milliseconds. Only in the list `read`.
    #[schema(nullable = false)]
    read_at_ms: Option<u64>,
    /// True for members who have left the conversation; absent for all others.
    #[schema(nullable = false)]
    left: Option<bool>,
}

/// A page of a member list.
#[derive(ToSchema)]
pub(crate) struct MembersPage {
    /// At most `limit` members. A page before the last may have fewer, or none.
    #[schema(max_items = 1000)]
    members: Vec<Member>,
    /// The cursor of the next page; null on the last page.
    #[schema(required = true)]
    next_cursor: Option<String>,
    /// Whether this is the last page.
    is_finished: bool,
    /// The receipt, from the same state as this page.
    receipt: Receipt,
}

/// How far a person has read a conversation.
#[derive(ToSchema)]
#[schema(example = json!({
    "reader_id": "bob", "up_to_message_id": "m7", "up_to_sent_at_ms": 1_780_000_000_000_u64,
    "read_at_ms": 1_780_000_004_000_u64, "version": 4711
}))]
pub(crate) struct ReadMark {
    reader_id: String,
    /// Absent if a time moved the mark.
    #[schema(nullable = false)]
    up_to_message_id: Option<String>,
    /// Unix milliseconds.
    up_to_sent_at_ms: u64,
    /// Unix milliseconds.
    read_at_ms: u64,
    /// The copy with the higher version is the newer one.
    version: u64,
}

/// The people whose read marks are asked for.
#[derive(ToSchema)]
pub(crate) struct ReadMarksQuery {
    #[schema(min_length = 1, max_length = 128, example = "g1")]
    conversation_id: String,
    /// The people. An id that appears twice is answered twice.
    #[schema(min_items = 1, max_items = 100, example = json!(["bob", "carol"]))]
    user_ids: Vec<String>,
}

/// The answer to a query of read marks.
#[derive(ToSchema)]
pub(crate) struct ReadMarksAnswer {
    /// One read mark for each id, in the order of the request; null if there is none.
    #[schema(min_items = 1, max_items = 100)]
    read_marks: Vec<Option<ReadMark>>,
    /// The same token as in the header `Receipts-Position`.
    position: String,
}

/// How far the service is behind the log.
#[derive(ToSchema)]
pub(crate) struct ReadinessAnswer {
    /// Whether every partition is within the configured lag.
    caught_up: bool,
    /// Partitions that the service answers for.
    partitions: u32,
    /// Partitions within the lag.
    partitions_caught_up: u32,
    /// Records that are written and not yet folded. Absent while unknown.
    #[schema(nullable = false)]
    lag_records: Option<u64>,
    /// Partitions that nobody answers for. Absent if there are none.
    #[schema(nullable = false)]
    partitions_missing: Option<u32>,
    /// Partitions that are answered without hearing from the log. Absent if there are none.
    #[schema(nullable = false)]
    partitions_stale: Option<u32>,
    /// The longest silence of the log, whole seconds. Absent while it is heard from.
    #[schema(nullable = false)]
    stale_seconds: Option<u64>,
    /// True for a projector that the group gave no partition. Absent otherwise.
    #[schema(nullable = false)]
    spare: Option<bool>,
}

/// An error according to RFC 9457. It may have more members than these.
#[derive(ToSchema)]
pub(crate) struct Problem {
    /// The kind of the problem. It is stable.
    r#type: String,
    /// The kind of the problem, for a human reader.
    title: String,
    /// The HTTP status.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What exactly went wrong, for a human reader.
    #[schema(nullable = false)]
    detail: Option<String>,
    /// The invalid items.
    #[schema(nullable = false, max_items = 100)]
    errors: Option<Vec<Item>>,
    /// The receipt of the message, with `not-found` and `not-ok`.
    #[schema(nullable = false)]
    receipt: Option<Receipt>,
}

/// Ids in a path are percent-encoded, a slash as `%2F`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct MessagePath {
    /// The conversation, percent-encoded, a slash as `%2F`. Browsers and many clients remove `.`
    /// and `..` from a path, encoded or not. Ask for such ids with `POST /v1/receipts/query` and
    /// `POST /v1/members/list`.
    #[param(min_length = 1, max_length = 128, example = "g1")]
    conversation_id: String,
    /// The message, encoded in the same way.
    #[param(min_length = 1, max_length = 128, example = "m1")]
    message_id: String,
}

/// Ids in a path are percent-encoded, a slash as `%2F`.
#[derive(IntoParams)]
#[into_params(parameter_in = Path)]
pub(crate) struct ReaderPath {
    /// The conversation, percent-encoded, a slash as `%2F`. Browsers and many clients remove `.`
    /// and `..` from a path, encoded or not. Ask for such ids with `POST /v1/read-marks/query`.
    #[param(min_length = 1, max_length = 128, example = "g1")]
    conversation_id: String,
    /// The person, encoded in the same way.
    #[param(min_length = 1, max_length = 128, example = "bob")]
    user_id: String,
}

/// The members that a list names.
#[derive(ToSchema)]
#[schema(rename_all = "snake_case")]
pub(crate) enum MemberFilter {
    Read,
    Unread,
    Departed,
}

/// A page of a member list, with its ids.
#[derive(ToSchema)]
pub(crate) struct MembersList {
    #[schema(min_length = 1, max_length = 128, example = "g1")]
    conversation_id: String,
    #[schema(min_length = 1, max_length = 128, example = "m1")]
    message_id: String,
    // Without a description of its own, which would stand beside the type as an object.
    #[schema(inline)]
    filter: MemberFilter,
    /// The most members of the page; 100 if absent.
    #[schema(minimum = 1, maximum = 1000, format = "int32")]
    limit: Option<u32>,
    /// The `next_cursor` of the page before. Absent or null for the first page.
    cursor: Option<String>,
}

/// The parameters of a page of a member list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ListParameters {
    /// The list.
    #[param(inline)]
    filter: MemberFilter,
    /// The most members of the page.
    #[param(minimum = 1, maximum = 1000, default = 100, nullable = false)]
    limit: Option<u32>,
    /// The `next_cursor` of the page before. Absent for the first page.
    #[param(nullable = false)]
    cursor: Option<String>,
}

/// The parameters of a stream.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StreamParameters {
    /// The conversation. Send this, `sender_id` or `ticket`.
    #[param(min_length = 1, max_length = 128, nullable = false, example = "g1")]
    conversation_id: Option<String>,
    /// The sender. Send this, `conversation_id` or `ticket`.
    #[param(min_length = 1, max_length = 128, nullable = false)]
    sender_id: Option<String>,
    /// A ticket, which names the stream and its caller. Then send no other subject; other
    /// credentials of the request are not looked at.
    #[param(nullable = false)]
    ticket: Option<String>,
    /// The `id` of an event of such a stream, or a position of the event log from an answer.
    /// `Last-Event-ID` takes precedence. A partition that the token does not name is read from its
    /// beginning. A stream of a sender therefore needs a token of all partitions: one of a stream
    /// of a sender, or of a query without `conversation_id`.
    #[param(nullable = false)]
    since: Option<String>,
}
