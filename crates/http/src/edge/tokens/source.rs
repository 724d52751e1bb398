//! Reads public keys from a file, or from a URL within bounds of time and size. The description of
//! an issuer (OpenID Connect Discovery 1.0) names that URL.
//!
//! It must not follow a redirect, because a redirecting host could decide whose tokens are
//! accepted.

use crate::fetch::Fetcher;
use bytes::Bytes;
use serde::Deserialize;
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
    /// An issuer, `https` or `http`, whose description names the URL of the set.
    Issuer {
        /// The issuer, as tokens name it.
        issuer: String,
        /// How long each of the two fetches may take.
        timeout: Duration,
    },
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Url { url, .. } => url.fmt(f),
            Self::Issuer { issuer, .. } => description_url(issuer).fmt(f),
        }
    }
}

/// A source that is ready to be read.
pub(super) enum Reader {
    File(PathBuf),
    Url(Box<Fetcher>),
    Issuer { issuer: String, description: Box<Fetcher>, timeout: Duration },
}

/// What an issuer says about itself, as far as it matters here.
#[derive(Deserialize)]
struct Description {
    issuer: String,
    jwks_uri: String,
}

/// Returns the URL of the description of an issuer (OpenID Connect Discovery 1.0, section 4.1).
fn description_url(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.strip_suffix('/').unwrap_or(issuer))
}

impl Description {
    /// Reads the description of `issuer`.
    ///
    /// # Errors
    /// A reason, if it is another issuer's, or names keys that anybody on the way could replace.
    fn read(text: &[u8], issuer: &str) -> Result<Self, String> {
        let description: Self =
            serde_json::from_slice(text).map_err(|error| format!("not the description of an issuer: {error}"))?;
        let Self { issuer: named, jwks_uri } = &description;
        // Section 4.3: otherwise one issuer could speak for another.
        if named != issuer {
            return Err(format!("the description is of the issuer {named:?}, and auth.issuer is {issuer:?}"));
        }
        let is_secure = jwks_uri.starts_with("https://");
        let are_both_plain = jwks_uri.starts_with("http://") && issuer.starts_with("http://");
        if !is_secure && !are_both_plain {
            return Err(format!("its jwks_uri is {jwks_uri:?} and must begin with https://"));
        }
        Ok(description)
    }
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
            KeySource::Issuer { issuer, timeout } => {
                let description = Box::new(Fetcher::new(&description_url(issuer), *timeout, None)?);
                Ok(Self::Issuer { issuer: issuer.clone(), description, timeout: *timeout })
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
            Self::Url(fetcher) => set(fetcher).await,
            Self::Issuer { issuer, description, timeout } => {
                // Asked each time: an issuer may move its keys.
                let answer = description.get("application/json", SET_BYTES_MAX).await;
                let text = match answer.map_err(|error| error.to_string())? {
                    (200, text) => text,
                    (status, _) => return Err(format!("the server answered {status} instead of 200")),
                };
                let Description { jwks_uri, .. } = Description::read(&text, issuer)?;
                let of_keys = |problem: String| format!("its jwks_uri {jwks_uri:?}: {problem}");
                let fetcher = Fetcher::new(&jwks_uri, *timeout, None).map_err(of_keys)?;
                set(&fetcher).await.map_err(of_keys)
            }
        }
    }
}

async fn set(fetcher: &Fetcher) -> Result<Bytes, String> {
    let answer = fetcher.get("application/jwk-set+json, application/json", SET_BYTES_MAX).await;
    match answer.map_err(|error| error.to_string())? {
        (200, set) => Ok(set),
        (status, _) => Err(format!("the server answered {status} instead of 200 with the set")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn description_stands_below_the_issuer() {
        for (issuer, wanted) in [
            ("https://id.example", "https://id.example/.well-known/openid-configuration"),
            ("https://id.example/", "https://id.example/.well-known/openid-configuration"),
            ("http://id:8080/realms/r", "http://id:8080/realms/r/.well-known/openid-configuration"),
        ] {
            assert_eq!(description_url(issuer), wanted);
        }
    }

    /// INV-CALLER
    #[test]
    fn foreign_or_insecure_description_is_refused() {
        let read = |named: &str, keys: &str, wanted: &str| {
            let text = json!({"issuer": named, "jwks_uri": keys, "other": 1}).to_string();
            Description::read(text.as_bytes(), wanted).map(|description| description.jwks_uri)
        };
        let (id, keys) = ("https://id.example", "https://keys.example/k");
        assert_eq!(read(id, keys, id), Ok(keys.to_owned()));
        assert!(read("http://127.0.0.1:1", "http://127.0.0.1:1/k", "http://127.0.0.1:1").is_ok());
        for named in ["https://id.example/", "https://evil.example", "https://ID.example"] {
            assert!(read(named, keys, id).is_err_and(|problem| problem.contains("auth.issuer is")), "{named}");
        }
        for keys in ["http://id.example/k", "file:///k", "/k", ""] {
            assert!(read(id, keys, id).is_err_and(|problem| problem.contains("https://")), "{keys}");
        }
    }
}
