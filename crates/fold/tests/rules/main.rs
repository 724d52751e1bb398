//! The fold over pages: held to the naive oracle, to the laws, to the text cases and to itself, through deaths, checkpoints
//! and hardly any memory. Needs no disk: that is for `backend.rs`, and for what kills processes.

#![allow(clippy::unwrap_used, reason = "tests: what cannot go on has failed")]

mod ahead;
mod cases;
mod cover;
mod crowd;
mod damage;
mod draft;
mod forget;
mod golden;
mod lagging;
mod laws;
mod life;
mod memory;
mod oracle;
mod paging;
mod state;
mod walk;
mod watched;
