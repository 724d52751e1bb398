//! One request and its answer: who asks, from which position, how often it is tried. Knows no call's own shapes.

use crate::error::{BoxError, Error, Problem};
use futures_util::future::BoxFuture;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const POSITION: HeaderName = HeaderName::from_static("receipts-position");
const MIN_POSITION: HeaderName = HeaderName::from_static("receipts-min-position");
const WAIT: HeaderName = HeaderName::from_static("receipts-wait-ms");
const TENANT: HeaderName = HeaderName::from_static("receipts-tenant");
const CALLER: HeaderName = HeaderName::from_static("receipts-caller");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Tokens kept at most: a client that only writes never learns that its writes are folded.
const POSITIONS_MAX: usize = 32;
const BACKOFF: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// Problems of writes that say that nothing was written, whatever it was.
const NOTHING_WRITTEN: [&str; 3] = ["not-written", "overloaded", "rate-limited"];
/// What stays as it is in a path, a query or `Receipts-Caller`: what RFC 3986 calls unreserved.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What gets a token: called before every request.
pub(crate) type TokenSource = Box<dyn Fn() -> BoxFuture<'static, Result<String, BoxError>> + Send + Sync>;

/// Who asks.
pub(crate) enum Credential {
    Token(String),
    Source(TokenSource),
    /// Where the service trusts its network.
    Headers {
        tenant: Option<String>,
        caller: Option<String>,
    },
}

/// What is asked.
pub(crate) struct Ask {
    pub(crate) what: &'static str,
    pub(crate) method: Method,
    /// Behind the base URL, encoded.
    pub(crate) path: String,
    /// JSON.
    pub(crate) body: Option<Vec<u8>>,
    /// Whether it changes nothing more where it is done twice.
    pub(crate) is_repeatable: bool,
    /// A read, which waits for what this client has seen.
    pub(crate) is_read: bool,
}

/// Speaks HTTP with the service, and remembers the positions it was given.
pub(crate) struct Transport {
    pub(crate) base: String,
    pub(crate) http: reqwest::Client,
    /// The same, but for answers without end.
    pub(crate) streams: reqwest::Client,
    pub(crate) credential: Credential,
    pub(crate) wait: Option<Duration>,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
    /// Oldest first.
    pub(crate) positions: Mutex<Vec<String>>,
}

/// An id, or a token, as a part of a URL.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// An id as a segment of a path.
pub(crate) fn segment(id: &str) -> Result<String, Error> {
    if matches!(id, "." | "..") {
        // Written in whatever way, URLs take them for steps between folders.
        return Err(Error::Usage(format!("an id that is {id:?} cannot be asked for by path")));
    }
    Ok(encode(id))
}

/// Half fixed, half chance, doubling: clients that lost the same service do not come back at the same time.
pub(crate) fn backoff(attempt: u32, first: Duration, max: Duration) -> Duration {
    let whole = first.saturating_mul(1_u32.checked_shl(attempt).unwrap_or(u32::MAX)).min(max);
    let chance = f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX);
    whole.mul_f64(0.5 + chance / 2.0)
}

impl Transport {
    /// Whoever panicked with the lock held has left whole tokens.
    fn positions(&self) -> MutexGuard<'_, Vec<String>> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Everything that this client has seen or written, as one value for `Receipts-Min-Position`; empty at first.
    pub(crate) fn position(&self) -> String {
        self.positions().join(",")
    }

    /// Later reads stand at least at this position.
    pub(crate) fn observe(&self, position: &str) {
        let mut positions = self.positions();
        for token in position.split(',').map(str::trim).filter(|token| !token.is_empty()) {
            positions.retain(|other| other != token);
            positions.push(token.to_owned());
        }
        let beyond = positions.len().saturating_sub(POSITIONS_MAX);
        positions.drain(..beyond);
    }

    fn forget(&self, tokens: &[String]) {
        self.positions().retain(|token| !tokens.contains(token));
    }

    /// Asks, and asks again where the service says so, or did not answer, and it does no harm.
    pub(crate) async fn ask<Answer: DeserializeOwned>(&self, ask: &Ask) -> Result<Answer, Error> {
        self.persist(ask.is_repeatable, || self.once(ask)).await
    }

    /// Tries until it succeeds, or may not be tried again.
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
        unreachable!("the loop ends with its last try")
    }

    async fn once<Answer: DeserializeOwned>(&self, ask: &Ask) -> Result<Answer, Error> {
        let mut headers = self.credentials().await?;
        let mut waited_for = Vec::new();
        if ask.is_read {
            waited_for.clone_from(&self.positions());
            if !waited_for.is_empty() {
                headers.insert(MIN_POSITION, value("a position", &waited_for.join(","))?);
            }
            headers.extend(self.wait.map(|wait| (WAIT, HeaderValue::from(wait.as_millis() as u64))));
        }
        let mut request = self.http.request(ask.method.clone(), format!("{}{}", self.base, ask.path));
        if let Some(body) = &ask.body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            request = request.body(body.clone());
        }
        // What the service is asked to wait comes on top of what it may take.
        let timeout = self.timeout + if ask.is_read { self.wait.unwrap_or_default() } else { Duration::ZERO };
        let response = request.headers(headers).timeout(timeout).send().await.map_err(unanswered)?;
        if !response.status().is_success() {
            let problem = Problem::of(response).await;
            if problem.is("bad-position") {
                // Tokens of another log, such as one that was set up anew, would spoil every read from here on.
                self.forget(&waited_for);
            }
            return Err(Error::Problem(problem));
        }
        let position = response.headers().get(POSITION).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = response.bytes().await.map_err(unanswered)?;
        let answer = serde_json::from_slice(&body).map_err(|source| Error::Malformed { what: ask.what, source })?;
        if let Some(position) = position {
            // The answer's position stands for everything that it waited for.
            self.forget(&waited_for);
            self.observe(&position);
        }
        Ok(answer)
    }

    /// Connects to the stream of updates. One try; the answer has no end.
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

    /// The headers that say who asks.
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
    let unfit =
        |_| Error::Usage(format!("{what} holds a line break or another control character, which no header can"));
    HeaderValue::from_bytes(text.as_bytes()).map_err(unfit)
}

fn unanswered(error: reqwest::Error) -> Error {
    if error.is_builder() {
        // Only the URL is left to be wrong: everything else was checked before.
        return Error::Usage(format!("the base URL cannot be asked: {}", chain(&error)));
    }
    // Addresses hold ids of conversations and people, which are nobody's business in a log.
    Error::Unanswered(Box::new(error.without_url()))
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn may_repeat(is_repeatable: bool, error: &Error) -> bool {
    match error {
        // Where no answer came, nobody knows what was done.
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
    fn ids_are_encoded_so_that_nothing_of_them_is_read_as_a_url() {
        assert_eq!(segment("a/b?c#d %é~-_.").ok().as_deref(), Some("a%2Fb%3Fc%23d%20%25%C3%A9~-_."));
        assert!(segment(".").is_err() && segment("..").is_err() && segment("...").is_ok());
    }

    #[test]
    fn each_wait_is_longer_up_to_the_longest_and_never_the_same_for_all() {
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
    fn what_may_have_changed_a_roster_is_not_sent_again() {
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
