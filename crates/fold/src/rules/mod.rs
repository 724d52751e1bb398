//! The rules of the contract: the changes that each event makes. One file per rule; `apply` chooses
//! between them.
//!
//! Rules ask nothing of the outside: they read and write pages, and return effects as data.

mod apply;
mod erase;
mod erased;
mod park;
mod policy;
mod read;
mod read_mark;
mod recall;
mod retention;
mod roster;
mod send;
mod slices;
mod slots;
mod waiting;

pub(crate) use erased::{Erased, Walk};
pub(crate) use policy::Policies;
pub(crate) use slices::Unfinished;
pub(crate) use waiting::Waiting;
