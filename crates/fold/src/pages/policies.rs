//! The policy of one tenant: which group types have receipts. Written when it changes.

use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{Page, TableId};
use std::collections::BTreeMap;

/// The policy of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The tenant.
    pub tenant: Box<str>,
    /// Whether each group type has receipts; `"*"` stands for all types that are not named.
    pub types: BTreeMap<Box<str>, bool>,
}

impl Policy {
    /// Whether groups of a type have receipts.
    pub fn supports(&self, group_type: &str) -> bool {
        self.types.get(group_type).or_else(|| self.types.get("*")).copied().unwrap_or(true)
    }
}

impl Page for Policy {
    const TABLE: TableId = TableId::Policies;
    const IS_DENSE: bool = false;

    fn encode(&self, to: &mut Writer) {
        to.text(&self.tenant);
        to.number(self.types.len() as u64);
        for (group_type, supported) in &self.types {
            to.text(group_type);
            to.byte(u8::from(*supported));
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut policy = Self { tenant: from.text()?.into(), types: BTreeMap::new() };
        for _ in 0..from.count(2)? {
            policy.types.insert(from.text()?.into(), from.byte()? > 0);
        }
        Ok(policy)
    }

    fn memory_bytes(&self) -> usize {
        let types = self.types.keys().map(|group_type| 48 + group_type.len());
        size_of::<Self>() + self.tenant.len() + types.sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::accounts_for;

    #[test]
    fn policy_accounts_for_its_group_types() {
        let types: BTreeMap<Box<str>, bool> = (0..20).map(|i| ("n".repeat(i).into(), true)).collect();
        accounts_for(&Policy { tenant: "t".repeat(90).into(), types }, 90 + 20 * 48 + (0..20).sum::<usize>());
    }

    #[test]
    fn unnamed_types_follow_the_star_or_have_receipts() {
        let policy = |types: &[(&str, bool)]| Policy {
            tenant: "t".into(),
            types: types.iter().map(|(name, on)| ((*name).into(), *on)).collect(),
        };
        assert!(policy(&[]).supports("team") && policy(&[("channel", false)]).supports("team"));
        assert!(!policy(&[("*", false)]).supports("team"));
        assert!(policy(&[("*", false), ("team", true)]).supports("team"));
    }
}
