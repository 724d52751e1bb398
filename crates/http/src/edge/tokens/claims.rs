//! The caller that the claims of a token name: tenant, person or service, and scopes.
//!
//! It must not check for whom or for how long a token is. A claim that names two tenants names
//! none: guessing one would show a caller another tenant's answers.

use super::refusals::{Reason, Refusal, quoted, shape};
use crate::edge::caller::Caller;
use crate::edge::scopes::{Scope, Scopes};
use crate::request::id_problem;
use serde_json::{Map, Value};
use std::collections::HashMap;
use tokio::time::Instant;

/// Says which claims name the caller.
///
/// A claim is named by its path, with dots between the parts: `realm_access.roles`. A claim whose
/// whole name has dots, as an `https://` URL, is found first.
#[derive(Debug, Clone)]
pub struct ClaimSettings {
    /// The claim that names the tenant: a text, or a list or an object of exactly one.
    pub tenant_claim: String,
    /// The tenant of tokens without that claim; without it they are refused.
    pub default_tenant: Option<String>,
    /// The claim that names the person. A token without it is a service's.
    pub user_claim: String,
    /// The claims with names of scopes: lists of texts, or texts with spaces between the names.
    pub scope_claims: Vec<String>,
    /// The scopes that other names in those claims stand for.
    pub scope_map: HashMap<String, Vec<Scope>>,
    /// A claim that marks the token of a service if it is true or a non-empty string, with any
    /// `user_claim`.
    pub service_claim: Option<String>,
    /// True if each scope stands for itself; otherwise `receipts:write` implies the other writing
    /// ones.
    pub strict_scopes: bool,
}

/// Tenant `tenant`, person `sub`, scopes as OAuth and OpenID Connect have them, no names of others.
impl Default for ClaimSettings {
    fn default() -> Self {
        Self {
            tenant_claim: "tenant".to_owned(),
            default_tenant: None,
            user_claim: "sub".to_owned(),
            scope_claims: ["scope", "scopes", "scp", "permissions", "realm_access.roles"].map(str::to_owned).into(),
            scope_map: HashMap::new(),
            service_claim: None,
            strict_scopes: false,
        }
    }
}

impl ClaimSettings {
    /// Returns the caller that claims name. `expires`: when the token ends.
    ///
    /// # Errors
    /// If the tenant or the person is not named as it must be.
    pub(super) fn caller_of(&self, claims: &Map<String, Value>, expires: Instant) -> Result<Caller, Refusal> {
        let tenant = self.tenant_of(claims)?;
        let is_service = self.service_claim.as_ref().and_then(|name| at(claims, name)).is_some_and(|claim| {
            claim.as_bool().unwrap_or_else(|| claim.as_str().is_some_and(|text| !text.is_empty()))
        });
        let user = match at(claims, &self.user_claim) {
            Some(Value::String(user)) if id_problem(user).is_none() => Some(user.clone()).filter(|_| !is_service),
            None => None,
            claim @ Some(_) => return Err(Reason::Subject.found(shape(claim))),
        };
        // RFC 9068 names a client by `client_id`, OpenID Connect by `azp`.
        let names_service = [self.service_claim.as_deref(), Some("client_id"), Some("azp"), Some("sub")];
        let text = |name: &str| at(claims, name).and_then(Value::as_str);
        let service = names_service.into_iter().flatten().find_map(text).filter(|_| user.is_none()).map(str::to_owned);
        Ok(Caller { tenant, user, service, scopes: self.scopes_of(claims), expires: Some(expires) })
    }

    fn tenant_of(&self, claims: &Map<String, Value>) -> Result<String, Refusal> {
        let claim = at(claims, &self.tenant_claim).filter(|claim| !claim.is_null());
        let tenant = match (claim, &self.default_tenant) {
            (Some(claim), _) => the_one(claim),
            (None, Some(tenant)) => return Ok(tenant.clone()),
            (None, None) => {
                let names: Vec<&str> = claims.keys().map(String::as_str).collect();
                return Err(Reason::Tenant.found(format!("none; claims: {}", quoted(&names.join(" ")))));
            }
        };
        let tenant = tenant.filter(|tenant| id_problem(tenant).is_none() && !tenant.contains('/'));
        tenant.map(str::to_owned).ok_or_else(|| Reason::Tenant.found(shape(claim)))
    }

    fn scopes_of(&self, claims: &Map<String, Value>) -> Scopes {
        let names = self.scope_claims.iter().filter_map(|name| at(claims, name)).flat_map(|claim| match claim {
            Value::String(names) => names.split_ascii_whitespace().collect(),
            Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        });
        let of_name =
            |name| Scope::named(name).into_iter().chain(self.scope_map.get(name).into_iter().flatten().copied());
        let scopes = names.flat_map(of_name).fold(Scopes::NONE, Scopes::with);
        if self.strict_scopes { scopes } else { scopes.with_implied() }
    }
}

/// Returns the claim at a path: the one with that whole name, or one within the claim whose name is
/// the longest beginning of the path.
fn at<'c>(claims: &'c Map<String, Value>, path: &str) -> Option<&'c Value> {
    claims.get(path).or_else(|| {
        path.rmatch_indices('.').find_map(|(dot, _)| at(claims.get(&path[..dot])?.as_object()?, &path[dot + 1..]))
    })
}

/// Returns the only text that a claim holds: itself, the item of a list (`["acme"]`) or the name in
/// an object (`{"acme": {…}}`, as Keycloak has organizations).
fn the_one(claim: &Value) -> Option<&str> {
    match claim {
        Value::String(text) => Some(text),
        Value::Array(items) => match items.as_slice() {
            [Value::String(text)] => Some(text),
            _ => None,
        },
        Value::Object(entries) if entries.len() == 1 => entries.keys().next().map(String::as_str),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn caller(settings: &ClaimSettings, claims: Value) -> Result<Caller, Reason> {
        let claims = claims.as_object().expect("an object");
        settings.caller_of(claims, Instant::now()).map_err(|refusal| refusal.reason)
    }

    fn held(caller: &Caller) -> Vec<&'static str> {
        Scope::ALL.into_iter().filter(|scope| caller.scopes.has(*scope)).map(Scope::name).collect()
    }

    #[test]
    fn whole_names_are_found_before_paths() {
        let claims = json!({"a.b": 1, "a": {"b": 2, "c": {"d": 3}, "c.d": 4}, "https://x.example/t": {"n.o": 5},
            "https://x.example/u": "acme"});
        let claims = claims.as_object().expect("an object");
        for (path, wanted) in [
            ("a.b", Some(1)),
            ("a.c.d", Some(4)),
            ("https://x.example/t.n.o", Some(5)),
            ("a.x", None),
            ("a.b.c", None),
            (".", None),
            ("", None),
        ] {
            assert_eq!(at(claims, path).and_then(Value::as_i64), wanted, "{path}");
        }
        assert_eq!(at(claims, "https://x.example/u"), Some(&json!("acme")));
    }

    /// INV-CALLER
    #[test]
    fn exactly_one_tenant_is_taken_in_any_shape() {
        let tenant = |default: Option<&str>, path: &str, claims: Value| {
            let default_tenant = default.map(str::to_owned);
            let settings = ClaimSettings { tenant_claim: path.to_owned(), default_tenant, ..ClaimSettings::default() };
            caller(&settings, claims).map(|caller| caller.tenant)
        };
        let acme = Ok("acme".to_owned());
        for default in [None, Some("only")] {
            for claims in [
                json!({"org": "acme"}),
                json!({"org": ["acme"]}),
                json!({"org": {"acme": {"id": "7"}}}),
                json!({"org": {"acme": {}}, "tenant": "other"}),
            ] {
                assert_eq!(tenant(default, "org", claims.clone()), acme, "{claims}");
            }
            for claim in [
                json!(["acme", "other"]),
                json!([]),
                json!({}),
                json!({"acme": {}, "other": {}}),
                json!([["acme"]]),
                json!(7),
                json!(""),
                json!("a/b"),
                json!(["a/b"]),
                json!(true),
            ] {
                assert_eq!(tenant(default, "org", json!({"org": claim})), Err(Reason::Tenant), "{claim}");
            }
            assert_eq!(tenant(default, "x.id", json!({"x": {"id": ["acme"]}})), acme);
        }
        for claims in [json!({"other": "acme"}), json!({"org": null})] {
            assert_eq!(tenant(None, "org", claims.clone()), Err(Reason::Tenant));
            assert_eq!(tenant(Some("only"), "org", claims), Ok("only".to_owned()));
        }
    }

    /// INV-CALLER
    #[test]
    fn person_is_named_by_the_configured_claim() {
        let settings = ClaimSettings { user_claim: "email".to_owned(), ..ClaimSettings::default() };
        let user = |claims: Value| caller(&settings, claims).map(|caller| caller.user);
        let person = json!({"tenant": "t", "sub": "7", "email": "al@example.com"});
        assert_eq!(user(person), Ok(Some("al@example.com".to_owned())));
        assert_eq!(user(json!({"tenant": "t", "sub": "7"})), Ok(None));
        assert_eq!(user(json!({"tenant": "t", "email": ["al@example.com"]})), Err(Reason::Subject));
    }

    /// INV-SCOPE
    #[test]
    fn scopes_come_from_all_claims_and_mapped_names() {
        let scope_map = HashMap::from([
            ("chat-admin".to_owned(), vec![Scope::Members]),
            ("Chat Writers".to_owned(), vec![Scope::Write, Scope::Members]),
        ]);
        let settings = ClaimSettings { scope_map, ..ClaimSettings::default() };
        let scopes = |claim: &str, value: Value| {
            held(&caller(&settings, json!({"tenant": "t", claim: value})).expect("a caller"))
        };
        let roles = json!({"roles": ["offline_access", "chat-admin"]});
        assert_eq!(scopes("realm_access", roles), ["receipts:members"]);
        assert_eq!(scopes("scp", json!("openid receipts:own")), ["receipts:own"]);
        assert_eq!(scopes("permissions", json!(["receipts:erase"])), ["receipts:erase"]);
        assert_eq!(scopes("scope", json!(["Chat Writers"])).len(), Scope::ALL.len());
        for nothing in [json!("Chat Writers"), json!({"chat-admin": true}), json!("CHAT-ADMIN"), json!(7)] {
            assert_eq!(scopes("scope", nothing.clone()), [""; 0], "{nothing}");
        }
        assert_eq!(scopes("roles", json!(["receipts:write"])), [""; 0], "no claim of scopes");
    }
}
