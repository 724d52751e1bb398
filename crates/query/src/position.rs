//! Positions in the event log and in the topic of updates, and the opaque tokens that carry them.
//!
//! A token must not serve as proof of anything: it has a checksum, not a signature. A client that
//! invents one only waits longer.

use crate::remainders::{EXACT_BYTES_MAX, PARTITIONS_MAX, Remainders};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use receipts_event::token::{Content, Kind, Unread, least, most};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// The header of an update in its topic: the position of the event partition at which it was
/// rendered, in digits. Every change below that offset is in this update or an earlier one.
pub const UPDATE_POSITION_HEADER: &str = "receipts-position";

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
        if other.entries.len() <= 1 {
            other.iter().for_each(|(partition, next_offset)| self.raise(partition, next_offset));
            return;
        }
        let (mut ours, mut theirs) =
            (std::mem::take(&mut self.entries).into_iter().peekable(), other.iter().peekable());
        self.entries.reserve(ours.len().max(theirs.len()));
        loop {
            let next = match (ours.peek(), theirs.peek()) {
                (Some(a), Some(b)) if a.0 == b.0 => (a.0, a.1.max(b.1)),
                (Some(a), Some(b)) => {
                    if a.0 < b.0 {
                        *a
                    } else {
                        *b
                    }
                }
                (Some(one), None) | (None, Some(one)) => *one,
                (None, None) => return,
            };
            ours.next_if(|entry| entry.0 == next.0);
            theirs.next_if(|entry| entry.0 == next.0);
            self.entries.push(next);
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

/// Writes an exact token, however long.
impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.0.content(Kind::Stream, None).format_1()))
    }
}

/// A number that tells the topics of one log from those of another: offsets of one mean other
/// records in the other. Two logs have the same number once in four billion pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogTag(pub u32);

/// A position of the event log that lacks the last bits of its offsets, from a token that would be
/// too long with them.
///
/// ```
/// use receipts_query::{Positions, Since, Token};
///
/// let mut exact: Positions = (0..10_000).map(|partition| (partition, 1_000_000_007)).collect();
/// exact.raise(5, 1_400_000_000);
/// let Since::Rounded(rounded) = exact.token(None).to_string().parse()? else { panic!("it is exact") };
/// assert!(exact.covers(&rounded.least()) && rounded.most().covers(&exact));
/// # Ok::<(), receipts_query::BadToken>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rounded(Content);

impl Rounded {
    /// Returns the least position that it may stand for. A stream that resumes from there misses
    /// nothing.
    #[must_use]
    pub fn least(&self) -> Positions {
        self.bound(least)
    }

    /// Returns the greatest position that it may stand for, which may be beyond the end of the log.
    #[must_use]
    pub fn most(&self) -> Positions {
        self.bound(most)
    }

    /// Returns the highest partition that it names.
    #[must_use]
    pub fn highest_partition(&self) -> Option<u32> {
        self.0.offsets.last().map(|(partition, _)| *partition)
    }

    fn bound(&self, bound: impl Fn(u64, u32) -> u64) -> Positions {
        self.0.offsets.iter().map(|(partition, rounded)| (*partition, bound(*rounded, self.0.shift))).collect()
    }
}

/// A token as clients hold it: positions, and the log that they belong to. A token of an earlier
/// release, or of a log that has no tag, has none.
///
/// Its text has at most [`TOKEN_CHARS_MAX`](crate::TOKEN_CHARS_MAX) characters: what does not fit
/// is rounded ([`Since::Rounded`], [`Since::Remainders`]).
///
/// ```
/// use receipts_query::{BadToken, LogTag, Positions, Since, Token};
///
/// let token: Token = Positions::applied(3, 42).token(Some(LogTag(7))).to_string().parse()?;
/// assert_eq!(token.since, Since::Events(Positions::applied(3, 42)));
/// assert!(token.may_be_of(Some(LogTag(7))) && !token.may_be_of(Some(LogTag(8))));
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
    /// If it is the id of a stream event, or of another log, or rounded.
    pub fn into_positions(self, log: Option<LogTag>) -> Result<Positions, BadToken> {
        match self.into_position(log)? {
            Since::Events(positions) => Ok(positions),
            _ => Err(BadToken::Rounded),
        }
    }

    /// Returns its position of the event log, exact or rounded.
    ///
    /// # Errors
    /// If it is the id of a stream event, or of another log.
    pub fn into_position(self, log: Option<LogTag>) -> Result<Since, BadToken> {
        match self.since {
            Since::Stream(_) | Since::Remainders(_) => Err(BadToken::OfStream),
            _ if !self.may_be_of(log) => Err(BadToken::OtherLog),
            position => Ok(position),
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.log.map(|tag| tag.0);
        let content = match &self.since {
            Since::Events(positions) => positions.content(Kind::Events, log),
            Since::Rounded(Rounded(content)) | Since::Remainders(Remainders(content)) => {
                Content { log, ..content.clone() }
            }
            Since::Stream(StreamId(positions)) => {
                let content = positions.content(Kind::Stream, log);
                let exact = content.exact_bytes().filter(|bytes| {
                    // Numbers of partitions that no log has are written in full.
                    let is_invented = positions.highest_partition().is_some_and(|highest| highest >= PARTITIONS_MAX);
                    bytes.len() <= EXACT_BYTES_MAX || is_invented
                });
                let bytes = exact.unwrap_or_else(|| Content { log, ..Remainders::of(positions).0 }.bytes());
                return f.write_str(&encode(&bytes));
            }
        };
        f.write_str(&encode(&content.bytes()))
    }
}

impl FromStr for Token {
    type Err = BadToken;

    fn from_str(token: &str) -> Result<Self, BadToken> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| BadToken::Garbled)?;
        let content = Content::read(&bytes)?;
        let log = content.log.map(LogTag);
        let since = match content.kind {
            Kind::Events if content.shift == 0 => Since::Events(Positions { entries: content.offsets }),
            Kind::Stream if content.shift == 0 => Since::Stream(StreamId(Positions { entries: content.offsets })),
            Kind::Events => Since::Rounded(Rounded(Content { log: None, ..content })),
            Kind::Remainders { .. } => Since::Remainders(Remainders::read(Content { log: None, ..content })?),
            Kind::Stream => return Err(BadToken::Garbled),
        };
        Ok(Self { log, since })
    }
}

/// A token from which a stream of updates may resume. Its first byte tells which kind it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Since {
    /// A position of the event log, from an answer.
    Events(Positions),
    /// The same without the last bits of the offsets.
    Rounded(Rounded),
    /// The `id` of a stream event.
    Stream(StreamId),
    /// The same with nothing but the last bits of the offsets.
    Remainders(Remainders),
}

impl Since {
    /// Returns the highest partition that it names.
    pub fn highest_partition(&self) -> Option<u32> {
        match self {
            Self::Events(positions) | Self::Stream(StreamId(positions)) => positions.highest_partition(),
            Self::Rounded(rounded) => rounded.highest_partition(),
            Self::Remainders(remainders) => remainders.highest_partition(),
        }
    }
}

impl FromStr for Since {
    type Err = BadToken;

    fn from_str(token: &str) -> Result<Self, BadToken> {
        Ok(token.parse::<Token>()?.since)
    }
}

/// Encodes the bytes of a token: base64url without padding, safe in headers and query strings.
fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Writes an exact token of format 1, about 8 characters per partition: edges and projectors of all
/// releases exchange positions in it. Clients get a [`Token`].
impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&encode(&self.content(Kind::Events, None).format_1()))
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

    fn content(&self, kind: Kind, log: Option<u32>) -> Content {
        Content { kind, log, shift: 0, offsets: self.entries.clone() }
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
    /// The token lacks the last bits of its offsets.
    #[error("stands for many positions, because an exact token of its partitions is too long")]
    Rounded,
    /// The token is from a later release, so this edge is older than the one that gave it.
    #[error("must be a position token of a known version")]
    UnknownVersion,
}

impl From<Unread> for BadToken {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Garbled => Self::Garbled,
            Unread::UnknownVersion => Self::UnknownVersion,
        }
    }
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
    use crate::TOKEN_CHARS_MAX;
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
        let mut bytes = vec![11];
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        assert_eq!(URL_SAFE_NO_PAD.encode(bytes).parse::<Positions>(), Err(BadToken::UnknownVersion));
        assert_eq!("".parse::<Positions>(), Err(BadToken::Garbled));
    }

    /// Tokens of format 1 that earlier releases gave.
    #[test]
    fn tokens_of_format_1_are_read_for_ever() {
        let all: Positions = (0..1_000).map(|partition| (partition, 1_000_000_000)).collect();
        let old = all.to_string();
        assert_eq!((old.len(), old.parse::<Token>()), (8_007, Ok(all.token(None))));
        let few: Positions = [(0, 5), (3, 42), (999, u64::MAX)].into_iter().collect();
        for (text, log, is_stream) in [
            ("AQAFAirjB____________wGhrdq1", None, false),
            ("AgAFAirjB____________wEl9kDm", None, true),
            ("AwcAAAAABQIq4wf___________8BpHbNIA", Some(LogTag(7)), false),
            ("BAcAAAAABQIq4wf___________8B_PAqSQ", Some(LogTag(7)), true),
        ] {
            let since = if is_stream { Since::Stream(StreamId(few.clone())) } else { Since::Events(few.clone()) };
            assert_eq!(text.parse(), Ok(Token { log, since }), "{text}");
        }
    }

    fn many() -> impl Strategy<Value = Positions> {
        let base = prop_oneof![Just(1_u64), Just(1_000_000_000), Just(1 << 62)];
        let count = prop_oneof![1_u32..70, 900_u32..1_100, 9_900_u32..10_100];
        (base, count, 0_u32..40, any::<u64>()).prop_map(|(base, count, spread, seed)| {
            let offset = |at: u32| base + (seed ^ u64::from(at)).wrapping_mul(0x9e37_79b9_7f4a_7c15) % (1 << spread);
            (0..count).map(|at| (at, offset(at))).collect()
        })
    }

    proptest! {
        /// INV-TOKEN
        #[test]
        fn rounded_token_stands_for_its_position(positions in many(), log in any::<Option<u32>>()) {
            let token = positions.token(log.map(LogTag)).to_string();
            prop_assert!(token.len() <= TOKEN_CHARS_MAX, "{}", token.len());
            match token.parse::<Token>().unwrap().since {
                Since::Events(exact) => prop_assert_eq!(exact, positions),
                Since::Rounded(rounded) => {
                    prop_assert!(positions.iter().len() > 64);
                    prop_assert!(positions.covers(&rounded.least()) && rounded.most().covers(&positions));
                    prop_assert_eq!(rounded.highest_partition(), positions.highest_partition());
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn merge_is_that_of_single_partitions(a in positions(), b in positions()) {
            let (mut merged, mut raised) = (a.clone(), a);
            merged.merge(&b);
            b.iter().for_each(|(partition, next_offset)| raised.raise(partition, next_offset));
            prop_assert_eq!(merged, raised);
        }
    }

    #[test]
    fn token_of_256_partitions_is_exact() {
        let all: Positions =
            (0..256).map(|partition| (partition, 10_000_000_000 - 1_000_000 * u64::from(partition))).collect();
        let token = all.token(Some(LogTag(7)));
        assert_eq!(token.to_string().parse(), Ok(token.clone()));
        assert!(token.to_string().len() < 1_300, "{}", token.to_string().len());
    }
}
