//! The departures of a conversation: who left, and at which offset, in log order.

use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{Page, TableId};

/// Departures per page.
pub const DEPARTURES_PER_PAGE: u32 = 256;

/// Departures from a conversation: (offset, slot) in log order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Departures {
    /// At most [`DEPARTURES_PER_PAGE`].
    pub departures: Vec<(u64, u32)>,
}

impl Page for Departures {
    const TABLE: TableId = TableId::Departures;

    fn encode(&self, to: &mut Writer) {
        to.number(self.departures.len() as u64);
        let mut last = 0;
        for (offset, slot) in &self.departures {
            to.difference(*offset, last);
            last = *offset;
            to.number(u64::from(*slot));
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = from.count(2)?;
        if count > DEPARTURES_PER_PAGE as usize {
            return Err(Malformed("too many departures on a page"));
        }
        let mut departures = Vec::with_capacity(count);
        let mut last = 0;
        for _ in 0..count {
            last = from.difference(last)?;
            departures.push((last, from.small()?));
        }
        Ok(Self { departures })
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + 16 * self.departures.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::accounts_for;

    #[test]
    fn page_accounts_for_its_departures() {
        let departures = Vec::with_capacity(DEPARTURES_PER_PAGE as usize);
        accounts_for(&Departures { departures }, 16 * DEPARTURES_PER_PAGE as usize);
    }

    #[test]
    fn page_holds_256_departures_and_no_more() {
        let decode = |page: &Departures| {
            let mut w = Writer::default();
            page.encode(&mut w);
            Departures::decode(&mut Reader::new(&w.bytes))
        };
        let page = |count: u32| Departures { departures: (0..count).map(|n| (u64::from(n), n)).collect() };
        assert_eq!(decode(&page(DEPARTURES_PER_PAGE)), Ok(page(DEPARTURES_PER_PAGE)));
        assert_eq!(decode(&page(DEPARTURES_PER_PAGE + 1)), Err(Malformed("too many departures on a page")));
    }
}
