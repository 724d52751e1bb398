//! The query port: the questions that an edge asks the owner of the state, positions and their
//! tokens, cursors of member lists, and the JSON of answers.
//!
//! It must not know HTTP, the log or a store: an edge asks through [`Answers`], and the owner of
//! the state implements it.

mod answers;
mod cursor;
pub mod json;
mod position;
mod remainders;

pub use answers::{Answer, Answers, Conversation, Readiness, Unavailable};
pub use cursor::{BadCursor, CursorKey, ListId};
pub use position::{BadToken, LogTag, Positions, Rounded, Since, StreamId, Token, UPDATE_POSITION_HEADER};
pub use receipts_event::token::TOKEN_CHARS_MAX;
pub use remainders::Remainders;
