//! Walks over a whole state, for exports and audits: conversations, rosters, messages and pages by number. Changes nothing,
//! and reads in order, so that a walk keeps no more than a page at hand.

use crate::head::Head;
use crate::message::{Chunk, MESSAGES_PER_PAGE, Message, Messages};
use crate::page::{Page, PageKey, Table, TableId};
use crate::people::{PEOPLE_PER_PAGE, People, Role};
use crate::small::{Erased, LEAVES_PER_PAGE, Leaves, Marks, Meta, Parked};
use crate::state::{Error, META, Pages, Result, State, key};
use crate::view::{MemberFilter, Members, Receipt};
use crate::wire::Writer;
use receipts_event::Kind;

/// A conversation as it stands now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversation {
    /// Whose.
    pub tenant: String,
    /// Its id.
    pub conversation_id: String,
    /// Direct chat or group.
    pub kind: Kind,
    /// The type that policies speak of.
    pub group_type: String,
    /// Slots given so far: everybody whom its events named.
    pub people: u32,
    /// Members on the roster now, observers not counted.
    pub members: u32,
}

/// A message's receipt, and where its send stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its receipt.
    pub receipt: Receipt,
    /// Offset of its send.
    pub offset: u64,
    /// The send's record timestamp, Unix milliseconds.
    pub timestamp_ms: u64,
    /// Number of its conversation.
    pub conversation: u32,
}

/// A stretch of a roster in slot order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Roster {
    /// User ids and roles; nobody who is not on the roster, and nobody erased.
    pub people: Vec<(String, Role)>,
    /// The slot to go on from; `None` at the end.
    pub next_slot: Option<u32>,
}

impl<S: Pages> State<S> {
    /// How many conversations there are; their numbers are those below.
    pub fn conversations(&self) -> u32 {
        self.meta.next_conversation
    }

    /// Number of the first message that may not have expired; those up to [`Self::messages`] follow.
    pub fn first_message(&self) -> u64 {
        self.meta.oldest_page.saturating_mul(MESSAGES_PER_PAGE)
    }

    /// A conversation by its number.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn conversation(&self, conversation: u32) -> Result<Conversation, S::Error> {
        let head = self.head_of(conversation)?;
        Ok(Conversation {
            tenant: head.tenant.as_ref().into(),
            conversation_id: head.conversation_id.as_ref().into(),
            kind: head.kind,
            group_type: head.group_type.as_ref().into(),
            people: head.people,
            members: head.members,
        })
    }

    /// One page of people of a conversation's roster, from the slot `from_slot` on.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn roster(&self, conversation: u32, from_slot: u32) -> Result<Roster, S::Error> {
        let head = self.head_of(conversation)?;
        if from_slot >= head.people {
            return Ok(Roster { people: Vec::new(), next_slot: None });
        }
        let page = self.people_of(conversation, from_slot / PEOPLE_PER_PAGE)?;
        let on_it = page.iter().skip((from_slot % PEOPLE_PER_PAGE) as usize).filter(|p| p.role != Role::None);
        let people = on_it.filter(|p| !self.is_erased(&head.tenant, &p.id)).map(|p| (p.id.as_ref().into(), p.role));
        let next = (from_slot / PEOPLE_PER_PAGE + 1).saturating_mul(PEOPLE_PER_PAGE);
        Ok(Roster { people: people.collect(), next_slot: (next < head.people).then_some(next) })
    }

    /// A message by its number, with its place in the log; `None` once it has expired.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn placed(&self, message: u64) -> Result<Option<Placed>, S::Error> {
        let Some(found) = self.find_number(message)? else { return Ok(None) };
        let m = found.message();
        let (offset, timestamp_ms, conversation) = (m.offset, m.timestamp_ms, m.conversation);
        Ok(Some(Placed { receipt: found.receipt()?, offset, timestamp_ms, conversation }))
    }

    /// A stretch of the member list of a message by its number, as [`Self::members`]; `None` once it has expired.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn members_of(
        &self,
        message: u64,
        filter: MemberFilter,
        from_slot: u32,
        limit: usize,
    ) -> Result<Option<Members>, S::Error> {
        self.find_number(message)?.map(|found| found.list(filter, from_slot, limit)).transpose()
    }

    /// The pages of the partition itself: counters and policies as of the last [`Self::settle`], erasures, parked records.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn own_pages(&self) -> Result<Vec<(TableId, PageKey)>, S::Error> {
        let mut pages = vec![(TableId::Meta, META)];
        pages.extend((0..self.meta.erasures).map(|number| (TableId::Erased, key(number, 0))));
        pages.extend(Table::<Parked>::keys(&self.pages)?.into_iter().map(|key| (TableId::Parked, key)));
        Ok(pages)
    }

    /// The pages of a conversation by its number: itself, its people, their marks, their leaves. Of marks some may be
    /// absent.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn pages_of_conversation(&self, conversation: u32) -> Result<Vec<(TableId, PageKey)>, S::Error> {
        let head = self.head_of(conversation)?;
        let people = head.people.div_ceil(PEOPLE_PER_PAGE);
        let leaves = head.leaves.div_ceil(LEAVES_PER_PAGE);
        let of = |table, pages| (0..pages).map(move |page| (table, key(conversation, page)));
        let rest = of(TableId::People, people).chain(of(TableId::Marks, people)).chain(of(TableId::Leaves, leaves));
        Ok(std::iter::once((TableId::Heads, key(conversation, 0))).chain(rest).collect())
    }

    /// The page of 64 messages that a message stands on, by its number, and the chunks of those messages, of which some
    /// may be absent.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn pages_of_messages(&self, message: u64) -> Result<Vec<(TableId, PageKey)>, S::Error> {
        let number = message / MESSAGES_PER_PAGE;
        let mut pages = vec![(TableId::Messages, key(number, 0))];
        if let Some(page) = Table::<Messages>::get(&self.pages, key(number, 0))? {
            for (message, chunks) in (number * MESSAGES_PER_PAGE..).zip(page.iter().map(Message::chunks)) {
                pages.extend((0..chunks).map(|chunk| (TableId::Chunks, key(message, chunk))));
            }
        }
        Ok(pages)
    }

    /// The bytes of a page as the store's format has them, for comparisons; `None` where it is absent. What only finds
    /// other pages (names and indexes) has no bytes here: it is proven by asking. Nor has what the state was folded from.
    ///
    /// # Errors
    /// Where the store fails, or the table is one that has none.
    pub fn page_bytes(&self, table: TableId, key: PageKey) -> Result<Option<Vec<u8>>, S::Error> {
        match table {
            TableId::Meta => self.bytes_of::<Meta>(key),
            TableId::Heads => self.bytes_of::<Head>(key),
            TableId::People => self.bytes_of::<People>(key),
            TableId::Marks => self.bytes_of::<Marks>(key),
            TableId::Leaves => self.bytes_of::<Leaves>(key),
            TableId::Messages => self.bytes_of::<Messages>(key),
            TableId::Chunks => self.bytes_of::<Chunk>(key),
            TableId::Parked => self.bytes_of::<Parked>(key),
            TableId::Erased => self.bytes_of::<Erased>(key),
            TableId::Names | TableId::PeopleIndex | TableId::Index | TableId::Filters | TableId::Origin => {
                Err(Error::Broken("a page that can be compared"))
            }
        }
    }

    fn bytes_of<P: Page>(&self, key: PageKey) -> Result<Option<Vec<u8>>, S::Error>
    where
        S: Table<P>,
    {
        let Some(page) = Table::<P>::get(&self.pages, key)? else { return Ok(None) };
        let mut writer = Writer::default();
        page.encode(&mut writer);
        Ok(Some(writer.bytes))
    }
}
