//! Reads the parts of a request that routes share: ids in paths, query parameters, and the format
//! of the body.
//!
//! Its only errors are problems that name the part at fault.

use crate::problem::{Code, Problem};
use axum::extract::{FromRequestParts, MatchedPath};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use receipts_event::ID_BYTES_MAX;

/// Returns why a text is not an id, or `None` if it is one.
pub(crate) fn id_problem(id: &str) -> Option<&'static str> {
    if id.is_empty() {
        Some("must not be empty")
    } else if id.len() > ID_BYTES_MAX {
        Some("must have at most 128 bytes")
    } else {
        None
    }
}

/// Decodes percent-encoding strictly. A percent sign without two digits is an error, and so is a
/// result that is not UTF-8.
pub(crate) fn decode_percent(text: &str) -> Result<String, &'static str> {
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
        match rest.get(at + 1..at + 3) {
            Some(digits) if digits.iter().all(u8::is_ascii_hexdigit) => rest = &rest[at + 3..],
            _ => return Err("has a percent sign that two hexadecimal digits do not follow"),
        }
    }
    match percent_encoding::percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err("must be UTF-8"),
    }
}

/// The ids in the path of a route, in its order. Each is one percent-encoded segment.
pub(crate) struct PathIds<const N: usize>(pub(crate) [String; N]);

impl<S: Send + Sync, const N: usize> FromRequestParts<S> for PathIds<N> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let template = parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let mut ids = Vec::with_capacity(N);
        for (name, segment) in template.split('/').zip(parts.uri.path().split('/')) {
            let Some(name) = name.strip_prefix('{').and_then(|name| name.strip_suffix('}')) else { continue };
            let id = decode_percent(segment).map_err(|detail| Problem::invalid(format!("/{name}"), detail))?;
            if let Some(detail) = id_problem(&id) {
                return Err(Problem::invalid(format!("/{name}"), detail));
            }
            ids.push(id);
        }
        ids.try_into().map(Self).map_err(|_| Problem::new(Code::Internal))
    }
}

/// The path of streams.
pub(crate) const STREAM_PATH: &str = "/v1/updates";

/// Says where an interrupted stream resumes. Clients of Server-Sent Events send it on their own.
pub const LAST_EVENT_ID_HEADER: HeaderName = HeaderName::from_static("last-event-id");

/// Returns the id or position from which a stream resumes, and the pointer to it. The header wins,
/// because a client sends it after it has received events from its URL.
pub(crate) fn resume_id<'r>(
    headers: &'r HeaderMap,
    parameters: &'r Parameters,
) -> Result<Option<(&'static str, &'r str)>, Problem> {
    let header = headers.get(&LAST_EVENT_ID_HEADER).map(|id| id.to_str().unwrap_or("\u{fffd}"));
    match header.filter(|id| !id.is_empty()) {
        Some(id) => Ok(Some(("/Last-Event-ID", id))),
        None => Ok(parameters.one("since")?.map(|id| ("/since", id))),
    }
}

/// The query parameters of a request. Unknown ones are ignored.
pub(crate) struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads the query of a URI.
    pub(crate) fn of(uri: &Uri) -> Result<Self, Problem> {
        let mut pairs = Vec::new();
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| decode_percent(&text.replace('+', " "));
            let name = decode(name).map_err(|detail| Problem::invalid("", detail))?;
            let value = decode(value).map_err(|detail| Problem::invalid(format!("/{name}"), detail))?;
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// Returns the value of a parameter that may appear once.
    pub(crate) fn one(&self, name: &str) -> Result<Option<&str>, Problem> {
        let mut values = self.0.iter().filter(|(other, _)| other == name);
        match (values.next(), values.next()) {
            (Some(_), Some(_)) => Err(Problem::invalid(format!("/{name}"), "must not appear more than once")),
            (value, _) => Ok(value.map(|(_, value)| value.as_str())),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.uri)
    }
}

/// The format of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// One JSON text.
    Json,
    /// One JSON text per line.
    Lines,
}

/// Returns the format that the content type names: `application/json`, any `+json`, or
/// `application/x-ndjson`. A body without a content type is refused: a foreign web page can
/// make a browser send one.
pub(crate) fn format(headers: &HeaderMap) -> Result<Format, Problem> {
    let unsupported = |pointer, detail| Problem::new(Code::UnsupportedMediaType).item(pointer, detail);
    if headers
        .get_all(header::CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        return Err(unsupported("/Content-Encoding", "must be absent or identity: encoded bodies are not supported"));
    }
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => {
            return Err(unsupported(
                "/Content-Type",
                "is missing; it must be application/json, or application/x-ndjson to post events",
            ));
        }
        (Some(value), None) => value,
        (Some(_), Some(_)) => return Err(unsupported("/Content-Type", "must not appear more than once")),
    };
    let essence = value.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.as_str() {
        "application/json" => Ok(Format::Json),
        "application/x-ndjson" => Ok(Format::Lines),
        other if other.contains('/') && other.ends_with("+json") => Ok(Format::Json),
        _ => Err(unsupported("/Content-Type", "must be application/json, or application/x-ndjson to post events")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn percent_encoding_is_decoded_once_and_strictly() {
        assert_eq!(decode_percent("a%2Fb%20c%25%C3%A9").as_deref(), Ok("a/b c%é"));
        assert_eq!(decode_percent("%2525").as_deref(), Ok("%25"));
        for bad in ["%", "a%2", "%zz", "%+1", "%ff"] {
            assert!(decode_percent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ids_have_1_to_128_bytes() {
        assert!(id_problem("").is_some());
        assert!(id_problem(&"é".repeat(64)).is_none());
        assert!(id_problem(&"é".repeat(65)).is_some());
    }

    #[test]
    fn content_type_selects_json_or_lines_and_nothing_else() {
        let of = |text: &'static str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(text))]);
            format(&headers).map_err(|problem| problem.code())
        };
        assert_eq!(of("application/json; charset=utf-8"), Ok(Format::Json));
        assert_eq!(of("Application/Cloudevents+JSON"), Ok(Format::Json));
        assert_eq!(of("application/x-ndjson"), Ok(Format::Lines));
        for bad in ["text/plain", "application/x-www-form-urlencoded", "+json", ""] {
            assert_eq!(of(bad), Err(Code::UnsupportedMediaType), "{bad}");
        }
        assert_eq!(format(&HeaderMap::new()).map_err(|problem| problem.code()), Err(Code::UnsupportedMediaType));
        let json = || (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let coded =
            |coding| HeaderMap::from_iter([json(), (header::CONTENT_ENCODING, HeaderValue::from_static(coding))]);
        assert!(matches!(format(&coded("identity")), Ok(Format::Json)));
        let mut twice = HeaderMap::from_iter([json()]);
        twice.append(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"));
        for headers in [twice, coded("gzip")] {
            assert_eq!(format(&headers).map_err(|problem| problem.code()), Err(Code::UnsupportedMediaType));
        }
    }
}
