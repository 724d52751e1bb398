//! A parked record: one that names messages not yet in the log.

use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{Page, TableId};

/// The headers of a record: names and values.
pub type Headers = Vec<(Box<str>, Option<Box<[u8]>>)>;

/// A record that waits for messages. Kept whole, so that it can become a dead letter unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// The record's offset.
    pub offset: u64,
    /// The record's timestamp, Unix milliseconds.
    pub timestamp_ms: u64,
    /// The tenant of its event.
    pub tenant: Box<str>,
    /// The bytes that it takes of `projector.parked_bytes`, as [`Self::count_bytes`] counted them
    /// when it was parked.
    pub bytes: u64,
    /// The record's key.
    pub key: Option<Box<[u8]>>,
    /// The record's value.
    pub value: Box<[u8]>,
    /// The record's headers.
    pub headers: Headers,
    /// Ids of the messages that it still waits for.
    pub waits_for: Vec<Box<str>>,
}

/// A header, and an id that a record waits for, count this number of bytes beside their own, which
/// is about what each of them takes of memory.
const ITEM_BYTES: usize = 48;

impl Parked {
    /// Counts the bytes of key and value, and those of each header and each id that it waits for,
    /// with 48 more for each of these. A part of the store's format, for it decides answers.
    pub fn count_bytes(&self) -> u64 {
        let headers = self.headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, |v| v.len()));
        let items = headers.chain(self.waits_for.iter().map(|id| id.len()));
        let record = self.conversation().len() + self.value.len();
        (record + items.map(|bytes| ITEM_BYTES + bytes).sum::<usize>()) as u64
    }

    /// Returns the name of its conversation: the fold's caller has checked that the key is it.
    pub fn conversation(&self) -> &[u8] {
        self.key.as_deref().unwrap_or_default()
    }
}

impl Page for Parked {
    const TABLE: TableId = TableId::Parked;
    const IS_DENSE: bool = false;

    fn encode(&self, to: &mut Writer) {
        let optional = |to: &mut Writer, bytes: Option<&[u8]>| {
            to.byte(u8::from(bytes.is_some()));
            to.blob(bytes.unwrap_or_default());
        };
        to.number(self.offset);
        to.number(self.timestamp_ms);
        to.text(&self.tenant);
        to.number(self.bytes);
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
        let (tenant, bytes) = (from.text()?.into(), from.number()?);
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
        Ok(Self { offset, timestamp_ms, tenant, bytes, key, value, headers, waits_for })
    }

    fn memory_bytes(&self) -> usize {
        let headers = self.headers.iter().map(|(n, v)| 48 + n.len() + v.as_ref().map_or(0, |v| v.len()));
        size_of::<Self>()
            + self.tenant.len()
            + self.key.as_ref().map_or(0, |k| k.len())
            + self.value.len()
            + headers.sum::<usize>()
            + self.waits_for.iter().map(|id| id.len() + 16).sum::<usize>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::accounts_for;

    #[test]
    fn parked_record_accounts_for_all_its_bytes() {
        let name = |length: usize| -> Box<str> { "n".repeat(length).into() };
        let parked = Parked {
            offset: 1,
            timestamp_ms: 2,
            tenant: name(90),
            bytes: 0,
            key: Some(vec![0; 200].into()),
            value: vec![0; 300].into(),
            headers: vec![(name(250), Some(vec![0; 350].into())), (name(200), None)],
            waits_for: vec![name(120), name(128)],
        };
        accounts_for(&parked, 90 + 200 + 300 + 48 + 250 + 350 + 48 + 200 + 120 + 128);
        assert_eq!(parked.count_bytes(), 200 + 300 + (48 + 250 + 350) + (48 + 200) + (48 + 120) + (48 + 128));
    }
}
