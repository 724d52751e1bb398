//! Messages with their counts and reads, 64 neighbours in log order per page.
//!
//! A message with more than 64 slots keeps its reads in [chunks](crate::pages::Chunk) instead.

use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{CHUNK_SLOTS, Page, PageKey, Reads, TableId};
use crate::skip_list::SkipLink;
use receipts_event::Kind;

/// Messages per page.
pub const MESSAGES_PER_PAGE: u64 = 64;
/// The number of slots up to which a message holds its reads itself.
pub const INLINE_SLOTS: u32 = 64;
/// Returns the key of a message's page, and its index on that page.
pub(crate) fn message_key(message: u64) -> (PageKey, usize) {
    (PageKey::new(message / MESSAGES_PER_PAGE, 0), (message % MESSAGES_PER_PAGE) as usize)
}

/// The status of a message; see [`Status`](crate::view::Status).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MessageStatus {
    /// The message has an audience.
    Ok,
    /// The sender did not ask for receipts.
    NotRequested,
    /// The group type did not support receipts when the message was sent.
    Unsupported,
    /// The message was recalled.
    Recalled,
}

/// A message and its counts, in two cache lines: nearly all of a receipt's time goes into waiting
/// for them.
#[derive(Debug, Clone, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Message {
    /// Number of its conversation.
    pub conversation: u32,
    /// Slot of the sender.
    pub sender: u32,
    /// Slots given in the conversation before it was sent. Later slots have no bits in it.
    pub slots: u32,
    /// The number of people who must read it.
    pub audience: u32,
    /// Where its id begins in the page's ids, and the length of the id, bytes.
    id_from: u16,
    id_len: u8,
    /// Kind of the conversation when the message was sent.
    pub kind: Kind,
    /// Its status.
    pub status: MessageStatus,
    /// Whether its event named recipients.
    pub named_recipients: bool,
    /// The sender's time, Unix milliseconds.
    pub sent_at_ms: u64,
    /// Offset of its send event.
    pub offset: u64,
    /// Record timestamp of its send event, Unix milliseconds.
    pub timestamp_ms: u64,
    /// The greatest read time, Unix milliseconds; 0 before the first.
    pub last_read_at_ms: u64,
    /// Offset of the last event that changed the message; receipts derive their version from it
    /// (INV-VERSION).
    pub changed: u64,
    /// Number of open reads.
    pub read: u32,
    /// Number of hidden reads.
    pub hidden: u32,
    /// The reads, where [`Self::slots`] is at most [`INLINE_SLOTS`].
    pub reads: Reads<1>,
}

impl Message {
    /// Creates a message from `offset` and `timestamp_ms` of its record, without an audience or
    /// reads.
    pub fn new(
        conversation: u32,
        sender: u32,
        sent_at_ms: u64,
        offset: u64,
        timestamp_ms: u64,
        kind: Kind,
        status: MessageStatus,
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
            status,
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

    /// Whether its reads are in chunks.
    pub fn is_chunked(&self) -> bool {
        self.slots > INLINE_SLOTS
    }

    /// Whether it is of a direct chat and has an audience of one. There a hidden read stays
    /// invisible.
    pub fn is_direct_to_one(&self) -> bool {
        self.kind == Kind::Direct && self.audience == 1
    }

    /// Returns the number of chunks that it may have.
    pub fn chunks(&self) -> u32 {
        if self.is_chunked() { self.slots.div_ceil(CHUNK_SLOTS) } else { 0 }
    }
}

/// A [`SkipLink`] without the message's own time, in which 0 means no message, and n + 1 means
/// message n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PackedLink {
    sent_at_max: u64,
    previous: u64,
    skip: u64,
}

impl From<SkipLink> for PackedLink {
    fn from(link: SkipLink) -> Self {
        let number = |message: Option<u64>| message.map_or(0, |m| m + 1);
        Self { sent_at_max: link.sent_at_max, previous: number(link.previous), skip: number(link.skip) }
    }
}

impl PackedLink {
    fn unpack(self, sent_at_ms: u64) -> SkipLink {
        let message = |number: u64| number.checked_sub(1);
        let (previous, skip) = (message(self.previous), message(self.skip));
        SkipLink { sent_at_ms, sent_at_max: self.sent_at_max, previous, skip }
    }
}

/// 64 messages in log order. The counts and times of a message lie apart from its id and link,
/// because a receipt needs only them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// Number of the first message.
    first: u64,
    messages: Vec<Message>,
    links: Vec<PackedLink>,
    /// All ids, concatenated.
    ids: String,
}

impl Messages {
    /// Creates an empty page that has room for 64 messages and begins with message number `first`.
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
    pub fn push(&mut self, id: &str, mut message: Message, link: SkipLink) {
        assert!(self.messages.len() < MESSAGES_PER_PAGE as usize, "a page of messages is full");
        (message.id_from, message.id_len) = (self.ids.len() as u16, id.len() as u8);
        self.ids.push_str(id);
        self.messages.push(message);
        self.links.push(link.into());
    }

    /// Returns the number of the first message.
    pub fn first(&self) -> u64 {
        self.first
    }

    /// Number of messages; 64 on all pages but the newest.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether the page has no message.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns the message at an index.
    pub fn at(&self, index: usize) -> Option<&Message> {
        self.messages.get(index)
    }

    /// Returns the message at an index, to change.
    pub fn at_mut(&mut self, index: usize) -> Option<&mut Message> {
        self.messages.get_mut(index)
    }

    /// Returns the id of the message at an index, which must exist.
    pub fn id(&self, index: usize) -> &str {
        let m = &self.messages[index];
        &self.ids[usize::from(m.id_from)..][..usize::from(m.id_len)]
    }

    /// Reads a part of both cache lines of the message at an index.
    pub(crate) fn prefetch(&self, index: usize) -> u64 {
        self.messages.get(index).map_or(0, |m| (m.conversation | m.read).into())
    }

    /// Reads a part of the id of the message at an index.
    pub(crate) fn prefetch_id(&self, index: usize) -> u64 {
        let id_from = self.messages.get(index).map_or(0, |m| usize::from(m.id_from));
        self.ids.as_bytes().get(id_from).map_or(0, |byte| (*byte).into())
    }

    /// Returns the link of the message at an index.
    pub fn link(&self, index: usize) -> Option<SkipLink> {
        Some(self.links.get(index)?.unpack(self.messages.get(index)?.sent_at_ms))
    }

    /// Returns all messages by index.
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
        for (index, m) in self.messages.iter().enumerate() {
            let link = self.links[index].unpack(m.sent_at_ms);
            let status = match m.status {
                MessageStatus::Ok => 0u8,
                MessageStatus::NotRequested => 1,
                MessageStatus::Unsupported => 2,
                MessageStatus::Recalled => 3,
            };
            // For every second message `skip` equals `previous`, and is left out.
            let skips = u8::from(link.skip != link.previous);
            let last_read = m.last_read_at_ms - m.sent_at_ms.min(m.last_read_at_ms);
            let last_apart = m.read > 0 && (m.is_chunked() || m.reads.last_after_ms() != Some(last_read));
            let flags = [m.kind == Kind::Direct, m.named_recipients, skips > 0, last_apart];
            to.byte(flags.iter().enumerate().fold(status, |byte, (i, flag)| byte | u8::from(*flag) << (2 + i)));
            to.id(self.id(index), &mut last.id);
            to.difference(m.conversation.into(), last.conversation);
            to.difference(m.offset, last.offset);
            to.difference(m.timestamp_ms, last.timestamp_ms);
            to.difference(m.sent_at_ms, last.sent_at_ms);
            (last.conversation, last.offset) = (m.conversation.into(), m.offset);
            (last.timestamp_ms, last.sent_at_ms) = (m.timestamp_ms, m.sent_at_ms);
            to.number(m.sender.into());
            to.number(m.slots.into());
            to.number(m.changed.wrapping_sub(m.offset));
            let own = self.first + index as u64;
            let back = |to: &mut Writer, link: Option<u64>| to.number(link.map_or(0, |message| own - message));
            back(to, link.previous);
            if skips > 0 {
                back(to, link.skip);
            }
            to.number(link.sent_at_max - m.sent_at_ms);
            if m.status == MessageStatus::Ok {
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
        // The shortest message is flags, an id of two bytes with its length, and nine numbers.
        let count = from.count(12)?;
        if count > MESSAGES_PER_PAGE as usize {
            return Err(Malformed("too many messages on a page"));
        }
        let overflow = Malformed("a number beyond 64 bits");
        let mut page = Self::new(from.number()?);
        let mut last = Last::default();
        for index in 0..count as u64 {
            let flags = from.byte()?;
            let status = match flags & 3 {
                0 => MessageStatus::Ok,
                1 => MessageStatus::NotRequested,
                2 => MessageStatus::Unsupported,
                _ => MessageStatus::Recalled,
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
                Message::new(conversation, sender, last.sent_at_ms, last.offset, last.timestamp_ms, kind, status);
            m.named_recipients = flags & 8 > 0;
            m.slots = from.small()?;
            m.changed = from.number()?.wrapping_add(m.offset);
            let own = page.first.checked_add(index).ok_or(overflow)?;
            let back = |from: &mut Reader<'_>| match from.number()? {
                0 => Ok(None),
                back => own.checked_sub(back).map(Some).ok_or(Malformed("a link before the first message")),
            };
            let previous = back(from)?;
            let skip = if flags & 16 > 0 { back(from)? } else { previous };
            let sent_at_max = from.number()?.checked_add(m.sent_at_ms).ok_or(overflow)?;
            if status == MessageStatus::Ok {
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
            page.links.push(SkipLink { sent_at_ms: last.sent_at_ms, sent_at_max, previous, skip }.into());
        }
        Ok(page)
    }

    fn memory_bytes(&self) -> usize {
        let each = size_of::<Message>() + size_of::<PackedLink>();
        let reads = self.messages.iter().map(|m| m.reads.heap_bytes()).sum::<usize>();
        size_of::<Self>() + self.messages.capacity() * each + self.ids.capacity() + reads
    }
}

/// The values of the previous message. The next message is encoded as differences from them.
#[derive(Default)]
struct Last {
    id: u64,
    conversation: u64,
    offset: u64,
    timestamp_ms: u64,
    sent_at_ms: u64,
}

const _: () = assert!(size_of::<Message>() == 128, "a message is two cache lines");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::accounts_for;

    #[test]
    fn last_read_exists_exactly_where_a_read_does() {
        let page = |flags: u8, readers: u8, last: &[u8]| {
            // One message "m" with an audience of 5 and no times.
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
    fn page_accounts_for_ids_links_and_reads() {
        let mut page = Messages::new(0);
        let mut message = Message::new(0, 0, 0, 0, 0, Kind::Group, MessageStatus::Ok);
        (0..64).for_each(|slot| _ = message.reads.read(slot, Some(1)));
        let reads = message.reads.heap_bytes();
        page.push("m", message, SkipLink { sent_at_ms: 0, sent_at_max: 0, previous: None, skip: None });
        accounts_for(&page, 64 * (size_of::<Message>() + size_of::<PackedLink>()) + page.ids.capacity() + reads);
    }

    #[test]
    fn reads_beyond_the_audience_are_malformed() {
        // One message with an audience of 5: three have read openly, and some hidden.
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
    fn page_is_empty_until_its_first_message() {
        let mut page = Messages::new(0);
        assert!(page.is_empty());
        let link = SkipLink { sent_at_ms: 0, sent_at_max: 0, previous: None, skip: None };
        page.push("m", Message::new(0, 0, 0, 0, 0, Kind::Group, MessageStatus::Ok), link);
        assert!(!page.is_empty() && page.len() == 1);
    }
}
