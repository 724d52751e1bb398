//! The positions that a client has written or seen, merged into one token.
//!
//! The service makes tokens. This module only takes those of the version that it knows apart, and
//! keeps others as they are.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::collections::BTreeMap;

/// The first byte of a token, without and with four bytes after it that name the log. Two varints
/// per partition follow (partitions skipped since the one before, and the next offset), then a
/// CRC-32 (`crates/query/src/position.rs`).
const VERSION: u8 = 1;
const VERSION_WITH_LOG: u8 = 3;
/// Characters of kept tokens of other versions, joined. Servers limit a header to some 8,000.
const OTHERS_MAX: usize = 4_000;

/// The log that a token names, if it names one.
type Log = Option<u32>;
/// The next offset of each partition.
type Offsets = BTreeMap<u32, u64>;

/// Positions that later reads wait for.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    /// One token for each log; there is a second log only after the service got another.
    logs: BTreeMap<Log, Offsets>,
    /// Tokens of other versions, oldest first.
    others: Vec<String>,
}

impl Positions {
    /// Returns one value for `Receipts-Min-Position`; empty if there is nothing to wait for.
    pub(crate) fn token(&self) -> String {
        let logs = self.logs.iter().filter(|(_, offsets)| !offsets.is_empty());
        let merged = logs.map(|(log, offsets)| encode(*log, offsets));
        merged.chain(self.others.iter().cloned()).collect::<Vec<_>>().join(",")
    }

    /// Adds a token, or several separated by commas: the greater offset of each partition.
    pub(crate) fn add(&mut self, tokens: &str) {
        for token in tokens.split(',').map(str::trim).filter(|token| !token.is_empty()) {
            let Some((log, offsets)) = decode(token) else {
                self.others.retain(|other| other != token);
                self.others.push(token.to_owned());
                continue;
            };
            let kept = self.logs.entry(log).or_default();
            for (partition, next) in offsets {
                let kept = kept.entry(partition).or_default();
                *kept = next.max(*kept);
            }
        }
        while self.others.iter().map(|token| token.len() + 1).sum::<usize>() > OTHERS_MAX {
            self.others.remove(0);
        }
    }

    /// Removes the positions of a token that [`Self::token`] returned, but not those added since.
    pub(crate) fn remove(&mut self, tokens: &str) {
        for token in tokens.split(',') {
            self.others.retain(|other| other != token);
            let Some((log, removed)) = decode(token) else { continue };
            if let Some(kept) = self.logs.get_mut(&log) {
                kept.retain(|partition, next| removed.get(partition) != Some(next));
            }
        }
        self.logs.retain(|_, offsets| !offsets.is_empty());
    }
}

/// Reads a token; `None` if it is of another version, or no token.
fn decode(token: &str) -> Option<(Log, Offsets)> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (body, checksum) = bytes.split_last_chunk::<4>()?;
    let (&version, mut rest) = body.split_first()?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let log = match version {
        VERSION => None,
        VERSION_WITH_LOG => {
            let (log, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u32::from_le_bytes(*log))
        }
        _ => return None,
    };
    let mut offsets = BTreeMap::new();
    let mut least = 0_u64;
    while !rest.is_empty() {
        let partition = take_varint(&mut rest)?.checked_add(least)?;
        offsets.insert(u32::try_from(partition).ok()?, take_varint(&mut rest)?);
        least = partition + 1;
    }
    Some((log, offsets))
}

/// Writes a token.
fn encode(log: Log, offsets: &Offsets) -> String {
    let mut bytes = vec![if log.is_some() { VERSION_WITH_LOG } else { VERSION }];
    bytes.extend(log.into_iter().flat_map(u32::to_le_bytes));
    let mut least = 0;
    for (&partition, &next) in offsets {
        put_varint(&mut bytes, u64::from(partition) - least);
        put_varint(&mut bytes, next);
        least = u64::from(partition) + 1;
    }
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Appends LEB128: seven bits per byte, the lowest first.
fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes LEB128 off the front.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_mul(1 << shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(log: Log, offsets: &[(u32, u64)]) -> String {
        encode(log, &offsets.iter().copied().collect())
    }

    #[test]
    fn tokens_are_merged_by_partition() {
        // The token of the OpenAPI document: partition 3, next offset 42.
        assert_eq!(of(None, &[(3, 42)]), "AQMqMCkVDg");
        for log in [None, Some(7), Some(u32::MAX)] {
            let mut positions = Positions::default();
            for offsets in [&[(3, 42)][..], &[(0, 5), (999, u64::MAX)], &[(3, 7), (0, 6)]] {
                positions.add(&of(log, offsets));
            }
            assert_eq!(positions.token(), of(log, &[(0, 6), (3, 42), (999, u64::MAX)]));
            for n in 0..10_000 {
                positions.add(&of(log, &[(n % 64, 1_000_000_000 + u64::from(n))]));
            }
            assert!(positions.token().len() < 700, "64 partitions and one token");
        }
    }

    #[test]
    fn tokens_of_two_logs_and_other_versions_stay_apart() {
        let mut positions = Positions::default();
        let (here, elsewhere) = (of(Some(7), &[(0, 1)]), of(Some(8), &[(0, 2)]));
        positions.add(&format!("AgNvbmU, nonsense,AQMqMCkVDw,AgNvbmU,{here},{elsewhere}"));
        assert_eq!(positions.token(), format!("{here},{elsewhere},nonsense,AQMqMCkVDw,AgNvbmU"));
        for n in 0..1_000 {
            positions.add(&format!("token-{n}-{}", "x".repeat(300)));
        }
        assert!(positions.token().len() < 4_100 && positions.token().contains("token-999-"));
    }

    #[test]
    fn removed_token_keeps_what_was_added_since() {
        let mut positions = Positions::default();
        positions.add(&format!("{},{},other", of(Some(7), &[(0, 5), (1, 5)]), of(None, &[(0, 5)])));
        let waited_for = positions.token();
        positions.add(&of(Some(7), &[(1, 6)]));
        positions.remove(&waited_for);
        assert_eq!(positions.token(), of(Some(7), &[(1, 6)]));
    }
}
