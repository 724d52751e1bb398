//! The one page that holds the counters of a partition.

use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{Page, TableId};

/// The counters of a partition.
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
    /// Number of the next erasure.
    pub next_erasure: u64,
    /// Number of the next policy.
    pub next_policy: u64,
    /// People erased, over all tenants.
    pub erased_people: u64,
    /// Group types that policies name, over all tenants.
    pub policy_types: u64,
    /// Bytes of the parked records, as [`Parked::bytes`](crate::pages::Parked) counts them.
    pub parked_bytes: u64,
}

impl Page for Meta {
    const TABLE: TableId = TableId::Meta;

    fn encode(&self, to: &mut Writer) {
        to.number(self.next_offset);
        to.number(self.newest_timestamp_ms);
        to.number(self.next_conversation.into());
        to.number(self.next_message);
        to.number(self.oldest_page);
        to.number(self.next_erasure);
        to.number(self.next_policy);
        to.number(self.erased_people);
        to.number(self.policy_types);
        to.number(self.parked_bytes);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            next_offset: from.number()?,
            newest_timestamp_ms: from.number()?,
            next_conversation: from.small()?,
            next_message: from.number()?,
            oldest_page: from.number()?,
            next_erasure: from.number()?,
            next_policy: from.number()?,
            erased_people: from.number()?,
            policy_types: from.number()?,
            parked_bytes: from.number()?,
        })
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::accounts_for;

    #[test]
    fn meta_has_nothing_on_the_heap() {
        accounts_for(&Meta::default(), 0);
    }
}
