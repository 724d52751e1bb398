//! Tests what pages of listed origins may send and read, with tokens and without.

use crate::common::table::Mood;
use crate::common::{Answer, App, Setup};
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use receipts_http::{Amounts, Authenticate, BudgetAmounts, Budgets, Caller, Code, Cors, Guard, Limits, Problem, Rate};
use std::num::NonZeroU32;
use std::sync::Arc;

const ONE: &str = "/v1/conversations/g1/messages/m1/receipt";
const PAGE: &str = "https://app.example";

/// Refuses every caller, as tokens do without one.
struct Nobody;

#[async_trait::async_trait]
impl Authenticate for Nobody {
    async fn authenticate(&self, _: &HeaderMap) -> Result<Caller, Problem> {
        Err(Problem::new(Code::Unauthenticated))
    }
}

fn cors() -> Cors {
    Cors { origins: vec![PAGE.to_owned()] }
}

fn with_tokens() -> Setup {
    Setup { cors: cors(), guard: Guard::Credentials, ..Setup::default() }
}

async fn preflight(app: &App, path: &str, origin: &str) -> Answer {
    let request = Request::options(path).header("origin", origin);
    let request = request
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type");
    app.send(request.body(Body::empty()).unwrap()).await
}

/// Whether a page of this origin may read the answer.
fn is_readable(answer: &Answer, origin: &str) -> bool {
    assert_eq!(answer.header("vary"), "origin", "{answer:?}");
    assert!(!answer.headers.contains_key("access-control-allow-credentials"), "{answer:?}");
    answer.headers.get("access-control-allow-origin").is_some_and(|allowed| allowed == origin)
}

#[tokio::test]
async fn preflight_of_a_listed_origin_is_answered() {
    let without_tokens = Guard::Loopback { hosts: Vec::new(), origins: cors().origins };
    let refused = Setup { authenticate: Arc::new(Nobody), ..with_tokens() };
    for setup in [with_tokens(), refused, Setup { guard: without_tokens, ..with_tokens() }] {
        let app = App::with(setup);
        for path in ["/v1/events", "/v1/receipts/query", "/v1/updates", ONE] {
            let answer = preflight(&app, path, PAGE).await;
            assert_eq!((answer.status.as_u16(), answer.text.as_str()), (204, ""), "{answer:?}");
            assert!(is_readable(&answer, PAGE), "{answer:?}");
            assert_eq!(answer.header("access-control-allow-methods"), "GET, HEAD, POST");
            let headers: Vec<_> = answer.header("access-control-allow-headers").split(", ").collect();
            let wanted = [
                "authorization",
                "content-type",
                "last-event-id",
                "receipts-caller",
                "receipts-min-position",
                "receipts-tenant",
                "receipts-wait-ms",
                "traceparent",
                "tracestate",
                "x-request-id",
            ];
            assert_eq!(headers, wanted);
        }
    }
}

#[tokio::test]
async fn other_origins_get_no_header() {
    let app = App::with(with_tokens());
    for origin in ["https://evil.example", "https://app.example:8443", "http://app.example", "null", ""] {
        let answer = preflight(&app, "/v1/events", origin).await;
        answer.is_problem(405, "method-not-allowed", &[]);
        assert!(!is_readable(&answer, origin), "{answer:?}");
        let answer = app.get("/livez", &[("origin", origin)]).await;
        assert!(answer.status == 200 && !answer.headers.contains_key("access-control-allow-origin"), "{answer:?}");
    }
    let twice = app.get("/livez", &[("origin", PAGE), ("origin", "https://evil.example")]).await;
    assert!(!is_readable(&twice, PAGE), "{twice:?}");
    let none = app.get("/livez", &[]).await;
    assert!(!is_readable(&none, PAGE), "{none:?}");
    let off = App::with(Setup { guard: Guard::Credentials, ..Setup::default() });
    let answer = off.get("/livez", &[("origin", PAGE)]).await;
    assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control") || name == "vary"));
}

#[tokio::test]
async fn star_lists_every_origin() {
    let app = App::with(Setup { cors: Cors { origins: vec!["*".to_owned()] }, ..with_tokens() });
    for origin in ["https://any.example", "null"] {
        assert!(is_readable(&preflight(&app, "/v1/events", origin).await, origin));
        assert!(is_readable(&app.get("/livez", &[("origin", origin)]).await, origin));
    }
}

/// A browser hides an answer without these headers, so a page could not tell a 401 from a dead
/// service.
#[tokio::test]
async fn pages_can_read_refusals_of_every_layer() {
    let origin = [("origin", PAGE)];
    let is_refusal = |answer: &Answer, status: u16| {
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(is_readable(answer, PAGE), "{answer:?}");
        assert_eq!(
            answer.header("access-control-expose-headers"),
            "location, receipts-position, receipts-stale, retry-after, x-request-id"
        );
    };
    let stranger = App::with(Setup { authenticate: Arc::new(Nobody), ..with_tokens() });
    is_refusal(&stranger.get(ONE, &origin).await, 401);
    let one = Rate { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN };
    let limits = Limits { rate: Some(one), body_bytes_max: 100, ..Limits::default() };
    let limited = App::with(Setup { limits, ..with_tokens() });
    is_refusal(&limited.post("/v1/events", &origin, "x".repeat(101)).await, 413);
    is_refusal(&limited.get(ONE, &origin).await, 429);
    let none = BudgetAmounts { requests: Amounts::new(0, None, None), ..BudgetAmounts::default() };
    let limits = Limits { budgets: Budgets::new(&none), ..Limits::default() };
    let full = App::with(Setup { limits, ..with_tokens() });
    is_refusal(&full.get(ONE, &origin).await, 503);
    let app = App::with(with_tokens());
    is_refusal(&app.get("/nowhere", &origin).await, 404);
    is_refusal(&app.get("/v1/events", &origin).await, 405);
    is_refusal(&app.get("/v1/updates", &origin).await, 400);
    *app.table.mood.lock().unwrap() = Mood::Panicking;
    is_refusal(&app.get(ONE, &origin).await, 500);
}

/// INV-LOCAL: sharing answers permits nothing to pages that are not listed.
#[tokio::test]
async fn guard_without_tokens_stays() {
    let guard = Guard::Loopback { hosts: Vec::new(), origins: cors().origins };
    let app = App::with(Setup { guard, cors: cors(), ..Setup::default() });
    let event = r#"{"type":"members.changed","conversation_id":"g1","joined":["bob"]}"#;
    let foreign = app.post("/v1/events", &[("origin", "https://evil.example")], event).await;
    foreign.is_problem(403, "forbidden", &["/Origin"]);
    assert!(!is_readable(&foreign, "https://evil.example"));
    preflight(&app, "/v1/events", "https://evil.example").await.is_problem(403, "forbidden", &["/Origin"]);
    let listed = app.post("/v1/events", &[("origin", PAGE)], event).await;
    assert!(listed.status == 202 && is_readable(&listed, PAGE), "{listed:?}");
}
