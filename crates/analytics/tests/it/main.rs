//! Export, replay, statistics and verification, each compared with the naive oracle.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod as_of;
mod common;
mod dead_letters;
mod digest;
mod export;
mod live;
mod snapshots;
mod stats;
mod verify;
