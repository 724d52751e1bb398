//! An erasure of a person, kept for ever so that the id never appears again.

use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{Page, TableId};

/// An erasure of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Erasure {
    /// The tenant of the person.
    pub tenant: Box<str>,
    /// The id that must not appear again.
    pub user_id: Box<str>,
    /// Offset of the erasure's event.
    pub offset: u64,
}

impl Page for Erasure {
    const TABLE: TableId = TableId::Erasures;
    const IS_DENSE: bool = false;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::accounts_for;

    #[test]
    fn erasure_accounts_for_its_names() {
        accounts_for(&Erasure { tenant: "t".repeat(90).into(), user_id: "u".repeat(128).into(), offset: 7 }, 90 + 128);
    }
}
