//! `receipts token`: signs a token for trying, with a key pair of its own. It overwrites no key and
//! asks no service.

use crate::ids::{id, tenant};
use anyhow::{Context as _, anyhow};
use clap::Args;
use receipts_event::TENANT_DEFAULT;
use receipts_http::{Scope, TrialKey};
use receipts_runtime::clock::unix_ms;
use receipts_runtime::config::{Auth, Settings};
use receipts_runtime::exit::Failure;
use receipts_runtime::output::{Output, printable};
use receipts_runtime::telemetry;
use serde_json::{Map, Value, json};
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

pub(crate) const EXAMPLES: &str = "Examples:
  receipts token --subject alice
  receipts token --subject alice --tenant acme --scope receipts:own --expires-in 8h
  receipts token --scope receipts:write --scope receipts:members --json
  receipts token --keys /tmp/keys --subject alice --auth-issuer https://id.example --auth-audience chat

  export TOKEN=$(receipts token --subject alice)
  curl -H \"Authorization: Bearer $TOKEN\" localhost:8080/v1/conversations/g1/messages/m1/receipt";

/// The issuer of tokens if the settings have none.
const ISSUER: &str = "receipts-token";
const PRIVATE_FILE: &str = "private.jwk.json";
const PUBLIC_FILE: &str = "jwks.json";

/// Arguments of `receipts token`.
#[derive(Args)]
pub(crate) struct Token {
    /// Directory of the key pair; without one there, it is made
    #[arg(long, value_name = "DIR", default_value = "receipts-keys")]
    keys: PathBuf,
    /// Person that the token names; without it the token is a service's
    #[arg(long, value_name = "USER", value_parser = id)]
    subject: Option<String>,
    /// Tenant that the token names
    #[arg(long, value_name = "TENANT", default_value = TENANT_DEFAULT, value_parser = tenant)]
    tenant: String,
    /// Scope, or the name of a role that auth.scope_map knows; may be repeated
    #[arg(long, value_name = "NAME", value_delimiter = ' ')]
    scope: Vec<String>,
    /// Life of the token, in seconds or with a unit: 90s, 15m, 8h, 7d
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = seconds)]
    expires_in: u64,
}

/// Signs a token and prints it.
///
/// # Errors
/// Wrong usage, or keys that cannot be read or written.
pub(crate) fn run(settings: &Settings, token: &Token, json: bool) -> Result<(), Failure> {
    telemetry::init(&settings.telemetry)?;
    let (key, is_new) = key(&token.keys)?;
    let auth = &settings.auth;
    let issuer = if auth.issuer.is_empty() { ISSUER } else { &auth.issuer };
    let now_s = unix_ms() / 1_000;
    let expires_s = now_s + token.expires_in;
    let claims = claims(token, auth, issuer, now_s, expires_s);
    let signed = key.sign(&claims);
    let public = token.keys.join(PUBLIC_FILE);
    let shown = public.display();
    let mut flags = format!("--auth-jwks-file {shown} --auth-issuer {issuer}");
    if auth.audience != "receipts" {
        flags = format!("{flags} --auth-audience {}", auth.audience);
    }
    if is_new {
        let keys = token.keys.display();
        tracing::info!("made a key pair in {keys}: everybody who can read {PRIVATE_FILE} there can sign tokens");
    }
    for name in &token.scope {
        if !Scope::ALL.iter().any(|scope| scope.name() == name) && !auth.scope_map.contains_key(name) {
            let known = Scope::ALL.map(Scope::name).join(", ");
            tracing::warn!("{} is no scope, and auth.scope_map does not name it; scopes: {known}", printable(name));
        }
    }
    tracing::info!("receipts serve takes it with {}", printable(&flags));
    let data = json!({"token": signed, "claims": claims, "expires_at_ms": expires_s * 1_000, "jwks_file": public,
                      "issuer": issuer, "audience": auth.audience, "serve_flags": flags});
    Output::stdout(json).write(&data, |to| writeln!(to, "{signed}"))?;
    Ok(())
}

/// Returns the claims under the names that the settings look for.
fn claims(token: &Token, auth: &Auth, issuer: &str, now_s: u64, expires_s: u64) -> Map<String, Value> {
    let mut claims = Map::new();
    let mut set = |name: &str, value: Value| drop(claims.insert(name.to_owned(), value));
    set("iss", issuer.into());
    set("aud", auth.audience.as_str().into());
    set("iat", now_s.into());
    set("exp", expires_s.into());
    // A claim with the whole name is found before one by path.
    set(&auth.tenant_claim, token.tenant.as_str().into());
    if let Some(subject) = &token.subject {
        set(&auth.user_claim, subject.as_str().into());
    }
    if let Some(name) = auth.scope_claims.first().filter(|_| !token.scope.is_empty()) {
        set(name, token.scope.join(" ").into());
    }
    claims
}

/// Reads the key pair of a directory, or makes one. Returns also whether it is new.
fn key(keys: &Path) -> Result<(TrialKey, bool), Failure> {
    let (private, public) = (keys.join(PRIVATE_FILE), keys.join(PUBLIC_FILE));
    match fs::read(&private) {
        Ok(text) => {
            let key = TrialKey::read(&text).map_err(|problem| {
                anyhow!("{} is no key of this command ({problem}): choose another --keys", private.display())
            })?;
            check_public(&public, &key)?;
            Ok((key, false))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            if public.exists() {
                let problem = format!("{} is there without {PRIVATE_FILE}", public.display());
                return Err(Failure::Failed(anyhow!("{problem}: nothing was written; choose another --keys")));
            }
            let key = TrialKey::generate().map_err(|problem| anyhow!("no key pair could be made: {problem}"))?;
            fs::create_dir_all(keys)
                .with_context(|| format!("cannot make the directory {} (--keys)", keys.display()))?;
            write_new(&private, &key.private())?;
            write_new(&public, &key.public_set())?;
            Ok((key, true))
        }
        Err(error) => Err(anyhow!(error).context(format!("cannot read {} (--keys)", private.display())).into()),
    }
}

/// Checks that the set beside a private key has its public key. Writes the set if a former run was
/// stopped before it did.
fn check_public(public: &Path, key: &TrialKey) -> Result<(), Failure> {
    let text = match fs::read(public) {
        Err(error) if error.kind() == ErrorKind::NotFound => return write_new(public, &key.public_set()),
        text => text.with_context(|| format!("cannot read {} (--keys)", public.display()))?,
    };
    let set: Option<Value> = serde_json::from_slice(&text).ok();
    let wanted = &key.public_set()["keys"][0];
    let has = set.as_ref().and_then(|set| set["keys"].as_array()).is_some_and(|keys| keys.contains(wanted));
    match has {
        true => Ok(()),
        false => Err(Failure::Failed(anyhow!(
            "{} does not hold the public key of {PRIVATE_FILE}: nothing was written; choose another --keys",
            public.display()
        ))),
    }
}

/// Writes a file that must not be there yet.
fn write_new(path: &Path, json: &Value) -> Result<(), Failure> {
    let written = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        writeln!(file, "{json:#}")?;
        file.sync_all()
    };
    Ok(written().with_context(|| format!("cannot write {} (--keys)", path.display()))?)
}

/// Reads a time: `90`, `90s`, `15m`, `8h` or `7d`.
fn seconds(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['s', 'm', 'h', 'd']) {
        Some(number) => (number, &text[number.len()..]),
        None => (text, "s"),
    };
    let factor = match unit {
        "d" => 86_400,
        "h" => 3_600,
        "m" => 60,
        _ => 1,
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
    // A thousand years keep every sum within range.
    seconds
        .filter(|seconds| (1..=31_536_000_000).contains(seconds))
        .ok_or_else(|| format!("{text:?} is no time: write seconds, or a number with s, m, h or d"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, wanted) in [("90", 90), ("90s", 90), ("15m", 900), ("8h", 28_800), ("7d", 604_800)] {
            assert_eq!(seconds(text), Ok(wanted), "{text}");
        }
        for text in ["", "0", "h", "-1", "1.5h", "8 h", "1w", "99999999999999999999", "31536000001", "1µ"] {
            assert!(seconds(text).is_err_and(|problem| problem.contains("no time")), "{text}");
        }
    }

    #[test]
    fn key_pair_is_made_once_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("a folder");
        let keys = dir.path().join("deep/keys");
        let (first, is_new) = key(&keys).expect("made");
        assert!(is_new);
        let (second, is_new) = key(&keys).expect("read");
        assert!(!is_new && first.public_set() == second.public_set());
        fs::remove_file(keys.join(PUBLIC_FILE)).expect("removed");
        key(&keys).expect("the set is made again");
        let refused = |part: &str| {
            let said = key(&keys).err().expect("refused").message();
            assert!(said.contains(part) && said.contains("choose another --keys"), "{said}");
        };
        fs::write(keys.join(PUBLIC_FILE), r#"{"keys":[]}"#).expect("written");
        refused("does not hold the public key");
        fs::write(keys.join(PRIVATE_FILE), "{}").expect("written");
        refused("is no key of this command");
        fs::remove_file(keys.join(PRIVATE_FILE)).expect("removed");
        refused("is there without");
    }
}
