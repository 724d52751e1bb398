//! Whole files at a destination: a directory, or a bucket of S3, Google Cloud Storage or Azure. The
//! only home of `object_store`. Knows no contents and retries nothing: the caller decides whether
//! to try again.
//!
//! An object is there whole or not at all. All calls block, so they must not run on an async
//! thread. A call takes memory for a few parts of an object, of any size.

mod destination;
mod download;
mod environment;
mod error;

pub use destination::{Destination, Object};
pub use download::Download;
pub use error::Error;
