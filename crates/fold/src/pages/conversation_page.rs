//! The page of a conversation: its kind, its sizes, and the roots of its skip list. Names no person
//! and no message id.

use crate::index::SegmentSet;
use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{Page, TableId};
use receipts_event::{GROUP_TYPE_DEFAULT, Kind};

/// A root of the skip list over a conversation's messages, see [`crate::skip_list`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkipRoot {
    /// Number of the message.
    pub message: u64,
    /// Number of messages under it.
    pub size: u64,
}

/// The page of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConversationPage {
    /// The tenant of the conversation.
    pub tenant: Box<str>,
    /// The id within the tenant.
    pub conversation_id: Box<str>,
    /// Direct chat or group; a group until configured.
    pub kind: Kind,
    /// The group type, by which policies support receipts.
    pub group_type: Box<str>,
    /// Slots given so far, one for each person.
    pub people: u32,
    /// Members on the roster now, observers not counted.
    pub members: u32,
    /// Whether it had a roster at any time.
    pub ever_roster: bool,
    /// Pages of the hash index of people; 0 while one page holds all people.
    pub index_pages: u32,
    /// Offset of the last event by which a person left.
    pub last_departure: Option<u64>,
    /// Departures so far.
    pub departures: u32,
    /// The conversation has applied its tenant's erasures below this number.
    pub erasures_seen: u64,
    /// The greatest `sent_at_ms` of its messages, Unix milliseconds.
    pub sent_at_max: u64,
    /// The greatest difference by which a message's `sent_at_ms` was below that of an earlier
    /// message, milliseconds.
    pub disorder_ms: u64,
    /// The index segments that hold its messages; expired ones may be among them.
    pub segments: SegmentSet,
    /// Roots of the skip list, newest first; the first is the newest message.
    pub roots: Vec<SkipRoot>,
}

impl ConversationPage {
    /// Creates a conversation that was never configured: a group of type `default`.
    pub fn new(tenant: &str, conversation_id: &str, erasures_seen: u64) -> Self {
        Self {
            tenant: tenant.into(),
            conversation_id: conversation_id.into(),
            kind: Kind::Group,
            group_type: GROUP_TYPE_DEFAULT.into(),
            people: 0,
            members: 0,
            ever_roster: false,
            index_pages: 0,
            last_departure: None,
            departures: 0,
            erasures_seen,
            sent_at_max: 0,
            disorder_ms: 0,
            segments: SegmentSet::default(),
            roots: Vec::new(),
        }
    }
}

impl Page for ConversationPage {
    const TABLE: TableId = TableId::Conversations;

    fn encode(&self, to: &mut Writer) {
        to.text(&self.tenant);
        to.text(&self.conversation_id);
        to.byte(u8::from(self.kind == Kind::Direct) | u8::from(self.ever_roster) << 1);
        to.text(&self.group_type);
        for n in [self.people, self.members, self.index_pages, self.departures] {
            to.number(n.into());
        }
        to.number(self.erasures_seen);
        to.optional(self.last_departure);
        to.number(self.sent_at_max);
        to.number(self.disorder_ms);
        self.segments.encode(to);
        to.number(self.roots.len() as u64);
        let mut last = 0;
        for root in &self.roots {
            to.difference(root.message, last);
            last = root.message;
            to.number(root.size);
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut page = Self::new(from.text()?, from.text()?, 0);
        let flags = from.byte()?;
        page.kind = if flags & 1 > 0 { Kind::Direct } else { Kind::Group };
        page.ever_roster = flags & 2 > 0;
        page.group_type = from.text()?.into();
        for n in [&mut page.people, &mut page.members, &mut page.index_pages, &mut page.departures] {
            *n = from.small()?;
        }
        page.erasures_seen = from.number()?;
        page.last_departure = from.optional()?;
        page.sent_at_max = from.number()?;
        page.disorder_ms = from.number()?;
        page.segments = SegmentSet::decode(from)?;
        page.roots = Vec::with_capacity(from.count(2)?);
        let mut last = 0;
        for _ in 0..page.roots.capacity() {
            last = from.difference(last)?;
            page.roots.push(SkipRoot { message: last, size: from.number()? });
        }
        Ok(page)
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.tenant.len()
            + self.conversation_id.len()
            + self.group_type.len()
            + 16 * self.roots.capacity()
            + self.segments.heap_bytes()
            + 48
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::accounts_for;

    #[test]
    fn page_accounts_for_names_roots_and_segments() {
        let mut page = ConversationPage::new(&"t".repeat(100), &"c".repeat(128), 0);
        page.group_type = "g".repeat(90).into();
        page.roots = (0..40).map(|message| SkipRoot { message, size: 1 }).collect();
        assert!((0..20).all(|segment| page.segments.add(2 * segment, 0).is_some()));
        assert!(page.segments.heap_bytes() > 100);
        accounts_for(&page, 100 + 128 + 90 + 16 * page.roots.capacity() + page.segments.heap_bytes());
    }
}
