//! Limits that protect the service from its callers: how many requests at once, and how often one caller.
//!
//! Must not stand before health checks: a service that is busy is alive.

use crate::edge::caller::Caller;
use crate::problem::{Code, Problem};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

/// After how many requests a meter looks for callers to forget: so many more than matter it may hold.
const REQUESTS_BETWEEN_SWEEPS: u64 = 10_000;

/// How long a read waits for its position where neither the request nor [`Limits`] says, milliseconds; the contract's number.
pub const WAIT_DEFAULT_MS: u64 = 1_000;

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
    /// How often one caller may ask, a user or a service; `None` for as often as it likes.
    pub rate: Option<Rate>,
    /// How often all callers of a tenant may ask together; `None` for as often as they like.
    pub tenant_rate: Option<Rate>,
}

/// How often somebody may ask. Services that their credentials do not tell apart count as one.
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
            tenant_rate: None,
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

/// Counts requests by whoever makes them. Names are kept as hashes, so a long one takes no more memory than a short one,
/// and only while they matter: those who have their whole burst back are forgotten.
struct Meter {
    limiter: DefaultKeyedRateLimiter<[u64; 2]>,
    /// Drawn once a process, so that nobody can find two names that share a hash.
    hashers: [RandomState; 2],
    requests: AtomicU64,
}

impl Meter {
    fn new(rate: Rate) -> Self {
        let quota = Quota::per_second(rate.per_second).allow_burst(rate.burst);
        Self {
            limiter: DefaultKeyedRateLimiter::keyed(quota),
            hashers: [RandomState::new(), RandomState::new()],
            requests: AtomicU64::new(1),
        }
    }

    /// Takes note of a request; how long to wait where it is one too many.
    fn check(&self, name: impl Hash) -> Result<(), Duration> {
        if self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(REQUESTS_BETWEEN_SWEEPS) {
            self.limiter.retain_recent();
            self.limiter.shrink_to_fit();
        }
        let key = self.hashers.each_ref().map(|hasher| hasher.hash_one(&name));
        self.limiter.check_key(&key).map_err(|early| early.wait_time_from(DefaultClock::default().now()))
    }
}

/// Counts the requests of callers, and of tenants.
pub(crate) struct RateLimit {
    callers: Option<Meter>,
    tenants: Option<Meter>,
}

impl RateLimit {
    /// `None` where nothing is limited.
    pub(crate) fn new(limits: &Limits) -> Option<Self> {
        let limit = Self { callers: limits.rate.map(Meter::new), tenants: limits.tenant_rate.map(Meter::new) };
        (limit.callers.is_some() || limit.tenants.is_some()).then_some(limit)
    }

    /// Whether a caller may ask now; if not, after how many seconds, rounded up, and who asks too often.
    fn check(&self, caller: &Caller) -> Result<(), (u64, &'static str)> {
        let Caller { tenant, user, service, .. } = caller;
        let seconds = |wait: Duration| (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
        if let Some(callers) = &self.callers {
            callers.check((tenant, user, service)).map_err(|wait| (seconds(wait), "this caller asks too often"))?;
        }
        // What the tenant is refused was counted for the caller: who goes on regardless is not to wait the less for it.
        match &self.tenants {
            Some(tenants) => {
                tenants.check(tenant).map_err(|wait| (seconds(wait), "the callers of this tenant ask too often"))
            }
            None => Ok(()),
        }
    }
}

/// The middleware that answers those who ask too often; stands behind the one that resolves the caller.
pub(crate) async fn limit_rate(State(limit): State<Arc<RateLimit>>, request: Request, next: Next) -> Response {
    let checked = request.extensions().get::<Caller>().map_or(Ok(()), |caller| limit.check(caller));
    match checked {
        Ok(()) => next.run(request).await,
        Err((seconds, detail)) => Problem::new(Code::RateLimited).detail(detail).retry_after_s(seconds).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::caller::Scopes;

    const ONE: Rate = Rate { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN };

    fn caller(tenant: &str, user: Option<&str>, service: Option<&str>) -> Caller {
        let (user, service) = (user.map(str::to_owned), service.map(str::to_owned));
        Caller { tenant: tenant.to_owned(), user, service, scopes: Scopes::NONE, expires: None }
    }

    #[test]
    fn one_callers_haste_is_not_anothers() {
        let limit = RateLimit::new(&Limits { rate: Some(ONE), ..Limits::default() }).expect("limited");
        for other in [
            caller("a", None, None),
            caller("a", Some("u"), None),
            caller("b", Some("u"), None),
            caller("a", None, Some("u")),
            caller("a", None, Some("crm")),
        ] {
            assert_eq!(limit.check(&other), Ok(()));
            assert_eq!(limit.check(&other), Err((1, "this caller asks too often")));
        }
    }

    #[test]
    fn the_callers_of_a_tenant_are_limited_together_where_that_is_set() {
        let two = Rate { burst: NonZeroU32::new(2).expect("two"), ..ONE };
        let limit = RateLimit::new(&Limits { tenant_rate: Some(two), ..Limits::default() }).expect("limited");
        let ask = |tenant: &str, user: &str| limit.check(&caller(tenant, Some(user), None));
        assert_eq!((ask("a", "u"), ask("a", "v")), (Ok(()), Ok(())));
        assert_eq!(ask("a", "w"), Err((1, "the callers of this tenant ask too often")));
        assert_eq!(ask("b", "w"), Ok(()));
        assert!(RateLimit::new(&Limits::default()).is_none());
    }

    #[test]
    fn callers_are_forgotten_once_they_have_their_whole_burst_back() {
        let fast = Rate { per_second: NonZeroU32::new(1_000_000).expect("many"), burst: NonZeroU32::MIN };
        let meter = Meter::new(fast);
        for name in 0..10 * REQUESTS_BETWEEN_SWEEPS {
            assert_eq!(meter.check(name), Ok(()));
        }
        // A microsecond later each has its burst back, so no sweep leaves more than a few behind.
        assert!(meter.limiter.len() as u64 <= 2 * REQUESTS_BETWEEN_SWEEPS, "{}", meter.limiter.len());
    }
}
