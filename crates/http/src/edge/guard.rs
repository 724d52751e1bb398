//! Refuses requests that a foreign web page makes a browser send, on listeners that believe
//! every client (DNS rebinding, and requests that need no preflight).
//!
//! It must not replace tokens: it tells browsers from other clients, not callers from one another.
//! Keeps INV-LOCAL.

use crate::edge::connections::NoRoom;
use crate::problem::{Code, Problem};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, Version, header};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What a listener checks of a request before it looks at its path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Guard {
    /// Only that it names one host: callers have tokens or a secret, which no browser sends on its
    /// own.
    #[default]
    Credentials,
    /// Also that no foreign web page sent it.
    Browsers {
        /// Origins whose pages may send requests, as browsers write them; `*` for all.
        origins: Vec<String>,
    },
    /// Also that it names this machine. For a listener on loopback: a foreign name may lead to
    /// it, and a browser would show the answers to a foreign page.
    Loopback {
        /// Further names of this machine, without a port; `*` for all.
        hosts: Vec<String>,
        /// As above.
        origins: Vec<String>,
    },
}

/// Middleware that lets a request pass or answers with the problem.
pub(crate) async fn admit(State(guard): State<Arc<Guard>>, request: Request) -> Result<Request, Problem> {
    if let Some(NoRoom(setting)) = request.extensions().get() {
        let detail = format!("the service has as many requests as it may have connections: {setting}");
        return Err(Problem::new(Code::Overloaded).detail(detail));
    }
    let host = host(&request)?;
    guard.check(host, request.headers(), follows_link(&request))?;
    Ok(request)
}

/// Whether a person has followed a link to the page at `/`. Such a request shows that page and
/// nothing else; the page with the link cannot read it (Fetch Metadata, Resource Isolation Policy).
fn follows_link(request: &Request) -> bool {
    let says = |name: &str, value: &str| request.headers().get_all(name).iter().eq([value]);
    request.method() == Method::GET
        && request.uri().path() == "/"
        && says("sec-fetch-mode", "navigate")
        && says("sec-fetch-dest", "document")
}

/// Returns the host that a request names. HTTP/1.1 requires exactly one (RFC 9112, section 3.2).
/// HTTP/2 has it in `:authority`, beside which `Host` must say the same (RFC 9113, section 8.3.1).
fn host(request: &Request) -> Result<Option<&str>, Problem> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let hosts = (hosts.next(), hosts.next());
    let authority = request.uri().authority().filter(|_| request.version() == Version::HTTP_2);
    if let Some(authority) = authority {
        return match hosts {
            (None, _) => Ok(Some(authority.as_str())),
            (Some(host), None) if host == authority.as_str() => Ok(Some(authority.as_str())),
            _ => Err(Problem::invalid("/Host", "must be absent, or the same as :authority")),
        };
    }
    match hosts {
        (Some(host), None) => match host.to_str() {
            Ok(host) => Ok(Some(host)),
            Err(_) => Err(Problem::invalid("/Host", "must be a host and a port in ASCII")),
        },
        (None, _) if request.version() == Version::HTTP_10 => Ok(None),
        (None, _) => Err(Problem::invalid("/Host", "is missing")),
        (Some(_), Some(_)) => Err(Problem::invalid("/Host", "must not appear more than once")),
    }
}

impl Guard {
    fn check(&self, host: Option<&str>, headers: &HeaderMap, follows_link: bool) -> Result<(), Problem> {
        let (hosts, origins) = match self {
            Self::Credentials => return Ok(()),
            Self::Browsers { origins } => (None, origins),
            Self::Loopback { hosts, origins } => (Some(hosts), origins),
        };
        let is_ours = |hosts: &[String], name: &str| is_loopback(name) || listed(hosts, name);
        if hosts.is_some_and(|hosts| host.is_some_and(|host| !is_ours(hosts, name(host)))) {
            return Err(refused(
                "/Host",
                "must be localhost, 127.0.0.1 or [::1], or a name of http.allowed_hosts",
                "this request names another host, and the listener believes every client: set http.allowed_hosts, or \
                 tokens for callers (auth.*)",
            ));
        }
        let mut sent = headers.get_all(header::ORIGIN).iter().map(|origin| origin.to_str().unwrap_or_default());
        let origin = sent.next();
        let is_own = |origin: &str| {
            let Some((_, authority)) = origin.split_once("://") else { return false };
            host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
                || hosts.is_some() && is_loopback(name(authority))
        };
        let advice = "a foreign web page sent this request, and the listener believes every client: set \
                      http.allowed_origins, or tokens for callers (auth.*)";
        if origin.is_some_and(|origin| !listed(origins, origin) && !is_own(origin)) || sent.next().is_some() {
            return Err(refused(
                "/Origin",
                "must be this service's own origin, or one of http.allowed_origins",
                advice,
            ));
        }
        let is_cross_site = headers.get_all(SEC_FETCH_SITE).iter().any(|site| site.as_bytes() == b"cross-site");
        if is_cross_site && !follows_link && !listed(origins, origin.unwrap_or("*")) {
            let detail = "must not be cross-site without an Origin of http.allowed_origins";
            return Err(refused("/Sec-Fetch-Site", detail, advice));
        }
        Ok(())
    }
}

fn refused(pointer: &str, detail: &'static str, advice: &'static str) -> Problem {
    Problem::new(Code::Forbidden).detail(advice).item(pointer, detail)
}

/// Whether a list has a name in any case, or stands for all.
pub(crate) fn listed(list: &[String], name: &str) -> bool {
    list.iter().any(|one| one == "*" || one.eq_ignore_ascii_case(name))
}

/// Returns the host of `HOST`, `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`, without the port.
fn name(authority: &str) -> &str {
    match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

fn is_loopback(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || match name.parse() {
            Ok(IpAddr::V4(address)) => address.is_loopback(),
            Ok(IpAddr::V6(address)) => address == Ipv6Addr::LOCALHOST,
            Err(_) => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn check(guard: &Guard, headers: &[(&str, &str)]) -> Result<(), Code> {
        check_of(guard, Method::POST, "/v1/events", headers)
    }

    fn check_of(guard: &Guard, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<(), Code> {
        let mut request = Request::new(Body::empty());
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().unwrap();
        for (name, value) in headers {
            request.headers_mut().append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let checked = host(&request).and_then(|host| guard.check(host, request.headers(), follows_link(&request)));
        checked.map_err(|problem| problem.code())
    }

    fn loopback(hosts: &[&str], origins: &[&str]) -> Guard {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Guard::Loopback { hosts: texts(hosts), origins: texts(origins) }
    }

    /// INV-LOCAL
    #[test]
    fn loopback_listener_answers_only_names_of_this_machine() {
        let guard = loopback(&["receipts.internal"], &[]);
        for host in [
            "localhost",
            "LOCALHOST:8080",
            "localhost.:80",
            "127.0.0.1",
            "127.3.2.1:99",
            "[::1]",
            "[::1]:8080",
            "receipts.internal",
            "Receipts.Internal:8080",
        ] {
            assert_eq!(check(&guard, &[("host", host)]), Ok(()), "{host}");
        }
        for host in [
            "",
            "example.org",
            "localhost.example.org",
            "example.org:8080",
            "128.0.0.1",
            "0.0.0.0",
            "[::]",
            "[::2]:80",
            "127.0.0.1.example.org",
            "127.1",
            "[::ffff:10.0.0.1]",
            "xreceipts.internal",
            "a.localhost",
        ] {
            assert_eq!(check(&guard, &[("host", host)]), Err(Code::Forbidden), "{host}");
        }
        assert_eq!(check(&loopback(&["*"], &[]), &[("host", "example.org")]), Ok(()));
        let foreign = [("host", "example.org"), ("origin", "https://evil.example")];
        assert_eq!(check(&loopback(&["*"], &[]), &foreign), Err(Code::Forbidden), "a name permits no page");
    }

    /// INV-LOCAL
    #[test]
    fn foreign_pages_are_refused_unless_listed() {
        let own = ("host", "localhost:8080");
        let guard = loopback(&[], &["https://app.example"]);
        let site = |site| ("sec-fetch-site", site);
        for headers in [
            &[("origin", "http://localhost:8080")][..],
            &[("origin", "http://127.0.0.1:3000"), site("same-site")],
            &[site("same-origin")],
            &[site("none")],
            &[("origin", "https://app.example"), site("cross-site")],
        ] {
            assert_eq!(check(&guard, &[&[own], headers].concat()), Ok(()), "{headers:?}");
        }
        for headers in [
            &[("origin", "https://evil.example")][..],
            &[("origin", "null")],
            &[("origin", "")],
            &[("origin", "https://app.example:8443")],
            &[("origin", "http://localhost:8080"), ("origin", "http://localhost:8080")],
            &[site("cross-site")],
            &[("origin", "http://localhost:3000"), site("cross-site")],
        ] {
            assert_eq!(check(&guard, &[&[own], headers].concat()), Err(Code::Forbidden), "{headers:?}");
        }
        assert_eq!(check(&loopback(&[], &["*"]), &[own, ("origin", "null"), site("cross-site")]), Ok(()));
    }

    /// INV-LOCAL
    #[test]
    fn foreign_link_opens_the_page_alone() {
        let link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")];
        let headers = |host| [&[("host", host)], &link[..]].concat();
        let own = headers("localhost:8080");
        let guard = loopback(&[], &[]);
        assert_eq!(check_of(&guard, Method::GET, "/", &own), Ok(()));
        for (method, path) in [(Method::POST, "/"), (Method::GET, "/v1/updates"), (Method::GET, "/metrics")] {
            assert_eq!(check_of(&guard, method.clone(), path, &own), Err(Code::Forbidden), "{method} {path}");
        }
        let framed: Vec<_> = own.iter().map(|h| if h.0 == "sec-fetch-dest" { (h.0, "iframe") } else { *h }).collect();
        assert_eq!(check_of(&guard, Method::GET, "/", &framed), Err(Code::Forbidden));
        assert_eq!(check_of(&guard, Method::GET, "/", &headers("evil.example")), Err(Code::Forbidden));
    }

    /// INV-LOCAL
    #[test]
    fn exposed_listener_takes_any_host_but_own_pages_only() {
        let guard = Guard::Browsers { origins: Vec::new() };
        let own = ("host", "receipts.internal");
        assert_eq!(check(&guard, &[own]), Ok(()));
        assert_eq!(check(&guard, &[own, ("origin", "https://receipts.internal")]), Ok(()));
        for origin in ["https://evil.example", "http://localhost", "http://receipts.internal:81"] {
            assert_eq!(check(&guard, &[own, ("origin", origin)]), Err(Code::Forbidden), "{origin}");
        }
        assert_eq!(check(&guard, &[own, ("sec-fetch-site", "cross-site")]), Err(Code::Forbidden));
        assert_eq!(check(&Guard::Credentials, &[own, ("origin", "https://evil.example")]), Ok(()));
    }

    #[test]
    fn request_without_exactly_one_host_is_refused() {
        for guard in [Guard::Credentials, loopback(&["*"], &["*"])] {
            assert_eq!(check(&guard, &[]), Err(Code::Invalid));
            assert_eq!(check(&guard, &[("host", "localhost"), ("host", "localhost")]), Err(Code::Invalid));
        }
    }
}
