//! What can be asked: positions and their tokens, member-list cursors, who answers, and how answers and updates are written.
//!
//! Knows no HTTP, no log and no store: an edge asks through [`Answers`], whoever keeps the state implements it.

mod answers;
mod cursor;
pub mod json;
mod position;

pub use answers::{Answer, Answers, Conversation, Readiness, Unavailable};
pub use cursor::{BadCursor, CursorKey, ListId};
pub use position::{BadToken, Positions, Since, StreamId, UPDATE_POSITION_HEADER};
