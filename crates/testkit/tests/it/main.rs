//! The test kit itself: the cases as text, and the laws that workloads must obey.

#![allow(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

mod cases;
mod laws;
