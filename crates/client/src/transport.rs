//! One HTTP request and its answer: credentials, positions and retries. It knows no call's data
//! types.
//!
//! Keeps INV-CLIENT.

use crate::error::{BoxError, Error, Problem};
use crate::positions::Positions;
use futures_util::future::BoxFuture;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const POSITION: HeaderName = HeaderName::from_static("receipts-position");
const STALE: HeaderName = HeaderName::from_static("receipts-stale");
const MIN_POSITION: HeaderName = HeaderName::from_static("receipts-min-position");
const WAIT: HeaderName = HeaderName::from_static("receipts-wait-ms");
const TENANT: HeaderName = HeaderName::from_static("receipts-tenant");
const CALLER: HeaderName = HeaderName::from_static("receipts-caller");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

const BACKOFF: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Problem codes which say that nothing was written.
const NOTHING_WRITTEN: [&str; 3] = ["not-written", "overloaded", "rate-limited"];
/// The characters that stay unencoded in a path, a query or `Receipts-Caller`: RFC 3986's
/// unreserved ones.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A function that returns a token; called before every request.
pub(crate) type TokenSource = Box<dyn Fn() -> BoxFuture<'static, Result<String, BoxError>> + Send + Sync>;

/// The caller's credentials.
pub(crate) enum Credential {
    Token(String),
    Source(TokenSource),
    /// Headers, for a service that trusts its network.
    Headers {
        tenant: Option<String>,
        caller: Option<String>,
    },
}

/// A request.
pub(crate) struct Request {
    /// The request in words, for errors.
    pub(crate) what: &'static str,
    pub(crate) method: Method,
    /// The encoded path and query after the base URL.
    pub(crate) path: String,
    /// JSON.
    pub(crate) body: Option<Vec<u8>>,
    /// True if a repetition changes nothing.
    pub(crate) is_repeatable: bool,
    /// True for a read, which waits for the client's positions.
    pub(crate) is_read: bool,
}

/// Sends requests to the service and keeps the positions of its answers.
pub(crate) struct Transport {
    pub(crate) base: String,
    pub(crate) http: reqwest::Client,
    /// The same client with timeouts for endless answers.
    pub(crate) streams: reqwest::Client,
    pub(crate) credential: Credential,
    pub(crate) wait: Option<Duration>,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) positions: Mutex<Positions>,
    /// For how many seconds the service had not heard from its log at the last answered read.
    pub(crate) stale_s: Mutex<Option<u64>>,
}

/// Encodes an id or a token as part of a URL.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// Whether some proxies or clients change a path with this id, encoded or not: they decode slashes,
/// resolve dots, decode twice, or refuse control characters.
pub(crate) fn is_mangled_in_paths(id: &str) -> bool {
    matches!(id, "." | "..") || id.chars().any(|char| matches!(char, '/' | '\\' | '%') || char.is_control())
}

/// Returns a doubling wait with a random half, so that clients of one service do not return
/// together.
pub(crate) fn backoff(attempt: u32, first: Duration, max: Duration) -> Duration {
    let whole = first.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(max);
    let chance = f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX);
    whole.mul_f64(0.5 + chance / 2.0)
}

impl Transport {
    /// Ignores poisoning: a panic with the lock held leaves complete positions.
    fn positions(&self) -> MutexGuard<'_, Positions> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns all positions as one value for `Receipts-Min-Position`; empty at first.
    pub(crate) fn position(&self) -> String {
        self.positions().token()
    }

    /// Returns for how many seconds the service had not heard from its log at the last answered
    /// read.
    pub(crate) fn stale_seconds(&self) -> Option<u64> {
        *self.stale_s.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes later reads wait at least for this position.
    pub(crate) fn observe(&self, position: &str) {
        self.positions().add(position);
    }

    /// Sends a request, and retries it if that is harmless and the service asks for it or does not
    /// answer.
    pub(crate) async fn call<Answer: DeserializeOwned>(&self, request: &Request) -> Result<Answer, Error> {
        self.persist(request.is_repeatable, || self.once(request)).await
    }

    /// Tries until success or until a retry is not allowed.
    pub(crate) async fn persist<T, F: Future<Output = Result<T, Error>>>(
        &self,
        is_repeatable: bool,
        attempt: impl Fn() -> F,
    ) -> Result<T, Error> {
        for tries in 0.. {
            match attempt().await {
                Err(error) if tries < self.retries && may_repeat(is_repeatable, &error) => {
                    let asked = error.problem().and_then(|problem| problem.retry_after).unwrap_or_default();
                    tokio::time::sleep(asked.max(backoff(tries, BACKOFF, BACKOFF_MAX))).await;
                }
                done => return done,
            }
        }
        unreachable!("the loop ends with the last attempt")
    }

    /// Sends a request once, or a second time without positions if they are too long for a proxy.
    async fn once<Answer: DeserializeOwned>(&self, call: &Request) -> Result<Answer, Error> {
        let (waited_for, mark) = {
            let positions = self.positions();
            (if call.is_read { positions.token() } else { String::new() }, positions.mark())
        };
        match self.attempt(call, &waited_for, mark).await {
            Err(Error::Problem(problem)) if is_too_long(&problem) && !waited_for.is_empty() => {
                self.attempt(call, "", mark).await
            }
            done => done,
        }
    }

    /// Sends a request that waits for `waited_for`, which holds what was added up to `mark`.
    async fn attempt<Answer: DeserializeOwned>(
        &self,
        call: &Request,
        waited_for: &str,
        mark: u64,
    ) -> Result<Answer, Error> {
        let mut headers = self.credentials().await?;
        if call.is_read {
            if !waited_for.is_empty() {
                headers.insert(MIN_POSITION, value("a position", waited_for)?);
            }
            headers.extend(self.wait.map(|wait| (WAIT, HeaderValue::from(wait.as_millis() as u64))));
        }
        let mut request = self.http.request(call.method.clone(), format!("{}{}", self.base, call.path));
        if let Some(body) = &call.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request = request.body(body.clone());
        }
        // The requested wait comes on top of the time limit.
        let timeout = self.timeout + if call.is_read { self.wait.unwrap_or_default() } else { Duration::ZERO };
        let response = request.headers(headers).timeout(timeout).send().await.map_err(unanswered)?;
        if !response.status().is_success() {
            let problem = Problem::of(response).await;
            if !waited_for.is_empty() && (problem.is("bad-position") || is_too_long(&problem)) {
                // Tokens of another log, for instance after a new setup, would break every later
                // read. So would a token that is too long for a proxy, which answers with a page of
                // its own.
                self.positions().remove(mark);
            }
            return Err(Error::Problem(problem));
        }
        let position = response.headers().get(POSITION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let stale_s = response.headers().get(STALE).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response.bytes().await.map_err(unanswered)?;
        let answer = serde_json::from_slice(&body).map_err(|source| Error::Malformed { what: call.what, source })?;
        if call.is_read {
            *self.stale_s.lock().unwrap_or_else(PoisonError::into_inner) = stale_s;
        }
        if let Some(position) = position {
            // The answer's position includes everything that the read waited for.
            let mut positions = self.positions();
            if !waited_for.is_empty() {
                positions.remove(mark);
            }
            positions.add(&position);
        }
        Ok(answer)
    }

    /// Connects to the stream of updates, in one attempt. The answer does not end.
    pub(crate) async fn stream(&self, path: &str, last_event_id: &str) -> Result<reqwest::Response, Error> {
        let mut headers = self.credentials().await?;
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        if !last_event_id.is_empty() {
            headers.insert(LAST_EVENT_ID, value("since", last_event_id)?);
        }
        let request = self.streams.get(format!("{}{path}", self.base)).headers(headers);
        let response = request.send().await.map_err(unanswered)?;
        match response.status() {
            StatusCode::OK => Ok(response),
            _ => {
                let problem = Problem::of(response).await;
                Err(if problem.is("updates-gone") { Error::UpdatesGone(problem) } else { Error::Problem(problem) })
            }
        }
    }

    /// Returns the headers with the credentials.
    async fn credentials(&self) -> Result<HeaderMap, Error> {
        let mut headers = HeaderMap::new();
        let token = match &self.credential {
            Credential::Token(token) => token,
            Credential::Source(source) => &source().await.map_err(Error::Token)?,
            Credential::Headers { tenant, caller } => {
                if let Some(tenant) = tenant {
                    headers.insert(TENANT, value("the tenant", tenant)?);
                }
                if let Some(caller) = caller {
                    headers.insert(CALLER, value("the caller", &encode(caller))?);
                }
                return Ok(headers);
            }
        };
        let mut bearer = value("the token", &format!("Bearer {token}"))?;
        bearer.set_sensitive(true);
        headers.insert(reqwest::header::AUTHORIZATION, bearer);
        Ok(headers)
    }
}

fn value(what: &str, text: &str) -> Result<HeaderValue, Error> {
    let unfit = |_| Error::Usage(format!("{what} contains a line break or another control character: remove it"));
    HeaderValue::from_bytes(text.as_bytes()).map_err(unfit)
}

fn unanswered(error: reqwest::Error) -> Error {
    if error.is_builder() {
        // Everything but the URL was checked before.
        return Error::Usage(format!("the base URL cannot be used: {}", chain(&error)));
    }
    // URLs contain ids of conversations and people, which must not appear in logs.
    Error::Unanswered(Box::new(error.without_url()))
}

/// Formats an error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Whether a head was refused by a server that does not explain itself.
fn is_too_long(problem: &Problem) -> bool {
    matches!(problem.status, 400 | 431) && problem.type_uri == "about:blank"
}

fn may_repeat(is_repeatable: bool, error: &Error) -> bool {
    match error {
        // Without an answer the outcome is unknown.
        Error::Unanswered(_) => is_repeatable,
        Error::Problem(problem) => {
            matches!(problem.status, 429 | 503)
                && (is_repeatable || NOTHING_WRITTEN.iter().any(|code| problem.is(code)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_encoded_for_urls() {
        assert_eq!(encode("a/b?c#d %é~-_."), "a%2Fb%3Fc%23d%20%25%C3%A9~-_.");
    }

    #[test]
    fn ids_for_bodies_are_those_that_paths_mangle() {
        assert!([".", "..", "a/b", "a%b", "a\\b", "a\0", "\u{7f}"].into_iter().all(is_mangled_in_paths));
        assert!(!["a.b", "...", "19:ab@thread.v2", "!r:example.org", "é ?#;"].into_iter().any(is_mangled_in_paths));
    }

    #[test]
    fn waits_grow_to_a_maximum_and_are_random() {
        let (first, max) = (Duration::from_millis(200), Duration::from_secs(10));
        for attempt in 0..80 {
            let whole = Duration::from_millis(200).saturating_mul(1 << attempt.min(20)).min(max);
            let wait = backoff(attempt, first, max);
            assert!(wait >= whole / 2 && wait <= whole, "{attempt}: {wait:?}");
        }
        let waits: std::collections::HashSet<_> = (0..20).map(|_| backoff(3, first, max)).collect();
        assert!(waits.len() > 1);
    }

    #[test]
    fn roster_changes_are_not_sent_again() {
        let problem = |status, code: &str| {
            Error::Problem(Box::new(Problem {
                type_uri: format!("urn:receipts:problem:{code}"),
                title: String::new(),
                status,
                detail: None,
                errors: Vec::new(),
                receipt: None,
                retry_after: None,
            }))
        };
        let unanswered = || Error::Unanswered("reset".into());
        assert!(may_repeat(true, &unanswered()) && !may_repeat(false, &unanswered()));
        assert!(may_repeat(true, &problem(503, "outcome-open")) && !may_repeat(false, &problem(503, "outcome-open")));
        for (status, code) in [(503, "not-written"), (503, "overloaded"), (429, "rate-limited")] {
            assert!(may_repeat(false, &problem(status, code)), "{code}");
        }
        assert!(!may_repeat(true, &problem(400, "invalid")) && !may_repeat(true, &problem(500, "internal")));
    }
}
