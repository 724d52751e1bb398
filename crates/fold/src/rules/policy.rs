//! `policy.changed`: replaces a tenant's policy, which says for each group type whether it has
//! receipts. Applies to later sends only. The group types of all policies are bounded
//! (INV-FOLD-BUDGET).

use crate::effects::Effects;
use crate::pages::{ConversationPage, PageKey, Pages, Policy, Table};
use crate::state::{Error, Result, State};
use hashbrown::HashMap;
use receipts_event::PolicyChanged;

/// The tenants with a policy that names group types. Rebuilt from the policies when a store opens.
#[derive(Default)]
pub(crate) struct Policies {
    tenants: HashMap<Box<str>, PolicyEntry>,
    bytes: usize,
}

/// The policy of a tenant.
#[derive(Debug, Clone, Copy)]
struct PolicyEntry {
    /// Number of its page.
    number: u64,
    /// Group types that it names; never 0.
    types: u64,
}

impl Policies {
    fn of(&self, tenant: &str) -> Option<PolicyEntry> {
        if self.tenants.is_empty() { None } else { self.tenants.get(tenant).copied() }
    }

    fn insert(&mut self, tenant: &str, entry: PolicyEntry) -> Option<PolicyEntry> {
        let before = self.tenants.insert(tenant.into(), entry);
        self.bytes += if before.is_none() { Self::bytes_of(tenant) } else { 0 };
        before
    }

    fn remove(&mut self, tenant: &str) {
        self.bytes -= self.tenants.remove(tenant).map_or(0, |_| Self::bytes_of(tenant));
    }

    fn bytes_of(tenant: &str) -> usize {
        2 * size_of::<(Box<str>, PolicyEntry)>() + tenant.len()
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes
    }

    /// The numbers of all pages, in order.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.tenants.values().map(|entry| entry.number).collect();
        numbers.sort_unstable();
        numbers
    }
}

impl<S: Pages> State<S> {
    /// Replaces the policy of a tenant. One that names no group type is the same as none, and takes
    /// no page. Beyond the budget the event is a dead letter, and the policy stays as it was.
    pub(super) fn change_policy(&mut self, tenant: &str, e: &PolicyChanged<'_>, effects: &mut Effects) {
        let policy = Policy {
            tenant: tenant.into(),
            types: e.read_receipts.iter().map(|(group_type, on)| (Box::from(&**group_type), *on)).collect(),
        };
        let before = self.policies.of(tenant);
        let types = policy.types.len() as u64;
        let all = self.meta.policy_types - before.map_or(0, |entry| entry.types) + types;
        let max = self.limits.policy_types_max;
        if types > max / 10 {
            return effects.refuse_over_budget(format!(
                "the policy names {types} group types, more than a tenth of projector.policy_types_max ({max})"
            ));
        }
        if all > max {
            return effects.refuse_over_budget(format!(
                "with this one the policies of the partition name {all} group types, and projector.policy_types_max \
                 allows {max}"
            ));
        }
        self.meta.policy_types = all;
        if types == 0 {
            if let Some(entry) = before {
                self.policies.remove(tenant);
                Table::<Policy>::remove(&mut self.pages, PageKey::new(entry.number, 0));
            }
            return;
        }
        let number = before.map_or(self.meta.next_policy, |entry| entry.number);
        self.meta.next_policy += u64::from(before.is_none());
        self.policies.insert(tenant, PolicyEntry { number, types });
        self.pages.put(PageKey::new(number, 0), policy);
    }

    /// Reads the policies from the store.
    pub(crate) fn load_policies(&mut self) -> Result<(), S::Error> {
        let mut all = 0;
        for key in Table::<Policy>::keys(&self.pages)? {
            let policy = Table::<Policy>::read(&self.pages, key)?.ok_or(Error::Broken("a policy"))?;
            let types = policy.types.len() as u64;
            let before = self.policies.insert(&policy.tenant, PolicyEntry { number: key.a, types });
            if before.is_some() || types == 0 || key.a >= self.meta.next_policy {
                return Err(Error::Broken("the policies"));
            }
            all += types;
        }
        if all == self.meta.policy_types { Ok(()) } else { Err(Error::Broken("the number of group types")) }
    }

    /// Whether a group has receipts by its type now. Direct chats always have them; the caller does
    /// not ask about those.
    pub(super) fn supports(&mut self, tenant: &str, conversation: u32) -> Result<bool, S::Error> {
        let Some(PolicyEntry { number, .. }) = self.policies.of(tenant) else { return Ok(true) };
        let (policy, group) = (PageKey::new(number, 0), PageKey::new(conversation, 0));
        // Both pages are loaded first, and then read side by side.
        Table::<Policy>::load_mut(&mut self.pages, policy)?;
        Table::<ConversationPage>::load_mut(&mut self.pages, group)?;
        let policy = Table::<Policy>::peek(&self.pages, policy).ok_or(Error::Broken("a policy"))?;
        let group = Table::<ConversationPage>::peek(&self.pages, group).ok_or(Error::Broken("a conversation"))?;
        Ok(policy.supports(&group.group_type))
    }
}
