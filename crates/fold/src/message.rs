//! Messages with their counts and the reads of their first 64 slots, 64 messages a page in log order.
//!
//! A message with more slots keeps its bits in chunks of 512, so that a storm on one message rewrites little.

use crate::chain::Link;
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

/// A message and its counts, in two cache lines: what a receipt looks at of one is nearly all that it waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Message {
    /// Number of its conversation.
    pub conversation: u32,
    /// Slot of the sender.
    pub sender: u32,
    /// Slots given in the conversation when it was sent: bits beyond do not exist.
    pub slots: u32,
    /// Who must read it.
    pub audience: u32,
    /// Where its id begins in the page's ids, and its length, bytes.
    id_from: u16,
    id_len: u8,
    /// Frozen at the send.
    pub kind: Kind,
    /// What became of it.
    pub state: State,
    /// Whether its event named the recipients.
    pub named_recipients: bool,
    /// Unix milliseconds, by the sender.
    pub sent_at_ms: u64,
    /// Offset of its send.
    pub offset: u64,
    /// The send's record timestamp, Unix milliseconds.
    pub timestamp_ms: u64,
    /// The greatest read time, Unix milliseconds; 0 before the first.
    pub last_read_at_ms: u64,
    /// Offset of the last event that changed it.
    pub changed: u64,
    /// Open reads.
    pub read: u32,
    /// Hidden reads.
    pub hidden: u32,
    /// Reads, where [`Self::slots`] is at most [`INLINE_SLOTS`].
    pub reads: Reads<1>,
}

impl Message {
    /// A message that was just sent, by `offset` and `timestamp_ms` of its record; has no audience and no reads yet.
    pub fn new(
        conversation: u32,
        sender: u32,
        sent_at_ms: u64,
        offset: u64,
        timestamp_ms: u64,
        kind: Kind,
        state: State,
    ) -> Self {
        Self {
            id_from: 0,
            id_len: 0,
            conversation,
            sender,
            sent_at_ms,
            offset,
            timestamp_ms,
            kind,
            state,
            named_recipients: false,
            slots: 0,
            audience: 0,
            read: 0,
            hidden: 0,
            last_read_at_ms: 0,
            changed: offset,
            reads: Reads::default(),
        }
    }

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

/// The links of a message without what it says itself; 0 stands for no message, and every other number for the one below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Chained {
    sent_at_max: u64,
    previous: u64,
    skip: u64,
}

impl From<Link> for Chained {
    fn from(link: Link) -> Self {
        let number = |message: Option<u64>| message.map_or(0, |m| m + 1);
        Self { sent_at_max: link.sent_at_max, previous: number(link.previous), skip: number(link.skip) }
    }
}

impl Chained {
    fn link(self, sent_at_ms: u64) -> Link {
        let message = |number: u64| number.checked_sub(1);
        let (previous, skip) = (message(self.previous), message(self.skip));
        Link { sent_at_ms, sent_at_max: self.sent_at_max, previous, skip }
    }
}

/// 64 neighbours in log order, laid out for the read of one: its numbers apart from its id and its links.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// Number of the first.
    first: u64,
    messages: Vec<Message>,
    links: Vec<Chained>,
    /// All ids, one after the other.
    ids: String,
}

impl Messages {
    /// A page with room for all its messages, the first of which has that number.
    pub fn new(first: u64) -> Self {
        let room = MESSAGES_PER_PAGE as usize;
        Self {
            first,
            messages: Vec::with_capacity(room),
            links: Vec::with_capacity(room),
            ids: String::with_capacity(24 * room),
        }
    }

    /// Adds the next message.
    pub fn push(&mut self, id: &str, mut message: Message, link: Link) {
        assert!(self.messages.len() < MESSAGES_PER_PAGE as usize, "a page of messages is full");
        (message.id_from, message.id_len) = (self.ids.len() as u16, id.len() as u8);
        self.ids.push_str(id);
        self.messages.push(message);
        self.links.push(link.into());
    }

    /// Number of the first.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// How many there are; only the last page is not full.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The message at a place.
    pub fn at(&self, place: usize) -> Option<&Message> {
        self.messages.get(place)
    }

    /// The message at a place, to change.
    pub fn at_mut(&mut self, place: usize) -> Option<&mut Message> {
        self.messages.get_mut(place)
    }

    /// The id of the message at a place that there is.
    pub fn id(&self, place: usize) -> &str {
        let m = &self.messages[place];
        &self.ids[usize::from(m.id_from)..][..usize::from(m.id_len)]
    }

    /// Reads some of both cache lines of the message at a place.
    pub(crate) fn touch(&self, place: usize) -> u64 {
        self.messages.get(place).map_or(0, |m| (m.conversation | m.read).into())
    }

    /// Reads some of the id of the message at a place.
    pub(crate) fn touch_id(&self, place: usize) -> u64 {
        let id_from = self.messages.get(place).map_or(0, |m| usize::from(m.id_from));
        self.ids.as_bytes().get(id_from).map_or(0, |byte| (*byte).into())
    }

    /// The links of the message at a place.
    pub fn link(&self, place: usize) -> Option<Link> {
        Some(self.links.get(place)?.link(self.messages.get(place)?.sent_at_ms))
    }

    /// All messages by place.
    pub fn iter(&self) -> impl Iterator<Item = &Message> {
        self.messages.iter()
    }
}

impl Page for Messages {
    const TABLE: TableId = TableId::Messages;

    fn encode(&self, to: &mut Writer) {
        to.number(self.messages.len() as u64);
        to.number(self.first);
        let mut last = Last::default();
        for (place, m) in self.messages.iter().enumerate() {
            let link = self.links[place].link(m.sent_at_ms);
            let state = match m.state {
                State::Ok => 0u8,
                State::NotRequested => 1,
                State::Unsupported => 2,
                State::Recalled => 3,
            };
            // `skip` is `previous` for every second message.
            let skips = u8::from(link.skip != link.previous);
            let last_read = m.last_read_at_ms - m.sent_at_ms.min(m.last_read_at_ms);
            let last_apart = m.read > 0 && (m.is_chunked() || m.reads.last_after_ms() != Some(last_read));
            let flags = [m.kind == Kind::Direct, m.named_recipients, skips > 0, last_apart];
            to.byte(flags.iter().enumerate().fold(state, |byte, (i, flag)| byte | u8::from(*flag) << (2 + i)));
            to.id(self.id(place), &mut last.id);
            to.difference(m.conversation.into(), last.conversation);
            to.difference(m.offset, last.offset);
            to.difference(m.timestamp_ms, last.timestamp_ms);
            to.difference(m.sent_at_ms, last.sent_at_ms);
            (last.conversation, last.offset) = (m.conversation.into(), m.offset);
            (last.timestamp_ms, last.sent_at_ms) = (m.timestamp_ms, m.sent_at_ms);
            to.number(m.sender.into());
            to.number(m.slots.into());
            to.number(m.changed.wrapping_sub(m.offset));
            let own = self.first + place as u64;
            let back = |to: &mut Writer, link: Option<u64>| to.number(link.map_or(0, |message| own - message));
            back(to, link.previous);
            if skips > 0 {
                back(to, link.skip);
            }
            to.number(link.sent_at_max - m.sent_at_ms);
            if m.state == State::Ok {
                to.number(m.audience.into());
                if m.is_chunked() {
                    to.number(m.read.into());
                    to.number(m.hidden.into());
                } else {
                    m.reads.encode(to);
                }
                if last_apart {
                    to.number(last_read);
                }
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        // Flags, an id of a byte, and nine numbers.
        let count = from.count(12)?;
        if count > MESSAGES_PER_PAGE as usize {
            return Err(Malformed("too many messages on a page"));
        }
        let overflow = Malformed("a number beyond 64 bits");
        let mut page = Self::new(from.number()?);
        let mut last = Last::default();
        for place in 0..count as u64 {
            let flags = from.byte()?;
            let state = match flags & 3 {
                0 => State::Ok,
                1 => State::NotRequested,
                2 => State::Unsupported,
                _ => State::Recalled,
            };
            let kind = if flags & 4 > 0 { Kind::Direct } else { Kind::Group };
            let id_from = page.ids.len();
            from.id(&mut last.id, &mut page.ids)?;
            let id_len = page.ids.len() - id_from;
            if !(1..=receipts_event::ID_BYTES_MAX).contains(&id_len) {
                return Err(Malformed("an id longer or shorter than ids are"));
            }
            last.conversation = from.difference(last.conversation)?;
            last.offset = from.difference(last.offset)?;
            last.timestamp_ms = from.difference(last.timestamp_ms)?;
            last.sent_at_ms = from.difference(last.sent_at_ms)?;
            let conversation =
                u32::try_from(last.conversation).map_err(|_| Malformed("a conversation beyond 32 bits"))?;
            let sender = from.small()?;
            let mut m =
                Message::new(conversation, sender, last.sent_at_ms, last.offset, last.timestamp_ms, kind, state);
            m.named_recipients = flags & 8 > 0;
            m.slots = from.small()?;
            m.changed = from.number()?.wrapping_add(m.offset);
            let own = page.first.checked_add(place).ok_or(overflow)?;
            let back = |from: &mut Reader<'_>| match from.number()? {
                0 => Ok(None),
                back => own.checked_sub(back).map(Some).ok_or(Malformed("a link before the first message")),
            };
            let previous = back(from)?;
            let skip = if flags & 16 > 0 { back(from)? } else { previous };
            let sent_at_max = from.number()?.checked_add(m.sent_at_ms).ok_or(overflow)?;
            if state == State::Ok {
                m.audience = from.small()?;
                if m.is_chunked() {
                    (m.read, m.hidden) = (from.small()?, from.small()?);
                } else {
                    m.reads = Reads::decode(from)?;
                    (m.read, m.hidden, _) = m.reads.counts();
                }
                if m.read > m.audience || m.hidden > m.audience - m.read {
                    return Err(Malformed("more reads than readers"));
                }
                if flags & 32 > 0 && m.read == 0 {
                    return Err(Malformed("a last read without a read"));
                }
                let after = if flags & 32 > 0 { Some(from.number()?) } else { m.reads.last_after_ms() };
                if after.is_none() && m.read > 0 {
                    return Err(Malformed("reads without a last one"));
                }
                m.last_read_at_ms = after.map_or(Some(0), |after| m.sent_at_ms.checked_add(after)).ok_or(overflow)?;
            }
            (m.id_from, m.id_len) = (id_from as u16, id_len as u8);
            page.messages.push(m);
            page.links.push(Link { sent_at_ms: last.sent_at_ms, sent_at_max, previous, skip }.into());
        }
        Ok(page)
    }

    fn memory_bytes(&self) -> usize {
        let each = size_of::<Message>() + size_of::<Chained>();
        let reads = self.messages.iter().map(|m| m.reads.heap_bytes()).sum::<usize>();
        size_of::<Self>() + self.messages.capacity() * each + self.ids.capacity() + reads
    }
}

/// What the next message of a page is told from.
#[derive(Default)]
struct Last {
    id: u64,
    conversation: u64,
    offset: u64,
    timestamp_ms: u64,
    sent_at_ms: u64,
}

const _: () = assert!(size_of::<Message>() == 128, "a message is two cache lines");

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::accounts_for;

    #[test]
    fn a_last_read_stands_where_somebody_has_read_and_nowhere_else() {
        let page = |flags: u8, readers: u8, last: &[u8]| {
            // One message of nobody's, "m", with an audience of 5 and no times.
            let start = [1, 0, flags, 2, b'm', 0, 0, 0, 20, 0, 5, 0, 0, 0, 5, 0, readers];
            let bytes = [&start[..], last].concat();
            let mut reader = Reader::new(&bytes);
            Messages::decode(&mut reader).and_then(|page| reader.end().map(|()| page))
        };
        assert_eq!(page(0, 0, &[]).map(|p| p.messages[0].last_read_at_ms), Ok(0));
        assert_eq!(page(32, 3, &[7]).map(|p| p.messages[0].last_read_at_ms), Ok(17));
        assert_eq!(page(32, 0, &[7]), Err(Malformed("a last read without a read")));
        assert_eq!(page(0, 3, &[]), Err(Malformed("reads without a last one")));
    }

    #[test]
    fn pages_of_messages_and_chunks_account_for_what_they_hold() {
        let mut page = Messages::new(0);
        let mut message = Message::new(0, 0, 0, 0, 0, Kind::Group, State::Ok);
        (0..64).for_each(|slot| _ = message.reads.read(slot, Some(1)));
        let reads = message.reads.heap_bytes();
        page.push("m", message, Link { sent_at_ms: 0, sent_at_max: 0, previous: None, skip: None });
        accounts_for(&page, 64 * (size_of::<Message>() + size_of::<Chained>()) + page.ids.capacity() + reads);
        let mut chunk = Chunk::default();
        (0..100).for_each(|slot| _ = chunk.0.read(slot, Some(1)));
        accounts_for(&chunk, chunk.0.heap_bytes());
    }

    #[test]
    fn no_more_have_read_than_must() {
        // One message with an audience of 5; three openly, and some hidden.
        let page = |open: u8, hidden: u8| {
            let bytes = [1, 0, 32, 2, b'm', 0, 0, 0, 20, 0, 64, 0, 0, 0, 5, 1, open, hidden, 7];
            Messages::decode(&mut Reader::new(&bytes)).map(|page| (page.messages[0].read, page.messages[0].hidden))
        };
        assert_eq!(page(0b111, 0b11000), Ok((3, 2)));
        assert_eq!(page(0b11111, 0b100000), Err(Malformed("more reads than readers")));
        assert_eq!(page(0b111, 0b111000), Err(Malformed("more reads than readers")));
        assert_eq!(page(0b111111, 0b1000000), Err(Malformed("more reads than readers")));
    }

    #[test]
    fn a_page_is_empty_until_there_is_a_message() {
        let mut page = Messages::new(0);
        assert!(page.is_empty());
        let link = Link { sent_at_ms: 0, sent_at_max: 0, previous: None, skip: None };
        page.push("m", Message::new(0, 0, 0, 0, 0, Kind::Group, State::Ok), link);
        assert!(!page.is_empty() && page.len() == 1);
    }
}
