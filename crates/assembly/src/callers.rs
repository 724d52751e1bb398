//! Authentication and access rules as the settings describe them. Decides about no caller itself.

use receipts_http::{
    Access, AccessByTenant, AccessRule, Authenticate, BadKeys, ClaimSettings, Cors, Guard, KeySource, Scope, Signature,
    TokenSettings, Tokens, TrustedHeaders,
};
use receipts_runtime::config::{self, Algorithm, Auth, Settings};
use receipts_runtime::exit::Failure;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The mean time between two readings of a file of keys that tokens with unknown keys cause.
const FILE_PAUSE: Duration = Duration::from_secs(1);
/// The same for a URL. It is longer because another party's service answers there.
const URL_PAUSE: Duration = Duration::from_secs(10);
/// How long a start waits for keys from a URL; as long as for a broker.
const KEYS_TIMEOUT: Duration = Duration::from_secs(30);

/// Returns how callers are authenticated: by tokens if keys are configured, and by headers
/// otherwise. Headers are believed only on loopback, unless an operator states that strangers are
/// kept out.
///
/// Waits for keys from a URL: without them every good token would be refused, which clients take
/// for the end of a session.
///
/// # Errors
/// A usage failure if a secret or keys in files cannot be used; another failure if keys from
/// a URL cannot be fetched.
pub async fn authenticate(auth: &Auth) -> Result<Arc<dyn Authenticate>, Failure> {
    if !auth.is_configured() {
        return Ok(Arc::new(TrustedHeaders));
    }
    let tokens = Tokens::open(token_settings(auth, KEYS_TIMEOUT));
    let tokens = match tokens.await {
        Ok(tokens) => tokens,
        Err(error @ BadKeys::Keys { from: KeySource::Url { .. } | KeySource::Issuer { .. }, .. }) => {
            let seconds = KEYS_TIMEOUT.as_secs();
            let setting = match auth.jwks_url {
                Some(_) => "auth.jwks_url (--auth-jwks-url)",
                None => "auth.issuer (--auth-issuer)",
            };
            let context = format!("no keys from {setting} within {seconds} s");
            return Err(Failure::Failed(anyhow::Error::from(error).context(context)));
        }
        Err(error) => {
            return Err(Failure::Usage(
                anyhow::Error::from(error).context("cannot use auth.secret_file or auth.jwks_file"),
            ));
        }
    };
    tokio::spawn(tokens.clone().keep_keys_fresh());
    Ok(Arc::new(tokens))
}

/// Reads the keys of tokens once, within `timeout`; returns the name and the algorithms of each.
///
/// # Errors
/// Why a start could not use the secret or the keys.
pub async fn keys_of_tokens(auth: &Auth, timeout: Duration) -> Result<Vec<(Option<String>, Vec<String>)>, Failure> {
    let mut settings = token_settings(auth, Duration::ZERO);
    if let Some(KeySource::Url { timeout: each, .. } | KeySource::Issuer { timeout: each, .. }) = &mut settings.keys {
        // An issuer takes two fetches.
        *each = (timeout / 2).min(*each);
    }
    Ok(Tokens::open(settings).await?.keys())
}

fn token_settings(auth: &Auth, start_timeout: Duration) -> TokenSettings {
    let signature = |algorithm: &Algorithm| match algorithm {
        Algorithm::Hs256 => Signature::Hs256,
        Algorithm::Rs256 => Signature::Rs256,
        Algorithm::Ps256 => Signature::Ps256,
        Algorithm::Es256 => Signature::Es256,
        Algorithm::Es384 => Signature::Es384,
        Algorithm::EdDsa => Signature::EdDsa,
    };
    let file = auth.jwks_file.clone().map(KeySource::File);
    let timeout = Duration::from_millis(auth.jwks_timeout_ms);
    let url = auth.jwks_url.clone().map(|url| KeySource::Url { url, timeout });
    let issuer = auth.described_issuer().map(|issuer| KeySource::Issuer { issuer: issuer.to_owned(), timeout });
    let keys = url.or(issuer).or(file);
    let refresh_pause = if matches!(keys, Some(KeySource::File(_))) { FILE_PAUSE } else { URL_PAUSE };
    TokenSettings {
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
        signatures: auth.algorithms.iter().map(signature).collect(),
        secret_file: auth.secret_file.clone(),
        keys,
        refresh: Duration::from_millis(auth.jwks_refresh_ms),
        refresh_pause,
        start_timeout,
        leeway: Duration::from_millis(auth.leeway_ms),
        claims: claims_of(auth),
    }
}

fn claims_of(auth: &Auth) -> ClaimSettings {
    let scope = |scope: &config::Scope| match scope {
        config::Scope::Own => Scope::Own,
        config::Scope::Members => Scope::Members,
        config::Scope::Write => Scope::Write,
        config::Scope::Policy => Scope::Policy,
        config::Scope::Erase => Scope::Erase,
    };
    let of_name = |(name, scopes): (&String, &Vec<_>)| (name.clone(), scopes.iter().map(scope).collect());
    ClaimSettings {
        tenant_claim: auth.tenant_claim.clone(),
        default_tenant: auth.default_tenant.clone(),
        user_claim: auth.user_claim.clone(),
        scope_claims: auth.scope_claims.clone(),
        scope_map: auth.scope_map.iter().map(of_name).collect(),
        service_claim: auth.service_claim.clone(),
        strict_scopes: auth.strict_scopes,
    }
}

/// Returns what the public listener checks of a request before it looks at its path: without tokens
/// it keeps out foreign web pages and, at a loopback address, names of other hosts.
pub fn guard(settings: &Settings) -> Guard {
    let (hosts, origins) = (settings.http.allowed_hosts.clone(), settings.http.allowed_origins.clone());
    match settings.http.listen.ip().is_loopback() {
        _ if settings.auth.is_configured() => Guard::Credentials,
        true => Guard::Loopback { hosts, origins },
        false => Guard::Browsers { origins },
    }
}

/// Returns the web pages that may read answers of the public listener, with tokens and without.
pub fn cors(settings: &Settings) -> Cors {
    Cors { origins: settings.http.allowed_origins.clone() }
}

/// Returns what a listener for operators checks of a request: it has no tokens, so it keeps web
/// pages out.
pub(crate) fn guard_of_operators(settings: &Settings, address: SocketAddr) -> Guard {
    match address.ip().is_loopback() {
        true => Guard::Loopback { hosts: settings.http.allowed_hosts.clone(), origins: Vec::new() },
        false => Guard::Browsers { origins: Vec::new() },
    }
}

/// Returns the access rules per tenant.
pub fn access(access: &config::Access) -> AccessByTenant {
    let tenants = access.tenants.iter().map(|(tenant, rules)| (tenant.clone(), rules_of(rules)));
    AccessByTenant { all: rules_of(&access.all), tenants: tenants.collect() }
}

fn rules_of(rules: &config::AccessRules) -> Access {
    let rule = |rule| match rule {
        config::AccessRule::SenderAndScope => AccessRule::SenderAndScope,
        config::AccessRule::Sender => AccessRule::Sender,
        config::AccessRule::Scope => AccessRule::Scope,
        config::AccessRule::Nobody => AccessRule::Nobody,
    };
    Access {
        counts: rule(rules.counts),
        read: rule(rules.read),
        unread: rule(rules.unread),
        departed: rule(rules.departed),
    }
}
