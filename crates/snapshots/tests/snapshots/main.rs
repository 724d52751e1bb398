//! Snapshots of random histories: taken while the fold goes on, damaged, restored, cleared away.

#![allow(clippy::unwrap_used, reason = "a test: what cannot go on has failed")]

mod consistency;
mod damage;
mod folding;
mod restoring;
