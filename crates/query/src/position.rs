//! Positions in the event log and in the topic of updates, and the opaque tokens that carry them between answers and
//! requests.
//!
//! Must not be read as a proof: a token is checked against accidents, not signed. Whoever invents one only waits for it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// The header of an update in its topic: the position of its partition of the event topic that it was rendered at, in digits.
/// Everything below that offset is in it or was in an earlier one.
pub const UPDATE_POSITION_HEADER: &str = "receipts-position";

/// The layout of a token's bytes: this version, then per partition two varints (partitions since the one before, next
/// offset), then the CRC-32 of all that, little-endian.
const TOKEN_VERSION: u8 = 1;

/// The same layout for positions in the topic of updates. Another first byte, so that the two are never taken for one
/// another.
const STREAM_VERSION: u8 = 2;

/// The checksum's length in bytes.
const CHECKSUM_BYTES: usize = 4;

/// How far each partition is written or applied: the offset that comes *next*, so an event at offset `o` is in it where
/// the next offset is at least `o + 1`. A partition that is not named stands at 0, which everything covers.
///
/// Positions only ever grow: [`raise`](Self::raise) and [`merge`](Self::merge) take the greater of two.
///
/// ```
/// use receipts_query::Positions;
///
/// let written = Positions::written(3, 41);
/// let mut folded = Positions::applied(3, 41);
/// assert!(!folded.covers(&written));
/// folded.raise(3, 42);
/// assert!(folded.covers(&written));
/// assert_eq!(written.to_string().parse(), Ok(written));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Positions {
    /// (partition, next offset), partitions rising, no next offset 0.
    entries: Vec<(u32, u64)>,
}

impl Positions {
    /// Positions that everything covers.
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// One partition, applied up to but without `next_offset`.
    pub fn applied(partition: u32, next_offset: u64) -> Self {
        let entries = if next_offset == 0 { Vec::new() } else { vec![(partition, next_offset)] };
        Self { entries }
    }

    /// One partition, through the event that was written at `offset`.
    pub fn written(partition: u32, offset: u64) -> Self {
        Self::applied(partition, offset.saturating_add(1))
    }

    /// The next offset of a partition; 0 where it is not named.
    pub fn next_offset(&self, partition: u32) -> u64 {
        self.entries.binary_search_by_key(&partition, |entry| entry.0).map_or(0, |at| self.entries[at].1)
    }

    /// Moves one partition forward to `next_offset`, never back.
    pub fn raise(&mut self, partition: u32, next_offset: u64) {
        match self.entries.binary_search_by_key(&partition, |entry| entry.0) {
            Ok(at) => self.entries[at].1 = self.entries[at].1.max(next_offset),
            Err(at) if next_offset > 0 => self.entries.insert(at, (partition, next_offset)),
            Err(_) => {}
        }
    }

    /// Moves every partition forward to where `other` is, never back.
    pub fn merge(&mut self, other: &Self) {
        for (partition, next_offset) in other.iter() {
            self.raise(partition, next_offset);
        }
    }

    /// Whether everything before `other` is before these too.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(partition, next_offset)| self.next_offset(partition) >= next_offset)
    }

    /// (partition, next offset) of all that stand beyond 0, partitions rising.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u32, u64)> + '_ {
        self.entries.iter().copied()
    }

    /// The highest partition that is named; a token that names one the log does not have is refused by this.
    pub fn highest_partition(&self) -> Option<u32> {
        self.entries.last().map(|entry| entry.0)
    }

    /// Whether no partition stands beyond 0.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl FromIterator<(u32, u64)> for Positions {
    fn from_iter<I: IntoIterator<Item = (u32, u64)>>(entries: I) -> Self {
        let mut positions = Self::new();
        for (partition, next_offset) in entries {
            positions.raise(partition, next_offset);
        }
        positions
    }
}

/// Where a stream of updates goes on: positions in the topic of updates, of the partitions that the stream is fed from.
/// Its text is what a stream gives as the `id` of an event.
///
/// ```
/// use receipts_query::{Positions, Since, StreamId};
///
/// let id = StreamId(Positions::applied(3, 42));
/// assert_eq!(id.to_string().parse(), Ok(Since::Stream(id.clone())));
/// assert!(id.to_string().parse::<Positions>().is_err(), "it says nothing of the event log");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct StreamId(pub Positions);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(STREAM_VERSION, f)
    }
}

/// What a stream of updates may be resumed from: either token tells by itself which it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// A position of the event log: what an answer carried.
    Events(Positions),
    /// The `id` of an event of a stream.
    Stream(StreamId),
}

impl Since {
    /// The positions, whichever topic they are in.
    pub fn positions(&self) -> &Positions {
        match self {
            Self::Events(positions) | Self::Stream(StreamId(positions)) => positions,
        }
    }
}

impl FromStr for Since {
    type Err = BadToken;

    fn from_str(token: &str) -> Result<Self, BadToken> {
        match Positions::read(token)? {
            (STREAM_VERSION, positions) => Ok(Self::Stream(StreamId(positions))),
            (_, positions) => Ok(Self::Events(positions)),
        }
    }
}

/// The token: base64url without padding, safe in headers and query strings. About 8 bytes a partition.
impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(TOKEN_VERSION, f)
    }
}

impl FromStr for Positions {
    type Err = BadToken;

    fn from_str(token: &str) -> Result<Self, BadToken> {
        match Self::read(token)? {
            (STREAM_VERSION, _) => Err(BadToken::OfStream),
            (_, positions) => Ok(positions),
        }
    }
}

impl Positions {
    fn write(&self, version: u8, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(1 + self.entries.len() * 6 + CHECKSUM_BYTES);
        bytes.push(version);
        let mut least = 0;
        for &(partition, next_offset) in &self.entries {
            put_varint(&mut bytes, u64::from(partition) - least);
            put_varint(&mut bytes, next_offset);
            least = u64::from(partition) + 1;
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a token of any version that has this layout.
    fn read(token: &str) -> Result<(u8, Self), BadToken> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| BadToken::Garbled)?;
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(BadToken::Garbled)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err(BadToken::Garbled);
        }
        let (&version, mut rest) = body.split_first().ok_or(BadToken::Garbled)?;
        if ![TOKEN_VERSION, STREAM_VERSION].contains(&version) {
            return Err(BadToken::UnknownVersion);
        }
        let mut entries = Vec::with_capacity(rest.len() / 2);
        let mut least = 0_u64;
        while !rest.is_empty() {
            let partition = take_varint(&mut rest)?.checked_add(least).ok_or(BadToken::Garbled)?;
            let next_offset = take_varint(&mut rest)?;
            if next_offset == 0 {
                return Err(BadToken::Garbled);
            }
            entries.push((u32::try_from(partition).map_err(|_| BadToken::Garbled)?, next_offset));
            least = partition + 1;
        }
        Ok((version, Self { entries }))
    }
}

/// Why a text is no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Not a token, or one that was cut, changed or invented.
    #[error("not a position token of this service")]
    Garbled,
    /// A stream's `id` where a position of the event log is asked for.
    #[error("the id of a stream's event, which is no position of the event log")]
    OfStream,
    /// A token of a later release; an edge that is older than its client's last answer.
    #[error("a position token of an unknown version")]
    UnknownVersion,
}

/// Appends LEB128: seven bits a byte, the lowest first.
fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes LEB128 off the front; refuses what is longer than it needs to be, so that every position has one token.
fn take_varint(bytes: &mut &[u8]) -> Result<u64, BadToken> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(BadToken::Garbled)?;
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        if shift == 63 && low > 1 {
            return Err(BadToken::Garbled);
        }
        value |= low << shift;
        if byte & 0x80 == 0 {
            return if byte == 0 && shift > 0 { Err(BadToken::Garbled) } else { Ok(value) };
        }
    }
    Err(BadToken::Garbled)
}

impl Serialize for Positions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Positions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn positions() -> impl Strategy<Value = Positions> {
        let entry = (prop_oneof![0_u32..300, any::<u32>()], prop_oneof![0_u64..1_000_000, any::<u64>()]);
        proptest::collection::vec(entry, 0..40).prop_map(Positions::from_iter)
    }

    proptest! {
        #[test]
        fn a_token_comes_back_as_the_positions_it_was_made_of(positions in positions()) {
            prop_assert_eq!(positions.to_string().parse(), Ok(positions));
        }

        #[test]
        fn a_token_with_any_flipped_bit_is_refused(positions in positions(), at in any::<prop::sample::Index>(), bit in 0_u8..7) {
            let mut token = positions.to_string().into_bytes();
            let at = at.index(token.len());
            token[at] ^= 1 << bit;
            let token = String::from_utf8(token).unwrap();
            prop_assert!(token.parse::<Positions>().is_err());
        }

        #[test]
        fn a_token_that_was_cut_is_refused(positions in positions(), at in any::<prop::sample::Index>()) {
            let token = positions.to_string();
            prop_assert!(token[..at.index(token.len())].parse::<Positions>().is_err());
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in "[A-Za-z0-9_-]{0,60}") {
            let _ = text.parse::<Positions>();
        }

        #[test]
        fn merged_positions_cover_both_and_nothing_beyond(a in positions(), b in positions()) {
            let mut merged = a.clone();
            merged.merge(&b);
            prop_assert!(merged.covers(&a) && merged.covers(&b));
            for (partition, next_offset) in merged.iter() {
                prop_assert_eq!(next_offset, a.next_offset(partition).max(b.next_offset(partition)));
            }
        }

        #[test]
        fn positions_never_move_back(mut a in positions(), b in positions()) {
            let before = a.clone();
            a.merge(&b);
            prop_assert!(a.covers(&before));
        }
    }

    #[test]
    fn an_append_is_covered_once_the_next_offset_stands_behind_it() {
        let written = Positions::written(7, 10);
        assert!(!Positions::applied(7, 10).covers(&written));
        assert!(Positions::applied(7, 11).covers(&written));
        assert!(!Positions::applied(6, 11).covers(&written));
    }

    proptest! {
        #[test]
        fn the_two_kinds_of_token_are_never_taken_for_one_another(positions in positions()) {
            let id = StreamId(positions.clone());
            prop_assert_eq!(id.to_string().parse::<Positions>(), Err(BadToken::OfStream));
            prop_assert_eq!(id.to_string().parse(), Ok(Since::Stream(id)));
            prop_assert_eq!(positions.to_string().parse(), Ok(Since::Events(positions)));
        }
    }

    #[test]
    fn nothing_is_covered_by_everything_and_has_a_token() {
        let nothing = Positions::applied(5, 0);
        assert_eq!(nothing, Positions::new());
        assert!(Positions::new().covers(&nothing));
        assert_eq!(nothing.to_string().parse(), Ok(Positions::new()));
    }

    #[test]
    fn a_token_of_a_later_version_is_told_apart_from_a_garbled_one() {
        let mut bytes = vec![STREAM_VERSION + 1];
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        assert_eq!(URL_SAFE_NO_PAD.encode(bytes).parse::<Positions>(), Err(BadToken::UnknownVersion));
        assert_eq!("".parse::<Positions>(), Err(BadToken::Garbled));
    }

    #[test]
    fn a_token_of_256_partitions_fits_a_header() {
        let all: Positions = (0..256).map(|partition| (partition, 10_000_000_000)).collect();
        assert!(all.to_string().len() < 2_500);
    }
}
