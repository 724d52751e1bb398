//! Messages with their counts and the reads of their first 64 slots, 64 messages a page in log order.
//!
//! A message with more slots keeps its bits in chunks of 512, so that a storm on one message rewrites little.

use crate::page::{Page, TableId};
use crate::reads::Reads;
use crate::wire::{Malformed, Reader, Writer};
use receipts_event::Kind;

/// Messages on a page.
pub const MESSAGES_PER_PAGE: u64 = 64;
/// Slots whose reads stand with the message itself.
pub const INLINE_SLOTS: u32 = 64;
/// Slots of a chunk.
pub const CHUNK_SLOTS: u32 = 512;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Has an audience.
    Ok,
    /// The sender did not ask.
    NotRequested,
    /// Its group type did not support receipts.
    Unsupported,
    /// Was recalled.
    Recalled,
}

/// A message and its counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub id: Box<str>,
    /// Number of its conversation.
    pub conversation: u32,
    /// Slot of the sender.
    pub sender: u32,
    /// Unix milliseconds, by the sender.
    pub sent_at_ms: u64,
    /// Offset of its send.
    pub offset: u64,
    /// The send's record timestamp, Unix milliseconds.
    pub timestamp_ms: u64,
    /// Frozen at the send.
    pub kind: Kind,
    /// What became of it.
    pub state: State,
    /// Whether its event named the recipients.
    pub named_recipients: bool,
    /// Slots given in the conversation when it was sent: bits beyond do not exist.
    pub slots: u32,
    /// Who must read it.
    pub audience: u32,
    /// Open reads.
    pub read: u32,
    /// Hidden reads.
    pub hidden: u32,
    /// The greatest read time, Unix milliseconds; 0 before the first.
    pub last_read_at_ms: u64,
    /// Offset of the last event that changed it.
    pub changed: u64,
    /// Number of the message before it in its conversation.
    pub previous: Option<u64>,
    /// A message further back: see [`crate::chain`].
    pub skip: Option<u64>,
    /// The greatest `sent_at_ms` of the conversation up to this message.
    pub sent_at_max: u64,
    /// Reads, where [`Self::slots`] is at most [`INLINE_SLOTS`].
    pub reads: Reads<1>,
}

impl Message {
    /// Whether its reads stand in chunks of their own.
    pub fn is_chunked(&self) -> bool {
        self.slots > INLINE_SLOTS
    }

    /// A direct chat with an audience of one: there a hidden read is invisible.
    pub fn is_direct_to_one(&self) -> bool {
        self.kind == Kind::Direct && self.audience == 1
    }

    /// Chunks it may have.
    pub fn chunks(&self) -> u32 {
        if self.is_chunked() { self.slots.div_ceil(CHUNK_SLOTS) } else { 0 }
    }
}

/// 64 neighbours in log order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// By place; only the last page is not full.
    pub messages: Vec<Message>,
}

impl Page for Messages {
    const TABLE: TableId = TableId::Messages;

    fn encode(&self, to: &mut Writer) {
        to.number(self.messages.len() as u64);
        let (mut offset, mut timestamp, mut sent_at, mut conversation) = (0, 0, 0, 0);
        for m in &self.messages {
            let state = match m.state {
                State::Ok => 0u8,
                State::NotRequested => 1,
                State::Unsupported => 2,
                State::Recalled => 3,
            };
            // `skip` is `previous` for every second message.
            let skips = u8::from(m.skip != m.previous);
            to.byte(state | u8::from(m.kind == Kind::Direct) << 2 | u8::from(m.named_recipients) << 3 | skips << 4);
            to.text(&m.id);
            to.difference(m.conversation.into(), conversation);
            to.difference(m.offset, offset);
            to.difference(m.timestamp_ms, timestamp);
            to.difference(m.sent_at_ms, sent_at);
            (conversation, offset, timestamp, sent_at) = (m.conversation.into(), m.offset, m.timestamp_ms, m.sent_at_ms);
            for n in [m.sender, m.slots] {
                to.number(n.into());
            }
            to.number(m.changed.wrapping_sub(m.offset));
            to.optional(m.previous);
            if skips > 0 {
                to.optional(m.skip);
            }
            to.number(m.sent_at_max - m.sent_at_ms);
            if m.state == State::Ok {
                for n in [m.audience, m.read, m.hidden] {
                    to.number(n.into());
                }
                if m.read > 0 {
                    to.number(m.last_read_at_ms - m.sent_at_ms);
                }
                if !m.is_chunked() {
                    m.reads.encode(to);
                }
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = from.count(12)?;
        if count > MESSAGES_PER_PAGE as usize {
            return Err(Malformed("too many messages on a page"));
        }
        let overflow = Malformed("a time beyond 64 bits");
        let mut messages = Vec::with_capacity(MESSAGES_PER_PAGE as usize);
        let (mut offset, mut timestamp_ms, mut sent_at_ms, mut conversation) = (0, 0, 0, 0u64);
        for _ in 0..count {
            let flags = from.byte()?;
            let id = from.text()?.into();
            conversation = from.difference(conversation)?;
            offset = from.difference(offset)?;
            timestamp_ms = from.difference(timestamp_ms)?;
            sent_at_ms = from.difference(sent_at_ms)?;
            let (sender, slots) = (from.small()?, from.small()?);
            let changed = from.number()?.wrapping_add(offset);
            let previous = from.optional()?;
            let skip = if flags & 16 > 0 { from.optional()? } else { previous };
            let sent_at_max = from.number()?.checked_add(sent_at_ms).ok_or(overflow)?;
            let mut m = Message {
                id,
                conversation: u32::try_from(conversation).map_err(|_| Malformed("a conversation beyond 32 bits"))?,
                sender,
                sent_at_ms,
                offset,
                timestamp_ms,
                kind: if flags & 4 > 0 { Kind::Direct } else { Kind::Group },
                state: match flags & 3 {
                    0 => State::Ok,
                    1 => State::NotRequested,
                    2 => State::Unsupported,
                    _ => State::Recalled,
                },
                named_recipients: flags & 8 > 0,
                slots,
                audience: 0,
                read: 0,
                hidden: 0,
                last_read_at_ms: 0,
                changed,
                previous,
                skip,
                sent_at_max,
                reads: Reads::default(),
            };
            if m.state == State::Ok {
                for n in [&mut m.audience, &mut m.read, &mut m.hidden] {
                    *n = from.small()?;
                }
                if m.read > 0 {
                    m.last_read_at_ms = from.number()?.checked_add(sent_at_ms).ok_or(overflow)?;
                }
                if !m.is_chunked() {
                    m.reads = Reads::decode(from)?;
                }
            }
            messages.push(m);
        }
        Ok(Self { messages })
    }

    fn memory_bytes(&self) -> usize {
        let heap = |m: &Message| m.id.len() + 16 + m.reads.heap_bytes() + 8;
        size_of::<Self>() + self.messages.capacity() * size_of::<Message>() + self.messages.iter().map(heap).sum::<usize>()
    }
}

/// 512 slots of one message.
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
