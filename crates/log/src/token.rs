//! The port for tokens of SASL OAUTHBEARER: the log asks for one, and a source outside fetches it.
//!
//! It knows no HTTP, and keeps no token.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// What a source needs to fetch a token by the client credentials of OAuth 2.0 (RFC 6749, 4.4).
#[derive(Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// The token endpoint, `https` or `http`.
    pub url: String,
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: String,
    /// The scope, if one is asked for.
    pub scope: Option<String>,
    /// A PEM file of the certificates that the endpoint is verified by, or a folder of them; the
    /// system's if absent.
    pub ca: Option<PathBuf>,
}

/// Shows no secret.
impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { url, client_id, scope, ca, .. } = self;
        let mut shown = f.debug_struct("TokenRequest");
        shown.field("url", url).field("client_id", client_id).field("scope", scope).field("ca", ca);
        shown.finish_non_exhaustive()
    }
}

/// A token.
#[derive(Clone)]
pub struct Token {
    /// Its text, which is a secret.
    pub value: String,
    /// How long it is valid from now on.
    pub valid: Duration,
    /// When it expires, Unix milliseconds.
    pub expires_at_ms: i64,
}

/// Why there is no token. Each sentence names the endpoint and the property to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The endpoint refuses the client, or answers with something else than a token. It does so
    /// again until somebody changes a setting.
    #[error("{0}")]
    Refused(String),
    /// The endpoint does not answer, or cannot just now.
    #[error("{0}")]
    Unreachable(String),
}

/// Fetches tokens.
pub trait TokenSource: fmt::Debug + Send + Sync {
    /// Fetches a new token; blocks until it is there or has failed, for some seconds at most.
    ///
    /// # Errors
    /// [`TokenError`] says whether to try again.
    fn fetch(&self, request: &TokenRequest) -> Result<Token, TokenError>;
}
