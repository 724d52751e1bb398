//! Chunks: the reads of 512 slots of one message, for messages with more slots than a message
//! itself holds. A storm of reads on one message then rewrites little.

use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{Page, Reads, TableId};

/// Slots per chunk.
pub const CHUNK_SLOTS: u32 = 512;

/// The reads of 512 slots of one message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chunk(pub Reads<{ CHUNK_SLOTS as usize / 64 }>);

impl Page for Chunk {
    const TABLE: TableId = TableId::Chunks;

    fn encode(&self, to: &mut Writer) {
        self.0.encode(to);
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        Reads::decode(from).map(Self)
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.0.heap_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::accounts_for;

    #[test]
    fn chunk_accounts_for_its_times() {
        let mut chunk = Chunk::default();
        (0..100).for_each(|slot| _ = chunk.0.read(slot, Some(1)));
        accounts_for(&chunk, chunk.0.heap_bytes());
    }
}
