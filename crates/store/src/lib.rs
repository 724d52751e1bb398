//! Keeps the pages of partitions: in memory, on disk with checkpoints, and in snapshots. The only
//! home of sled. Knows the form of a page, not its meaning.

mod backend;
mod batch;
mod cache;
mod cow;
mod disk;
mod envelope;
mod error;
mod format;
mod memory;
mod names;
mod paged;
mod sled;
pub mod snapshot;

pub use self::sled::{SledBackend, SledSettings, SledStore};
pub use backend::{Backend, MemoryBackend};
pub use batch::{Batch, Entry};
pub use cow::{CowReader, SnapshotSource};
pub use disk::{Disk, KeyValue, Map, Value};
pub use error::Error;
pub use format::{FORMAT, FormatVersion};
pub use paged::{Lookups, Paged, trim};
