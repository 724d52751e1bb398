//! Reads an object from its start to its end, piece by piece. Keeps one piece in memory.

use crate::error::{Asks, Error};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use std::io::{self, Read};
use std::sync::Arc;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// A download of an object. Its read errors carry an [`Error`].
pub struct Download {
    pub(crate) stream: BoxStream<'static, object_store::Result<Bytes>>,
    pub(crate) piece: Bytes,
    pub(crate) bytes: u64,
    pub(crate) location: String,
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) stop: CancellationToken,
}

impl Download {
    /// Returns the length of the whole object, bytes.
    pub fn total_bytes(&self) -> u64 {
        self.bytes
    }
}

impl Read for Download {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            let (stream, stop) = (&mut self.stream, &self.stop);
            let next = self.runtime.block_on(async {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => Err(Error::Stopped),
                    next = stream.next() => Ok(next),
                }
            });
            match next.map_err(io::Error::other)? {
                None => return Ok(0),
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => {
                    return Err(io::Error::other(Error::of_store(
                        format!("reading {}", self.location),
                        &self.location,
                        Asks::Object,
                        None,
                        &error,
                    )));
                }
            }
        }
        let count = into.len().min(self.piece.len());
        into[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}
