//! What happened: ids, event types, decoding and validation. No IO, and nothing of what an event means.
//!
//! [`decode`] reads a record's value, [`Event::to_json`] writes one, [`Event::key`] and [`partition_of`] say where the
//! record stands, [`copies`] what a control event becomes on its way into every partition. The format itself is in `schemas/event/v1`, and tests hold this crate to it.

mod body;
mod decode;
mod diagnosis;
mod encode;
mod field;
mod flat;
mod hex;
mod key;
mod object;
mod record;
mod rejection;
mod text;

use std::borrow::Cow;

pub use body::{
    Body, ConversationConfigured, ConversationRead, Kind, MembersChanged, MessageRead, MessageRecalled, MessageSent,
    PolicyChanged, UpTo, UserErased,
};
pub use decode::decode;
pub use hex::hex;
pub use key::{control_key, key, murmur2, partition_of};
pub use object::{copies, names_field, with_field};
pub use record::decode_record;
pub use rejection::{PROBLEMS_MAX, Problem, Reason, Rejection, SENTENCE_BYTES_MAX};

/// The tenant of an event that names none.
pub const TENANT_DEFAULT: &str = "default";

/// The group type of a group that names none.
pub const GROUP_TYPE_DEFAULT: &str = "default";

/// How many bytes an id has at most, a tenant's and a group type's included.
pub const ID_BYTES_MAX: usize = 128;

/// The greatest time, Unix milliseconds: 2^53, up to where every JSON reader keeps integers exact.
pub const TIME_MS_MAX: u64 = 1 << 53;

/// How many messages one `message.read` names at most.
pub const MESSAGE_IDS_MAX: usize = 100;

/// How many ids `recipients` has at most, and `joined`, `left` and `observers` together.
pub const LISTED_IDS_MAX: usize = 10_000;

/// How many group types one `policy.changed` lists at most.
pub const POLICY_ENTRIES_MAX: usize = 1_000;

/// One event of the log, borrowed from its record where JSON escapes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event<'a> {
    /// Whose event it is; [`TENANT_DEFAULT`] where the record names none.
    pub tenant: Cow<'a, str>,
    /// The producer's own id, kept for tracing only.
    pub event_id: Option<Cow<'a, str>>,
    /// What happened.
    pub body: Body<'a>,
}

impl Event<'_> {
    /// Returns the conversation the event belongs to; `None` for the control events, which belong to a partition.
    pub fn conversation_id(&self) -> Option<&str> {
        self.body.conversation_id()
    }

    /// Returns the partition that a control event's copy is for; `None` for all other events, and where none is named.
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

    /// Copies what is borrowed, so that the event may outlive its record.
    pub fn into_owned(self) -> Event<'static> {
        Event {
            tenant: body::owned(self.tenant),
            event_id: self.event_id.map(body::owned),
            body: self.body.into_owned(),
        }
    }
}
