//! Where it is kept: pages, checkpoints, and the only home of sled. Knows what a page is, not what it means.

mod backend;
mod batch;
mod cache;
mod disk;
mod envelope;
mod error;
mod image;
mod names;
mod paged;
mod sled_backend;
mod sled_disk;
pub mod snapshot;

pub use backend::{Backend, MemoryBackend};
pub use batch::{Batch, Entry};
pub use disk::{Disk, KeyValue, Map, Value};
pub use error::Error;
pub use image::{Image, ImageSource};
pub use paged::{Paged, trim};
pub use sled_backend::{SledBackend, SledSettings, SledStore};
