//! The store on a real disk: backends, golden files of every format version, and the cost of a page
//! by depth.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod backend;
mod depth;
mod golden;
