//! The bytes of position tokens, formats 1 and 2, for the service and for clients that merge
//! tokens.
//!
//! It knows no text encoding, and asks no log.
//!
//! Format 1 has two varints per partition. Format 2 has fields of a fixed number of bits, and
//! leaves out the last bits of all offsets where a token would be longer than [`TOKEN_CHARS_MAX`]:
//! such a token is *rounded*. `schemas/token/v2.md` describes both.

/// The most characters of a token: with it, a head still fits into the 4 kB that some proxies give
/// to one.
pub const TOKEN_CHARS_MAX: usize = 2_000;

/// The bytes of as many characters of base64.
const BYTES_MAX: usize = TOKEN_CHARS_MAX / 4 * 3;

/// Bytes of the checksum, a CRC-32 of all bytes before it, little-endian.
const CHECKSUM_BYTES: usize = 4;

/// The most partitions of a token of format 2. It bounds the memory that a forged token takes.
const PARTITIONS_MAX: u64 = 100_000;

/// What the offsets of a token mean.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// Offsets of the event log.
    #[default]
    Events,
    /// Offsets of the topic of updates.
    Stream,
    /// Offsets of the topic of updates, of which the token keeps the last bits alone.
    Remainders {
        /// The bits that are kept, after the last `shift` ones.
        bits: u8,
        /// Tells right offsets from wrong ones.
        hash: [u8; 8],
    },
}

/// The content of a token.
///
/// ```
/// use receipts_event::token::Content;
///
/// let content = Content { offsets: vec![(3, 42)], ..Content::default() };
/// assert_eq!(Content::read(&content.bytes()), Ok(content));
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Content {
    /// The kind of the offsets.
    pub kind: Kind,
    /// The log, if the token names one.
    pub log: Option<u32>,
    /// The number of last bits that each offset lacks: 0 if the token is exact, at most 64.
    pub shift: u32,
    /// Each partition, and its next offset without the last `shift` bits, by rising partition.
    pub offsets: Vec<(u32, u64)>,
}

/// Why bytes are no token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// They are not a token, or were cut, changed or invented.
    #[error("is not a token")]
    Garbled,
    /// The token is from a later release.
    #[error("is a token of an unknown version")]
    UnknownVersion,
}

/// Returns the least offset that is `rounded` without its last `shift` bits.
#[must_use]
pub fn least(rounded: u64, shift: u32) -> u64 {
    rounded.checked_shl(shift).unwrap_or(0)
}

/// Returns the greatest such offset.
#[must_use]
pub fn most(rounded: u64, shift: u32) -> u64 {
    let lacking = 1_u64.checked_shl(shift).map_or(u64::MAX, |bit| bit - 1);
    least(rounded, shift) | lacking
}

/// Returns an offset without more of its last bits.
#[must_use]
pub fn shortened(offset: u64, bits: u32) -> u64 {
    offset.checked_shr(bits).unwrap_or(0)
}

impl Content {
    /// Returns the token's bytes: format 1 where it is not longer, otherwise format 2. A token that
    /// would be longer than [`TOKEN_CHARS_MAX`] loses as few of the last bits as it must.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        if let Kind::Remainders { .. } = self.kind {
            return self.format_2();
        }
        let plain = (self.shift == 0).then(|| self.format_1());
        let length = |content: &Self| Layout::of(content).map_or(usize::MAX, |layout| layout.byte_count(content));
        match plain {
            Some(plain) if plain.len() <= BYTES_MAX.min(length(self)) => plain,
            plain => {
                let short = self.rounded().or_else(|| self.filled()?.rounded());
                // Only numbers of partitions that no log has find no room.
                short.map_or_else(|| plain.unwrap_or_else(|| self.format_2()), |content| content.format_2())
            }
        }
    }

    /// Returns the bytes of the shorter format of an exact token, however long.
    #[must_use]
    pub fn exact_bytes(&self) -> Option<Vec<u8>> {
        let (one, two) = (self.format_1(), self.format_2());
        (self.shift == 0).then_some(if one.len() <= two.len() { one } else { two })
    }

    /// Returns this content without as many of its last bits as do not fit.
    fn rounded(&self) -> Option<Self> {
        let layout = Layout::of(self)?;
        let shift = (self.shift..=64).find(|shift| layout.shifted(shift - self.shift).byte_count(self) <= BYTES_MAX)?;
        let offsets =
            self.offsets.iter().map(|(partition, offset)| (*partition, shortened(*offset, shift - self.shift)));
        Some(Self { shift, offsets: offsets.collect(), ..*self })
    }

    /// Returns this content with every partition between the first and the last one: those that it
    /// does not name are at 0. It needs no bits to say which partitions it names.
    fn filled(&self) -> Option<Self> {
        let (first, last) = (self.offsets.first()?.0, self.offsets.last()?.0);
        if u64::from(last - first) >= PARTITIONS_MAX {
            return None;
        }
        let mut offsets: Vec<_> = (first..=last).map(|partition| (partition, 0)).collect();
        self.offsets.iter().for_each(|&(partition, offset)| offsets[(partition - first) as usize].1 = offset);
        Some(Self { offsets, ..*self })
    }

    /// Reads a token.
    ///
    /// # Errors
    /// If these are not the bytes of a token of format 1 or 2.
    pub fn read(bytes: &[u8]) -> Result<Self, Unread> {
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(Unread::Garbled)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err(Unread::Garbled);
        }
        let (&version, mut rest) = body.split_first().ok_or(Unread::Garbled)?;
        let (format, kind, has_log) = match version {
            1 | 3 => (1, Kind::Events, version == 3),
            2 | 4 => (1, Kind::Stream, version == 4),
            5 | 7 => (2, Kind::Events, version == 7),
            6 | 8 => (2, Kind::Stream, version == 8),
            9 | 10 => (2, Kind::Remainders { bits: 0, hash: [0; 8] }, version == 10),
            _ => return Err(Unread::UnknownVersion),
        };
        let log = match has_log {
            true => Some(u32::from_le_bytes(*chunk(&mut rest).ok_or(Unread::Garbled)?)),
            false => None,
        };
        let empty = Self { kind, log, ..Self::default() };
        let read = if format == 1 { empty.read_format_1(rest) } else { empty.read_format_2(rest) };
        let content = read.ok_or(Unread::Garbled)?;
        // One content has one token of each format.
        if format == 2 && content.format_2() != bytes { Err(Unread::Garbled) } else { Ok(content) }
    }

    /// Begins the bytes of a token: the version, and the log.
    fn head(&self, [without_log, with_log]: [u8; 2]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(if self.log.is_some() { with_log } else { without_log });
        bytes.extend(self.log.into_iter().flat_map(u32::to_le_bytes));
        bytes
    }

    /// Returns the bytes of format 1, however long; the content must be exact.
    #[must_use]
    pub fn format_1(&self) -> Vec<u8> {
        let mut bytes = self.head(if self.kind == Kind::Events { [1, 3] } else { [2, 4] });
        let mut least = 0;
        for &(partition, next_offset) in &self.offsets {
            put_varint(&mut bytes, u64::from(partition) - least);
            put_varint(&mut bytes, next_offset);
            least = u64::from(partition) + 1;
        }
        sealed(bytes)
    }

    fn read_format_1(mut self, mut rest: &[u8]) -> Option<Self> {
        let mut least = 0_u64;
        while !rest.is_empty() {
            let partition = take_varint(&mut rest)?.checked_add(least)?;
            let next_offset = take_varint(&mut rest).filter(|next| *next > 0)?;
            self.offsets.push((u32::try_from(partition).ok()?, next_offset));
            least = partition + 1;
        }
        Some(self)
    }

    fn format_2(&self) -> Vec<u8> {
        let mut bytes = self.head(match self.kind {
            Kind::Events => [5, 7],
            Kind::Stream => [6, 8],
            Kind::Remainders { .. } => [9, 10],
        });
        if let Kind::Remainders { bits, hash } = self.kind {
            bytes.push(bits);
            bytes.extend(hash);
        }
        let Some(layout) = Layout::of(self) else {
            put_varint(&mut bytes, 0);
            return sealed(bytes);
        };
        put_varint(&mut bytes, self.offsets.len() as u64);
        put_varint(&mut bytes, u64::from(layout.first));
        bytes.extend([layout.gap_bits, self.shift as u8, layout.offset_bits()]);
        put_varint(&mut bytes, layout.least);
        let mut fields = Fields { bytes, held: 0, count: 0 };
        for pair in self.offsets.windows(2) {
            fields.put(u64::from(pair[1].0 - pair[0].0 - 1), layout.gap_bits);
        }
        for (_, offset) in &self.offsets {
            fields.put(offset - layout.least, layout.offset_bits());
        }
        sealed(fields.end())
    }

    fn read_format_2(mut self, mut rest: &[u8]) -> Option<Self> {
        if let Kind::Remainders { bits, hash } = &mut self.kind {
            *bits = chunk::<1>(&mut rest)?[0];
            *hash = *chunk(&mut rest)?;
            if *bits > 63 {
                return None;
            }
        }
        let count = take_varint(&mut rest).filter(|count| *count <= PARTITIONS_MAX)?;
        if count == 0 {
            return Some(self);
        }
        let first = u32::try_from(take_varint(&mut rest)?).ok()?;
        let [gap_bits, shift, offset_bits] = *chunk(&mut rest)?;
        let least = take_varint(&mut rest)?;
        if gap_bits > 32 || shift > 64 || offset_bits > 64 {
            return None;
        }
        let bits = (count - 1) * u64::from(gap_bits) + count * u64::from(offset_bits);
        if bits.div_ceil(8) != rest.len() as u64 {
            return None;
        }
        let mut fields = Taken { bytes: rest, held: 0, count: 0 };
        let mut partitions = Vec::with_capacity(count as usize);
        partitions.push(first);
        for at in 1..count as usize {
            let gap = u32::try_from(fields.take(gap_bits)).ok()?;
            partitions.push(partitions[at - 1].checked_add(1)?.checked_add(gap)?);
        }
        self.shift = u32::from(shift);
        let may_be_0 = shift > 0 || matches!(self.kind, Kind::Remainders { .. });
        self.offsets = Vec::with_capacity(partitions.len());
        for partition in partitions {
            let offset = least.checked_add(fields.take(offset_bits))?;
            // An exact token does not name a partition at 0, and no offset has more than 64 bits.
            if (offset == 0 && !may_be_0) || offset.leading_zeros() < self.shift {
                return None;
            }
            self.offsets.push((partition, offset));
        }
        Some(self)
    }
}

/// The numbers that format 2 has once for all partitions.
#[derive(Clone, Copy)]
struct Layout {
    first: u32,
    /// Bits of the greatest number of partitions between two.
    gap_bits: u8,
    least: u64,
    most: u64,
}

impl Layout {
    /// Returns the layout of a content; `None` if it names no partition, or too many.
    fn of(content: &Content) -> Option<Self> {
        let offsets = &content.offsets;
        let first = offsets.first().filter(|_| offsets.len() as u64 <= PARTITIONS_MAX)?.0;
        let gap = offsets.windows(2).map(|pair| pair[1].0 - pair[0].0 - 1).max().unwrap_or(0);
        let of_all = || offsets.iter().map(|(_, offset)| *offset);
        let (least, most) = (of_all().min()?, of_all().max()?);
        Some(Self { first, gap_bits: (u32::BITS - gap.leading_zeros()) as u8, least, most })
    }

    /// Returns the layout without the last bits.
    fn shifted(self, shift: u32) -> Self {
        Self { least: shortened(self.least, shift), most: shortened(self.most, shift), ..self }
    }

    fn offset_bits(&self) -> u8 {
        (u64::BITS - (self.most - self.least).leading_zeros()) as u8
    }

    /// Returns the length of a content's token with this layout.
    fn byte_count(&self, content: &Content) -> usize {
        let count = content.offsets.len();
        let of_kind = if matches!(content.kind, Kind::Remainders { .. }) { 9 } else { 0 };
        let head = 1 + content.log.map_or(0, |_| 4) + of_kind;
        let varints = [count as u64, u64::from(self.first), self.least].map(varint_bytes).iter().sum::<usize>();
        let bits = (count - 1) * usize::from(self.gap_bits) + count * usize::from(self.offset_bits());
        head + varints + 3 + bits.div_ceil(8) + CHECKSUM_BYTES
    }
}

/// Appends fields of bits, the lowest first.
struct Fields {
    bytes: Vec<u8>,
    held: u128,
    count: u32,
}

impl Fields {
    fn put(&mut self, value: u64, bits: u8) {
        self.held |= u128::from(value) << self.count;
        self.count += u32::from(bits);
        while self.count >= 8 {
            self.bytes.push(self.held as u8);
            self.held >>= 8;
            self.count -= 8;
        }
    }

    fn end(mut self) -> Vec<u8> {
        if self.count > 0 {
            self.bytes.push(self.held as u8);
        }
        self.bytes
    }
}

/// Takes fields of bits, the lowest first. Bits after the last byte are 0.
struct Taken<'a> {
    bytes: &'a [u8],
    held: u128,
    count: u32,
}

impl Taken<'_> {
    fn take(&mut self, bits: u8) -> u64 {
        let bits = u32::from(bits);
        while self.count < bits {
            let (byte, rest) = self.bytes.split_first().unwrap_or((&0, &[]));
            self.held |= u128::from(*byte) << self.count;
            (self.bytes, self.count) = (rest, self.count + 8);
        }
        let value = self.held & ((1 << bits) - 1);
        (self.held, self.count) = (self.held >> bits, self.count - bits);
        value as u64
    }
}

/// Appends the checksum.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Takes bytes off the front.
fn chunk<'a, const N: usize>(bytes: &mut &'a [u8]) -> Option<&'a [u8; N]> {
    let (chunk, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(chunk)
}

/// Appends LEB128: seven bits per byte, the lowest first.
fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn varint_bytes(value: u64) -> usize {
    (u64::BITS - value.leading_zeros()).div_ceil(7).max(1) as usize
}

/// Takes LEB128 off the front. It refuses encodings longer than needed, so that every position has
/// one token.
fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let byte = chunk::<1>(bytes)?[0];
        let low = u64::from(byte & 0x7f);
        if shift == 63 && low > 1 {
            return None;
        }
        value |= low << shift;
        if byte & 0x80 == 0 {
            return if byte == 0 && shift > 0 { None } else { Some(value) };
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chars(content: &Content) -> usize {
        (content.bytes().len() * 4).div_ceil(3)
    }

    /// Offsets of many partitions: all or some of them, near one another or not.
    fn contents() -> impl Strategy<Value = Content> {
        let kind = prop_oneof![Just(Kind::Events), Just(Kind::Stream)];
        let count = prop_oneof![0_u32..70, 200_u32..1_100, 9_000_u32..10_100];
        let step = prop_oneof![Just(1_u32), 1_u32..9];
        let bits = (0_u32..64, 0_u32..64);
        (kind, any::<Option<u32>>(), count, step, bits, any::<u64>()).prop_map(
            |(kind, log, count, step, (base, spread), seed)| {
                let mut random = seed;
                let mut partition = 0;
                let offsets = (0..count).map(|_| {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    partition += 1 + (random >> 40) as u32 % step;
                    (partition, (1_u64 << base).saturating_add(random >> spread))
                });
                Content { kind, log, shift: 0, offsets: offsets.collect() }
            },
        )
    }

    proptest! {
        /// INV-TOKEN
        #[test]
        fn token_is_short_and_keeps_bounds(content in contents()) {
            let read = Content::read(&content.bytes()).unwrap();
            prop_assert!(chars(&content) <= TOKEN_CHARS_MAX);
            prop_assert_eq!((read.kind, read.log), (content.kind, content.log));
            prop_assert!(read.shift == 0 || content.offsets.len() > 64);
            let bounds: std::collections::BTreeMap<u32, u64> = read.offsets.iter().copied().collect();
            for (partition, offset) in &content.offsets {
                let rounded = bounds[partition];
                prop_assert!((least(rounded, read.shift)..=most(rounded, read.shift)).contains(offset));
            }
            if read.shift == 0 {
                prop_assert_eq!(&read, &content);
            }
            prop_assert_eq!(Content::read(&read.bytes()).unwrap(), read);
        }

        #[test]
        fn changed_tokens_with_right_checksums_are_read_or_refused(
            content in contents(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
        ) {
            let mut bytes = content.bytes();
            bytes.truncate(bytes.len() - CHECKSUM_BYTES);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            let bytes = sealed(bytes);
            if let Ok(read) = Content::read(&bytes) {
                prop_assert_eq!(Content::read(&read.bytes()).map(|again| again.kind), Ok(read.kind));
            }
        }
    }

    #[test]
    fn tokens_of_64_partitions_are_exact() {
        for offset in [1, 1_000, 1_000_000_000, u64::MAX] {
            let offsets = (0..64_u32).map(|at| (at * 60_000_000, offset - u64::from(at % 2) * (offset / 2)));
            let content = Content { log: Some(7), offsets: offsets.collect(), ..Content::default() };
            assert_eq!(Content::read(&content.bytes()), Ok(content.clone()));
            assert!(chars(&content) <= TOKEN_CHARS_MAX);
        }
    }

    /// The table in `schemas/token/v2.md`: the offsets of one log differ by up to a tenth.
    #[test]
    fn token_lengths_are_those_of_the_table() {
        let written = include_str!("../../../schemas/token/v2.md");
        let mut missing = String::new();
        for count in [4_u32, 12, 64, 256, 1_000, 10_000] {
            let mut row = format!("| {count} |");
            for end in [1_000_u64, 1_000_000, 1_000_000_000, 1_000_000_000_000] {
                let offset = |at: u64| end - (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 8) % (end / 10);
                let offsets = (0..count).map(|at| (at, offset(u64::from(at))));
                let content = Content { log: Some(7), offsets: offsets.collect(), ..Content::default() };
                let shift = Content::read(&content.bytes()).unwrap().shift;
                let plain = (content.format_1().len() * 4).div_ceil(3);
                assert!(chars(&content) <= plain.min(TOKEN_CHARS_MAX));
                let lost = if shift == 0 { String::new() } else { format!(", 2^{shift}") };
                row += &format!(" {}{lost} ({plain}) |", chars(&content));
            }
            if !written.contains(&row) {
                missing += &format!("{row}\n");
            }
        }
        assert!(missing.is_empty(), "schemas/token/v2.md lacks these rows:\n{missing}");
    }

    #[test]
    fn partitions_with_wide_gaps_are_filled() {
        // 6,000 of 12,000 partitions: the gaps alone would not fit.
        let offsets = (0..6_000_u32).map(|at| (at * 2 + at % 7 % 2, 1_000_000_000 + u64::from(at)));
        let content = Content { offsets: offsets.collect(), ..Content::default() };
        let read = Content::read(&content.bytes()).unwrap();
        assert!(chars(&content) <= TOKEN_CHARS_MAX && read.offsets.len() > 11_000, "{}", read.offsets.len());
        for (partition, offset) in &content.offsets {
            assert!(most(read.offsets[*partition as usize].1, read.shift) >= *offset);
        }
    }

    #[test]
    fn forged_counts_take_no_memory() {
        let mut bytes = vec![5];
        put_varint(&mut bytes, u64::MAX);
        bytes.extend([0; 5]);
        assert_eq!(Content::read(&sealed(bytes)), Err(Unread::Garbled));
        assert_eq!(Content::read(&sealed(vec![11])), Err(Unread::UnknownVersion));
        assert_eq!(Content::read(&[]), Err(Unread::Garbled));
    }
}
