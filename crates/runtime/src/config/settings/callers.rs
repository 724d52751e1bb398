//! The settings `auth.*` and `access.*`: how callers are authenticated, and which callers may ask
//! for receipts and lists. Holds no logic except the rules between these settings.

use super::{DAY_MS, NOT_EMPTY};
use crate::config::reader::{Reader, Rule, is_tenant};
use crate::config::sources::SCOPE_MAP;
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
    /// The required issuer: `iss`. Without other keys, its description names the URL of its keys.
    pub issuer: String,
    /// The required audience: `aud`.
    pub audience: String,
    /// The allowed difference between the clocks of issuer and service, in milliseconds.
    pub leeway_ms: u64,
    /// The claim that holds the tenant.
    pub tenant_claim: String,
    /// The tenant of tokens without that claim.
    pub default_tenant: Option<String>,
    /// The claim that holds the person.
    pub user_claim: String,
    /// The claims that hold names of scopes.
    pub scope_claims: Vec<String>,
    /// The scopes that other names in those claims stand for.
    pub scope_map: BTreeMap<String, Vec<Scope>>,
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

    /// Returns the issuer whose description names the keys, if no other setting does.
    #[must_use]
    pub fn described_issuer(&self) -> Option<&str> {
        let has_keys = self.secret_file.is_some() || self.jwks_file.is_some() || self.jwks_url.is_some();
        Some(self.issuer.as_str()).filter(|issuer| !has_keys && !issuer.is_empty())
    }

    fn has_public_keys(&self) -> bool {
        self.jwks_file.is_some() || self.jwks_url.is_some() || self.described_issuer().is_some()
    }
}

/// A permission, as tokens name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `receipts:own`
    Own,
    /// `receipts:members`
    Members,
    /// `receipts:write`
    Write,
    /// `receipts:policy`
    Policy,
    /// `receipts:erase`
    Erase,
}

/// The claims in which OAuth 2.0, Azure, Auth0 and Keycloak have scopes or roles.
const SCOPE_CLAIMS: [&str; 5] = ["scope", "scopes", "scp", "permissions", "realm_access.roles"];

const SCOPES: [(&str, Scope); 5] = [
    ("receipts:own", Scope::Own),
    ("receipts:members", Scope::Members),
    ("receipts:write", Scope::Write),
    ("receipts:policy", Scope::Policy),
    ("receipts:erase", Scope::Erase),
];

/// An algorithm of signatures, as JWTs name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// `HS256`
    Hs256,
    /// `RS256`
    Rs256,
    /// `PS256`
    Ps256,
    /// `ES256`
    Es256,
    /// `ES384`
    Es384,
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
    pattern: Some("^https?://"),
};
const ALGORITHM: Rule = Rule {
    allowed: "HS256, RS256, PS256, ES256, ES384 or EdDSA (also Ed25519)",
    holds: |text| algorithm_of(text).is_some(),
    pattern: Some("^(HS256|RS256|PS256|ES256|ES384|EdDSA|Ed25519)$"),
};
const TENANT: Rule =
    Rule { allowed: "a text of 1 to 128 bytes without a slash", holds: is_tenant, pattern: Some("^[^/]{1,128}$") };

fn algorithm_of(text: &str) -> Option<Algorithm> {
    match text {
        "HS256" => Some(Algorithm::Hs256),
        "RS256" => Some(Algorithm::Rs256),
        "PS256" => Some(Algorithm::Ps256),
        "ES256" => Some(Algorithm::Es256),
        "ES384" => Some(Algorithm::Es384),
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
        let jwks = "File with the public keys of tokens that are signed by another algorithm, a JWK Set";
        let url = "URL from which that set is fetched instead: `https://…`, or `http://…` within a trusted network; without it, `auth.issuer` names it";
        let refresh = "Interval at which the set is read or fetched again, in milliseconds; a token that names an unknown key also causes it, soon";
        let algorithms =
            "Allowed algorithms of signatures; if not set, HS256 with a secret, and the others with public keys";
        let issuer = "Required issuer of tokens: `iss`; without a file, a URL and a secret, the keys are found by `ISSUER/.well-known/openid-configuration`";
        let tenant = "Claim that holds the tenant: a text, or a list or an object of exactly one; the parts of a path are separated by dots (`org.id`), and a claim with that whole name is found first";
        let default_tenant = "Tenant of tokens without that claim; if not set, they are refused";
        let user = "Claim that holds the person, by path too; a token without it is a service's";
        let scopes = "Claims that hold names of scopes, by path too: lists of texts, or texts with spaces between the names; all of them count";
        let map = "Scopes that other names in those claims stand for: `[auth.scope_map]` with `\"chat-admin\" = \"receipts:members\"`; several are separated by spaces";
        let service = "Claim that marks a token as a service's if it is true or a text, by path too; if not set, a token without \
                       `auth.user_claim` is a service's";
        let strict = "Makes each scope stand for itself; otherwise receipts:write implies receipts:own, receipts:policy and receipts:erase";
        let secret_file: Option<PathBuf> = from.optional_text("auth.secret_file", secret, &NOT_EMPTY).map(Into::into);
        let jwks_file: Option<PathBuf> = from.optional_text("auth.jwks_file", jwks, &NOT_EMPTY).map(Into::into);
        let jwks_url = from.optional_text("auth.jwks_url", url, &URL);
        let timeout = "Longest time of one fetch of the set, in milliseconds";
        let jwks_timeout_ms = from.integer("auth.jwks_timeout_ms", timeout, 5_000, 1..=60_000);
        let jwks_refresh_ms = from.integer("auth.jwks_refresh_ms", refresh, 60_000, 1_000..=DAY_MS);
        let issuer = from.optional_text("auth.issuer", issuer, &NOT_EMPTY);
        let named = from.list("auth.algorithms", algorithms, &ALGORITHM);
        let mut algorithms: Vec<Algorithm> = named.iter().filter_map(|name| algorithm_of(name)).collect();
        if named.is_empty() {
            algorithms.extend(secret_file.is_some().then_some(Algorithm::Hs256));
            let public = [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa];
            let is_public = jwks_file.is_some() || jwks_url.is_some() || secret_file.is_none() && issuer.is_some();
            algorithms.extend(public.into_iter().filter(|_| is_public));
        }
        Self {
            secret_file,
            jwks_file,
            jwks_url,
            jwks_timeout_ms,
            jwks_refresh_ms,
            algorithms,
            issuer: issuer.unwrap_or_default(),
            audience: from.text(
                "auth.audience",
                "Required audience of tokens: `aud`, or one of its values",
                "receipts",
                &NOT_EMPTY,
            ),
            leeway_ms: from.integer(
                "auth.leeway_ms",
                "Allowed clock difference for the times of tokens, in milliseconds; whole seconds count",
                60_000,
                0..=600_000,
            ),
            tenant_claim: from.text("auth.tenant_claim", tenant, "tenant", &NOT_EMPTY),
            default_tenant: from.optional_text("auth.default_tenant", default_tenant, &TENANT),
            user_claim: from.text("auth.user_claim", user, "sub", &NOT_EMPTY),
            scope_claims: from.list_or("auth.scope_claims", scopes, &SCOPE_CLAIMS, &NOT_EMPTY),
            scope_map: from.named_lists(SCOPE_MAP, map, &SCOPES),
            service_claim: from.optional_text("auth.service_claim", service, &NOT_EMPTY),
            strict_scopes: from.boolean("auth.strict_scopes", strict, false),
        }
    }

    /// Checks that tokens have an issuer and matching keys.
    pub(super) fn check(&self, from: &mut Reader) {
        let keys = "auth.secret_file, auth.jwks_file and auth.jwks_url";
        if self.jwks_file.is_some() && self.jwks_url.is_some() {
            from.contradiction("auth.jwks_url", "must not be set together with auth.jwks_file".to_owned());
        }
        if self.is_configured() && self.issuer.is_empty() {
            from.contradiction("auth.issuer", format!("must be set together with any of {keys}"));
        }
        if self.described_issuer().is_some_and(|issuer| !is_http_url(issuer) || issuer.contains('?')) {
            let problem = "without keys it must be the URL at which the issuer describes itself: https://HOST/PATH";
            from.contradiction("auth.issuer", format!("{problem}; or set one of {keys}"));
        }
        let has_secret = self.algorithms.contains(&Algorithm::Hs256);
        let has_public = self.algorithms.iter().any(|algorithm| *algorithm != Algorithm::Hs256);
        if self.secret_file.is_some() != has_secret || self.has_public_keys() != has_public {
            let problem = "HS256 needs auth.secret_file; all others need auth.jwks_file, auth.jwks_url, or auth.issuer \
                           without a secret";
            from.contradiction("auth.algorithms", problem.to_owned());
        }
    }

    /// Returns a sentence about a setting that is allowed but dangerous.
    pub(super) fn warning(&self) -> Option<String> {
        let is_open = |url: &&str| url.starts_with("http://") && !is_loopback(url);
        let (key, url) = match &self.jwks_url {
            Some(url) => ("auth.jwks_url", url.as_str()),
            None => ("auth.issuer", self.described_issuer()?),
        };
        Some(url).filter(is_open)?;
        Some(format!("{key}: every host between here and {url} can replace the keys and so forge tokens; use https://"))
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
