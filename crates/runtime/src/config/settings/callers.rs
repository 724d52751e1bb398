//! Who callers are, and who of them may ask for what: the settings `auth.*` and `access.*`. Holds no logic but the rules
//! between them.

use super::{DAY_MS, NOT_EMPTY};
use crate::config::reader::{Reader, Rule};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Who callers are, by tokens they send; nothing is asked where no keys are configured.
#[derive(Debug, Clone)]
pub struct Auth {
    /// The file with the secret of tokens signed by HS256.
    pub secret_file: Option<PathBuf>,
    /// The file with the public keys of tokens signed otherwise, a JWK Set.
    pub jwks_file: Option<PathBuf>,
    /// Where that set is fetched instead.
    pub jwks_url: Option<String>,
    /// How long one fetch may take.
    pub jwks_timeout_ms: u64,
    /// How often the set is read or fetched again.
    pub jwks_refresh_ms: u64,
    /// How tokens may be signed.
    pub algorithms: Vec<Algorithm>,
    /// Who must have issued them.
    pub issuer: String,
    /// Whom they must be for.
    pub audience: String,
    /// How far their times may be off.
    pub leeway_ms: u64,
    /// The claim that names the tenant.
    pub tenant_claim: String,
    /// A claim that makes a token a service's.
    pub service_claim: Option<String>,
}

impl Auth {
    /// Whether callers have to say who they are.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.secret_file.is_some() || self.has_public_keys()
    }

    fn has_public_keys(&self) -> bool {
        self.jwks_file.is_some() || self.jwks_url.is_some()
    }
}

/// How a token may be signed, as JWTs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `HS256`
    Hs256,
    /// `RS256`
    Rs256,
    /// `ES256`
    Es256,
    /// `EdDSA`
    EdDsa,
}

/// Who may ask for counts and for each list, of whom.
#[derive(Debug, Clone)]
pub struct Access {
    /// Of all tenants but those below.
    pub all: AccessRules,
    /// Of tenants that have rules of their own; what such a tenant says nothing about is as for all.
    pub tenants: BTreeMap<String, AccessRules>,
}

/// Who may ask for counts and for each list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessRules {
    /// Receipts.
    pub counts: Askers,
    /// The list of those who have read.
    pub read: Askers,
    /// The list of those who have not.
    pub unread: Askers,
    /// The list of those who have not and left.
    pub departed: Askers,
}

/// Who may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Askers {
    /// The sender, and callers with the scope `receipts:members`.
    SenderAndScope,
    /// The sender alone.
    Sender,
    /// Callers with the scope alone.
    Scope,
    /// Nobody.
    Nobody,
}

const URL: Rule = Rule {
    allowed: "https://HOST/PATH or http://HOST/PATH, without a user, a password and a fragment",
    holds: is_http_url,
};
const ALGORITHM: Rule = Rule { allowed: "HS256, RS256, ES256 or EdDSA", holds: |text| algorithm_of(text).is_some() };

fn algorithm_of(text: &str) -> Option<Algorithm> {
    match text {
        "HS256" => Some(Algorithm::Hs256),
        "RS256" => Some(Algorithm::Rs256),
        "ES256" => Some(Algorithm::Es256),
        "EdDSA" => Some(Algorithm::EdDsa),
        _ => None,
    }
}

/// The host of an HTTP URL with its port, behind the scheme.
fn authority(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"))?;
    rest.split(['/', '?']).next().filter(|authority| !authority.is_empty())
}

fn is_http_url(text: &str) -> bool {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte));
    let is_port = |port: &str| port.parse::<u16>().is_ok_and(|port| port > 0);
    is_plain
        && authority(text).is_some_and(|authority| match authority.strip_prefix('[') {
            Some(v6) => v6.split_once(']').is_some_and(|(host, rest)| {
                host.parse::<std::net::Ipv6Addr>().is_ok()
                    && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
            }),
            None => {
                let (host, port) =
                    authority.split_once(':').map_or((authority, None), |(host, port)| (host, Some(port)));
                !host.is_empty() && !host.contains(['@', '[', ']']) && port.is_none_or(is_port)
            }
        })
}

/// Whether what is asked of a URL passes no network: the machine itself, by number or as `localhost`.
fn is_loopback(url: &str) -> bool {
    let Some(authority) = authority(url) else { return false };
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next(),
        None => authority.split(':').next(),
    };
    host.is_some_and(|host| host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback()))
}

impl Auth {
    pub(super) fn read(from: &mut Reader) -> Self {
        let secret = "The file with the secret of tokens signed by HS256, at least 32 bytes";
        let jwks = "The file with the public keys of tokens signed by RS256, ES256 or EdDSA, a JWK Set";
        let url = "Where that set is fetched instead: `https://…`, or `http://…` within a network that is trusted";
        let refresh =
            "How often the set is read or fetched again; also, soon, once a token names a key that is not in it";
        let algorithms = "How tokens may be signed; without it HS256 with a secret, and the others with public keys";
        let service = "A claim that makes a token a service's where it is true or a text; without it whether `sub` is there \
                       decides alone";
        let secret_file: Option<PathBuf> = from.optional_text("auth.secret_file", secret, &NOT_EMPTY).map(Into::into);
        let jwks_file: Option<PathBuf> = from.optional_text("auth.jwks_file", jwks, &NOT_EMPTY).map(Into::into);
        let jwks_url = from.optional_text("auth.jwks_url", url, &URL);
        let timeout = "How long one fetch of the set may take";
        let jwks_timeout_ms = from.integer("auth.jwks_timeout_ms", timeout, 5_000, 1..=60_000);
        let jwks_refresh_ms = from.integer("auth.jwks_refresh_ms", refresh, 60_000, 1_000..=DAY_MS);
        let named = from.list("auth.algorithms", algorithms, &ALGORITHM);
        let mut algorithms: Vec<Algorithm> = named.iter().filter_map(|name| algorithm_of(name)).collect();
        if named.is_empty() {
            algorithms.extend(secret_file.is_some().then_some(Algorithm::Hs256));
            let public = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];
            algorithms.extend(public.into_iter().filter(|_| jwks_file.is_some() || jwks_url.is_some()));
        }
        Self {
            secret_file,
            jwks_file,
            jwks_url,
            jwks_timeout_ms,
            jwks_refresh_ms,
            algorithms,
            issuer: from
                .optional_text("auth.issuer", "Who must have issued tokens: `iss`", &NOT_EMPTY)
                .unwrap_or_default(),
            audience: from
                .optional_text("auth.audience", "Whom tokens must be for: `aud`, or one of it", &NOT_EMPTY)
                .unwrap_or_default(),
            leeway_ms: from.integer(
                "auth.leeway_ms",
                "How far the times of tokens may be off; whole seconds count",
                60_000,
                0..=600_000,
            ),
            tenant_claim: from.text("auth.tenant_claim", "The claim that names the tenant", "tenant", &NOT_EMPTY),
            service_claim: from.optional_text("auth.service_claim", service, &NOT_EMPTY),
        }
    }

    /// Tokens are taken only where it is said whose they are.
    pub(super) fn check(&self, from: &mut Reader) {
        let keys = "auth.secret_file, auth.jwks_file and auth.jwks_url";
        if self.jwks_file.is_some() && self.jwks_url.is_some() {
            from.contradiction("auth.jwks_url", "must not stand beside auth.jwks_file".to_owned());
        }
        for (key, value) in [("auth.issuer", &self.issuer), ("auth.audience", &self.audience)] {
            if self.is_configured() == value.is_empty() {
                let problem =
                    if value.is_empty() { "must be set beside any of" } else { "says nothing without one of" };
                from.contradiction(key, format!("{problem} {keys}"));
            }
        }
        let has_secret = self.algorithms.contains(&Algorithm::Hs256);
        let has_public = self.algorithms.iter().any(|algorithm| *algorithm != Algorithm::Hs256);
        if self.secret_file.is_some() != has_secret || self.has_public_keys() != has_public {
            let problem =
                "HS256 goes with auth.secret_file, and RS256, ES256 and EdDSA with auth.jwks_file or auth.jwks_url";
            from.contradiction("auth.algorithms", problem.to_owned());
        }
    }

    /// What is allowed but dangerous.
    pub(super) fn warning(&self) -> Option<String> {
        let url = self.jwks_url.as_ref().filter(|url| url.starts_with("http://") && !is_loopback(url))?;
        Some(format!("auth.jwks_url: whoever stands between here and {url} may sign tokens of anybody; use https://"))
    }
}

impl Access {
    pub(super) fn read(from: &mut Reader) -> Self {
        let names = [
            ("sender_and_scope", Askers::SenderAndScope),
            ("sender", Askers::Sender),
            ("scope", Askers::Scope),
            ("nobody", Askers::Nobody),
        ];
        let counts = "Who may ask for receipts: their message's sender, callers with the scope receipts:members, both, or nobody";
        let departed = "Who may ask for the list of those who have not and left";
        let all = AccessRules {
            counts: from.choice("access.counts", counts, &names),
            read: from.choice("access.read", "Who may ask for the list of those who have read", &names),
            unread: from.choice("access.unread", "Who may ask for the list of those who have not", &names),
            departed: from.choice("access.departed", departed, &names),
        };
        let tenants = "The same for a tenant of its own: `[access.tenants.acme]` with `unread = \"nobody\"`, \
                       `--access-tenants acme.unread=nobody`; in the environment for tenants in lower case only. What is not \
                       said here is as for all";
        let own = from.by_tenant(tenants, &["counts", "read", "unread", "departed"], &names);
        let of = |own: BTreeMap<&str, Askers>| {
            let rule = |list: &str, of_all| own.get(list).copied().unwrap_or(of_all);
            AccessRules {
                counts: rule("counts", all.counts),
                read: rule("read", all.read),
                unread: rule("unread", all.unread),
                departed: rule("departed", all.departed),
            }
        };
        Self { all, tenants: own.into_iter().map(|(tenant, own)| (tenant, of(own))).collect() }
    }
}
