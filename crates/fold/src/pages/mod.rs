//! The pages of a partition: the port to the store, one file per table, and the codec of their
//! bytes.
//!
//! Holds data and its bytes only; the rules that change pages are in `rules`.

mod chunks;
pub mod codec;
mod conversation_page;
mod departures;
mod erasures;
mod messages;
mod meta;
mod names;
mod origin;
mod page;
mod parked;
mod people;
mod people_index;
mod policies;
mod read_marks;
mod reads;

pub use chunks::{CHUNK_SLOTS, Chunk};
pub use conversation_page::{ConversationPage, SkipRoot};
pub use departures::{DEPARTURES_PER_PAGE, Departures};
pub use erasures::Erasure;
pub use messages::{INLINE_SLOTS, MESSAGES_PER_PAGE, Message, MessageStatus, Messages};
pub use meta::Meta;
pub use origin::{LastRecord, Origin};
pub use page::{Mut, Page, PageKey, Ref, Store, Table, TableId};
pub use parked::{Headers, Parked};
pub use people::{Membership, PEOPLE_PER_PAGE, People, Person, Role, user_hash};
pub use people_index::{INDEX_ENTRIES_PER_PAGE, PeopleIndex};
pub use policies::Policy;
pub use read_marks::{Covered, MARKS_PER_PAGE, Mark, ReadMarks};
pub use reads::{ReadOutcome, Reads};

pub(crate) use messages::message_key;
pub(crate) use names::write_conversation_name;
#[cfg(test)]
pub(crate) use page::tests::accounts_for;
pub(crate) use people_index::index_page;

use crate::index::{BloomFilter, IndexPage};

/// A store with all the tables of a partition.
pub trait Pages:
    Table<Meta>
    + Table<ConversationPage>
    + Table<People>
    + Table<PeopleIndex>
    + Table<ReadMarks>
    + Table<Departures>
    + Table<Messages>
    + Table<Chunk>
    + Table<IndexPage>
    + Table<BloomFilter>
    + Table<Parked>
    + Table<Erasure>
    + Table<Origin>
    + Table<Policy>
{
}

impl<S> Pages for S where
    S: Table<Meta>
        + Table<ConversationPage>
        + Table<People>
        + Table<PeopleIndex>
        + Table<ReadMarks>
        + Table<Departures>
        + Table<Messages>
        + Table<Chunk>
        + Table<IndexPage>
        + Table<BloomFilter>
        + Table<Parked>
        + Table<Erasure>
        + Table<Origin>
        + Table<Policy>
{
}
