//! The protocol between the processes of one service: partitions and their owners, questions to an
//! owner, and requests for snapshots.
//!
//! Keeps no messages and decides nothing about callers. With the feature `client`, [`Peers`] asks
//! the owner of a partition first, then its standbys. After a
//! [`wait`](receipts_query::Answers::wait) no answer is older than the position waited for, from
//! any projector.

#[cfg(feature = "client")]
mod client;
mod merge;
mod owner;
mod protocol;
mod secret;
mod snapshots;

#[cfg(feature = "client")]
pub use client::{PeerSettings, Peers};
pub use merge::{answer_found, merge_found};
pub use owner::{Owner, answer_request, catch_up};
pub use protocol::{ASK_PATH, PeerReply, PeerRequest, PeerState, Question, STATE_PATH, decode_reply};
pub use secret::{SECRET_BYTES_MIN, Secret, cursor_key_from_text, cursor_key_to_text};
pub use snapshots::{
    SNAPSHOTS_PATH, SnapshotControl, SnapshotPhase, SnapshotReply, SnapshotRequest, SnapshotStatus, TakenSnapshot,
};
