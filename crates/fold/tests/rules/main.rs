//! Tests of the fold's rules over pages: against the naive oracle, the laws, the text cases and
//! itself, with deaths, checkpoints and very little memory. Need no disk; `crates/store/tests` and
//! the tests that kill processes use one.

#![allow(clippy::unwrap_used, reason = "a failed unwrap fails the test")]
#![allow(clippy::disallowed_methods, reason = "tests read and write the golden file")]

mod ahead;
mod budgets;
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
mod slices;
mod state;
mod walk;
mod watched;
