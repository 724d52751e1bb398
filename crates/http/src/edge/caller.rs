//! Who asks: tenant, user and scopes of a request, resolved once, before anything else is looked at.
//!
//! Must not decide what a caller may do; that stands with the routes and in [`crate::Access`].

use crate::problem::{Code, Problem};
use crate::request::{decode_percent, id_problem};
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use std::sync::Arc;
use tokio::time::Instant;

/// The tenant, as it is; absent stands for `default`.
pub const TENANT_HEADER: HeaderName = HeaderName::from_static("receipts-tenant");

/// The user, percent-encoded; absent stands for a service with all scopes.
pub const CALLER_HEADER: HeaderName = HeaderName::from_static("receipts-caller");

/// What a caller may do beyond what it may as a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `receipts:members`: counts and lists of all messages, and all read marks.
    Members,
    /// `receipts:write`: events.
    Write,
}

impl Scope {
    /// The scope of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "receipts:members" => Some(Self::Members),
            "receipts:write" => Some(Self::Write),
            _ => None,
        }
    }

    const fn bit(self) -> u8 {
        match self {
            Self::Members => 1,
            Self::Write => 2,
        }
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// What a user has.
    pub const NONE: Self = Self(0);

    /// What a service has where no authentication is configured.
    pub const ALL: Self = Self(Scope::Members.bit() | Scope::Write.bit());

    /// This set and one more.
    #[must_use]
    pub const fn with(self, scope: Scope) -> Self {
        Self(self.0 | scope.bit())
    }

    /// Whether the set holds a scope.
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Whose data it sees; never any other.
    pub tenant: String,
    /// Which person; `None` for a service.
    pub user: Option<String>,
    /// Which service, where there is no person and the credential says so. Decides nothing but whose requests are counted
    /// together.
    pub service: Option<String>,
    /// What it may do beyond that.
    pub scopes: Scopes,
    /// When its credential ends, and with it what is still under way; `None` for one that does not.
    pub expires: Option<Instant>,
}

impl Caller {
    /// Whether this is a certain person.
    pub fn is(&self, user_id: &str) -> bool {
        self.user.as_deref() == Some(user_id)
    }
}

/// Tells from a request's headers who asks. Called on every request, on a runtime thread: it must not block.
pub trait Authenticate: Send + Sync + 'static {
    /// Who asks.
    ///
    /// # Errors
    /// The problem to be answered where the credential is missing or bad.
    fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Problem>;
}

/// Believes what the headers `Receipts-Tenant` and `Receipts-Caller` say. Only for a listener that nobody but trusted
/// callers reaches, such as loopback.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrustedHeaders;

impl Authenticate for TrustedHeaders {
    fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let tenant = match text(headers, &TENANT_HEADER)? {
            None => receipts_event::TENANT_DEFAULT,
            Some(tenant) => match id_problem(tenant) {
                Some(detail) => return Err(Problem::invalid("/Receipts-Tenant", detail)),
                None if tenant.contains('/') => {
                    return Err(Problem::invalid("/Receipts-Tenant", "must have no slash"));
                }
                None => tenant,
            },
        };
        let user = match text(headers, &CALLER_HEADER)? {
            None => None,
            Some(encoded) => {
                let user = decode_percent(encoded).map_err(|detail| Problem::invalid("/Receipts-Caller", detail))?;
                if let Some(detail) = id_problem(&user) {
                    return Err(Problem::invalid("/Receipts-Caller", detail));
                }
                Some(user)
            }
        };
        let scopes = if user.is_some() { Scopes::NONE } else { Scopes::ALL };
        Ok(Caller { tenant: tenant.to_owned(), user, service: None, scopes, expires: None })
    }
}

/// The text of a header that may stand once. Twice is refused: which of the two holds is anybody's guess.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let pointer = if *name == TENANT_HEADER { "/Receipts-Tenant" } else { "/Receipts-Caller" };
    if values.next().is_some() {
        return Err(Problem::invalid(pointer, "must not stand more than once"));
    }
    std::str::from_utf8(value.as_bytes()).map(Some).map_err(|_| Problem::invalid(pointer, "must be UTF-8"))
}

/// The middleware that resolves the caller, or answers for it.
pub(crate) async fn resolve(
    State(authenticate): State<Arc<dyn Authenticate>>,
    mut request: Request,
) -> Result<Request, Problem> {
    let caller = authenticate.authenticate(request.headers())?;
    request.extensions_mut().insert(caller);
    Ok(request)
}

/// The caller as a handler's argument.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.remove().ok_or_else(|| {
            tracing::error!("a route is composed without the middleware that resolves its caller");
            Problem::new(Code::Internal)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(headers: &[(HeaderName, &[u8])]) -> Result<Caller, Code> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, axum::http::HeaderValue::from_bytes(value).unwrap());
        }
        TrustedHeaders.authenticate(&map).map_err(|problem| problem.code())
    }

    #[test]
    fn without_headers_the_caller_is_a_service_of_the_default_tenant_with_all_scopes() {
        let service = caller(&[]).unwrap();
        let wanted =
            Caller { tenant: "default".to_owned(), user: None, service: None, scopes: Scopes::ALL, expires: None };
        assert_eq!(service, wanted);
        assert!(service.scopes.has(Scope::Members) && service.scopes.has(Scope::Write));
    }

    #[test]
    fn a_named_caller_is_percent_decoded_and_has_no_scopes() {
        let user = caller(&[(TENANT_HEADER, b"acme"), (CALLER_HEADER, b"zo%C3%AB%2Fa%25b")]).unwrap();
        assert_eq!(user.user.as_deref(), Some("zoë/a%b"));
        assert_eq!((user.tenant.as_str(), user.scopes), ("acme", Scopes::NONE));
        assert!(user.is("zoë/a%b") && !user.is("zoë"));
    }

    #[test]
    fn headers_that_hold_no_id_are_refused() {
        let long = [b'a'; 129];
        for header in [
            (TENANT_HEADER, &b""[..]),
            (TENANT_HEADER, b"a/b"),
            (TENANT_HEADER, &long),
            (TENANT_HEADER, b"\xff"),
            (CALLER_HEADER, b""),
            (CALLER_HEADER, b"%zz"),
            (CALLER_HEADER, b"%ff"),
            (CALLER_HEADER, &long),
        ] {
            assert_eq!(caller(std::slice::from_ref(&header)), Err(Code::Invalid), "{header:?}");
        }
    }

    #[test]
    fn a_caller_named_twice_is_refused() {
        assert_eq!(caller(&[(CALLER_HEADER, b"a"), (CALLER_HEADER, b"b")]), Err(Code::Invalid));
    }
}
