//! What it means: the pure state transition and the questions it can answer.
//!
//! No IO of its own, no async, no clock, no randomness: time and position come from the record, pages from a
//! [port](page::Table). The same prefix of a partition gives the same state, however often the process died on the way.

mod ahead;
mod apply;
mod ask;
mod audit;
pub mod chain;
pub mod effects;
pub mod head;
pub mod index;
mod left;
mod lists;
mod mark;
mod memo;
pub mod message;
mod origin;
pub mod page;
mod park;
pub mod people;
mod read;
pub mod reads;
mod roster;
mod send;
pub mod small;
mod state;
pub mod stretches;
pub mod view;
mod walk;
pub mod wire;
mod young;

pub use ahead::LOOK_AHEAD_EVENTS;
pub use origin::{LastRecord, Origin};
pub use park::Raw;
pub use small::Headers;
pub use state::{At, Error, Limits, Pages, Result, State};
pub use walk::{Conversation, Placed, Roster};
