//! The people of a conversation. Each person has one slot for ever, and memberships: the intervals
//! of the log in which messages have the person in their audience.
//!
//! A slot is the index of a person's bit in every message of the conversation. A newcomer gets a
//! new slot and so inherits no reads. A person who comes back keeps the slot and gets another
//! membership.

use crate::pages::codec::{Malformed, Reader, Writer};
use crate::pages::{Page, TableId};

/// People per page.
pub const PEOPLE_PER_PAGE: u32 = 64;
/// A person's role on the roster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Not on the roster.
    None,
    /// On the roster, and in the audience of each message that another person sends meanwhile.
    Member,
    /// On the roster, but in no audience by roster.
    Observer,
}

/// An interval of the log: messages with an offset above `from` and below `to` have the person in
/// their audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Offset of the event that began it.
    pub from: u64,
    /// Offset of the event that ended it; [`Membership::OPEN`] while it lasts.
    pub to: u64,
}

impl Membership {
    /// The end of a membership that lasts.
    pub const OPEN: u64 = u64::MAX;
}

/// A person who is or was on the roster, has sent a message, or was named as a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// The user id.
    pub id: Box<str>,
    /// Number of the first message that may have the person in its audience.
    pub since_message: u64,
    /// The role now.
    pub role: Role,
    /// Whether the person was on the roster at any time.
    pub ever_on_roster: bool,
    /// Whether a message named the person as a recipient at any time.
    pub ever_recipient: bool,
    /// Offset of the last departure.
    pub last_departure: Option<u64>,
    /// The newest membership.
    pub membership: Option<Membership>,
    /// The memberships before it, oldest first.
    pub earlier: Option<Box<Vec<Membership>>>,
}

impl Person {
    /// Creates a person who was never on the roster.
    pub fn new(id: &str, since_message: u64) -> Self {
        Self {
            id: id.into(),
            since_message,
            role: Role::None,
            ever_on_roster: false,
            ever_recipient: false,
            last_departure: None,
            membership: None,
            earlier: None,
        }
    }

    /// Whether a message sent at `offset` has the person in its audience by roster. Later changes
    /// of the roster never change the answer (INV-FROZEN).
    pub fn in_audience_at(&self, offset: u64) -> bool {
        let within = |s: &Membership| s.from < offset && offset < s.to;
        self.membership.as_ref().is_some_and(within) || self.earlier.as_ref().is_some_and(|e| e.iter().any(within))
    }

    /// Whether the person left after `offset`.
    pub fn left_after(&self, offset: u64) -> bool {
        self.last_departure.is_some_and(|departure| departure > offset)
    }

    /// Whether the person was on the roster once and is not now.
    pub fn is_former_member(&self) -> bool {
        self.ever_on_roster && self.role == Role::None
    }

    /// The end of the newest membership; 0 for a person who had none. Earlier ones end before it.
    fn newest_end(&self) -> u64 {
        self.membership.map_or(0, |membership| membership.to)
    }

    /// Whether any message may have the person in its audience.
    pub fn may_be_in_audience(&self) -> bool {
        self.ever_on_roster || self.ever_recipient
    }

    /// Takes a role at `offset`. A person who becomes a member begins a membership; a person who
    /// stops being one ends it.
    pub fn take_role(&mut self, role: Role, offset: u64) {
        if self.role == Role::Member && role != Role::Member {
            self.membership.as_mut().expect("a member has a membership").to = offset;
        }
        if self.role != Role::Member && role == Role::Member {
            if let Some(before) = self.membership.take() {
                self.earlier.get_or_insert_default().push(before);
            }
            self.membership = Some(Membership { from: offset, to: Membership::OPEN });
        }
        if self.role != Role::None && role == Role::None {
            self.last_departure = Some(offset);
        }
        self.role = role;
        self.ever_on_roster |= role != Role::None;
    }
}

/// 64 people by slot. The hashes of their ids lie apart, so that a look-up reads little memory.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct People {
    hashes: Vec<u32>,
    people: Vec<Person>,
    /// No membership of this page ends later. Not stored: it is found again when a page is decoded.
    newest_end: u64,
}

/// Returns the hash that finds a user id; part of the store's format.
pub fn user_hash(id: &str) -> u32 {
    xxhash_rust::xxh3::xxh3_64(id.as_bytes()) as u32
}

impl People {
    /// Returns the index on this page of the person with that id.
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

    /// Returns the index on this page of the person whose id probably has the hash.
    pub(crate) fn likely_index(&self, hash: u32) -> Option<u32> {
        self.hashes.iter().position(|h| *h == hash).map(|index| index as u32)
    }

    /// Number of people.
    pub(crate) fn len(&self) -> usize {
        self.people.len()
    }

    /// Reads one of the hashes, so that they are in the processor's cache.
    pub(crate) fn prefetch_hashes(&self) -> u32 {
        self.hashes.first().copied().unwrap_or(0)
    }

    /// Reads a part of the person at an index.
    pub(crate) fn prefetch(&self, index: u32) -> u64 {
        self.at(index).map_or(0, |p| p.since_message)
    }

    /// Reads a part of the id of the person at an index.
    pub(crate) fn prefetch_id(&self, index: u32) -> u8 {
        self.at(index).and_then(|p| p.id.as_bytes().first().copied()).unwrap_or(0)
    }

    /// Adds a person at the next index.
    pub fn push(&mut self, person: Person, hash: u32) {
        assert!(self.people.len() < PEOPLE_PER_PAGE as usize, "a page of people is full");
        self.newest_end = self.newest_end.max(person.newest_end());
        self.hashes.push(hash);
        self.people.push(person);
    }

    /// Whether a message sent at `offset` has nobody of this page in its audience by roster,
    /// because all had left before. False if that is not known.
    pub(crate) fn is_outside_at(&self, offset: u64) -> bool {
        self.newest_end <= offset
    }

    /// Gives a role to the person at an index, as [`Person::take_role`]; returns false if there is
    /// none.
    pub(crate) fn take_role(&mut self, index: u32, role: Role, offset: u64) -> bool {
        let Some(person) = self.people.get_mut(index as usize) else { return false };
        person.take_role(role, offset);
        self.newest_end = self.people.iter().map(Person::newest_end).max().unwrap_or(0);
        true
    }

    /// Returns the person at an index.
    pub fn at(&self, index: u32) -> Option<&Person> {
        self.people.get(index as usize)
    }

    /// Returns the person at an index, to change.
    pub fn at_mut(&mut self, index: u32) -> Option<&mut Person> {
        // The caller may change a membership.
        self.newest_end = Membership::OPEN;
        self.people.get_mut(index as usize)
    }

    /// Returns all people by index.
    pub fn iter(&self) -> impl Iterator<Item = &Person> {
        self.people.iter()
    }

    /// Returns the hashes of the user ids by index.
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
            to.difference(p.since_message, since);
            since = p.since_message;
            let role = match p.role {
                Role::None => 0u8,
                Role::Member => 1,
                Role::Observer => 2,
            };
            to.byte(
                role | u8::from(p.ever_on_roster) << 2
                    | u8::from(p.last_departure.is_some()) << 3
                    | u8::from(p.ever_recipient) << 4,
            );
            if let Some(departure) = p.last_departure {
                to.difference(departure, last);
            }
            let memberships = || p.earlier.iter().flat_map(|e| e.iter()).chain(&p.membership);
            to.number(memberships().count() as u64);
            for m in memberships() {
                to.difference(m.from, last);
                last = m.from;
                to.number(if m.to == Membership::OPEN { 0 } else { m.to.saturating_sub(m.from) + 1 });
            }
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let count = from.count(4)?;
        if count > PEOPLE_PER_PAGE as usize {
            return Err(Malformed("too many people on a page"));
        }
        let mut page = Self { hashes: Vec::with_capacity(count), people: Vec::with_capacity(count), newest_end: 0 };
        let (mut last, mut since) = (0, 0);
        for _ in 0..count {
            let id = from.text()?;
            since = from.difference(since)?;
            let mut p = Person::new(id, since);
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
                p.last_departure = Some(from.difference(last)?);
            }
            let mut memberships = Vec::with_capacity(from.count(2)?);
            for _ in 0..memberships.capacity() {
                let start = from.difference(last)?;
                last = start;
                let length = from.number()?;
                let to = if length == 0 {
                    Membership::OPEN
                } else {
                    start.checked_add(length - 1).ok_or(Malformed("a membership beyond 64 bits"))?
                };
                memberships.push(Membership { from: start, to });
            }
            p.membership = memberships.pop();
            p.earlier = if memberships.is_empty() { None } else { Some(Box::new(memberships)) };
            if p.role == Role::Member && p.membership.is_none() {
                return Err(Malformed("a member without a membership"));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pages::accounts_for;

    #[test]
    fn audience_holds_the_members_at_the_offset() {
        let mut p = Person::new("bob", 0);
        p.take_role(Role::Member, 10);
        p.take_role(Role::Observer, 20);
        p.take_role(Role::Member, 30);
        p.take_role(Role::None, 40);
        p.take_role(Role::Member, 50);
        let held: Vec<u64> = [5, 15, 25, 35, 45, 55].into_iter().filter(|o| p.in_audience_at(*o)).collect();
        assert_eq!(held, [15, 35, 55]);
        assert_eq!(p.last_departure, Some(40));
        assert!(p.left_after(39) && !p.left_after(40) && !p.is_former_member());

        let mut page = People::default();
        page.push(p, user_hash("bob"));
        page.push(Person::new("eve", 7), user_hash("eve"));
        assert_eq!(page.find("eve", user_hash("eve")), Some(1));
        assert_eq!(page.find("eva", user_hash("eve")), None);
        let mut w = Writer::default();
        page.encode(&mut w);
        assert_eq!(People::decode(&mut Reader::new(&w.bytes)), Ok(page));
    }

    #[test]
    fn page_knows_when_its_last_member_left() {
        let mut page = People::default();
        assert!(page.is_outside_at(0));
        for id in ["ann", "bob"] {
            page.push(Person::new(id, 0), user_hash(id));
        }
        assert!(page.take_role(0, Role::Member, 10) && page.take_role(1, Role::Member, 20));
        assert!(!page.is_outside_at(1_000));
        assert!(page.take_role(0, Role::None, 30));
        assert!(!page.is_outside_at(1_000), "bob is still a member");
        assert!(page.take_role(1, Role::Observer, 40) && !page.take_role(2, Role::None, 40));
        assert!(!page.is_outside_at(39) && page.is_outside_at(40));
        let mut w = Writer::default();
        page.encode(&mut w);
        let decoded = People::decode(&mut Reader::new(&w.bytes)).unwrap();
        assert!(!decoded.is_outside_at(39) && decoded.is_outside_at(40));
        page.at_mut(0).unwrap().ever_recipient = true;
        assert!(!page.is_outside_at(1_000), "unknown after a change");
    }

    #[test]
    fn page_accounts_for_ids_and_memberships() {
        let mut person = Person::new(&"p".repeat(128), 0);
        person.earlier = Some(Box::new(Vec::with_capacity(50)));
        let room = PEOPLE_PER_PAGE as usize;
        let page = People { hashes: Vec::with_capacity(room), people: Vec::with_capacity(room), newest_end: 0 };
        accounts_for(&page, room * (size_of::<Person>() + 4));
        let mut page = page;
        page.push(person, 1);
        accounts_for(&page, room * (size_of::<Person>() + 4) + 128 + 24 + 50 * 16);
    }
}
