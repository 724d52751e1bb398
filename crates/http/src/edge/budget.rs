//! Budgets: how much of a resource all callers together, one tenant, and one caller may hold at
//! once (ADR 0036, INV-SHARES).
//!
//! A budget must not wait, and must not know what it counts: it returns a guard, or the share that
//! is used up.

pub(crate) mod meter;

use crate::edge::caller::Caller;
use crate::problem::{Code, Problem};
use meter::Meter;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;

/// A part of a budget that can be used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// The amount for all callers together.
    Total,
    /// The amount for the callers of one tenant together.
    Tenant,
    /// The amount for one caller.
    Caller,
}

/// The amounts of a budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amounts {
    /// For all callers together.
    pub total: u64,
    /// For the callers of one tenant together.
    pub tenant: u64,
    /// For one caller.
    pub caller: u64,
    /// The setting that bounds the total, if it is not the budget's own.
    pub bounded_by: Option<&'static str>,
}

impl Amounts {
    /// Returns a total and its shares: by default three quarters of it for a tenant and a quarter
    /// for a caller, and at least 1 (ADR 0036).
    #[must_use]
    pub fn new(total: u64, tenant: Option<u64>, caller: Option<u64>) -> Self {
        let tenant = tenant.unwrap_or_else(|| (total - total.div_ceil(4)).max(1));
        Self { total, tenant, caller: caller.unwrap_or((total / 4).max(1)), bounded_by: None }
    }
}

/// A resource that callers use up, and the settings of its budget.
#[derive(Debug)]
struct Resource {
    /// The label of its metrics.
    name: &'static str,
    /// Its name in sentences.
    what: &'static str,
    /// The settings of total, tenant and caller.
    settings: [&'static str; 3],
    /// The answer when the total is used up.
    when_full: Code,
}

static REQUESTS: Resource = Resource {
    name: "requests",
    what: "requests in progress",
    settings: ["http.requests_max", "http.requests_per_tenant", "http.requests_per_caller"],
    when_full: Code::Overloaded,
};

static WAITS: Resource = Resource {
    name: "waits",
    what: "reads that wait for a position",
    settings: ["http.waits_max", "http.waits_per_tenant", "http.waits_per_caller"],
    when_full: Code::Overloaded,
};

static STREAMS: Resource = Resource {
    name: "streams",
    what: "open streams",
    settings: ["http.streams_max", "http.streams_per_tenant", "http.streams_per_caller"],
    when_full: Code::TooManyStreams,
};

static BODY_BYTES: Resource = Resource {
    name: "body_bytes",
    what: "bytes of request bodies",
    settings: ["http.bodies_bytes_max", "http.bodies_bytes_per_tenant", "http.bodies_bytes_per_caller"],
    when_full: Code::Overloaded,
};

/// The amounts of the four budgets of an edge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BudgetAmounts {
    /// Requests in progress.
    pub requests: Amounts,
    /// Reads that wait for their position.
    pub waits: Amounts,
    /// Open streams.
    pub streams: Amounts,
    /// Bytes of request bodies.
    pub body_bytes: Amounts,
}

/// 1,024 requests, 10,000 waits, 10,000 streams and 64 MiB of bodies, with the default shares (ADR
/// 0036).
impl Default for BudgetAmounts {
    fn default() -> Self {
        let of = |total| Amounts::new(total, None, None);
        Self { requests: of(1_024), waits: of(10_000), streams: of(10_000), body_bytes: of(64 << 20) }
    }
}

/// The four budgets of an edge. Cheap to clone; the clones share what is held.
#[derive(Debug, Clone)]
pub struct Budgets {
    /// Requests in progress. A waiting read and an open stream are not among them.
    pub requests: Budget,
    /// Reads that wait for their position.
    pub waits: Budget,
    /// Open streams.
    pub streams: Budget,
    /// Bytes of request bodies.
    pub body_bytes: Budget,
}

impl Budgets {
    /// Returns budgets of which nothing is held. A process makes them once, because their metrics
    /// name it alone.
    #[must_use]
    pub fn new(amounts: &BudgetAmounts) -> Self {
        Self {
            requests: Budget::new(&REQUESTS, amounts.requests),
            waits: Budget::new(&WAITS, amounts.waits),
            streams: Budget::new(&STREAMS, amounts.streams),
            body_bytes: Budget::new(&BODY_BYTES, amounts.body_bytes),
        }
    }
}

/// One budget. Cheap to clone; the clones share what is held.
#[derive(Clone)]
pub struct Budget(Arc<Inner>);

struct Inner {
    resource: &'static Resource,
    amounts: Amounts,
    /// Random per budget, so that a caller cannot construct two names that share a hash.
    hasher: RandomState,
    holdings: Mutex<Holdings>,
    meter: Meter,
}

/// The held amounts. Callers and tenants are known by a hash, so a long name takes no more memory
/// than a short one.
#[derive(Default)]
struct Holdings {
    total: u64,
    /// By tenant and by caller. An entry never holds 0.
    by_key: FxHashMap<u64, u64>,
}

/// The hashes of a caller and its tenant.
#[derive(Clone, Copy)]
struct Keys {
    tenant: u64,
    /// `None` for a service without a name: it has no share of its own.
    caller: Option<u64>,
}

impl Budget {
    fn new(resource: &'static Resource, amounts: Amounts) -> Self {
        let meter = Meter::new(resource.name, amounts.total, &[Share::Total, Share::Tenant, Share::Caller]);
        Self(Arc::new(Inner { resource, amounts, hasher: RandomState::new(), holdings: Mutex::default(), meter }))
    }

    /// Takes an amount for a caller until the guard is dropped.
    ///
    /// # Errors
    /// The share that has not that much left; nothing is taken then.
    pub fn acquire(&self, caller: &Caller, amount: u64) -> Result<Held, UsedUp> {
        let mut held = Held { budget: self.clone(), keys: self.0.keys(caller), amount: 0 };
        held.grow(amount)?;
        Ok(held)
    }

    /// Returns the amount that all callers hold together.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.0.holdings.lock().total
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("name", &self.0.resource.name)
            .field("amounts", &self.0.amounts)
            .field("used", &self.used())
            .finish()
    }
}

impl Inner {
    fn keys(&self, caller: &Caller) -> Keys {
        let Caller { tenant, user, service, .. } = caller;
        let is_named = user.is_some() || service.is_some();
        Keys {
            tenant: self.hasher.hash_one(tenant),
            caller: is_named.then(|| self.hasher.hash_one((tenant, user, service))),
        }
    }

    fn setting(&self, share: Share) -> &'static str {
        match (share, self.amounts.bounded_by) {
            (Share::Total, Some(setting)) => setting,
            _ => self.resource.settings[share as usize],
        }
    }
}

impl Holdings {
    fn of(&self, key: u64) -> u64 {
        self.by_key.get(&key).copied().unwrap_or_default()
    }

    fn add(&mut self, keys: Keys, amount: u64, amounts: &Amounts) -> Result<(), Share> {
        let fits = |held: u64, max: u64| held.checked_add(amount).is_some_and(|sum| sum <= max);
        if !fits(self.total, amounts.total) {
            return Err(Share::Total);
        }
        if keys.caller.is_some_and(|key| !fits(self.of(key), amounts.caller)) {
            return Err(Share::Caller);
        }
        if !fits(self.of(keys.tenant), amounts.tenant) {
            return Err(Share::Tenant);
        }
        if amount > 0 {
            self.total += amount;
            for key in [Some(keys.tenant), keys.caller].into_iter().flatten() {
                *self.by_key.entry(key).or_default() += amount;
            }
        }
        Ok(())
    }

    fn remove(&mut self, keys: Keys, amount: u64) {
        self.total -= amount;
        for key in [Some(keys.tenant), keys.caller].into_iter().flatten() {
            if let Entry::Occupied(mut held) = self.by_key.entry(key) {
                *held.get_mut() -= amount;
                if *held.get() == 0 {
                    held.remove();
                }
            }
        }
    }
}

/// An amount that a caller holds. It returns to the budget when this guard is dropped.
pub struct Held {
    budget: Budget,
    keys: Keys,
    amount: u64,
}

impl Held {
    /// Takes more.
    ///
    /// # Errors
    /// The share that has not that much left; nothing more is taken then.
    pub fn grow(&mut self, amount: u64) -> Result<(), UsedUp> {
        let Inner { amounts, holdings, meter, .. } = &*self.budget.0;
        let added = {
            let mut holdings = holdings.lock();
            let added = holdings.add(self.keys, amount, amounts);
            // Within the lock, so that the gauge ends with the newest amount.
            meter.set_used(holdings.total);
            added
        };
        match added {
            Ok(()) => {
                self.amount += amount;
                Ok(())
            }
            Err(share) => {
                let setting = self.budget.0.setting(share);
                meter.refused(share, setting);
                Err(UsedUp { resource: self.budget.0.resource, share, setting })
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let Inner { holdings, meter, .. } = &*self.budget.0;
        let mut holdings = holdings.lock();
        holdings.remove(self.keys, self.amount);
        meter.set_used(holdings.total);
    }
}

/// A refusal: a share of a budget has not enough left.
#[derive(Debug)]
pub struct UsedUp {
    resource: &'static Resource,
    share: Share,
    setting: &'static str,
}

impl UsedUp {
    /// Returns the share that is used up.
    #[must_use]
    pub fn share(&self) -> Share {
        self.share
    }
}

/// The total is the service's own shortage (503), a share the caller's or its tenant's (429).
impl From<UsedUp> for Problem {
    fn from(UsedUp { resource, share, setting }: UsedUp) -> Self {
        let what = resource.what;
        let (code, detail) = match share {
            Share::Total => (resource.when_full, format!("the service has as many {what} as it may: {setting}")),
            Share::Tenant => (Code::RateLimited, format!("the tenant has as many {what} as its share: {setting}")),
            Share::Caller => (Code::RateLimited, format!("the caller has as many {what} as its share: {setting}")),
        };
        Self::new(code).detail(detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::scopes::Scopes;
    use proptest::prelude::*;

    fn caller(tenant: u8, name: Option<u8>) -> Caller {
        let (tenant, user) = (format!("t{tenant}"), name.map(|name| format!("u{name}")));
        Caller { tenant, user, service: None, scopes: Scopes::NONE, expires: None }
    }

    fn budget(total: u64, tenant: u64, caller: u64) -> Budget {
        Budget::new(&REQUESTS, Amounts::new(total, Some(tenant), Some(caller)))
    }

    #[derive(Debug, Clone)]
    enum Step {
        Acquire { tenant: u8, name: Option<u8>, amount: u64 },
        Grow { at: usize, amount: u64 },
        Release { at: usize },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3_u8, proptest::option::of(0..3_u8), 0..5_u64).prop_map(|(tenant, name, amount)| Step::Acquire {
                tenant,
                name,
                amount
            }),
            (0..100_usize, 0..5_u64).prop_map(|(at, amount)| Step::Grow { at, amount }),
            (0..100_usize).prop_map(|at| Step::Release { at }),
        ]
    }

    /// A grant of the model: tenant, caller and amount.
    type Grant = (u8, Option<u8>, u64);

    /// Decides as a naive reader of ADR 0036 would: it adds up all grants.
    fn refusal(grants: &[Grant], tenant: u8, name: Option<u8>, amount: u64, amounts: &Amounts) -> Option<Share> {
        let sum = |is_counted: &dyn Fn(&Grant) -> bool| -> u64 {
            grants.iter().filter(|grant| is_counted(grant)).map(|grant| grant.2).sum()
        };
        if sum(&|_| true) + amount > amounts.total {
            Some(Share::Total)
        } else if name.is_some() && sum(&|grant| (grant.0, grant.1) == (tenant, name)) + amount > amounts.caller {
            Some(Share::Caller)
        } else if sum(&|grant| grant.0 == tenant) + amount > amounts.tenant {
            Some(Share::Tenant)
        } else {
            None
        }
    }

    proptest! {
        /// INV-SHARES
        #[test]
        fn budget_agrees_with_a_naive_sum(steps in proptest::collection::vec(step(), 0..200)) {
            let budget = budget(20, 12, 6);
            let (mut grants, mut guards) = (Vec::<Grant>::new(), Vec::new());
            for step in steps {
                match step {
                    Step::Acquire { tenant, name, amount } => {
                        let wanted = refusal(&grants, tenant, name, amount, &budget.0.amounts);
                        let got = budget.acquire(&caller(tenant, name), amount);
                        prop_assert_eq!(got.as_ref().err().map(UsedUp::share), wanted);
                        if let Ok(guard) = got {
                            guards.push(guard);
                            grants.push((tenant, name, amount));
                        }
                    }
                    Step::Grow { at, amount } if !guards.is_empty() => {
                        let at = at % guards.len();
                        let (tenant, name, _) = grants[at];
                        let wanted = refusal(&grants, tenant, name, amount, &budget.0.amounts);
                        let got = guards[at].grow(amount);
                        prop_assert_eq!(got.as_ref().err().map(UsedUp::share), wanted);
                        grants[at].2 += if got.is_ok() { amount } else { 0 };
                    }
                    Step::Release { at } if !guards.is_empty() => {
                        let at = at % guards.len();
                        drop(guards.swap_remove(at));
                        grants.swap_remove(at);
                    }
                    Step::Grow { .. } | Step::Release { .. } => {}
                }
                prop_assert_eq!(budget.used(), grants.iter().map(|grant| grant.2).sum::<u64>());
                prop_assert!(budget.0.holdings.lock().by_key.values().all(|held| *held > 0));
            }
            drop(guards);
            prop_assert_eq!(budget.used(), 0);
            prop_assert!(budget.0.holdings.lock().by_key.is_empty());
        }
    }

    #[test]
    fn default_shares_leave_room_for_others() {
        let of = |total| {
            let Amounts { tenant, caller, .. } = Amounts::new(total, None, None);
            (tenant, caller)
        };
        assert_eq!([of(1_024), of(10), of(3), of(1)], [(768, 256), (7, 2), (2, 1), (1, 1)]);
    }

    #[test]
    fn persons_and_services_of_one_name_are_apart() {
        let budget = budget(10, 10, 1);
        let person = caller(0, Some(1));
        let service = Caller { user: None, service: person.user.clone(), ..person.clone() };
        let unnamed = caller(0, None);
        let held = [&person, &service, &unnamed, &unnamed].map(|caller| budget.acquire(caller, 1));
        assert!(held.iter().all(Result::is_ok));
        assert_eq!(budget.acquire(&person, 1).err().map(|used_up| used_up.share()), Some(Share::Caller));
        assert!(budget.acquire(&caller(1, Some(1)), 1).is_ok(), "another tenant has a person of this name");
    }

    #[test]
    fn refusals_name_their_setting() {
        let said = |used_up: UsedUp| {
            let problem = Problem::from(used_up);
            (problem.code(), format!("{problem:?}"))
        };
        let refused = |of: Amounts| {
            let budget = Budget::new(&STREAMS, of);
            let _held = budget.acquire(&caller(0, Some(0)), 1);
            said(budget.acquire(&caller(0, Some(0)), 1).err().unwrap())
        };
        for (amounts, code, setting) in [
            (Amounts::new(1, Some(9), Some(9)), Code::TooManyStreams, "http.streams_max"),
            (Amounts::new(9, Some(1), Some(9)), Code::RateLimited, "http.streams_per_tenant"),
            (Amounts::new(9, Some(9), Some(1)), Code::RateLimited, "http.streams_per_caller"),
        ] {
            let (got, text) = refused(amounts);
            assert!(got == code && text.contains(setting), "{text}");
        }
        let bounded = Amounts { bounded_by: Some("http.connections_max"), ..Amounts::new(1, Some(9), Some(9)) };
        assert!(refused(bounded).1.contains("http.connections_max"));
    }
}
