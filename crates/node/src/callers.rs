//! Who callers are and who of them may ask for what, as the settings say. Decides nothing itself.

use anyhow::Context as _;
use receipts_http::{Access, Askers, Authenticate, Signature, TokenSettings, Tokens, TrustedHeaders};
use receipts_runtime::config::{self, Algorithm, Auth};
use receipts_runtime::exit::Failure;
use std::sync::Arc;
use std::time::Duration;

/// Takes tokens where keys are configured, and believes headers otherwise: then only loopback is listened at, unless an
/// operator says that strangers are kept out.
///
/// # Errors
/// Wrong configuration, where the keys cannot be used.
///
/// # Panics
/// Outside a tokio runtime.
pub fn authenticate(auth: &Auth) -> Result<Arc<dyn Authenticate>, Failure> {
    if !auth.is_configured() {
        return Ok(Arc::new(TrustedHeaders));
    }
    let signature = |algorithm: &Algorithm| match algorithm {
        Algorithm::Hs256 => Signature::Hs256,
        Algorithm::Rs256 => Signature::Rs256,
        Algorithm::Es256 => Signature::Es256,
        Algorithm::EdDsa => Signature::EdDsa,
    };
    let tokens = Tokens::open(TokenSettings {
        issuer: auth.issuer.clone(),
        audience: auth.audience.clone(),
        signatures: auth.algorithms.iter().map(signature).collect(),
        secret_file: auth.secret_file.clone(),
        jwks_file: auth.jwks_file.clone(),
        refresh: Duration::from_millis(auth.jwks_refresh_ms),
        leeway: Duration::from_millis(auth.leeway_ms),
        tenant_claim: auth.tenant_claim.clone(),
        service_claim: auth.service_claim.clone(),
    });
    let tokens = tokens.context("auth.secret_file or auth.jwks_file").map_err(Failure::Usage)?;
    tokio::spawn(tokens.clone().upkeep());
    Ok(Arc::new(tokens))
}

/// Who may ask for what.
pub fn access(access: &config::Access) -> Access {
    let askers = |askers| match askers {
        config::Askers::SenderAndScope => Askers::SenderAndScope,
        config::Askers::Sender => Askers::Sender,
        config::Askers::Scope => Askers::Scope,
        config::Askers::Nobody => Askers::Nobody,
    };
    Access {
        counts: askers(access.counts),
        read: askers(access.read),
        unread: askers(access.unread),
        departed: askers(access.departed),
    }
}
