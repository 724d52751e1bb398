//! The caller of a request: its tenant, user and scopes, resolved once before the route runs.
//!
//! It must not decide what a caller may do; the routes and [`crate::Access`] do.

use crate::edge::scopes::Scopes;
use crate::edge::tickets::{Ticket, Tickets};
use crate::problem::{Code, Problem};
use crate::request::{Parameters, STREAM_PATH, decode_percent, id_problem, resume_id};
use async_trait::async_trait;
use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use std::sync::Arc;
use tokio::time::Instant;

/// Names the tenant, unencoded. Without it the tenant is `default`.
pub const TENANT_HEADER: HeaderName = HeaderName::from_static("receipts-tenant");

/// Names the user, percent-encoded, who then has `receipts:own`. Without it the caller is a service
/// with all scopes.
pub const CALLER_HEADER: HeaderName = HeaderName::from_static("receipts-caller");

/// The person or service that sent a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant. A caller never sees data of another one.
    pub tenant: String,
    /// The user; `None` for a service.
    pub user: Option<String>,
    /// The service, if the caller is not a user and the credential names one. It decides only which
    /// requests the rate limit counts together.
    pub service: Option<String>,
    /// The permissions beyond those of a user.
    pub scopes: Scopes,
    /// When the credential expires; open streams end then. `None` if it does not expire.
    pub expires: Option<Instant>,
}

impl Caller {
    /// Whether the caller is this user.
    pub fn is(&self, user_id: &str) -> bool {
        self.user.as_deref() == Some(user_id)
    }
}

/// Resolves the caller from the headers of a request. It runs on an async thread for every request,
/// so it must not block.
#[async_trait]
pub trait Authenticate: Send + Sync + 'static {
    /// Returns the caller.
    ///
    /// # Errors
    /// The problem to answer with, if the credential is missing or bad.
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Problem>;
}

/// Believes the headers `Receipts-Tenant` and `Receipts-Caller`. Only for a listener that only
/// trusted callers reach, such as loopback.
#[derive(Debug, Clone, Copy, Default)]
pub struct TrustedHeaders;

#[async_trait]
impl Authenticate for TrustedHeaders {
    async fn authenticate(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let tenant = match text(headers, &TENANT_HEADER)? {
            None => receipts_event::TENANT_DEFAULT,
            Some(tenant) => match id_problem(tenant) {
                Some(detail) => return Err(Problem::invalid("/Receipts-Tenant", detail)),
                None if tenant.contains('/') => {
                    return Err(Problem::invalid("/Receipts-Tenant", "must not contain a slash"));
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
        let scopes = if user.is_some() { Scopes::PERSON } else { Scopes::ALL };
        Ok(Caller { tenant: tenant.to_owned(), user, service: None, scopes, expires: None })
    }
}

/// Returns the text of a header that may appear once. Two values are refused, because either could
/// be meant.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let pointer = if *name == TENANT_HEADER { "/Receipts-Tenant" } else { "/Receipts-Caller" };
    if values.next().is_some() {
        return Err(Problem::invalid(pointer, "must not appear more than once"));
    }
    std::str::from_utf8(value.as_bytes()).map(Some).map_err(|_| Problem::invalid(pointer, "must be UTF-8"))
}

/// What names the callers of an edge.
pub(crate) struct Callers {
    pub(crate) authenticate: Arc<dyn Authenticate>,
    /// Names the callers of streams that send one; `None` on an edge without streams.
    pub(crate) tickets: Option<Tickets>,
}

/// Middleware that resolves the caller, or answers with its problem.
pub(crate) async fn resolve(State(callers): State<Arc<Callers>>, mut request: Request) -> Result<Request, Problem> {
    let caller = match callers.by_ticket(&request)? {
        Some((caller, ticket)) => {
            request.extensions_mut().insert(ticket);
            caller
        }
        None => callers.authenticate.authenticate(request.headers()).await?,
    };
    request.extensions_mut().insert(caller);
    Ok(request)
}

impl Callers {
    /// Returns the caller of a stream that is opened by a ticket, and the ticket. It is not asked
    /// for another credential, because the ticket alone may open its stream.
    fn by_ticket(&self, request: &Request) -> Result<Option<(Caller, Ticket)>, Problem> {
        let is_stream = request.extensions().get::<MatchedPath>().is_some_and(|path| path.as_str() == STREAM_PATH);
        let Some(tickets) = self.tickets.as_ref().filter(|_| is_stream) else { return Ok(None) };
        let parameters = Parameters::of(request.uri())?;
        let Some(ticket) = parameters.one("ticket")? else { return Ok(None) };
        let id = resume_id(request.headers(), &parameters)?;
        tickets.open(ticket, id.map(|(_, id)| id)).map(Some)
    }
}

/// Gives handlers the caller as an argument.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.remove().ok_or_else(|| {
            tracing::error!("a route lacks the middleware that resolves its caller");
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
        futures_util::FutureExt::now_or_never(TrustedHeaders.authenticate(&map))
            .expect("no wait")
            .map_err(|problem| problem.code())
    }

    #[test]
    fn request_without_headers_comes_from_a_default_service() {
        let service = caller(&[]).unwrap();
        let wanted =
            Caller { tenant: "default".to_owned(), user: None, service: None, scopes: Scopes::ALL, expires: None };
        assert_eq!(service, wanted);
    }

    #[test]
    fn named_caller_is_percent_decoded_and_writes_own_reads() {
        let user = caller(&[(TENANT_HEADER, b"acme"), (CALLER_HEADER, b"zo%C3%AB%2Fa%25b")]).unwrap();
        assert_eq!(user.user.as_deref(), Some("zoë/a%b"));
        assert_eq!((user.tenant.as_str(), user.scopes), ("acme", Scopes::PERSON));
        assert!(user.is("zoë/a%b") && !user.is("zoë"));
    }

    #[test]
    fn headers_without_a_valid_id_are_refused() {
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
    fn caller_named_twice_is_refused() {
        assert_eq!(caller(&[(CALLER_HEADER, b"a"), (CALLER_HEADER, b"b")]), Err(Code::Invalid));
    }
}
