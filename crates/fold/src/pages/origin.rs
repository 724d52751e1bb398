//! The origin of a state: the settings that decide its answers, and the last record that it holds.
//! Compares nothing: the caller that opens the state compares it with the log and the settings.

use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{Page, TableId};
use crate::state::Limits;
use receipts_event::Unwrap;

/// Bits of the last byte of the settings: read times are kept, and a schema registry's frame is
/// taken off.
const READ_TIMES: u8 = 1;
const CONFLUENT: u8 = 2;

/// The last record that a state holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastRecord {
    /// Its offset.
    pub offset: u64,
    /// A hash of its timestamp, key and value. The reader of the log computes it.
    pub fingerprint: u64,
}

/// The settings and the last record of a state, as of its last checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The settings that it was folded with.
    pub limits: Limits,
    /// The last record that it holds, where the projector noted it.
    pub last: Option<LastRecord>,
}

impl Limits {
    /// Appends the settings, as the store's origin and the headers of snapshots hold them.
    pub fn encode(&self, to: &mut Writer) {
        to.number(self.retention_ms);
        to.number(self.parked_max as u64);
        to.number(self.parked_bytes);
        to.number(self.parked_age_ms);
        to.number(self.erasures_max);
        to.number(self.policy_types_max);
        let confluent = if self.unwrap == Unwrap::Confluent { CONFLUENT } else { 0 };
        to.byte(u8::from(self.read_times) | confluent);
    }

    /// Decodes the bytes that [`Self::encode`] wrote.
    ///
    /// # Errors
    /// If the bytes are no such settings.
    pub fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (retention_ms, parked_max) = (from.number()?, from.number()?);
        let limits = Self {
            retention_ms,
            parked_max: usize::try_from(parked_max).map_err(|_| Malformed("more parked records than memory has"))?,
            parked_bytes: from.number()?,
            parked_age_ms: from.number()?,
            erasures_max: from.number()?,
            policy_types_max: from.number()?,
            ..Self::default()
        };
        let flags = from.byte()?;
        if flags & !(READ_TIMES | CONFLUENT) > 0 {
            return Err(Malformed("a setting of a later version"));
        }
        let unwrap = if flags & CONFLUENT > 0 { Unwrap::Confluent } else { Unwrap::None };
        Ok(Self { read_times: flags & READ_TIMES > 0, unwrap, ..limits })
    }
}

impl Page for Origin {
    const TABLE: TableId = TableId::Origin;

    fn encode(&self, to: &mut Writer) {
        self.limits.encode(to);
        to.byte(u8::from(self.last.is_some()));
        if let Some(last) = self.last {
            to.number(last.offset);
            to.word(last.fingerprint);
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let limits = Limits::decode(from)?;
        let last = match from.byte()? {
            0 => None,
            _ => Some(LastRecord { offset: from.number()?, fingerprint: from.word()? }),
        };
        Ok(Self { limits, last })
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
    fn origin_has_nothing_on_the_heap() {
        accounts_for(&Origin { limits: Limits::default(), last: None }, 0);
    }

    #[test]
    fn every_origin_decodes_to_itself() {
        for (read_times, unwrap) in [(false, Unwrap::None), (true, Unwrap::None), (true, Unwrap::Confluent)] {
            for last in [None, Some(LastRecord { offset: 7, fingerprint: 1 << 60 })] {
                let limits = Limits {
                    retention_ms: 1,
                    parked_max: 2,
                    parked_bytes: 3,
                    parked_age_ms: 4,
                    read_times,
                    unwrap,
                    erasures_max: 5,
                    policy_types_max: 6,
                };
                let (origin, mut w) = (Origin { limits, last }, Writer::default());
                origin.encode(&mut w);
                let mut r = Reader::new(&w.bytes);
                assert_eq!((Origin::decode(&mut r), r.end()), (Ok(origin), Ok(())));
            }
        }
    }
}
