//! Who callers are and who of them may ask for what, as the settings say. Decides nothing itself.

use receipts_http::{
    Access, AccessByTenant, AccessRule, Authenticate, BadKeys, KeySource, Signature, TokenSettings, Tokens,
    TrustedHeaders,
};
use receipts_runtime::config::{self, Algorithm, Auth};
use receipts_runtime::exit::Failure;
use std::sync::Arc;
use std::time::Duration;

/// How long at least lies between two readings of a file of keys: whoever sends tokens of keys that are not there may have it
/// read so often.
const FILE_PAUSE: Duration = Duration::from_secs(1);
/// The same of a URL: somebody else's service is at its end.
const URL_PAUSE: Duration = Duration::from_secs(10);
/// How long a start waits for keys from a URL; as long as for a broker.
const KEYS_PATIENCE: Duration = Duration::from_secs(30);

/// Takes tokens where keys are configured, and believes headers otherwise: then only loopback is listened at, unless an
/// operator says that strangers are kept out. Waits for keys that come from a URL: without them every good token would be
/// refused, and clients take that for the end of a session.
///
/// # Errors
/// Wrong configuration, where secret or keys in files cannot be used; a failure, where those at a URL cannot be had.
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
        start_timeout: KEYS_PATIENCE,
        leeway: Duration::from_millis(auth.leeway_ms),
        tenant_claim: auth.tenant_claim.clone(),
        service_claim: auth.service_claim.clone(),
    });
    let tokens = match tokens.await {
        Ok(tokens) => tokens,
        Err(error @ BadKeys::Keys { from: KeySource::Url { .. }, .. }) => {
            let seconds = KEYS_PATIENCE.as_secs();
            let context = format!("no keys of tokens by auth.jwks_url (--auth-jwks-url) within {seconds} s");
            return Err(Failure::Failed(anyhow::Error::from(error).context(context)));
        }
        Err(error) => {
            return Err(Failure::Usage(anyhow::Error::from(error).context("auth.secret_file or auth.jwks_file")));
        }
    };
    tokio::spawn(tokens.clone().upkeep());
    Ok(Arc::new(tokens))
}

/// Who may ask for what, of which tenant.
pub fn access(access: &config::Access) -> AccessByTenant {
    let tenants = access.tenants.iter().map(|(tenant, rules)| (tenant.clone(), rules_of(rules)));
    AccessByTenant { all: rules_of(&access.all), tenants: tenants.collect() }
}

fn rules_of(rules: &config::AccessRules) -> Access {
    let askers = |askers| match askers {
        config::Askers::SenderAndScope => AccessRule::SenderAndScope,
        config::Askers::Sender => AccessRule::Sender,
        config::Askers::Scope => AccessRule::Scope,
        config::Askers::Nobody => AccessRule::Nobody,
    };
    Access {
        counts: askers(rules.counts),
        read: askers(rules.read),
        unread: askers(rules.unread),
        departed: askers(rules.departed),
    }
}
