//! Who asks, by a signed token: `Authorization: Bearer` with a JWT (RFC 7519, RFC 6750).
//!
//! Must not ask anybody while a request waits: keys are in memory, and are read again beside the requests. What is wrong with
//! a token is told in general terms only.

use crate::caller::{Authenticate, CALLER_HEADER, Caller, Scope, Scopes, TENANT_HEADER};
use crate::problem::{Code, Problem};
use crate::request::id_problem;
use axum::http::{HeaderMap, header};
use jsonwebtoken::jwk::{JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Validation};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How long at least lies between two readings of the keys, however many tokens name keys that are not there.
const REFRESH_PAUSE: Duration = Duration::from_secs(1);

/// How a token may be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signature {
    /// HMAC with SHA-256, by the shared secret.
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

/// What tokens are taken.
#[derive(Debug, Clone)]
pub struct TokenSettings {
    /// Who must have issued them: `iss`.
    pub issuer: String,
    /// Whom they must be for: `aud`, or one of it.
    pub audience: String,
    /// How they may be signed; nothing else is looked at, whatever a token says.
    pub signatures: Vec<Signature>,
    /// The file with the secret of HS256, without the white space at its ends.
    pub secret_file: Option<PathBuf>,
    /// The file with public keys, a JWK Set (RFC 7517).
    pub jwks_file: Option<PathBuf>,
    /// How often that file is read again.
    pub refresh: Duration,
    /// How far `exp` and `nbf` may be off; whole seconds count.
    pub leeway: Duration,
    /// The claim that names the tenant.
    pub tenant_claim: String,
    /// A claim that, where it is true or a text, says that the token is a service's whatever its `sub`.
    pub service_claim: Option<String>,
}

/// Why tokens cannot be taken.
#[derive(Debug, thiserror::Error)]
pub enum BadKeys {
    /// A file cannot be read.
    #[error("{} cannot be read: {cause}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system says.
        cause: std::io::Error,
    },
    /// A file holds no keys.
    #[error("{}: {problem}", .path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// A key and the id that tokens name it by.
struct Key {
    id: Option<String>,
    key: DecodingKey,
}

/// Takes tokens. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    settings: TokenSettings,
    algorithms: Vec<Algorithm>,
    secret: Option<DecodingKey>,
    keys: RwLock<Vec<Key>>,
    /// A token has named a key that is not there.
    unknown_key: Notify,
}

impl Tokens {
    /// Reads the keys. Blocks for as long as the files take.
    ///
    /// # Errors
    /// Where a file cannot be read or holds no usable key.
    pub fn open(settings: TokenSettings) -> Result<Self, BadKeys> {
        let secret = settings.secret_file.as_deref().map(read_secret).transpose()?;
        let keys = settings.jwks_file.as_deref().map(read_keys).transpose()?.unwrap_or_default();
        let algorithms = settings.signatures.iter().copied().map(Algorithm::from).collect();
        Ok(Self(Arc::new(Inner { settings, algorithms, secret, keys: RwLock::new(keys), unknown_key: Notify::new() })))
    }

    /// Reads the public keys again and again, as often as configured, and soon after a token has named one that is not
    /// there. Where that fails the keys of before stay. Never returns; to be spawned.
    pub async fn upkeep(self) {
        let Some(path) = self.0.settings.jwks_file.clone() else { return };
        loop {
            let began = Instant::now();
            _ = tokio::time::timeout(self.0.settings.refresh, self.0.unknown_key.notified()).await;
            tokio::time::sleep_until(began + REFRESH_PAUSE).await;
            let path = path.clone();
            match tokio::task::spawn_blocking(move || read_keys(&path)).await {
                Ok(Ok(keys)) => *self.0.keys.write().unwrap_or_else(PoisonError::into_inner) = keys,
                Ok(Err(error)) => tracing::warn!(%error, "the keys of tokens cannot be read; those of before stay"),
                Err(error) => tracing::error!(%error, "reading the keys of tokens broke off"),
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, BadKeys> {
    std::fs::read(path).map_err(|cause| BadKeys::Unreadable { path: path.to_owned(), cause })
}

fn read_secret(path: &Path) -> Result<DecodingKey, BadKeys> {
    let bytes = read(path)?;
    let secret = bytes.trim_ascii();
    // RFC 7518, section 3.2: a key is at least as long as the hash.
    if secret.len() < 32 {
        let problem = format!("the secret has {} bytes; HS256 needs at least 32", secret.len());
        return Err(BadKeys::Unusable { path: path.to_owned(), problem });
    }
    Ok(DecodingKey::from_secret(secret))
}

/// The keys of a set that can verify a signature. Shared secrets do not belong into one and are passed over.
fn read_keys(path: &Path) -> Result<Vec<Key>, BadKeys> {
    let unusable = |problem: String| BadKeys::Unusable { path: path.to_owned(), problem };
    let set: JwkSet = serde_json::from_slice(&read(path)?).map_err(|error| unusable(format!("no JWK Set: {error}")))?;
    let signing = set.keys.iter().filter(|key| key.common.public_key_use != Some(PublicKeyUse::Encryption));
    let keys: Vec<Key> = signing
        .filter_map(|key| Some(Key { id: key.common.key_id.clone(), key: DecodingKey::from_jwk(key).ok()? }))
        .filter(|key| key.key.family() != AlgorithmFamily::Hmac)
        .collect();
    if keys.is_empty() { Err(unusable("it holds no public key for signatures".to_owned())) } else { Ok(keys) }
}

/// The answer to a token that is none of ours. What exactly is wrong with it is not for whoever may have forged it.
fn invalid(detail: &'static str) -> Problem {
    Problem::new(Code::Unauthenticated).detail(detail).challenge("Bearer error=\"invalid_token\"")
}

impl Authenticate for Tokens {
    fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        for (name, pointer) in [(TENANT_HEADER, "/Receipts-Tenant"), (CALLER_HEADER, "/Receipts-Caller")] {
            if headers.contains_key(name) {
                return Err(Problem::invalid(pointer, "must not stand where the credential says who asks"));
            }
        }
        let mut credentials = headers.get_all(header::AUTHORIZATION).iter();
        let token = match (credentials.next(), credentials.next()) {
            (Some(credential), None) => bearer(credential.as_bytes()),
            _ => None,
        };
        let token =
            token.ok_or_else(|| Problem::new(Code::Unauthenticated).detail("send Authorization: Bearer TOKEN"))?;
        self.0.caller(token)
    }
}

/// The token of a credential; the scheme's name may have any case (RFC 9110, section 11.1).
fn bearer(credential: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = credential.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii()).filter(|token| !token.is_empty())
}

impl Inner {
    fn caller(&self, token: &[u8]) -> Result<Caller, Problem> {
        let head = jsonwebtoken::decode_header(token).map_err(|_| invalid("the token cannot be read"))?;
        // What a critical extension would change is not known here (RFC 7515, section 4.1.11).
        if !self.algorithms.contains(&head.alg) || head.crit.is_some() {
            return Err(invalid("the token is signed in a way that is not taken here"));
        }
        let mut rules = Validation::new(head.alg);
        rules.set_required_spec_claims(&["exp", "iss", "aud"]);
        rules.set_issuer(&[&self.settings.issuer]);
        rules.set_audience(&[&self.settings.audience]);
        rules.leeway = self.settings.leeway.as_secs();
        rules.validate_nbf = true;
        let claims = self.verified(token, head.alg, head.kid.as_deref(), &rules)?;
        self.caller_of(&claims)
    }

    /// The claims of a token that one of our keys has signed.
    fn verified(
        &self,
        token: &[u8],
        algorithm: Algorithm,
        id: Option<&str>,
        rules: &Validation,
    ) -> Result<Map<String, Value>, Problem> {
        let decode = |key: &DecodingKey| jsonwebtoken::decode::<Map<String, Value>>(token, key, rules);
        if algorithm == Algorithm::HS256 {
            let claims = self.secret.as_ref().and_then(|secret| decode(secret).ok());
            return claims.map(|token| token.claims).ok_or_else(|| invalid("the token is not valid, or not any more"));
        }
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let is_named = |key: &&Key| id.is_none() || key.id.as_deref() == id;
        let mut named = keys.iter().filter(is_named).filter(|key| key.key.family() == algorithm.family()).peekable();
        if named.peek().is_none() {
            self.unknown_key.notify_one();
        }
        let claims = named.find_map(|key| decode(&key.key).ok());
        claims.map(|token| token.claims).ok_or_else(|| invalid("the token is not valid, or not any more"))
    }

    fn caller_of(&self, claims: &Map<String, Value>) -> Result<Caller, Problem> {
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let tenant = text(&self.settings.tenant_claim)
            .filter(|tenant| id_problem(tenant).is_none() && !tenant.contains('/'))
            .ok_or_else(|| invalid("the token names no tenant"))?;
        let says_service =
            |claim: &Value| claim.as_bool().unwrap_or_else(|| claim.as_str().is_some_and(|s| !s.is_empty()));
        let is_service =
            self.settings.service_claim.as_ref().and_then(|name| claims.get(name)).is_some_and(says_service);
        let user = match claims.get("sub") {
            Some(Value::String(user)) if id_problem(user).is_none() => Some(user.clone()).filter(|_| !is_service),
            None => None,
            Some(_) => return Err(invalid("the token's sub is no id")),
        };
        let names =
            ["scope", "scopes", "scp"].into_iter().filter_map(|name| claims.get(name)).flat_map(|claim| match claim {
                Value::String(names) => names.split_ascii_whitespace().collect(),
                Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
                _ => Vec::new(),
            });
        let scopes = names.filter_map(Scope::named).fold(Scopes::NONE, Scopes::with);
        // Verified above: the claim is there and is a number.
        let expires_s =
            claims.get("exp").and_then(Value::as_f64).unwrap_or_default() + self.settings.leeway.as_secs_f64();
        let left_s = (expires_s - jsonwebtoken::get_current_timestamp() as f64).clamp(0.0, 1e9);
        let expires = Some(Instant::now() + Duration::from_secs_f64(left_s));
        Ok(Caller { tenant: tenant.to_owned(), user, scopes, expires })
    }
}
