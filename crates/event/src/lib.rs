//! Events: ids, event types, decoding and validation. No IO, and no knowledge of what an event
//! means.
//!
//! [`Decoder`] decodes the records of a log, [`decode`] a value alone, and [`Event::to_json`]
//! encodes one. [`Event::key`] and [`partition_of`] return the record's key and partition.
//! [`copies`] returns the copies of a control event for all partitions. `schemas/event/v1` defines
//! the format, and tests compare this crate with it.

mod body;
mod decode;
mod diagnosis;
mod encode;
mod field;
mod flat;
mod framing;
mod hex;
mod key;
mod object;
mod partitioner;
mod record;
mod rejection;
mod text;
pub mod token;

use std::borrow::Cow;

pub use body::{
    Body, ConversationConfigured, ConversationRead, Kind, MembersChanged, MessageRead, MessageRecalled, MessageSent,
    PolicyChanged, TYPES, UpTo, UserErased,
};
pub use decode::decode;
pub use framing::Unwrap;
pub use hex::hex;
pub use key::{control_key, key, murmur2, partition_of};
pub use object::{copies, names_field, with_field};
pub use partitioner::Partitioner;
pub use record::Decoder;
pub use rejection::{PROBLEMS_MAX, Problem, Reason, Rejection, SENTENCE_BYTES_MAX};

/// The tenant of an event without one.
pub const TENANT_DEFAULT: &str = "default";

/// The group type of a group without one.
pub const GROUP_TYPE_DEFAULT: &str = "default";

/// The maximum length of an id, a tenant and a group type, bytes.
pub const ID_BYTES_MAX: usize = 128;

/// The greatest time, Unix milliseconds: 2^53, because all JSON readers keep smaller integers
/// exact.
pub const TIME_MS_MAX: u64 = 1 << 53;

/// The maximum number of messages of one `message.read`.
pub const MESSAGE_IDS_MAX: usize = 100;

/// The maximum number of ids in `recipients`, and in `joined`, `left` and `observers` together.
pub const LISTED_IDS_MAX: usize = 10_000;

/// The maximum number of group types of one `policy.changed`.
pub const POLICY_ENTRIES_MAX: usize = 1_000;

/// One event of the log. Strings without JSON escapes are borrowed from the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// The tenant; [`TENANT_DEFAULT`] if the record names none.
    pub tenant: Cow<'a, str>,
    /// The producer's own id, for tracing only.
    pub event_id: Option<Cow<'a, str>>,
    /// The type of the event and its fields.
    pub body: Body<'a>,
}

impl Event<'_> {
    /// Returns the event's conversation; `None` for control events, which belong to a partition.
    pub fn conversation_id(&self) -> Option<&str> {
        self.body.conversation_id()
    }

    /// Returns the partition of a control event's copy; `None` for other events, and for a control
    /// event that names no partition.
    pub fn partition(&self) -> Option<u32> {
        match &self.body {
            Body::PolicyChanged(body) => body.partition,
            Body::UserErased(body) => body.partition,
            _ => None,
        }
    }

    /// Returns the event's `type`, for instance `message.sent`.
    pub fn type_name(&self) -> &'static str {
        self.body.type_name()
    }

    /// Copies borrowed strings, so that the event may outlive its record.
    pub fn into_owned(self) -> Event<'static> {
        Event {
            tenant: body::owned(self.tenant),
            event_id: self.event_id.map(body::owned),
            body: self.body.into_owned(),
        }
    }
}
