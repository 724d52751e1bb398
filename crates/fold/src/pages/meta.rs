//! The one page that holds the counters and the policies of a partition.

use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{Page, TableId};
use std::collections::BTreeMap;

/// Whether each group type has receipts; `"*"` stands for all types that are not named.
pub type Policy = BTreeMap<Box<str>, bool>;

/// The counters of a partition, and its policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Offset of the next record; all records below it are folded.
    pub next_offset: u64,
    /// The newest record timestamp, Unix milliseconds.
    pub newest_timestamp_ms: u64,
    /// Number of the next conversation.
    pub next_conversation: u32,
    /// Number of the next message.
    pub next_message: u64,
    /// The first page of messages that may hold a live one.
    pub oldest_page: u64,
    /// Erasures so far.
    pub erasures: u32,
    /// By tenant.
    pub policies: BTreeMap<Box<str>, Policy>,
}

impl Page for Meta {
    const TABLE: TableId = TableId::Meta;

    fn encode(&self, to: &mut Writer) {
        to.number(self.next_offset);
        to.number(self.newest_timestamp_ms);
        to.number(self.next_conversation.into());
        to.number(self.next_message);
        to.number(self.oldest_page);
        to.number(self.erasures.into());
        to.number(self.policies.len() as u64);
        for (tenant, policy) in &self.policies {
            to.text(tenant);
            to.number(policy.len() as u64);
            for (group_type, supported) in policy {
                to.text(group_type);
                to.byte(u8::from(*supported));
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut meta = Self {
            next_offset: from.number()?,
            newest_timestamp_ms: from.number()?,
            next_conversation: from.small()?,
            next_message: from.number()?,
            oldest_page: from.number()?,
            erasures: from.small()?,
            policies: BTreeMap::new(),
        };
        for _ in 0..from.count(2)? {
            let tenant = from.text()?;
            let mut policy = Policy::new();
            for _ in 0..from.count(2)? {
                policy.insert(from.text()?.into(), from.byte()? > 0);
            }
            meta.policies.insert(tenant.into(), policy);
        }
        Ok(meta)
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.policies.values().map(|p| 64 + 48 * p.len()).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::accounts_for;

    #[test]
    fn meta_accounts_for_its_policies() {
        let policy: Policy = (0..20).map(|i| ("n".repeat(i).into(), true)).collect();
        let meta = Meta { policies: BTreeMap::from([("n".into(), policy)]), ..Meta::default() };
        accounts_for(&meta, 20 * 48);
    }
}
