//! The inspector: the web page that `receipts serve` and `receipts-query` show at `/` (ADR 0042).
//!
//! It must not have data of its own: the page asks the public API, with the caller's credential.

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::IntoResponse;
use axum::routing::get;

/// What the page may load and ask: files and routes of this service, and nothing else. No other
/// page may frame it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; base-uri 'none'; \
     form-action 'none'; frame-ancestors 'none'",
);
const REFERRER_POLICY: (HeaderName, HeaderValue) = (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));

/// A file of the page.
struct File {
    path: &'static str,
    media_type: &'static str,
    content: &'static str,
}

macro_rules! file {
    ($path:literal, $name:literal, $media_type:literal) => {
        File { path: $path, media_type: $media_type, content: include_str!(concat!("inspector/", $name)) }
    };
}

static FILES: [File; 10] = [
    file!("/", "index.html", "text/html; charset=utf-8"),
    file!("/inspector/style.css", "style.css", "text/css; charset=utf-8"),
    file!("/inspector/app.js", "app.js", "text/javascript; charset=utf-8"),
    file!("/inspector/api.js", "api.js", "text/javascript; charset=utf-8"),
    file!("/inspector/dom.js", "dom.js", "text/javascript; charset=utf-8"),
    file!("/inspector/dots.js", "dots.js", "text/javascript; charset=utf-8"),
    file!("/inspector/lists.js", "lists.js", "text/javascript; charset=utf-8"),
    file!("/inspector/message.js", "message.js", "text/javascript; charset=utf-8"),
    file!("/inspector/operations.js", "operations.js", "text/javascript; charset=utf-8"),
    file!("/inspector/playground.js", "playground.js", "text/javascript; charset=utf-8"),
];

/// Returns the routes of the page, without the middleware of [`crate::edge`](crate::edge()).
pub(crate) fn router() -> Router {
    FILES.iter().fold(Router::new(), |router, file| router.route(file.path, get(move || async { file.response() })))
}

impl File {
    fn response(&'static self) -> impl IntoResponse {
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static(self.media_type)),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            REFERRER_POLICY,
        ];
        (headers, self.content)
    }
}
