//! The query port: the questions that an edge asks the owner of the state, positions and their
//! tokens, cursors of member lists, and the JSON of answers.
//!
//! It must not know HTTP, the log or a store: an edge asks through [`Answers`], and the owner of
//! the state implements it.

mod answers;
mod cursor;
pub mod json;
mod position;

pub use answers::{Answer, Answers, Conversation, Readiness, Unavailable};
pub use cursor::{BadCursor, CursorKey, ListId};
pub use position::{BadToken, LogTag, Positions, Since, StreamId, Token, UPDATE_POSITION_HEADER};
