//! Resolves the caller from a signed token: `Authorization: Bearer` with a JWT (RFC 7519, RFC
//! 6750).
//!
//! A request must not wait for keys: they are in memory, and a background task reads them again. A
//! refusal must not tell a forger what exactly is wrong with a token; the log tells the operator.

mod jwt;
mod keys;
mod refusals;
mod source;

pub use source::KeySource;

use crate::edge::caller::{Authenticate, CALLER_HEADER, Caller, TENANT_HEADER};
use crate::edge::scopes::{Scope, Scopes};
use crate::problem::Problem;
use crate::request::id_problem;
use axum::http::{HeaderMap, header};
use jsonwebtoken::crypto::verify;
use jsonwebtoken::{Algorithm, DecodingKey};
use jwt::Jwt;
use keys::Key;
use refusals::{Reason, Refusals};
use serde_json::{Map, Value};
use source::Reader;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// The pause before a start asks again for keys that it did not get.
const START_PAUSE: Duration = Duration::from_secs(1);

/// An algorithm that may sign tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// HMAC with SHA-256 and the shared secret.
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl From<Signature> for Algorithm {
    fn from(signature: Signature) -> Self {
        match signature {
            Signature::Hs256 => Self::HS256,
            Signature::Rs256 => Self::RS256,
            Signature::Es256 => Self::ES256,
            Signature::EdDsa => Self::EdDSA,
        }
    }
}

/// Says which tokens are accepted.
#[derive(Debug, Clone)]
pub struct TokenSettings {
    /// The required issuer: `iss`.
    pub issuer: String,
    /// The required audience: `aud`, or one of its values.
    pub audience: String,
    /// The accepted algorithms. A token that names another one is refused.
    pub signatures: Vec<Signature>,
    /// The file with the secret of HS256. White space at its ends is ignored.
    pub secret_file: Option<PathBuf>,
    /// The source of the public keys, a JWK Set (RFC 7517).
    pub keys: Option<KeySource>,
    /// The interval at which the keys are read again.
    pub refresh: Duration,
    /// The shortest time between two reads, however many tokens name unknown keys.
    pub refresh_pause: Duration,
    /// How long a start tries to get keys from a URL.
    pub start_timeout: Duration,
    /// The tolerance for `exp` and `nbf`, in whole seconds.
    pub leeway: Duration,
    /// The claim that names the tenant.
    pub tenant_claim: String,
    /// A claim that marks the token of a service if it is true or a non-empty string, with any
    /// `sub`.
    pub service_claim: Option<String>,
    /// True if each scope stands for itself; otherwise `receipts:write` implies the other writing
    /// ones.
    pub strict_scopes: bool,
}

/// Why tokens cannot be accepted.
#[derive(Debug, thiserror::Error)]
pub enum BadKeys {
    /// The secret cannot be used.
    #[error("{}: {problem}", .path.display())]
    Secret {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file.
        problem: String,
    },
    /// The public keys cannot be used. Keys from a URL may be usable later.
    #[error("{from}: {problem}")]
    Keys {
        /// The source.
        from: KeySource,
        /// What is wrong with the keys.
        problem: String,
    },
}

/// Accepts tokens. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    settings: TokenSettings,
    algorithms: Vec<Algorithm>,
    secret: Option<DecodingKey>,
    reader: Option<Reader>,
    keys: RwLock<Vec<Key>>,
    refusals: Refusals,
    /// Wakes the background task after a token has named an unknown key.
    unknown_key: Notify,
}

impl Tokens {
    /// Reads the keys. A file is read once. A URL is asked until it returns a usable set, at most
    /// for `start_timeout`.
    ///
    /// # Errors
    /// If the secret or the keys cannot be used.
    pub async fn open(settings: TokenSettings) -> Result<Self, BadKeys> {
        let secret = settings.secret_file.as_deref().map(read_secret).transpose()?;
        let algorithms: Vec<Algorithm> = settings.signatures.iter().copied().map(Algorithm::from).collect();
        let (mut reader, mut keys) = (None, Vec::new());
        if let Some(from) = &settings.keys {
            let bad = |problem| BadKeys::Keys { from: from.clone(), problem };
            let ready = Reader::new(from).map_err(bad)?;
            let until = Instant::now() + settings.start_timeout;
            let mut last_problem = String::new();
            keys = loop {
                match read_keys(&ready, &algorithms).await {
                    Ok(keys) => break keys,
                    Err(problem) => {
                        let is_transient = matches!(from, KeySource::Url { .. });
                        if !is_transient || Instant::now() + START_PAUSE > until {
                            return Err(bad(problem));
                        }
                        if last_problem != problem {
                            tracing::warn!(%from, problem, "the keys of tokens cannot be read yet; retrying");
                            last_problem = problem;
                        }
                        tokio::time::sleep(START_PAUSE).await;
                    }
                }
            };
            reader = Some(ready);
        }
        let (keys, unknown_key) = (RwLock::new(keys), Notify::new());
        let refusals = Refusals::new();
        Ok(Self(Arc::new(Inner { settings, algorithms, secret, reader, keys, refusals, unknown_key })))
    }

    /// Reads the public keys again at the configured interval, and soon after a token has named an
    /// unknown key. It never returns; spawn it.
    ///
    /// If a read fails, the previous keys stay for as long as the source fails. Refusing all tokens
    /// would help only an attacker who blocks the source.
    pub async fn keep_keys_fresh(self) {
        let Inner { settings, reader: Some(reader), .. } = &*self.0 else { return };
        loop {
            let began = Instant::now();
            _ = tokio::time::timeout(settings.refresh, self.0.unknown_key.notified()).await;
            tokio::time::sleep_until(began + settings.refresh_pause).await;
            let read = read_keys(reader, &self.0.algorithms).await;
            let outcome = if read.is_ok() { "read" } else { "failed" };
            metrics::counter!("receipts_token_keys_total", "outcome" => outcome).increment(1);
            match read {
                Ok(keys) => *self.0.keys.write().unwrap_or_else(PoisonError::into_inner) = keys,
                Err(problem) => {
                    let from = settings.keys.as_ref().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(from, problem, "the keys of tokens cannot be read; the previous keys stay");
                }
            }
        }
    }
}

async fn read_keys(reader: &Reader, algorithms: &[Algorithm]) -> Result<Vec<Key>, String> {
    keys::read(&reader.read().await?, algorithms)
}

fn read_secret(path: &Path) -> Result<DecodingKey, BadKeys> {
    let bad = |problem| BadKeys::Secret { path: path.to_owned(), problem };
    let bytes = std::fs::read(path).map_err(|error| bad(format!("the file cannot be read: {error}")))?;
    let secret = bytes.trim_ascii();
    // RFC 7518, section 3.2: the key must be at least as long as the hash.
    if secret.len() < 32 {
        return Err(bad(format!("the secret has {} bytes; HS256 needs at least 32", secret.len())));
    }
    Ok(DecodingKey::from_secret(secret))
}

impl Authenticate for Tokens {
    fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        for (name, pointer) in [(TENANT_HEADER, "/Receipts-Tenant"), (CALLER_HEADER, "/Receipts-Caller")] {
            if headers.contains_key(name) {
                return Err(Problem::invalid(
                    pointer,
                    "must not be sent: the credential names the tenant and the caller",
                ));
            }
        }
        let mut credentials = headers.get_all(header::AUTHORIZATION).iter();
        let token = match (credentials.next(), credentials.next()) {
            (Some(credential), None) => bearer(credential.as_bytes()),
            _ => None,
        };
        let caller = token.ok_or(Reason::Missing).and_then(|token| self.0.caller(token));
        caller.map_err(|reason| self.0.refusals.refuse(reason))
    }
}

/// Returns the token of a credential. The scheme may have any case (RFC 9110, section 11.1).
fn bearer(credential: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = credential.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii()).filter(|token| !token.is_empty())
}

/// Shows `receipts_tokens_refused_total` in a process that may have no tokens.
pub(crate) fn show_refusals() {
    _ = Refusals::new();
}

impl Inner {
    fn caller(&self, token: &[u8]) -> Result<Caller, Reason> {
        let jwt = Jwt::read(token)?;
        let accepted = jwt.algorithm.filter(|algorithm| self.algorithms.contains(algorithm));
        self.verify(&jwt, accepted.ok_or(Reason::Algorithm)?)?;
        let claims = jwt.claims()?;
        let now_s = jsonwebtoken::get_current_timestamp() as f64;
        let expires_s = self.check(&claims, now_s)?;
        self.caller_of(&claims, expires_s - now_s)
    }

    /// Verifies that one of our keys has signed a token.
    fn verify(&self, jwt: &Jwt<'_>, algorithm: Algorithm) -> Result<(), Reason> {
        let signs =
            |key: &DecodingKey| verify(jwt.signature, jwt.signed.as_bytes(), key, algorithm).is_ok_and(|signs| signs);
        if algorithm == Algorithm::HS256 {
            let secret = self.secret.as_ref().ok_or(Reason::Key)?;
            return if signs(secret) { Ok(()) } else { Err(Reason::Signature) };
        }
        let id = jwt.key_id.as_deref();
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let is_named = |key: &&Key| id.is_none() || key.id.as_deref() == id;
        let mut named = keys.iter().filter(is_named).filter(|key| key.algorithm == algorithm).peekable();
        if named.peek().is_none() {
            self.unknown_key.notify_one();
            return Err(Reason::Key);
        }
        if named.any(|key| signs(&key.key)) { Ok(()) } else { Err(Reason::Signature) }
    }

    /// Checks the claims of RFC 7519 that say for whom and for how long a token is, and returns
    /// when it ends, Unix seconds with the leeway. A list as `iss` is refused: the RFC knows none.
    fn check(&self, claims: &Map<String, Value>, now_s: f64) -> Result<f64, Reason> {
        let TokenSettings { issuer, audience, leeway, .. } = &self.settings;
        let leeway_s = leeway.as_secs() as f64;
        let expires_s = claims.get("exp").and_then(Value::as_f64).ok_or(Reason::Expired)? + leeway_s;
        if expires_s < now_s {
            return Err(Reason::Expired);
        }
        let begins_s = match claims.get("nbf") {
            None | Some(Value::Null) => 0.0,
            Some(begins) => begins.as_f64().ok_or(Reason::NotYetValid)?,
        };
        if begins_s > now_s + leeway_s {
            return Err(Reason::NotYetValid);
        }
        if claims.get("iss").and_then(Value::as_str) != Some(issuer) {
            return Err(Reason::Issuer);
        }
        let is_meant = match claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(many)) => {
                many.iter().all(Value::is_string) && many.iter().any(|one| one.as_str() == Some(audience))
            }
            _ => false,
        };
        if is_meant { Ok(expires_s) } else { Err(Reason::Audience) }
    }

    /// Returns the caller that claims name. `left_s`: the seconds until the token ends.
    fn caller_of(&self, claims: &Map<String, Value>, left_s: f64) -> Result<Caller, Reason> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let tenant = text(&self.settings.tenant_claim)
            .filter(|tenant| id_problem(tenant).is_none() && !tenant.contains('/'))
            .ok_or(Reason::Tenant)?;
        let says_service =
            |claim: &Value| claim.as_bool().unwrap_or_else(|| claim.as_str().is_some_and(|s| !s.is_empty()));
        let is_service =
            self.settings.service_claim.as_ref().and_then(|name| claims.get(name)).is_some_and(says_service);
        let user = match claims.get("sub") {
            Some(Value::String(user)) if id_problem(user).is_none() => Some(user.clone()).filter(|_| !is_service),
            None => None,
            Some(_) => return Err(Reason::Subject),
        };
        let names =
            ["scope", "scopes", "scp"].into_iter().filter_map(|name| claims.get(name)).flat_map(|claim| match claim {
                Value::String(names) => names.split_ascii_whitespace().collect(),
                Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
                _ => Vec::new(),
            });
        // RFC 9068 names a client by `client_id`, OpenID Connect by `azp`.
        let service_claim = self.settings.service_claim.as_deref();
        let names_service = [service_claim, Some("client_id"), Some("azp"), Some("sub")];
        let service = names_service.into_iter().flatten().find_map(text).filter(|_| user.is_none()).map(str::to_owned);
        let scopes = names.filter_map(Scope::named).fold(Scopes::NONE, Scopes::with);
        let scopes = if self.settings.strict_scopes { scopes } else { scopes.with_implied() };
        let expires = Some(Instant::now() + Duration::from_secs_f64(left_s.clamp(0.0, 1e9)));
        Ok(Caller { tenant: tenant.to_owned(), user, service, scopes, expires })
    }
}
