//! Resolves the caller from a signed token: `Authorization: Bearer` with a JWT (RFC 7519, RFC
//! 6750).
//!
//! A request must not wait for known keys: they are in memory, and a background task reads them
//! again. A refusal must not tell a forger what exactly is wrong with a token; the log tells the
//! operator.

mod claims;
mod jwt;
mod keys;
mod refusals;
mod ring;
mod source;
mod trial;

pub use claims::ClaimSettings;
pub use source::KeySource;
pub use trial::TrialKey;

use crate::edge::caller::{Authenticate, CALLER_HEADER, Caller, TENANT_HEADER};
use crate::problem::Problem;
use async_trait::async_trait;
use axum::http::{HeaderMap, header};
use jsonwebtoken::crypto::verify;
use jsonwebtoken::{Algorithm, DecodingKey};
use jwt::Jwt;
use keys::Key;
use refusals::{Reason, Refusal, Refusals, Wanted, quoted, shown};
use ring::{Absent, KeyRing};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// An algorithm that may sign tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// HMAC with SHA-256 and the shared secret.
    Hs256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

impl From<Signature> for Algorithm {
    fn from(signature: Signature) -> Self {
        match signature {
            Signature::Hs256 => Self::HS256,
            Signature::Rs256 => Self::RS256,
            Signature::Ps256 => Self::PS256,
            Signature::Es256 => Self::ES256,
            Signature::Es384 => Self::ES384,
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
    /// The mean time between two reads that tokens with unknown keys cause. A few may follow one
    /// another sooner.
    pub refresh_pause: Duration,
    /// How long a start tries to get keys from a URL.
    pub start_timeout: Duration,
    /// The tolerance for `exp` and `nbf`, in whole seconds.
    pub leeway: Duration,
    /// The claims that name the caller.
    pub claims: ClaimSettings,
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
    ring: Option<KeyRing>,
    refusals: Refusals,
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
        let ring = match settings.keys.clone() {
            Some(from) => Some(KeyRing::open(from, algorithms.clone(), &settings).await?),
            None => None,
        };
        Ok(Self(Arc::new(Inner { settings, algorithms, secret, ring, refusals: Refusals::new() })))
    }

    /// Returns the id of each public key that is known now, and the algorithms that it may verify.
    pub fn keys(&self) -> Vec<(Option<String>, Vec<String>)> {
        let known = self.0.ring.as_ref().map(KeyRing::known);
        let shown = |key: &Key| (key.id.clone(), key.algorithms.iter().map(|one| format!("{one:?}")).collect());
        known.iter().flat_map(|keys| keys.iter()).map(shown).collect()
    }

    /// Reads the public keys again at the configured interval, and after a token has named an
    /// unknown key. It never returns if there are public keys; spawn it.
    pub async fn keep_keys_fresh(self) {
        if let Some(ring) = &self.0.ring {
            ring.keep_fresh().await;
        }
    }
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

#[async_trait]
impl Authenticate for Tokens {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
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
            (None, _) => Err(Reason::Missing.found("none")),
            (Some(_), Some(_)) => Err(Reason::Missing.found("more than one")),
            (Some(credential), None) => {
                bearer(credential.as_bytes()).ok_or_else(|| Reason::Missing.found("another scheme"))
            }
        };
        let caller = match token {
            Ok(token) => self.0.caller(token).await,
            Err(refusal) => Err(refusal),
        };
        caller.map_err(|refusal| self.0.refusals.refuse(&refusal, |reason| self.0.wanted(reason)))
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
    async fn caller(&self, token: &[u8]) -> Result<Caller, Refusal> {
        let jwt = Jwt::read(token)?;
        let accepted = jwt.algorithm.filter(|algorithm| self.algorithms.contains(algorithm));
        let refused = || Reason::Algorithm.found(quoted(&jwt.algorithm_name));
        self.verify(&jwt, accepted.ok_or_else(refused)?).await?;
        let claims = jwt.claims()?;
        let now_s = jsonwebtoken::get_current_timestamp() as f64;
        let left_s = self.check(&claims, now_s)? - now_s;
        let expires = Instant::now() + Duration::from_secs_f64(left_s.clamp(0.0, 1e9));
        self.settings.claims.caller_of(&claims, expires)
    }

    /// Verifies that one of our keys has signed a token. Waits for a key that is not known yet.
    async fn verify(&self, jwt: &Jwt<'_>, algorithm: Algorithm) -> Result<(), Refusal> {
        let signs =
            |key: &DecodingKey| verify(jwt.signature, jwt.signed.as_bytes(), key, algorithm).is_ok_and(|signs| signs);
        let id = jwt.key_id.as_deref();
        let found = || format!("{} {}", id.map_or_else(|| "none".to_owned(), quoted), jwt.algorithm_name);
        let verdict = if algorithm == Algorithm::HS256 {
            self.secret.as_ref().map(signs).ok_or(Absent::Unknown)
        } else {
            // `None` if no key has the id. A token without one may be signed by any key, so also by
            // one that is not known yet.
            let verdict = |keys: &[Key]| {
                let is_named = |key: &&Key| id.is_none() || key.id.as_deref() == id;
                let mut named = keys.iter().filter(is_named).peekable();
                let is_known = named.peek().is_some() && id.is_some();
                let is_signed = named.any(|key| key.algorithms.contains(&algorithm) && signs(&key.key));
                (is_signed || is_known).then_some(is_signed)
            };
            let ring = self.ring.as_ref().ok_or(Reason::Key)?;
            match verdict(&ring.known()) {
                Some(is_signed) => Ok(is_signed),
                None => ring.wait_for(verdict).await,
            }
        };
        match verdict {
            Ok(true) => Ok(()),
            Ok(false) => Err(Reason::Signature.found(found())),
            Err(Absent::Unknown) => Err(Reason::Key.found(found())),
            Err(Absent::Unread) => Err(Reason::Unread.found(found())),
        }
    }

    /// Checks the claims of RFC 7519 that say for whom and for how long a token is, and returns
    /// when it ends, Unix seconds with the leeway. A list as `iss` is refused: the RFC knows none.
    fn check(&self, claims: &Map<String, Value>, now_s: f64) -> Result<f64, Refusal> {
        let TokenSettings { issuer, audience, leeway, .. } = &self.settings;
        let refused = |reason: Reason, claim: &str| reason.found(shown(claims.get(claim)));
        let leeway_s = leeway.as_secs() as f64;
        let expired = || refused(Reason::Expired, "exp");
        let expires_s = claims.get("exp").and_then(Value::as_f64).ok_or_else(expired)? + leeway_s;
        if expires_s < now_s {
            return Err(expired());
        }
        let begins_s = match claims.get("nbf") {
            None | Some(Value::Null) => 0.0,
            Some(begins) => begins.as_f64().ok_or_else(|| refused(Reason::NotYetValid, "nbf"))?,
        };
        if begins_s > now_s + leeway_s {
            return Err(refused(Reason::NotYetValid, "nbf"));
        }
        if claims.get("iss").and_then(Value::as_str) != Some(issuer) {
            return Err(refused(Reason::Issuer, "iss"));
        }
        let is_meant = match claims.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(many)) => {
                many.iter().all(Value::is_string) && many.iter().any(|one| one.as_str() == Some(audience))
            }
            _ => false,
        };
        if is_meant { Ok(expires_s) } else { Err(refused(Reason::Audience, "aud")) }
    }

    /// Returns what the check of a reason wants, for the log.
    fn wanted(&self, reason: Reason) -> Wanted {
        let TokenSettings { issuer, audience, claims, .. } = &self.settings;
        let now = || format!("{} (Unix seconds)", jsonwebtoken::get_current_timestamp());
        let (claim, value) = match reason {
            Reason::Missing => ("", "one Authorization: Bearer TOKEN".to_owned()),
            Reason::Malformed => ("", "parts: 3".to_owned()),
            Reason::Algorithm => {
                let names: Vec<_> = self.algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect();
                ("alg", names.join(" "))
            }
            Reason::Key | Reason::Unread | Reason::Signature => {
                let known = self.ring.as_ref().map(KeyRing::known).unwrap_or_default();
                let ids: Vec<&str> = known.iter().filter_map(|key| key.id.as_deref()).collect();
                ("kid and alg", quoted(&format!("kid of {}", ids.join(" "))))
            }
            Reason::RepeatedClaim => ("", "each claim once".to_owned()),
            Reason::Expired => ("exp", format!("a number beyond {}", now())),
            Reason::NotYetValid => ("nbf", format!("a number up to {}", now())),
            Reason::Issuer => ("iss", issuer.clone()),
            Reason::Audience => ("aud", audience.clone()),
            Reason::Tenant => {
                (&*claims.tenant_claim, "one tenant: a text of 1 to 128 bytes without a slash".to_owned())
            }
            Reason::Subject => (&*claims.user_claim, "a text of 1 to 128 bytes".to_owned()),
        };
        Wanted { claim: claim.to_owned(), value }
    }
}
