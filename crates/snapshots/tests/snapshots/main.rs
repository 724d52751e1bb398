//! Tests snapshots of random histories: taken during the fold, damaged, restored and pruned.

#![allow(clippy::unwrap_used, reason = "a test: what cannot go on has failed")]

mod consistency;
mod damage;
mod folding;
mod restoring;
