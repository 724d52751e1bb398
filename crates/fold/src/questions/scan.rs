//! Scans a whole state for exports and audits: conversations, rosters, messages and pages, by
//! number and in order. A scan holds no more than one page at a time.

use crate::pages::codec::Writer;
use crate::pages::{
    Chunk, ConversationPage, DEPARTURES_PER_PAGE, Departures, Erasure, MESSAGES_PER_PAGE, Message, Messages, Meta,
    PEOPLE_PER_PAGE, Page, PageKey, Pages, Parked, People, Policy, ReadMarks, Role, Table, TableId,
};
use crate::questions::view::Receipt;
use crate::state::{Error, Result, State};
use receipts_event::Kind;

/// A conversation as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// The tenant.
    pub tenant: String,
    /// The id within the tenant.
    pub conversation_id: String,
    /// Direct chat or group.
    pub kind: Kind,
    /// The group type, by which policies support receipts.
    pub group_type: String,
    /// Slots given so far: one for each person who was on the roster, sent a message, or was named
    /// as a recipient.
    pub people: u32,
    /// Members on the roster now, observers not counted.
    pub members: u32,
}

/// A receipt with the location of the message's send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocatedReceipt {
    /// The receipt.
    pub receipt: Receipt,
    /// Offset of the send event.
    pub offset: u64,
    /// Record timestamp of the send event, Unix milliseconds.
    pub timestamp_ms: u64,
    /// Number of the conversation.
    pub conversation: u32,
}

/// A page of a roster in slot order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterPage {
    /// User ids and roles of the people on the roster, without erased ones.
    pub people: Vec<(String, Role)>,
    /// The slot from which the next page begins; `None` at the end.
    pub next_slot: Option<u32>,
}

impl<S: Pages> State<S> {
    /// Returns the number of conversations. They are numbered from 0.
    pub fn conversations(&self) -> u32 {
        self.meta.next_conversation
    }

    /// Returns the number of the first message that may be live. Messages are numbered up to
    /// [`Self::messages`].
    pub fn first_message(&self) -> u64 {
        self.meta.oldest_page.saturating_mul(MESSAGES_PER_PAGE)
    }

    /// Returns a conversation by its number.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn conversation(&self, conversation: u32) -> Result<Conversation, S::Error> {
        let page = self.read_conversation_page(conversation)?;
        Ok(Conversation {
            tenant: page.tenant.as_ref().into(),
            conversation_id: page.conversation_id.as_ref().into(),
            kind: page.kind,
            group_type: page.group_type.as_ref().into(),
            people: page.people,
            members: page.members,
        })
    }

    /// Returns the number of a conversation; `None` if the state does not know it.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn conversation_number(&self, tenant: &str, conversation_id: &str) -> Result<Option<u32>, S::Error> {
        Ok(self.read_conversation_by_name(tenant, conversation_id)?.map(|(number, _)| number))
    }

    /// Returns whether a conversation has ever given a slot to a person, erased people included.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn has_known(&self, conversation: u32, user_id: &str) -> Result<bool, S::Error> {
        let page = self.read_conversation_page(conversation)?;
        Ok(self.slot_of(conversation, &page, user_id)?.is_some())
    }

    /// Returns a page of a conversation's roster, from the slot `from_slot` on.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn roster_page(&self, conversation: u32, from_slot: u32) -> Result<RosterPage, S::Error> {
        let page = self.read_conversation_page(conversation)?;
        if from_slot >= page.people {
            return Ok(RosterPage { people: Vec::new(), next_slot: None });
        }
        let people = self.read_people(conversation, from_slot / PEOPLE_PER_PAGE)?;
        let on_it = people.iter().skip((from_slot % PEOPLE_PER_PAGE) as usize).filter(|p| p.role != Role::None);
        let people = on_it.filter(|p| !self.is_erased(&page.tenant, &p.id)).map(|p| (p.id.as_ref().into(), p.role));
        let next = (from_slot / PEOPLE_PER_PAGE + 1).saturating_mul(PEOPLE_PER_PAGE);
        Ok(RosterPage { people: people.collect(), next_slot: (next < page.people).then_some(next) })
    }

    /// Returns the receipt of a message by its number, and the location of its send; `None` once it
    /// has expired.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn located_receipt(&self, message: u64) -> Result<Option<LocatedReceipt>, S::Error> {
        let Some(found) = self.find_number(message)? else { return Ok(None) };
        let m = found.message();
        let (offset, timestamp_ms, conversation) = (m.offset, m.timestamp_ms, m.conversation);
        Ok(Some(LocatedReceipt { receipt: found.receipt()?, offset, timestamp_ms, conversation }))
    }

    /// Returns the pages of the partition itself: counters as of the last
    /// [`Self::write_meta`], parked records, erasures, policies.
    ///
    /// # Errors
    /// If the store fails.
    pub fn pages_of_partition(&self) -> Result<Vec<(TableId, PageKey)>, S::Error> {
        let mut pages = vec![(TableId::Meta, PageKey::ONLY)];
        pages.extend(Table::<Parked>::keys(&self.pages)?.into_iter().map(|key| (TableId::Parked, key)));
        let numbered = |table, numbers: Vec<u64>| numbers.into_iter().map(move |n| (table, PageKey::new(n, 0)));
        pages.extend(numbered(TableId::Erasures, self.erased.numbers()));
        pages.extend(numbered(TableId::Policies, self.policies.numbers()));
        Ok(pages)
    }

    /// Returns the pages of a conversation by its number: itself, its people, their read marks, its
    /// departures. Some pages of read marks may be absent.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn pages_of_conversation(&self, conversation: u32) -> Result<Vec<(TableId, PageKey)>, S::Error> {
        let page = self.read_conversation_page(conversation)?;
        let people = page.people.div_ceil(PEOPLE_PER_PAGE);
        let departures = page.departures.div_ceil(DEPARTURES_PER_PAGE);
        let of = |table, pages| (0..pages).map(move |page| (table, PageKey::new(conversation, page)));
        let rest = of(TableId::People, people)
            .chain(of(TableId::ReadMarks, people))
            .chain(of(TableId::Departures, departures));
        Ok(std::iter::once((TableId::Conversations, PageKey::new(conversation, 0))).chain(rest).collect())
    }

    /// Returns the page of 64 messages that holds a message, by its number, and the chunks of those
    /// messages. Some chunks may be absent.
    ///
    /// # Errors
    /// If the store fails.
    pub fn pages_of_messages(&self, message: u64) -> Result<Vec<(TableId, PageKey)>, S::Error> {
        let number = message / MESSAGES_PER_PAGE;
        let mut pages = vec![(TableId::Messages, PageKey::new(number, 0))];
        if let Some(page) = Table::<Messages>::read(&self.pages, PageKey::new(number, 0))? {
            for (message, chunks) in (number * MESSAGES_PER_PAGE..).zip(page.iter().map(Message::chunks)) {
                pages.extend((0..chunks).map(|chunk| (TableId::Chunks, PageKey::new(message, chunk))));
            }
        }
        Ok(pages)
    }

    /// Returns the bytes of a page in the store's format, for comparisons; `None` if the page is
    /// absent.
    ///
    /// Names, indexes and the origin cannot be compared by bytes. Questions prove the names and the
    /// indexes.
    ///
    /// # Errors
    /// If the store fails, or the table cannot be compared.
    pub fn page_bytes(&self, table: TableId, key: PageKey) -> Result<Option<Vec<u8>>, S::Error> {
        match table {
            TableId::Meta => self.bytes_of::<Meta>(key),
            TableId::Conversations => self.bytes_of::<ConversationPage>(key),
            TableId::People => self.bytes_of::<People>(key),
            TableId::ReadMarks => self.bytes_of::<ReadMarks>(key),
            TableId::Departures => self.bytes_of::<Departures>(key),
            TableId::Messages => self.bytes_of::<Messages>(key),
            TableId::Chunks => self.bytes_of::<Chunk>(key),
            TableId::Parked => self.bytes_of::<Parked>(key),
            TableId::Erasures => self.bytes_of::<Erasure>(key),
            TableId::Policies => self.bytes_of::<Policy>(key),
            TableId::Names | TableId::PeopleIndex | TableId::Index | TableId::BloomFilters | TableId::Origin => {
                Err(Error::Broken("a page whose bytes cannot be compared"))
            }
        }
    }

    fn bytes_of<P: Page>(&self, key: PageKey) -> Result<Option<Vec<u8>>, S::Error>
    where
        S: Table<P>,
    {
        let Some(page) = Table::<P>::read(&self.pages, key)? else { return Ok(None) };
        let mut writer = Writer::default();
        page.encode(&mut writer);
        Ok(Some(writer.bytes))
    }
}
