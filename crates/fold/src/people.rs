//! The people of a conversation. Each has one slot for ever, and the stretches of the log in which they are in audiences.
//!
//! A slot is the place of a person's bit in every message of the conversation. Newcomers get new slots, so nobody
//! inherits another's reads; who comes back keeps the old slot, and a stretch more.

use crate::page::{Page, TableId};
use crate::wire::{Malformed, Reader, Writer};

/// People on a page.
pub const PEOPLE_PER_PAGE: u32 = 64;
/// Entries that a page of the hash index holds on average before the index doubles.
pub const INDEX_ENTRIES_PER_PAGE: u32 = 192;

/// What somebody is on the roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Not on it.
    None,
    /// In the audience of every message sent meanwhile.
    Member,
    /// On it, but in no audience by roster.
    Observer,
}

/// A stretch of the log: messages with an offset above `from` and below `to` have this person in their audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Offset of the event that began it.
    pub from: u64,
    /// Offset of the event that ended it; [`Span::OPEN`] while it lasts.
    pub to: u64,
}

impl Span {
    /// No event has ended it yet.
    pub const OPEN: u64 = u64::MAX;
}

/// Somebody who is or was on the roster, or was named by an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The user id.
    pub id: Box<str>,
    /// Number of the first message that they can be in the audience of.
    pub since: u64,
    /// On the roster now?
    pub role: Role,
    /// Was on the roster at any time.
    pub ever_on_roster: bool,
    /// Was named as a recipient at any time.
    pub ever_recipient: bool,
    /// Offset of the last leave.
    pub last_leave: Option<u64>,
    /// The newest stretch, if there is any.
    pub span: Option<Span>,
    /// Those before it, oldest first.
    pub earlier: Option<Box<Vec<Span>>>,
}

impl Person {
    /// Somebody who is on no roster.
    pub fn stranger(id: &str, since: u64) -> Self {
        Self {
            id: id.into(),
            since,
            role: Role::None,
            ever_on_roster: false,
            ever_recipient: false,
            last_leave: None,
            span: None,
            earlier: None,
        }
    }

    /// Whether a message sent at `offset` has them in its audience by roster.
    pub fn in_audience_at(&self, offset: u64) -> bool {
        let within = |s: &Span| s.from < offset && offset < s.to;
        self.span.as_ref().is_some_and(within) || self.earlier.as_ref().is_some_and(|e| e.iter().any(within))
    }

    /// Whether they left after `offset`.
    pub fn left_after(&self, offset: u64) -> bool {
        self.last_leave.is_some_and(|leave| leave > offset)
    }

    /// Once on the roster, and not now.
    pub fn is_gone(&self) -> bool {
        self.ever_on_roster && self.role == Role::None
    }

    /// Whether they may be in the audience of some message.
    pub fn may_be_in_audience(&self) -> bool {
        self.ever_on_roster || self.ever_recipient
    }

    /// Takes a role at `offset`. Becoming a member begins a stretch, ceasing to be one ends it.
    pub fn take_role(&mut self, role: Role, offset: u64) {
        if self.role == Role::Member && role != Role::Member {
            self.span.as_mut().expect("a member has a stretch").to = offset;
        }
        if self.role != Role::Member && role == Role::Member {
            if let Some(before) = self.span.take() {
                self.earlier.get_or_insert_default().push(before);
            }
            self.span = Some(Span { from: offset, to: Span::OPEN });
        }
        if self.role != Role::None && role == Role::None {
            self.last_leave = Some(offset);
        }
        self.role = role;
        self.ever_on_roster |= role != Role::None;
    }
}

/// 64 people by slot, with the hashes of their ids apart, so that a look-up touches little memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct People {
    hashes: Vec<u32>,
    people: Vec<Person>,
}

/// The hash that finds a user id; part of the store's format.
pub fn user_hash(id: &str) -> u32 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes()) as u32
}

impl People {
    /// The place on this page of the person with that id.
    pub fn find(&self, id: &str, hash: u32) -> Option<u32> {
        let mut at = 0;
        while let Some(i) = self.hashes[at..].iter().position(|h| *h == hash) {
            if &*self.people[at + i].id == id {
                return Some((at + i) as u32);
            }
            at += i + 1;
        }
        None
    }

    /// The place on this page of the person that probably has an id of that hash.
    pub(crate) fn probably(&self, hash: u32) -> Option<u32> {
        self.hashes.iter().position(|h| *h == hash).map(|place| place as u32)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.people.len()
    }

    /// Reads some of what a person is found by.
    pub(crate) fn touch_hashes(&self) -> u32 {
        self.hashes.first().copied().unwrap_or(0)
    }

    /// Reads some of the person at a place.
    pub(crate) fn touch(&self, place: u32) -> u64 {
        self.at(place).map_or(0, |p| p.since)
    }

    /// Reads some of the id of the person at a place.
    pub(crate) fn touch_id(&self, place: u32) -> u8 {
        self.at(place).and_then(|p| p.id.as_bytes().first().copied()).unwrap_or(0)
    }

    /// Adds a person at the next place.
    pub fn push(&mut self, person: Person, hash: u32) {
        assert!(self.people.len() < PEOPLE_PER_PAGE as usize, "a page of people is full");
        self.hashes.push(hash);
        self.people.push(person);
    }

    /// The person at a place.
    pub fn at(&self, place: u32) -> Option<&Person> {
        self.people.get(place as usize)
    }

    /// The person at a place, to change.
    pub fn at_mut(&mut self, place: u32) -> Option<&mut Person> {
        self.people.get_mut(place as usize)
    }

    /// All, by place.
    pub fn iter(&self) -> impl Iterator<Item = &Person> {
        self.people.iter()
    }

    /// Hashes and places.
    pub fn hashes(&self) -> &[u32] {
        &self.hashes
    }
}

impl Page for People {
    const TABLE: TableId = TableId::People;

    fn encode(&self, to: &mut Writer) {
        to.number(self.people.len() as u64);
        let (mut last, mut since) = (0, 0);
        for p in &self.people {
            to.text(&p.id);
            to.difference(p.since, since);
            since = p.since;
            let role = match p.role {
                Role::None => 0u8,
                Role::Member => 1,
                Role::Observer => 2,
            };
            to.byte(
                role | u8::from(p.ever_on_roster) << 2
                    | u8::from(p.last_leave.is_some()) << 3
                    | u8::from(p.ever_recipient) << 4,
            );
            if let Some(leave) = p.last_leave {
                to.difference(leave, last);
            }
            let spans = || p.earlier.iter().flat_map(|e| e.iter()).chain(&p.span);
            to.number(spans().count() as u64);
            for span in spans() {
                to.difference(span.from, last);
                last = span.from;
                to.number(if span.to == Span::OPEN { 0 } else { span.to.saturating_sub(span.from) + 1 });
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = from.count(4)?;
        if count > PEOPLE_PER_PAGE as usize {
            return Err(Malformed("too many people on a page"));
        }
        let mut page = Self { hashes: Vec::with_capacity(count), people: Vec::with_capacity(count) };
        let (mut last, mut since) = (0, 0);
        for _ in 0..count {
            let id = from.text()?;
            since = from.difference(since)?;
            let mut p = Person::stranger(id, since);
            let flags = from.byte()?;
            p.role = match flags & 3 {
                0 => Role::None,
                1 => Role::Member,
                2 => Role::Observer,
                _ => return Err(Malformed("an unknown role")),
            };
            p.ever_on_roster = flags & 4 > 0;
            p.ever_recipient = flags & 16 > 0;
            if flags & 8 > 0 {
                p.last_leave = Some(from.difference(last)?);
            }
            let mut spans = Vec::with_capacity(from.count(2)?);
            for _ in 0..spans.capacity() {
                let start = from.difference(last)?;
                last = start;
                let length = from.number()?;
                let to = if length == 0 {
                    Span::OPEN
                } else {
                    start.checked_add(length - 1).ok_or(Malformed("a stretch beyond 64 bits"))?
                };
                spans.push(Span { from: start, to });
            }
            p.span = spans.pop();
            p.earlier = if spans.is_empty() { None } else { Some(Box::new(spans)) };
            if p.role == Role::Member && p.span.is_none() {
                return Err(Malformed("a member without a stretch"));
            }
            let hash = user_hash(&p.id);
            page.push(p, hash);
        }
        Ok(page)
    }

    fn memory_bytes(&self) -> usize {
        let heap = |p: &Person| p.id.len() + 16 + p.earlier.as_ref().map_or(0, |e| 24 + 16 * e.capacity());
        size_of::<Self>()
            + self.people.capacity() * size_of::<Person>()
            + 4 * self.hashes.capacity()
            + self.people.iter().map(heap).sum::<usize>()
    }
}

/// A page of the hash index of a conversation with more than one page of people: (hash, slot), sorted.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct PeopleIndex {
    entries: Vec<(u32, u32)>,
}

impl PeopleIndex {
    /// A page of entries in order.
    pub fn from_sorted(entries: Vec<(u32, u32)>) -> Self {
        assert!(entries.is_sorted(), "an index out of order");
        Self { entries }
    }

    /// Adds an entry.
    pub fn insert(&mut self, hash: u32, slot: u32) {
        let at = self.entries.partition_point(|e| *e < (hash, slot));
        self.entries.insert(at, (hash, slot));
    }

    /// The slots whose ids have that hash.
    pub fn slots(&self, hash: u32) -> impl Iterator<Item = u32> {
        let from = self.entries.partition_point(|e| e.0 < hash);
        self.entries[from..].iter().take_while(move |e| e.0 == hash).map(|e| e.1)
    }
}

impl Page for PeopleIndex {
    const TABLE: TableId = TableId::PeopleIndex;

    fn encode(&self, to: &mut Writer) {
        to.number(self.entries.len() as u64);
        let mut last = 0;
        for (hash, slot) in &self.entries {
            to.number(u64::from(*hash) - last);
            last = u64::from(*hash);
            to.number(u64::from(*slot));
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut entries = Vec::with_capacity(from.count(2)?);
        let mut last = 0u32;
        for _ in 0..entries.capacity() {
            last = last.checked_add(from.small()?).ok_or(Malformed("a hash beyond 32 bits"))?;
            entries.push((last, from.small()?));
        }
        if !entries.is_sorted() {
            return Err(Malformed("an index out of order"));
        }
        Ok(Self { entries })
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + 8 * self.entries.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::accounts_for;

    #[test]
    fn an_audience_holds_whom_the_roster_held_as_members_at_that_offset() {
        let mut p = Person::stranger("bob", 0);
        p.take_role(Role::Member, 10);
        p.take_role(Role::Observer, 20);
        p.take_role(Role::Member, 30);
        p.take_role(Role::None, 40);
        p.take_role(Role::Member, 50);
        let held: Vec<u64> = [5, 15, 25, 35, 45, 55].into_iter().filter(|o| p.in_audience_at(*o)).collect();
        assert_eq!(held, [15, 35, 55]);
        assert_eq!(p.last_leave, Some(40));
        assert!(p.left_after(39) && !p.left_after(40) && !p.is_gone());

        let mut page = People::default();
        page.push(p, user_hash("bob"));
        page.push(Person::stranger("eve", 7), user_hash("eve"));
        assert_eq!(page.find("eve", user_hash("eve")), Some(1));
        assert_eq!(page.find("eva", user_hash("eve")), None);
        let mut w = Writer::default();
        page.encode(&mut w);
        assert_eq!(People::decode(&mut Reader::new(&w.bytes)), Ok(page));
    }

    #[test]
    fn pages_of_people_and_their_index_account_for_what_they_hold() {
        let mut person = Person::stranger(&"p".repeat(128), 0);
        person.earlier = Some(Box::new(Vec::with_capacity(50)));
        let room = PEOPLE_PER_PAGE as usize;
        let page = People { hashes: Vec::with_capacity(room), people: Vec::with_capacity(room) };
        accounts_for(&page, room * (size_of::<Person>() + 4));
        let mut page = page;
        page.push(person, 1);
        accounts_for(&page, room * (size_of::<Person>() + 4) + 128 + 24 + 50 * 16);
        accounts_for(&PeopleIndex::from_sorted(Vec::with_capacity(100)), 800);
    }
}
