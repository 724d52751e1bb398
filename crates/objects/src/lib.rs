//! Whole files at a destination: a directory, or a bucket of S3, Google Cloud Storage or Azure. The only home of
//! `object_store`. Knows nothing of what the files hold, and hides no failure: whoever calls decides whether to try again.
//!
//! An object is there whole or not at all. All calls block and must come from a thread of their own, never from within a
//! runtime; each takes memory for a few parts of an object, however large it is.

mod destination;
mod download;
mod error;

pub use destination::{Destination, Object};
pub use download::Download;
pub use error::Error;
