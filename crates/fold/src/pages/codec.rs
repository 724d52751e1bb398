//! The bytes of a page: LEB128 numbers and length-prefixed text. Knows no page, and never allocates
//! more than its input justifies.

use std::fmt::Write as _;

/// Why bytes are not a page. Decoding never panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a page of this format: {0}")]
pub struct Malformed(pub &'static str);

/// Appends values to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    /// The bytes written so far.
    pub bytes: Vec<u8>,
}

impl Writer {
    /// Appends one byte.
    pub fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    /// Appends a number in 1 to 10 bytes of 7 bits, the lowest first.
    pub fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.bytes.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.bytes.push(value as u8);
    }

    /// Appends the difference to `from`, zigzag-coded so that a small one of either sign is short.
    pub fn difference(&mut self, value: u64, from: u64) {
        let d = value.wrapping_sub(from) as i64;
        self.number(((d << 1) ^ (d >> 63)) as u64);
    }

    /// Appends 0 for `None`, else the number plus one.
    pub fn optional(&mut self, value: Option<u64>) {
        self.number(value.map_or(0, |v| v + 1));
    }

    /// Appends eight bytes, little endian.
    pub fn word(&mut self, value: u64) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// Appends the length and the bytes.
    pub fn blob(&mut self, value: &[u8]) {
        self.number(value.len() as u64);
        self.bytes.extend_from_slice(value);
    }

    /// Appends the length and the UTF-8 bytes.
    pub fn text(&mut self, value: &str) {
        self.blob(value.as_bytes());
    }

    /// Appends an id. A decimal number, such as a snowflake id, becomes 0 and its difference to
    /// `last`, the previous number; `last` is then set to it. Every other id becomes its length
    /// plus one, and its bytes.
    pub fn id(&mut self, id: &str, last: &mut u64) {
        match decimal(id) {
            Some(number) => {
                self.number(0);
                self.difference(number, *last);
                *last = number;
            }
            None => {
                self.number(id.len() as u64 + 1);
                self.bytes.extend_from_slice(id.as_bytes());
            }
        }
    }
}

/// Reads values from the front of a slice.
#[derive(Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Creates a reader of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Number of bytes that are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Reads the value that [`Writer::byte`] wrote.
    ///
    /// # Errors
    /// At the end of the bytes.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (first, rest) = self.rest.split_first().ok_or(Malformed("cut short"))?;
        self.rest = rest;
        Ok(*first)
    }

    /// Reads the value that [`Writer::number`] wrote.
    ///
    /// # Errors
    /// At the end of the bytes, or where the number exceeds 64 bits.
    pub fn number(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number beyond 64 bits"))
    }

    /// Reads a number of at most 32 bits.
    ///
    /// # Errors
    /// As [`Self::number`], and beyond 32 bits.
    pub fn small(&mut self) -> Result<u32, Malformed> {
        self.number()?.try_into().map_err(|_| Malformed("a number beyond 32 bits"))
    }

    /// Reads a count of items that take at least `bytes_each` bytes each.
    ///
    /// # Errors
    /// As [`Self::number`], and where the rest is too short for that number of items (INV-DECODE).
    pub fn count(&mut self, bytes_each: usize) -> Result<usize, Malformed> {
        let count = self.number()?;
        if count > (self.rest.len() / bytes_each.max(1)) as u64 {
            return Err(Malformed("a count beyond what follows"));
        }
        Ok(count as usize)
    }

    /// Reads the value that [`Writer::difference`] wrote.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub fn difference(&mut self, from: u64) -> Result<u64, Malformed> {
        let z = self.number()?;
        Ok(from.wrapping_add(((z >> 1) as i64 ^ -((z & 1) as i64)) as u64))
    }

    /// Reads the value that [`Writer::optional`] wrote.
    ///
    /// # Errors
    /// As [`Self::number`].
    pub fn optional(&mut self) -> Result<Option<u64>, Malformed> {
        Ok(self.number()?.checked_sub(1))
    }

    /// Reads the value that [`Writer::word`] wrote.
    ///
    /// # Errors
    /// At the end of the bytes.
    pub fn word(&mut self) -> Result<u64, Malformed> {
        let (word, rest) = self.rest.split_first_chunk::<8>().ok_or(Malformed("cut short"))?;
        self.rest = rest;
        Ok(u64::from_le_bytes(*word))
    }

    /// Reads a number of up to 8 bytes, the lowest first.
    ///
    /// # Errors
    /// At the end of the bytes.
    pub fn little_endian(&mut self, bytes: usize) -> Result<u64, Malformed> {
        let (number, rest) = self.rest.split_at_checked(bytes).ok_or(Malformed("cut short"))?;
        self.rest = rest;
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(number);
        Ok(u64::from_le_bytes(word))
    }

    /// Reads the value that [`Writer::blob`] wrote.
    ///
    /// # Errors
    /// If fewer bytes are left.
    pub fn blob(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.count(1)?;
        let (blob, rest) = self.rest.split_at(length);
        self.rest = rest;
        Ok(blob)
    }

    /// Reads the value that [`Writer::text`] wrote.
    ///
    /// # Errors
    /// If fewer bytes are left, or they are not UTF-8.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.blob()?).map_err(|_| Malformed("text that is not UTF-8"))
    }

    /// Reads an id as [`Writer::id`] wrote it, and appends it to `ids`.
    ///
    /// # Errors
    /// As [`Self::number`] and [`Self::text`].
    pub fn id(&mut self, last: &mut u64, ids: &mut String) -> Result<(), Malformed> {
        let length = self.number()?;
        if length == 0 {
            *last = self.difference(*last)?;
            _ = write!(ids, "{last}");
            return Ok(());
        }
        let length =
            usize::try_from(length - 1).ok().filter(|l| *l <= self.rest.len()).ok_or(Malformed("cut short"))?;
        let (id, rest) = self.rest.split_at(length);
        self.rest = rest;
        ids.push_str(std::str::from_utf8(id).map_err(|_| Malformed("text that is not UTF-8"))?);
        Ok(())
    }

    /// Asserts that no bytes are left.
    ///
    /// # Errors
    /// If some are.
    pub fn end(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("more bytes than the page has")) }
    }
}

/// Returns the number that prints as exactly these digits.
fn decimal(id: &str) -> Option<u64> {
    let bytes = id.as_bytes();
    let plain = !bytes.is_empty() && bytes.iter().all(u8::is_ascii_digit) && (bytes[0] != b'0' || bytes.len() == 1);
    if plain { id.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_decodes_to_itself() {
        let numbers = [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
        let mut w = Writer::default();
        for n in numbers {
            w.number(n);
            w.difference(n, 1_780_000_000_000);
            w.word(n);
        }
        w.optional(None);
        w.optional(Some(0));
        w.text("grüße");
        let ids = [
            "1519203421110272001",
            "1519203421114466306",
            "",
            "007",
            "0",
            "18446744073709551615",
            "18446744073709551616",
            "m1",
            "-1",
        ];
        let mut last = 0;
        ids.iter().for_each(|id| w.id(id, &mut last));
        let mut r = Reader::new(&w.bytes);
        for n in numbers {
            assert_eq!(r.number(), Ok(n));
            assert_eq!(r.difference(1_780_000_000_000), Ok(n));
            assert_eq!(r.word(), Ok(n));
        }
        assert_eq!(r.optional(), Ok(None));
        assert_eq!(r.optional(), Ok(Some(0)));
        assert_eq!(r.text(), Ok("grüße"));
        last = 0;
        for id in ids {
            let mut read = String::new();
            assert_eq!((r.id(&mut last, &mut read), &*read), (Ok(()), id));
        }
        assert_eq!(r.end(), Ok(()));
    }

    #[test]
    fn count_never_asks_for_more_memory_than_bytes_justify() {
        let mut w = Writer::default();
        w.number(u64::MAX);
        assert!(Reader::new(&w.bytes).count(1).is_err());
        assert!(Reader::new(&[0xFF; 11]).number().is_err());
        assert!(Reader::new(&[0xFF; 9]).number().is_err());
    }

    #[test]
    fn overlong_numbers_and_trailing_bytes_are_malformed() {
        let beyond = Err(Malformed("a number beyond 64 bits"));
        let number = |last: u8| Reader::new(&[&[0x80; 9][..], &[last]].concat()).number();
        assert_eq!([number(0), number(1), number(2), number(0x81)], [Ok(0), Ok(1 << 63), beyond, beyond]);
        let three = [2, 0, 0, 0];
        assert_eq!(Reader::new(&three).count(1), Ok(2));
        assert_eq!(Reader::new(&three).count(2), Err(Malformed("a count beyond what follows")));
        let mut reader = Reader::new(&three);
        assert_eq!((reader.remaining(), reader.byte(), reader.remaining()), (4, Ok(2), 3));
        assert_eq!(reader.end(), Err(Malformed("more bytes than the page has")));
    }
}
