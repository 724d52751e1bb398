//! `policy.changed`: replaces a tenant's policy, which says for each group type whether it has
//! receipts. Applies to later sends only.

use crate::pages::{Meta, Pages};
use crate::state::State;
use receipts_event::PolicyChanged;

impl<S: Pages> State<S> {
    pub(super) fn change_policy(&mut self, tenant: &str, e: &PolicyChanged<'_>) {
        let policy = e.read_receipts.iter().map(|(group_type, on)| (Box::from(&**group_type), *on)).collect();
        self.meta.policies.insert(tenant.into(), policy);
    }
}

impl Meta {
    /// Whether groups of a type have receipts. Direct chats always have them; the caller does not
    /// ask about those.
    pub(crate) fn supports(&self, tenant: &str, group_type: &str) -> bool {
        self.policies.get(tenant).is_none_or(|p| p.get(group_type).or_else(|| p.get("*")).copied().unwrap_or(true))
    }
}
