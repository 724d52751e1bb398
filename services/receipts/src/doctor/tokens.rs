//! Checks the keys of callers' tokens. Asks the identity provider as a start does, once.

use super::finding::{Finding, Findings};
use super::{Examined, Part};
use receipts_assembly::keys_of_tokens;

const KEYS: &str = "tokens.keys";
const KIDS: &str = "tokens.kids";

pub(super) const CHECKS: [&str; 2] = [KEYS, KIDS];

pub(super) fn run(examined: &Examined, findings: &mut Findings) {
    let auth = &examined.settings.auth;
    if examined.part == Part::Projector || !auth.is_configured() {
        return findings.skip(&CHECKS, "no tokens are asked for (auth.*)");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return findings.skip(&CHECKS, &error.to_string()),
    };
    let keys = match runtime.block_on(keys_of_tokens(auth, examined.patience)) {
        Ok(keys) => keys,
        Err(failure) => {
            findings.add(Finding::problem(
                KEYS,
                failure.detail(),
                "curl -sS the URL from this machine; correct auth.issuer, auth.jwks_url, auth.jwks_file, \
                 auth.secret_file or auth.algorithms (docs/identity.md)",
            ));
            return findings.skip(&[KIDS], "there are no keys");
        }
    };
    let shown = |(id, algorithms): &(Option<String>, Vec<String>)| {
        format!("{} ({})", id.as_deref().unwrap_or("without kid"), algorithms.join(", "))
    };
    let shown: Vec<String> = keys.iter().map(shown).collect();
    let shown = if shown.is_empty() { "the shared secret".to_owned() } else { shown.join(", ") };
    findings.add(Finding::ok(
        KEYS,
        format!("keys: {shown}; tokens need the issuer {} and the audience {}", auth.issuer, auth.audience),
    ));
    let without = keys.iter().filter(|(id, _)| id.is_none()).count();
    findings.add(match without {
        _ if keys.is_empty() => Finding::skipped(KIDS, "there are no public keys"),
        _ if without > 0 && keys.len() > 1 => Finding::warning(
            KIDS,
            format!("{without} of {} keys have no kid, so each token is tried with all of them", keys.len()),
            "give every key of the set a kid of its own, and name it in the tokens' headers",
        ),
        _ => Finding::ok(KIDS, "tokens can name their key"),
    });
}
