//! Authentication and access rules as the settings describe them. Decides about no caller itself.

use receipts_http::{
    Access, AccessByTenant, AccessRule, Authenticate, BadKeys, Guard, KeySource, Signature, TokenSettings, Tokens,
    TrustedHeaders,
};
use receipts_runtime::config::{self, Algorithm, Auth, Settings};
use receipts_runtime::exit::Failure;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// The shortest time between two readings of a file of keys. Tokens that name unknown keys cause
/// readings, but no more often than this.
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
    let signature = |algorithm: &Algorithm| match algorithm {
        Algorithm::Hs256 => Signature::Hs256,
        Algorithm::Rs256 => Signature::Rs256,
        Algorithm::Es256 => Signature::Es256,
        Algorithm::EdDsa => Signature::EdDsa,
    };
    let file = auth.jwks_file.clone().map(KeySource::File);
    let timeout = Duration::from_millis(auth.jwks_timeout_ms);
    let url = auth.jwks_url.clone().map(|url| KeySource::Url { url, timeout });
    let refresh_pause = if url.is_some() { URL_PAUSE } else { FILE_PAUSE };
    let tokens = Tokens::open(TokenSettings {
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
        signatures: auth.algorithms.iter().map(signature).collect(),
        secret_file: auth.secret_file.clone(),
        keys: url.or(file),
        refresh: Duration::from_millis(auth.jwks_refresh_ms),
        refresh_pause,
        start_timeout: KEYS_TIMEOUT,
        leeway: Duration::from_millis(auth.leeway_ms),
        tenant_claim: auth.tenant_claim.clone(),
        service_claim: auth.service_claim.clone(),
        strict_scopes: auth.strict_scopes,
    });
    let tokens = match tokens.await {
        Ok(tokens) => tokens,
        Err(error @ BadKeys::Keys { from: KeySource::Url { .. }, .. }) => {
            let seconds = KEYS_TIMEOUT.as_secs();
            let context = format!("no keys from auth.jwks_url (--auth-jwks-url) within {seconds} s");
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
