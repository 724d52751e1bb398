//! Positions in the event log and in the topic of updates, and the opaque tokens that carry them.
//!
//! A token must not serve as proof of anything: it has a checksum, not a signature. A client that
//! invents one only waits longer.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// The header of an update in its topic: the position of the event partition at which it was
/// rendered, in digits. Every change below that offset is in this update or an earlier one.
pub const UPDATE_POSITION_HEADER: &str = "receipts-position";

/// The first byte of a token. Two varints per partition follow (partitions skipped since the one
/// before, and the next offset), then the CRC-32 of all these bytes, little-endian.
const TOKEN_VERSION: u8 = 1;

/// The first byte of a token for the topic of updates, which has the same layout. It distinguishes
/// the two kinds of tokens.
const STREAM_VERSION: u8 = 2;

/// Added to the first byte of a token whose second to fifth byte are its [`LogTag`], little-endian.
const TAGGED: u8 = 2;

/// Bytes of the checksum.
const CHECKSUM_BYTES: usize = 4;

/// How far each partition is written or applied, as the *next* offset: an event at offset `o` is
/// included if the next offset is at least `o + 1`. A partition that is not named is at 0, which
/// all positions cover.
///
/// Positions only grow (INV-POSITION): [`raise`](Self::raise) and [`merge`](Self::merge) keep the
/// greater one.
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
    /// (partition, next offset), by rising partition, without next offsets of 0.
    entries: Vec<(u32, u64)>,
}

impl Positions {
    /// Creates positions that all others cover.
    pub const fn new() -> Self {
        Self { entries: Vec::new() }
    }

    /// Creates positions of one partition that is applied up to, but not including, `next_offset`.
    pub fn applied(partition: u32, next_offset: u64) -> Self {
        let entries = if next_offset == 0 { Vec::new() } else { vec![(partition, next_offset)] };
        Self { entries }
    }

    /// Creates positions of one partition that include the event written at `offset`.
    pub fn written(partition: u32, offset: u64) -> Self {
        Self::applied(partition, offset.saturating_add(1))
    }

    /// Returns the next offset of a partition; 0 if it is not named.
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

    /// Moves every partition forward to its position in `other`, never back.
    pub fn merge(&mut self, other: &Self) {
        for (partition, next_offset) in other.iter() {
            self.raise(partition, next_offset);
        }
    }

    /// Whether these positions include every event before `other`.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(partition, next_offset)| self.next_offset(partition) >= next_offset)
    }

    /// Returns (partition, next offset) of every partition beyond 0, by rising partition.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (u32, u64)> + '_ {
        self.entries.iter().copied()
    }

    /// Returns the highest partition that is named. Edges refuse a token that names a partition
    /// beyond the log.
    pub fn highest_partition(&self) -> Option<u32> {
        self.entries.last().map(|entry| entry.0)
    }

    /// Whether no partition is beyond 0.
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

/// The point at which a stream of updates resumes: positions in the topic of updates, of the
/// partitions that feed the stream. Its text is the `id` of a stream event.
///
/// ```
/// use receipts_query::{Positions, Since, StreamId};
///
/// let id = StreamId(Positions::applied(3, 42));
/// assert_eq!(id.to_string().parse(), Ok(Since::Stream(id.clone())));
/// assert!(id.to_string().parse::<Positions>().is_err(), "it has no position of the event log");
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct StreamId(pub Positions);

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(STREAM_VERSION, None, f)
    }
}

/// A number that tells the topics of one log from those of another: offsets of one mean other
/// records in the other. Two logs have the same number once in four billion pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogTag(pub u32);

/// A token as clients hold it: positions, and the log that they belong to. A token of an earlier
/// release, or of a log that has no tag, has none.
///
/// ```
/// use receipts_query::{BadToken, LogTag, Positions, Token};
///
/// let (here, elsewhere) = (Some(LogTag(7)), Some(LogTag(8)));
/// let token: Token = Positions::applied(3, 42).token(here).to_string().parse()?;
/// assert_eq!(token.clone().into_positions(here), Ok(Positions::applied(3, 42)));
/// assert_eq!(token.into_positions(elsewhere), Err(BadToken::OtherLog));
/// # Ok::<(), BadToken>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// The log of the positions, if the token names one.
    pub log: Option<LogTag>,
    /// The positions, and their kind.
    pub since: Since,
}

impl Token {
    /// Returns false if the token is of another log. A tag that either lacks decides nothing.
    pub fn may_be_of(&self, log: Option<LogTag>) -> bool {
        self.log.zip(log).is_none_or(|(token, log)| token == log)
    }

    /// Returns its position of the event log.
    ///
    /// # Errors
    /// If it is the id of a stream event, or of another log.
    pub fn into_positions(self, log: Option<LogTag>) -> Result<Positions, BadToken> {
        match self.since {
            Since::Stream(_) => Err(BadToken::OfStream),
            _ if !self.may_be_of(log) => Err(BadToken::OtherLog),
            Since::Events(positions) => Ok(positions),
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = match &self.since {
            Since::Events(_) => TOKEN_VERSION,
            Since::Stream(_) => STREAM_VERSION,
        };
        self.since.positions().write(version, self.log, f)
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(token: &str) -> Result<Self, BadToken> {
        let (version, log, positions) = Positions::read(token)?;
        let since = match version {
            STREAM_VERSION => Since::Stream(StreamId(positions)),
            _ => Since::Events(positions),
        };
        Ok(Self { log, since })
    }
}

/// A token from which a stream of updates may resume. Its first byte tells which kind it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// A position of the event log, from an answer.
    Events(Positions),
    /// The `id` of a stream event.
    Stream(StreamId),
}

impl Since {
    /// Returns the positions of either kind.
    pub fn positions(&self) -> &Positions {
        match self {
            Self::Events(positions) | Self::Stream(StreamId(positions)) => positions,
        }
    }
}

impl FromStr for Since {
    type Err = BadToken;

    fn from_str(token: &str) -> Result<Self, BadToken> {
        Ok(token.parse::<Token>()?.since)
    }
}

/// Writes the token: base64url without padding, safe in headers and query strings, about 8 bytes
/// per partition.
impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(TOKEN_VERSION, None, f)
    }
}

impl FromStr for Positions {
    type Err = BadToken;

    fn from_str(token: &str) -> Result<Self, BadToken> {
        token.parse::<Token>()?.into_positions(None)
    }
}

impl Positions {
    /// Returns the token of these positions of a log.
    #[must_use]
    pub fn token(&self, log: Option<LogTag>) -> Token {
        Token { log, since: Since::Events(self.clone()) }
    }

    fn write(&self, version: u8, log: Option<LogTag>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = Vec::with_capacity(5 + self.entries.len() * 6 + CHECKSUM_BYTES);
        match log {
            None => bytes.push(version),
            Some(LogTag(tag)) => {
                bytes.push(version + TAGGED);
                bytes.extend_from_slice(&tag.to_le_bytes());
            }
        }
        let mut least = 0;
        for &(partition, next_offset) in &self.entries {
            put_varint(&mut bytes, u64::from(partition) - least);
            put_varint(&mut bytes, next_offset);
            least = u64::from(partition) + 1;
        }
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a token of any kind; returns the version of its kind without a tag.
    fn read(token: &str) -> Result<(u8, Option<LogTag>, Self), BadToken> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| BadToken::Garbled)?;
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(BadToken::Garbled)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err(BadToken::Garbled);
        }
        let (&version, mut rest) = body.split_first().ok_or(BadToken::Garbled)?;
        let (version, log) = match version {
            TOKEN_VERSION | STREAM_VERSION => (version, None),
            _ if version == TOKEN_VERSION + TAGGED || version == STREAM_VERSION + TAGGED => {
                let (tag, after) = rest.split_first_chunk().ok_or(BadToken::Garbled)?;
                rest = after;
                (version - TAGGED, Some(LogTag(u32::from_le_bytes(*tag))))
            }
            _ => return Err(BadToken::UnknownVersion),
        };
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
        Ok((version, log, Self { entries }))
    }
}

/// Why a text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// The text is not a token, or was cut, changed or invented.
    #[error("must be a position token of this service")]
    Garbled,
    /// The text is the `id` of a stream event instead of a position of the event log.
    #[error("must be a position of the event log, not the id of a stream event")]
    OfStream,
    /// The token is of another log: of a topic that was made anew, or of another cluster.
    #[error("is a token of another log: drop it, and ask without one")]
    OtherLog,
    /// The token is from a later release, so this edge is older than the one that gave it.
    #[error("must be a position token of a known version")]
    UnknownVersion,
}

/// Appends LEB128: seven bits per byte, the lowest first.
fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

/// Takes LEB128 off the front. It refuses encodings longer than needed, so that every position has
/// one token.
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
        fn token_round_trips_to_its_positions(positions in positions()) {
            prop_assert_eq!(positions.to_string().parse(), Ok(positions));
        }

        #[test]
        fn token_with_a_flipped_bit_is_refused(positions in positions(), at in any::<prop::sample::Index>(), bit in 0_u8..7) {
            let mut token = positions.to_string().into_bytes();
            let at = at.index(token.len());
            token[at] ^= 1 << bit;
            let token = String::from_utf8(token).unwrap();
            prop_assert!(token.parse::<Positions>().is_err());
        }

        #[test]
        fn cut_token_is_refused(positions in positions(), at in any::<prop::sample::Index>()) {
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
    fn append_is_covered_once_next_offset_is_beyond() {
        let written = Positions::written(7, 10);
        assert!(!Positions::applied(7, 10).covers(&written));
        assert!(Positions::applied(7, 11).covers(&written));
        assert!(!Positions::applied(6, 11).covers(&written));
    }

    proptest! {
        #[test]
        fn two_kinds_of_tokens_are_never_confused(positions in positions()) {
            let id = StreamId(positions.clone());
            prop_assert_eq!(id.to_string().parse::<Positions>(), Err(BadToken::OfStream));
            prop_assert_eq!(id.to_string().parse(), Ok(Since::Stream(id)));
            prop_assert_eq!(positions.to_string().parse(), Ok(Since::Events(positions)));
        }

        #[test]
        fn token_of_another_log_is_refused(positions in positions(), log in any::<Option<u32>>(), of in any::<u32>()) {
            let log = log.map(LogTag);
            for since in [Since::Events(positions.clone()), Since::Stream(StreamId(positions.clone()))] {
                let token = Token { log, since };
                prop_assert_eq!(token.to_string().parse(), Ok(token.clone()));
                prop_assert!(token.may_be_of(log) && token.may_be_of(None));
                prop_assert_eq!(token.may_be_of(Some(LogTag(of))), log.is_none_or(|log| log.0 == of));
            }
        }
    }

    #[test]
    fn empty_positions_are_covered_and_have_a_token() {
        let nothing = Positions::applied(5, 0);
        assert_eq!(nothing, Positions::new());
        assert!(Positions::new().covers(&nothing));
        assert_eq!(nothing.to_string().parse(), Ok(Positions::new()));
    }

    #[test]
    fn token_of_later_version_differs_from_garbled_one() {
        let mut bytes = vec![STREAM_VERSION + TAGGED + 1];
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        assert_eq!(URL_SAFE_NO_PAD.encode(bytes).parse::<Positions>(), Err(BadToken::UnknownVersion));
        assert_eq!("".parse::<Positions>(), Err(BadToken::Garbled));
    }

    #[test]
    fn token_of_256_partitions_fits_a_header() {
        let all: Positions = (0..256).map(|partition| (partition, 10_000_000_000)).collect();
        assert!(all.to_string().len() < 2_500);
    }
}
