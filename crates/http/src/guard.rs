//! Limits that protect the service from its callers: how many requests at once, and how often one caller.
//!
//! Must not stand before health checks: a service that is busy is alive.

use crate::caller::Caller;
use crate::problem::{Code, Problem};
use crate::request::WAIT_DEFAULT_MS;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// After how many requests the rate limiter looks for callers to forget.
const REQUESTS_BETWEEN_SWEEPS: u64 = 10_000;

/// What requests may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// How large a body may be, bytes.
    pub body_bytes_max: usize,
    /// How long a body may take to arrive, and the state to answer beyond the wait that a caller asks for.
    pub request_timeout: Duration,
    /// How long a read waits for its position where the request does not say.
    pub wait_default: Duration,
    /// How many requests are worked on at once; those beyond are refused at once.
    pub concurrent_requests_max: usize,
    /// How often one caller may ask; `None` for as often as it likes.
    pub rate: Option<Rate>,
}

/// How often one caller, a user or all services of a tenant together, may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests a second in the long run.
    pub per_second: NonZeroU32,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
}

/// 1 MiB and a wait of 1 second (the contract's numbers), 30 seconds, 1,024 requests at once, no rate limit.
impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1 << 20,
            request_timeout: Duration::from_secs(30),
            wait_default: Duration::from_millis(WAIT_DEFAULT_MS),
            concurrent_requests_max: 1_024,
            rate: None,
        }
    }
}

/// Lets so many requests in at once.
pub(crate) async fn shed(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    match places.try_acquire() {
        Ok(_place) => next.run(request).await,
        Err(_) => Problem::new(Code::Overloaded).into_response(),
    }
}

/// Counts each caller's requests.
pub(crate) struct RateLimit {
    limiter: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
    requests: AtomicU64,
}

impl RateLimit {
    pub(crate) fn new(rate: Rate) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self {
            limiter: DefaultKeyedRateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            requests: AtomicU64::new(1),
        }
    }

    /// Whether a caller may ask now; if not, after how many seconds, rounded up.
    fn check(&self, caller: &Caller) -> Result<(), u64> {
        if self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(REQUESTS_BETWEEN_SWEEPS) {
            self.limiter.retain_recent();
        }
        let key = format!("{}/{}", caller.tenant, caller.user.as_deref().unwrap_or_default());
        self.limiter.check_key(&key).map_err(|early| {
            let wait = early.wait_time_from(self.clock.now());
            wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
        })
    }
}

/// The middleware that answers those who ask too often; stands behind the one that resolves the caller.
pub(crate) async fn limit_rate(State(limit): State<Arc<RateLimit>>, request: Request, next: Next) -> Response {
    let checked = request.extensions().get::<Caller>().map_or(Ok(()), |caller| limit.check(caller));
    match checked {
        Ok(()) => next.run(request).await,
        Err(seconds) => Problem::new(Code::RateLimited).retry_after_s(seconds.max(1)).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::Scopes;

    #[test]
    fn one_callers_haste_is_not_anothers() {
        let limit = RateLimit::new(Rate { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN });
        let caller = |tenant: &str, user: Option<&str>| Caller {
            tenant: tenant.to_owned(),
            user: user.map(str::to_owned),
            scopes: Scopes::NONE,
            expires: None,
        };
        for other in [caller("a", None), caller("a", Some("u")), caller("b", Some("u"))] {
            assert_eq!(limit.check(&other), Ok(()));
            assert_eq!(limit.check(&other), Err(1));
        }
    }
}
