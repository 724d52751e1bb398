//! Limits that protect the service from its callers: requests in progress, and requests per second
//! of a caller and of a tenant.
//!
//! They must not apply to health checks, because a busy service is alive.

use crate::edge::budget::{Budget, BudgetAmounts, Budgets, Held};
use crate::edge::caller::Caller;
use crate::problem::{Code, Problem};
use axum::extract::{Request, State};
use axum::http::HeaderName;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};
use parking_lot::Mutex;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Requests between two sweeps of a meter. A sweep forgets idle callers; between sweeps the meter
/// may hold this many of them.
const REQUESTS_BETWEEN_SWEEPS: u64 = 10_000;

/// How long a body may be slower than its least speed.
pub const SLOW_BODY_AFTER: Duration = Duration::from_secs(5);

/// Names the positions that must be folded before a read is answered: a token, or several separated
/// by commas.
pub const MIN_POSITION_HEADER: HeaderName = HeaderName::from_static("receipts-min-position");

/// The default wait of a read for its position, milliseconds; the contract's number.
pub const WAIT_DEFAULT_MS: u64 = 1_000;

/// Bounds what requests may cost.
#[derive(Debug, Clone)]
pub struct Limits {
    /// The largest body, bytes.
    pub body_bytes_max: usize,
    /// The slowest body, bytes per second after [`SLOW_BODY_AFTER`]; 0 for any speed.
    pub body_bytes_per_s_min: u64,
    /// The most control events of one body: each is written into every partition.
    pub control_events_max: usize,
    /// How long a body may take to arrive, and how long the state may take to answer beyond the
    /// wait that a caller asks for.
    pub request_timeout: Duration,
    /// How long a read waits for its position if the request does not say.
    pub wait_default: Duration,
    /// What callers may hold at once. All parts of an edge share these budgets.
    pub budgets: Budgets,
    /// The rate of one caller, a user or a service; `None` for no limit.
    pub rate: Option<Rate>,
    /// The rate of all callers of a tenant together; `None` for no limit.
    pub tenant_rate: Option<Rate>,
}

/// A rate of requests. Services whose credentials do not tell them apart count as one caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Requests per second in the long run.
    pub per_second: NonZeroU32,
    /// Requests at once after a pause.
    pub burst: NonZeroU32,
}

/// 1 MiB and a wait of 1 second (the contract's numbers), 30 seconds, 1,024 bytes per second, 100
/// control events, new budgets of the default amounts, no rate limit.
impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes_max: 1 << 20,
            body_bytes_per_s_min: 1_024,
            control_events_max: 100,
            request_timeout: Duration::from_secs(30),
            wait_default: Duration::from_millis(WAIT_DEFAULT_MS),
            budgets: Budgets::new(&BudgetAmounts::default()),
            rate: None,
            tenant_rate: None,
        }
    }
}

/// The place of a request that may have to wait. It is in the extensions of the request, so that a
/// waiting read can give it back meanwhile.
#[derive(Clone)]
pub(crate) struct RequestHold(Arc<Mutex<Option<Held>>>);

impl RequestHold {
    /// Gives the place back.
    pub(crate) fn give_back(&self) {
        *self.0.lock() = None;
    }

    /// Keeps another place until the request is answered.
    pub(crate) fn keep(&self, held: Held) {
        *self.0.lock() = Some(held);
    }
}

/// Middleware that takes a place for a request while it is in progress, or refuses it. It runs
/// after the one that resolves the caller.
pub(crate) async fn take_place(State(requests): State<Budget>, mut request: Request, next: Next) -> Response {
    let Some(caller) = request.extensions().get::<Caller>() else { return next.run(request).await };
    let held = match requests.acquire(caller, 1) {
        Ok(held) => held,
        Err(used_up) => return Problem::from(used_up).into_response(),
    };
    // Only a read that names a position may have to wait, so others need no shared place.
    let (_held, _place) = if request.headers().contains_key(MIN_POSITION_HEADER) {
        let place = RequestHold(Arc::new(Mutex::new(Some(held))));
        request.extensions_mut().insert(place.clone());
        (None, Some(place))
    } else {
        (Some(held), None)
    };
    next.run(request).await
}

/// Counts requests by name. It keeps hashes, so a long name takes no more memory than a short one,
/// and it forgets a name once its whole burst is available again.
struct Meter {
    limiter: DefaultKeyedRateLimiter<[u64; 2]>,
    /// Random per process, so that a caller cannot construct two names that share a hash.
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

    /// Counts a request. If it is one too many, the error is how long to wait.
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
    /// Returns `None` if no rate is limited.
    pub(crate) fn new(limits: &Limits) -> Option<Self> {
        let limit = Self { callers: limits.rate.map(Meter::new), tenants: limits.tenant_rate.map(Meter::new) };
        (limit.callers.is_some() || limit.tenants.is_some()).then_some(limit)
    }

    /// Checks whether a caller may ask now. If not, the error is the seconds to wait, rounded up,
    /// and which limit was reached.
    fn check(&self, caller: &Caller) -> Result<(), (u64, &'static str)> {
        let Caller { tenant, user, service, .. } = caller;
        let seconds = |wait: Duration| (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
        if let Some(callers) = &self.callers {
            callers
                .check((tenant, user, service))
                .map_err(|wait| (seconds(wait), "this caller sends too many requests"))?;
        }
        // A request that the tenant's limit refuses has counted for the caller too, so a caller
        // that keeps sending does not wait less.
        match &self.tenants {
            Some(tenants) => tenants
                .check(tenant)
                .map_err(|wait| (seconds(wait), "the callers of this tenant send too many requests")),
            None => Ok(()),
        }
    }
}

/// Middleware that refuses callers over their rate. It runs after the one that resolves the caller.
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
    use crate::edge::scopes::Scopes;

    const ONE: Rate = Rate { per_second: NonZeroU32::MIN, burst: NonZeroU32::MIN };

    fn caller(tenant: &str, user: Option<&str>, service: Option<&str>) -> Caller {
        let (user, service) = (user.map(str::to_owned), service.map(str::to_owned));
        Caller { tenant: tenant.to_owned(), user, service, scopes: Scopes::NONE, expires: None }
    }

    #[test]
    fn callers_are_limited_separately() {
        let limit = RateLimit::new(&Limits { rate: Some(ONE), ..Limits::default() }).expect("limited");
        for other in [
            caller("a", None, None),
            caller("a", Some("u"), None),
            caller("b", Some("u"), None),
            caller("a", None, Some("u")),
            caller("a", None, Some("crm")),
        ] {
            assert_eq!(limit.check(&other), Ok(()));
            assert_eq!(limit.check(&other), Err((1, "this caller sends too many requests")));
        }
    }

    #[test]
    fn callers_of_a_tenant_share_its_rate() {
        let two = Rate { burst: NonZeroU32::new(2).expect("two"), ..ONE };
        let limit = RateLimit::new(&Limits { tenant_rate: Some(two), ..Limits::default() }).expect("limited");
        let ask = |tenant: &str, user: &str| limit.check(&caller(tenant, Some(user), None));
        assert_eq!((ask("a", "u"), ask("a", "v")), (Ok(()), Ok(())));
        assert_eq!(ask("a", "w"), Err((1, "the callers of this tenant send too many requests")));
        assert_eq!(ask("b", "w"), Ok(()));
        assert!(RateLimit::new(&Limits::default()).is_none());
    }

    #[test]
    fn idle_callers_are_forgotten() {
        let fast = Rate { per_second: NonZeroU32::new(1_000_000).expect("many"), burst: NonZeroU32::MIN };
        let meter = Meter::new(fast);
        for name in 0..10 * REQUESTS_BETWEEN_SWEEPS {
            assert_eq!(meter.check(name), Ok(()));
        }
        // Each name has its burst back after a microsecond, so a sweep leaves only a few.
        assert!(meter.limiter.len() as u64 <= 2 * REQUESTS_BETWEEN_SWEEPS, "{}", meter.limiter.len());
    }
}
