//! The settings `auth.*` and `access.*`: how callers are authenticated, and which callers may ask
//! for receipts and lists. Holds no logic except the rules between these settings.

use super::{DAY_MS, NOT_EMPTY};
use crate::config::reader::{Reader, Rule};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Authentication of callers by tokens; without keys, callers are not authenticated.
#[derive(Debug, Clone)]
pub struct Auth {
    /// The file with the secret of tokens that are signed by HS256.
    pub secret_file: Option<PathBuf>,
    /// The file with the public keys of tokens that are signed by another algorithm, a JWK Set.
    pub jwks_file: Option<PathBuf>,
    /// The URL from which that set is fetched instead.
    pub jwks_url: Option<String>,
    /// The longest time of one fetch, in milliseconds.
    pub jwks_timeout_ms: u64,
    /// The interval at which the set is read or fetched again, in milliseconds.
    pub jwks_refresh_ms: u64,
    /// The allowed algorithms of signatures.
    pub algorithms: Vec<Algorithm>,
    /// The required issuer: `iss`.
    pub issuer: String,
    /// The required audience: `aud`.
    pub audience: String,
    /// The allowed difference between the clocks of issuer and service, in milliseconds.
    pub leeway_ms: u64,
    /// The claim that holds the tenant.
    pub tenant_claim: String,
    /// The claim that marks a token as a service's.
    pub service_claim: Option<String>,
    /// True if `receipts:write` implies no other scope.
    pub strict_scopes: bool,
}

impl Auth {
    /// Returns whether callers must authenticate.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.secret_file.is_some() || self.has_public_keys()
    }

    fn has_public_keys(&self) -> bool {
        self.jwks_file.is_some() || self.jwks_url.is_some()
    }
}

/// An algorithm of signatures, as JWTs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `HS256`
    Hs256,
    /// `RS256`
    Rs256,
    /// `ES256`
    Es256,
    /// `EdDSA`, or by its newer name `Ed25519`
    EdDsa,
}

/// The access rules of all tenants.
#[derive(Debug, Clone)]
pub struct Access {
    /// The rules of tenants that have none of their own.
    pub all: AccessRules,
    /// The rules of tenants that have their own, completed by those for all.
    pub tenants: BTreeMap<String, AccessRules>,
}

/// The callers that may ask for the counts of a message and for each list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccessRules {
    /// Receipts.
    pub counts: AccessRule,
    /// The list of members that have read.
    pub read: AccessRule,
    /// The list of members that have not read.
    pub unread: AccessRule,
    /// The list of people that departed without having read.
    pub departed: AccessRule,
}

/// The callers that may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessRule {
    /// The message's sender, and callers with the scope `receipts:members`.
    SenderAndScope,
    /// The message's sender only.
    Sender,
    /// Callers with the scope only.
    Scope,
    /// No caller.
    Nobody,
}

const URL: Rule = Rule {
    allowed: "https://HOST/PATH or http://HOST/PATH, without a user, a password and a fragment",
    holds: is_http_url,
};
const ALGORITHM: Rule =
    Rule { allowed: "HS256, RS256, ES256 or EdDSA (also Ed25519)", holds: |text| algorithm_of(text).is_some() };

fn algorithm_of(text: &str) -> Option<Algorithm> {
    match text {
        "HS256" => Some(Algorithm::Hs256),
        "RS256" => Some(Algorithm::Rs256),
        "ES256" => Some(Algorithm::Es256),
        "EdDSA" | "Ed25519" => Some(Algorithm::EdDsa),
        _ => None,
    }
}

/// Returns the host of an HTTP URL, with its port.
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

/// Returns whether a URL is this machine's, by number or as `localhost`: requests then pass no
/// network.
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
        let secret = "File with the secret of tokens that are signed by HS256, at least 32 bytes";
        let jwks = "File with the public keys of tokens that are signed by RS256, ES256 or EdDSA, a JWK Set";
        let url = "URL from which that set is fetched instead: `https://…`, or `http://…` within a trusted network";
        let refresh = "Interval at which the set is read or fetched again, in milliseconds; a token that names an unknown key also causes it, soon";
        let algorithms =
            "Allowed algorithms of signatures; if not set, HS256 with a secret, and the others with public keys";
        let service = "Claim that marks a token as a service's if it is true or a text; if not set, a token without `sub` is a \
                       service's";
        let strict = "Makes each scope stand for itself; otherwise receipts:write implies receipts:own, receipts:policy and receipts:erase";
        let secret_file: Option<PathBuf> = from.optional_text("auth.secret_file", secret, &NOT_EMPTY).map(Into::into);
        let jwks_file: Option<PathBuf> = from.optional_text("auth.jwks_file", jwks, &NOT_EMPTY).map(Into::into);
        let jwks_url = from.optional_text("auth.jwks_url", url, &URL);
        let timeout = "Longest time of one fetch of the set, in milliseconds";
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
                .optional_text("auth.issuer", "Required issuer of tokens: `iss`", &NOT_EMPTY)
                .unwrap_or_default(),
            audience: from
                .optional_text("auth.audience", "Required audience of tokens: `aud`, or one of its values", &NOT_EMPTY)
                .unwrap_or_default(),
            leeway_ms: from.integer(
                "auth.leeway_ms",
                "Allowed clock difference for the times of tokens, in milliseconds; whole seconds count",
                60_000,
                0..=600_000,
            ),
            tenant_claim: from.text("auth.tenant_claim", "Claim that holds the tenant", "tenant", &NOT_EMPTY),
            service_claim: from.optional_text("auth.service_claim", service, &NOT_EMPTY),
            strict_scopes: from.boolean("auth.strict_scopes", strict, false),
        }
    }

    /// Checks that tokens have an issuer, an audience and matching keys.
    pub(super) fn check(&self, from: &mut Reader) {
        let keys = "auth.secret_file, auth.jwks_file and auth.jwks_url";
        if self.jwks_file.is_some() && self.jwks_url.is_some() {
            from.contradiction("auth.jwks_url", "must not be set together with auth.jwks_file".to_owned());
        }
        for (key, value) in [("auth.issuer", &self.issuer), ("auth.audience", &self.audience)] {
            if self.is_configured() == value.is_empty() {
                let problem =
                    if value.is_empty() { "must be set together with any of" } else { "has no effect without one of" };
                from.contradiction(key, format!("{problem} {keys}"));
            }
        }
        let has_secret = self.algorithms.contains(&Algorithm::Hs256);
        let has_public = self.algorithms.iter().any(|algorithm| *algorithm != Algorithm::Hs256);
        if self.secret_file.is_some() != has_secret || self.has_public_keys() != has_public {
            let problem = "HS256 needs auth.secret_file; RS256, ES256 and EdDSA need auth.jwks_file or auth.jwks_url";
            from.contradiction("auth.algorithms", problem.to_owned());
        }
    }

    /// Returns a sentence about a setting that is allowed but dangerous.
    pub(super) fn warning(&self) -> Option<String> {
        let url = self.jwks_url.as_ref().filter(|url| url.starts_with("http://") && !is_loopback(url))?;
        Some(format!(
            "auth.jwks_url: every host between here and {url} can replace the keys and so forge tokens; use https://"
        ))
    }
}

impl Access {
    pub(super) fn read(from: &mut Reader) -> Self {
        let names = [
            ("sender_and_scope", AccessRule::SenderAndScope),
            ("sender", AccessRule::Sender),
            ("scope", AccessRule::Scope),
            ("nobody", AccessRule::Nobody),
        ];
        let counts = "Callers that may ask for receipts: the message's sender, callers with the scope receipts:members, both, or no caller";
        let departed = "Callers that may ask for the list of people that departed without having read";
        let all = AccessRules {
            counts: from.choice("access.counts", counts, &names),
            read: from.choice("access.read", "Callers that may ask for the list of members that have read", &names),
            unread: from.choice(
                "access.unread",
                "Callers that may ask for the list of members that have not read",
                &names,
            ),
            departed: from.choice("access.departed", departed, &names),
        };
        let tenants = "The same rules for one tenant, completed by those above: `[access.tenants.acme]` with \
                       `unread = \"nobody\"`, or `--access-tenants acme.unread=nobody`; the environment can name only tenants \
                       in lower case";
        let own = from.by_tenant(tenants, &["counts", "read", "unread", "departed"], &names);
        let of = |own: BTreeMap<&str, AccessRule>| {
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
