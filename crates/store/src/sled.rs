//! The store on disk: sled, with a journal before it that makes a checkpoint of any size atomic.
//! Knows no page.
//!
//! sled applies a batch atomically, but it blocks all readers meanwhile and takes many times the
//! size of the batch in memory. So a checkpoint first becomes one journal file, which counts only
//! if it is complete. Its values then go into sled one by one, and the file is removed. A journal
//! that is found at the start is applied again: it holds values, not differences, so a second time
//! does no harm.
//!
//! The committing thread waits only until the kernel has the file. The store's own thread then
//! syncs the file, which may take long, and applies it.

mod apply;
mod backend;
mod disk;
mod journal;
mod open;
mod refill;

pub use backend::SledBackend;
pub use open::{SledSettings, SledStore};

#[cfg(test)]
pub(crate) use disk::SledDisk;
