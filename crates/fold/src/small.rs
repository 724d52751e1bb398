//! The small pages: read marks, leaves, erased people, parked events, and the counters of a partition.

use crate::page::{Page, TableId};
use crate::wire::{Malformed, Reader, Writer};
use std::collections::BTreeMap;

/// Read marks on a page, by slot.
pub const MARKS_PER_PAGE: u32 = 64;
/// Leaves on a page.
pub const LEAVES_PER_PAGE: u32 = 256;

/// What a reader sees of a read mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The message, where one moved it.
    pub message_id: Option<Box<str>>,
    /// Unix milliseconds.
    pub up_to_sent_at_ms: u64,
    /// Unix milliseconds.
    pub read_at_ms: u64,
    /// Offset of the event that moved it.
    pub version: u64,
}

/// Up to where a slot has been offered every message, so that the next mark costs only what is new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Covered {
    /// Messages below this number …
    pub below: u64,
    /// … with at most this `sent_at_ms` need no second look.
    pub up_to_sent_at_ms: u64,
}

/// The marks of 64 slots.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// By place: the mark, and what is covered, hidden marks included.
    pub slots: Vec<(Option<Mark>, Option<Covered>)>,
}

impl Marks {
    /// The entry of a place, made if need be.
    pub fn at_mut(&mut self, place: u32) -> &mut (Option<Mark>, Option<Covered>) {
        if self.slots.len() <= place as usize {
            self.slots.resize(place as usize + 1, (None, None));
        }
        &mut self.slots[place as usize]
    }
}

impl Page for Marks {
    const TABLE: TableId = TableId::Marks;

    fn encode(&self, to: &mut Writer) {
        to.number(self.slots.len() as u64);
        let (mut sent_at, mut below) = (0, 0);
        for (mark, covered) in &self.slots {
            let named = mark.as_ref().is_some_and(|m| m.message_id.is_some());
            to.byte(u8::from(mark.is_some()) | u8::from(named) << 1 | u8::from(covered.is_some()) << 2);
            if let Some(m) = mark {
                m.message_id.iter().for_each(|id| to.text(id));
                to.difference(m.up_to_sent_at_ms, sent_at);
                sent_at = m.up_to_sent_at_ms;
                to.difference(m.read_at_ms, sent_at);
                to.number(m.version);
            }
            if let Some(c) = covered {
                to.difference(c.below, below);
                below = c.below;
                to.difference(c.up_to_sent_at_ms, sent_at);
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = from.count(1)?;
        if count > MARKS_PER_PAGE as usize {
            return Err(Malformed("too many marks on a page"));
        }
        let mut slots = Vec::with_capacity(count);
        let (mut sent_at, mut below) = (0, 0);
        for _ in 0..count {
            let flags = from.byte()?;
            let mut entry = (None, None);
            if flags & 1 > 0 {
                let message_id = if flags & 2 > 0 { Some(from.text()?.into()) } else { None };
                sent_at = from.difference(sent_at)?;
                let read_at_ms = from.difference(sent_at)?;
                entry.0 = Some(Mark { message_id, up_to_sent_at_ms: sent_at, read_at_ms, version: from.number()? });
            }
            if flags & 4 > 0 {
                below = from.difference(below)?;
                entry.1 = Some(Covered { below, up_to_sent_at_ms: from.difference(sent_at)? });
            }
            slots.push(entry);
        }
        Ok(Self { slots })
    }

    fn memory_bytes(&self) -> usize {
        let ids = self.slots.iter().flat_map(|s| &s.0).flat_map(|m| &m.message_id).map(|id| id.len() + 16);
        size_of::<Self>() + self.slots.capacity() * size_of::<(Option<Mark>, Option<Covered>)>() + ids.sum::<usize>()
    }
}

/// Leaves of a conversation: (offset, slot) in log order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leaves {
    /// At most [`LEAVES_PER_PAGE`].
    pub leaves: Vec<(u64, u32)>,
}

impl Page for Leaves {
    const TABLE: TableId = TableId::Leaves;

    fn encode(&self, to: &mut Writer) {
        to.number(self.leaves.len() as u64);
        let mut last = 0;
        for (offset, slot) in &self.leaves {
            to.difference(*offset, last);
            last = *offset;
            to.number(u64::from(*slot));
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = from.count(2)?;
        if count > LEAVES_PER_PAGE as usize {
            return Err(Malformed("too many leaves on a page"));
        }
        let mut leaves = Vec::with_capacity(count);
        let mut last = 0;
        for _ in 0..count {
            last = from.difference(last)?;
            leaves.push((last, from.small()?));
        }
        Ok(Self { leaves })
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + 16 * self.leaves.capacity()
    }
}

/// An erased person, so that the id never appears again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erased {
    /// Whose.
    pub tenant: Box<str>,
    /// Who.
    pub user_id: Box<str>,
    /// Offset of the erasure.
    pub offset: u64,
}

impl Page for Erased {
    const TABLE: TableId = TableId::Erased;

    fn encode(&self, to: &mut Writer) {
        to.text(&self.tenant);
        to.text(&self.user_id);
        to.number(self.offset);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self { tenant: from.text()?.into(), user_id: from.text()?.into(), offset: from.number()? })
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.tenant.len() + self.user_id.len()
    }
}

/// The headers of a record: names and values.
pub type Headers = Vec<(Box<str>, Option<Box<[u8]>>)>;

/// A record that waits for messages, whole, so that it can become a dead letter untouched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Its offset.
    pub offset: u64,
    /// Its timestamp, Unix milliseconds.
    pub timestamp_ms: u64,
    /// Its key.
    pub key: Option<Box<[u8]>>,
    /// Its value.
    pub value: Box<[u8]>,
    /// Its headers.
    pub headers: Headers,
    /// Messages it still waits for.
    pub waits_for: Vec<Box<str>>,
}

impl Page for Parked {
    const TABLE: TableId = TableId::Parked;

    fn encode(&self, to: &mut Writer) {
        let optional = |to: &mut Writer, bytes: Option<&[u8]>| {
            to.byte(u8::from(bytes.is_some()));
            to.blob(bytes.unwrap_or_default());
        };
        to.number(self.offset);
        to.number(self.timestamp_ms);
        optional(to, self.key.as_deref());
        to.blob(&self.value);
        to.number(self.headers.len() as u64);
        for (name, value) in &self.headers {
            to.text(name);
            optional(to, value.as_deref());
        }
        to.number(self.waits_for.len() as u64);
        self.waits_for.iter().for_each(|id| to.text(id));
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let optional = |from: &mut Reader<'_>| -> Result<Option<Box<[u8]>>, Malformed> {
            let some = from.byte()? > 0;
            let bytes = from.blob()?;
            Ok(some.then(|| bytes.into()))
        };
        let (offset, timestamp_ms) = (from.number()?, from.number()?);
        let key = optional(from)?;
        let value = from.blob()?.into();
        let mut headers = Vec::with_capacity(from.count(3)?);
        for _ in 0..headers.capacity() {
            headers.push((from.text()?.into(), optional(from)?));
        }
        let mut waits_for = Vec::with_capacity(from.count(1)?);
        for _ in 0..waits_for.capacity() {
            waits_for.push(from.text()?.into());
        }
        Ok(Self { offset, timestamp_ms, key, value, headers, waits_for })
    }

    fn memory_bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(n, v)| 48 + n.len() + v.as_ref().map_or(0, |v| v.len()));
        size_of::<Self>()
            + self.key.as_ref().map_or(0, |k| k.len())
            + self.value.len()
            + headers.sum::<usize>()
            + self.waits_for.iter().map(|id| id.len() + 16).sum::<usize>()
    }
}

/// Group type to support; `"*"` stands for all others.
pub type Policy = BTreeMap<Box<str>, bool>;

/// The counters of a partition, and its policies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Meta {
    /// Every record below was folded.
    pub next_offset: u64,
    /// The newest record timestamp, Unix milliseconds.
    pub newest_timestamp_ms: u64,
    /// Number of the next conversation.
    pub next_conversation: u32,
    /// Number of the next message.
    pub next_message: u64,
    /// The first page of messages that may still hold a live one.
    pub oldest_page: u64,
    /// Erasures so far.
    pub erasures: u32,
    /// By tenant.
    pub policies: BTreeMap<Box<str>, Policy>,
}

impl Meta {
    /// Whether a policy lets the group type have receipts; direct chats always do.
    pub(crate) fn supports(&self, tenant: &str, group_type: &str) -> bool {
        self.policies.get(tenant).is_none_or(|p| p.get(group_type).or_else(|| p.get("*")).copied().unwrap_or(true))
    }
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
    use crate::page::tests::accounts_for;

    #[test]
    fn small_pages_account_for_what_they_hold() {
        let mut marks = Marks { slots: Vec::with_capacity(64) };
        let message_id = Some("m".repeat(128).into());
        marks.at_mut(3).0 = Some(Mark { message_id, up_to_sent_at_ms: 1, read_at_ms: 2, version: 3 });
        accounts_for(&marks, 64 * size_of::<(Option<Mark>, Option<Covered>)>() + 128);
        accounts_for(&Leaves { leaves: Vec::with_capacity(LEAVES_PER_PAGE as usize) }, 16 * LEAVES_PER_PAGE as usize);
        let name = |length: usize| -> Box<str> { "n".repeat(length).into() };
        accounts_for(&Erased { tenant: name(90), user_id: name(128), offset: 7 }, 90 + 128);
        let parked = Parked {
            offset: 1,
            timestamp_ms: 2,
            key: Some(vec![0; 200].into()),
            value: vec![0; 300].into(),
            headers: vec![(name(250), Some(vec![0; 350].into())), (name(200), None)],
            waits_for: vec![name(120), name(128)],
        };
        accounts_for(&parked, 200 + 300 + 48 + 250 + 350 + 48 + 200 + 120 + 128);
        let policy: Policy = (0..20).map(|i| (name(i), true)).collect();
        let meta = Meta { policies: BTreeMap::from([(name(1), policy)]), ..Meta::default() };
        accounts_for(&meta, 20 * 48);
    }

    #[test]
    fn as_many_marks_and_leaves_as_a_page_has_room_for_and_not_one_more() {
        fn decode<P: Page>(page: &P) -> Result<P, Malformed> {
            let mut w = Writer::default();
            page.encode(&mut w);
            P::decode(&mut Reader::new(&w.bytes))
        }
        let marks = |count: u32| Marks { slots: vec![(None, None); count as usize] };
        assert_eq!(decode(&marks(MARKS_PER_PAGE)), Ok(marks(MARKS_PER_PAGE)));
        assert_eq!(decode(&marks(MARKS_PER_PAGE + 1)), Err(Malformed("too many marks on a page")));
        let leaves = |count: u32| Leaves { leaves: (0..count).map(|n| (u64::from(n), n)).collect() };
        assert_eq!(decode(&leaves(LEAVES_PER_PAGE)), Ok(leaves(LEAVES_PER_PAGE)));
        assert_eq!(decode(&leaves(LEAVES_PER_PAGE + 1)), Err(Malformed("too many leaves on a page")));
    }
}
