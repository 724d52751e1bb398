//! Opens a text file, compressed or not, at a number of uncompressed bytes. It must not know a
//! format.

use super::invalid;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek as _, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// An open text file.
pub(super) struct Text {
    pub(super) reader: Box<dyn BufRead>,
    /// The bytes read of a compressed file.
    compressed: Option<Arc<AtomicU64>>,
}

impl Text {
    pub(super) fn open(path: &Path, at: u64) -> io::Result<Self> {
        let mut file = File::open(path)?;
        if file.metadata()?.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let mut magic = Vec::new();
        (&mut file).take(6).read_to_end(&mut magic)?;
        file.rewind()?;
        let other = |name: &str, rest: &str| Err(invalid(format!("the file is {name}: {rest}")));
        let counted = Arc::new(AtomicU64::new(0));
        let count = |file| Counting { file, read: Arc::clone(&counted) };
        let decoder: Box<dyn Read> = match magic.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(count(file)))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::new(count(file))?),
            [b'B', b'Z', b'h', ..] => return other("compressed by bzip2", "unpack it, or use gzip or zstd"),
            [0xfd, b'7', b'z', ..] => return other("compressed by xz", "unpack it, or use gzip or zstd"),
            [b'P', b'K', 3, 4, ..] => return other("a ZIP archive", "unpack it, or use gzip or zstd"),
            [b'P', b'A', b'R', b'1', ..] => return other("Parquet", "name it so, or say --format parquet"),
            [b'P', b'G', b'C', b'O', b'P', b'Y'] => return other("binary COPY", "write it with FORMAT text or csv"),
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return other("UTF-16", "write it as UTF-8"),
            _ => {
                file.seek(SeekFrom::Start(at))?;
                return Ok(Self { reader: Box::new(BufReader::new(file)), compressed: None });
            }
        };
        let mut reader = BufReader::new(decoder);
        io::copy(&mut (&mut reader).take(at), &mut io::sink())?;
        Ok(Self { reader: Box::new(reader), compressed: Some(counted) })
    }

    /// Returns a count of the file's bytes that are read, given the uncompressed ones.
    pub(super) fn read_bytes(compressed: Option<&Arc<AtomicU64>>, uncompressed: u64) -> u64 {
        compressed.map_or(uncompressed, |read| read.load(Ordering::Relaxed))
    }

    pub(super) fn into_parts(self) -> (Box<dyn BufRead>, Option<Arc<AtomicU64>>) {
        (self.reader, self.compressed)
    }
}

struct Counting {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counting {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.read.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}
