//! Reads public keys from a file, or from a URL within bounds of time and size.
//!
//! It must not follow a redirect, because a redirecting host could decide whose tokens are
//! accepted.

use crate::fetch::Fetcher;
use bytes::Bytes;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// The largest set, bytes. A key has less than 1 KiB, or 3 KiB with a chain of certificates.
pub(super) const SET_BYTES_MAX: usize = 512 << 10;

/// The source of a JWK Set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file.
    File(PathBuf),
    /// A URL, `https` or `http`.
    Url {
        /// The URL.
        url: String,
        /// How long one fetch may take.
        timeout: Duration,
    },
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url { url, .. } => url.fmt(f),
        }
    }
}

/// A source that is ready to be read.
pub(super) enum Reader {
    File(PathBuf),
    Url(Box<Fetcher>),
}

impl Reader {
    /// # Errors
    /// A reason, if the URL is invalid, or the system has no certificates to verify a server with.
    pub(super) fn new(source: &KeySource) -> Result<Self, String> {
        match source {
            KeySource::File(path) => Ok(Self::File(path.clone())),
            KeySource::Url { url, timeout } => {
                Fetcher::new(url, *timeout, None).map(|fetcher| Self::Url(Box::new(fetcher)))
            }
        }
    }

    /// Returns the current set.
    ///
    /// # Errors
    /// A reason, if the file or the URL cannot be read.
    pub(super) async fn read(&self) -> Result<Bytes, String> {
        match self {
            Self::File(path) => match tokio::fs::read(path).await {
                Ok(text) => Ok(text.into()),
                Err(error) => Err(format!("the file cannot be read: {error}")),
            },
            Self::Url(fetcher) => {
                let answer = fetcher.get("application/jwk-set+json, application/json", SET_BYTES_MAX).await;
                match answer.map_err(|error| error.to_string())? {
                    (200, set) => Ok(set),
                    (status, _) => Err(format!("the server answered {status} instead of 200 with the set")),
                }
            }
        }
    }
}
