//! The questions a state answers, side by side with one another: receipts, member lists, read marks. They change nothing.

use crate::head::Head;
use crate::index::id_hash;
use crate::left::{FEW_LEAVES, Left};
use crate::lists::Lists;
use crate::memo::Memo;
use crate::message::{Message, Messages, State as Fate};
use crate::page::{PageKey, Ref, Table};
use crate::people::{PEOPLE_PER_PAGE, People, PeopleIndex, Person, Role, user_hash};
use crate::roster::index_page;
use crate::small::{Erased, LEAVES_PER_PAGE, Leaves, MARKS_PER_PAGE, Marks};
use crate::state::{Error, Pages, Result, State, key, message_key, named_in_page, write_name};
use crate::view::{Counts, Member, MemberFilter, Members, ReadMark, Receipt, Status};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Conversations with at most so many people are looked through person by person for those who left.
const FEW_PEOPLE: u32 = 4 * PEOPLE_PER_PAGE;

/// Number and head of a conversation, and the slot of somebody it knows.
type Known<'a> = (u32, Ref<'a, Head>, u32);

/// A message with what is needed to speak of it.
pub(crate) struct Found<'a, S> {
    pub(crate) state: &'a State<S>,
    pub(crate) number: u64,
    pub(crate) page: Ref<'a, Messages>,
    pub(crate) head: Ref<'a, Head>,
}

impl<S: Pages> State<S> {
    /// The receipt of a message.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn receipt(&self, tenant: &str, conversation_id: &str, message_id: &str) -> Result<Receipt, S::Error> {
        match self.look_up(tenant, conversation_id, message_id)? {
            Some(found) => found.receipt(),
            None => Ok(not_found(tenant, Some(conversation_id), message_id)),
        }
    }

    /// The receipts of messages of one conversation, one each in their order. Looks for the conversation once, and loads a page
    /// once for neighbours in time, as a screen shows them.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn receipts(
        &self,
        tenant: &str,
        conversation_id: &str,
        message_ids: &[String],
    ) -> Result<Vec<Receipt>, S::Error> {
        let missing = |id: &String| not_found(tenant, Some(conversation_id), id);
        let Some((conversation, head)) = self.look_up_conversation(tenant, conversation_id)? else {
            return Ok(message_ids.iter().map(missing).collect());
        };
        let mut receipts = Vec::with_capacity(message_ids.len());
        let mut page: Option<(PageKey, Ref<'_, Messages>)> = None;
        'ids: for id in message_ids {
            for number in self.index.candidates(&self.pages, id_hash(id), Some((conversation, &head.stretches)))? {
                let key = message_key(number).0;
                if page.as_ref().is_none_or(|(last, _)| *last != key) {
                    page = Table::<Messages>::get(&self.pages, key)?.map(|page| (key, page));
                }
                let Some((_, page)) = &page else { continue };
                if named_in_page(page, number, conversation, id).is_some_and(|m| !self.is_expired(m)) {
                    receipts.push(self.found(number, Ref::Hot(page), Ref::Hot(&head))?.receipt()?);
                    continue 'ids;
                }
            }
            receipts.push(missing(id));
        }
        Ok(receipts)
    }

    /// The receipt of a message of that id in any conversation: the one sent last, by `sent_at_ms`.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn receipt_anywhere(&self, tenant: &str, message_id: &str) -> Result<Receipt, S::Error> {
        self.receipt_of_the_last(tenant, message_id, |_, _| Ok(true))
    }

    /// The receipt of a message if this person sent it; that of any other is as one of a message that is not there. Of a
    /// conversation that has never heard of the person nothing but that is looked at, so nobody can tell by the time that
    /// it takes what messages there are.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn receipt_sent_by(
        &self,
        tenant: &str,
        conversation_id: &str,
        sender_id: &str,
        message_id: &str,
    ) -> Result<Receipt, S::Error> {
        let sender = if self.is_erased(tenant, sender_id) {
            None
        } else {
            self.look_up_person(tenant, conversation_id, sender_id)?
        };
        if let Some((_, _, slot)) = sender
            && let Some(found) = self.look_up(tenant, conversation_id, message_id)?
            && found.message().sender == slot
        {
            return found.receipt();
        }
        Ok(not_found(tenant, Some(conversation_id), message_id))
    }

    /// As [`State::receipt_anywhere`], among the messages alone that this person sent.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn receipt_anywhere_sent_by(
        &self,
        tenant: &str,
        sender_id: &str,
        message_id: &str,
    ) -> Result<Receipt, S::Error> {
        if self.is_erased(tenant, sender_id) {
            return Ok(not_found(tenant, None, message_id));
        }
        self.receipt_of_the_last(tenant, message_id, |m, head| {
            Ok(self.slot_of(m.conversation, head, sender_id)? == Some(m.sender))
        })
    }

    /// The receipt of the message of that id that was sent last, by `sent_at_ms`, among those that are meant.
    fn receipt_of_the_last(
        &self,
        tenant: &str,
        message_id: &str,
        is_meant: impl Fn(&Message, &Head) -> Result<bool, S::Error>,
    ) -> Result<Receipt, S::Error> {
        let mut best: Option<Found<'_, S>> = None;
        for number in self.index.candidates(&self.pages, id_hash(message_id), None)? {
            let Some(page) = Table::<Messages>::get(&self.pages, message_key(number).0)? else { continue };
            let place = message_key(number).1;
            let Some(m) = page.at(place).filter(|m| page.id(place) == message_id && !self.is_expired(m)) else {
                continue;
            };
            if best.as_ref().is_some_and(|b| b.message().sent_at_ms >= m.sent_at_ms) {
                continue;
            }
            let head = self.head_of(m.conversation)?;
            if &*head.tenant == tenant && is_meant(m, &head)? {
                best = Some(self.found(number, page, head)?);
            }
        }
        best.map_or_else(|| Ok(not_found(tenant, None, message_id)), |found| found.receipt())
    }

    /// The receipt of a message by its number in the partition; `None` once it has expired.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn receipt_of(&self, message: u64) -> Result<Option<Receipt>, S::Error> {
        self.find_number(message)?.map(|found| found.receipt()).transpose()
    }

    /// Names people of a message's conversation, given by slot, each with what stands beside it; those who were erased are
    /// left out, and all of them where the message has expired.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn name_slots<T>(
        &self,
        message: u64,
        slots: impl IntoIterator<Item = (u32, T)>,
        mut each: impl FnMut(&str, T),
    ) -> Result<(), S::Error> {
        let Some(page) = Table::<Messages>::get(&self.pages, message_key(message).0)? else { return Ok(()) };
        let conversation = page.at(message_key(message).1).ok_or(Error::Broken("a message"))?.conversation;
        let head = self.head_of(conversation)?;
        let mut people = None;
        for (slot, beside) in slots {
            let number = slot / PEOPLE_PER_PAGE;
            let page = match people.take() {
                Some((at, page)) if at == number => page,
                _ => self.people_of(conversation, number)?,
            };
            let person = page.at(slot % PEOPLE_PER_PAGE).ok_or(Error::Broken("a person"))?;
            if !self.is_erased(&head.tenant, &person.id) {
                each(&person.id, beside);
            }
            people = Some((number, page));
        }
        Ok(())
    }

    /// A stretch of a member list in slot order, from a slot on: at most `limit` members.
    /// Without members where the receipt is not `ok`.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn members(
        &self,
        tenant: &str,
        conversation_id: &str,
        message_id: &str,
        filter: MemberFilter,
        from_slot: u32,
        limit: usize,
    ) -> Result<Members, S::Error> {
        let Some(found) = self.look_up(tenant, conversation_id, message_id)? else {
            let receipt = not_found(tenant, Some(conversation_id), message_id);
            return Ok(Members { members: Vec::new(), next_slot: None, receipt });
        };
        found.list(filter, from_slot, limit)
    }

    /// Up to where a reader has read a conversation.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn read_mark(&self, tenant: &str, conversation_id: &str, user_id: &str) -> Result<Option<ReadMark>, S::Error> {
        if self.is_erased(tenant, user_id) {
            return Ok(None);
        }
        let Some((conversation, _, slot)) = self.look_up_person(tenant, conversation_id, user_id)? else {
            return Ok(None);
        };
        self.read_mark_of(conversation, slot)
    }

    /// A read mark by conversation and slot; `None` where there is none or the reader was erased.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn read_mark_of(&self, conversation: u32, slot: u32) -> Result<Option<ReadMark>, S::Error> {
        let head = self.head_of(conversation)?;
        let Some(reader_id) = self.user_id(conversation, &head.tenant, slot)? else { return Ok(None) };
        let Some(page) = Table::<Marks>::get(&self.pages, key(conversation, slot / MARKS_PER_PAGE))? else {
            return Ok(None);
        };
        let Some((Some(mark), _)) = page.slots.get((slot % MARKS_PER_PAGE) as usize) else { return Ok(None) };
        Ok(Some(ReadMark {
            reader_id,
            up_to_message_id: mark.message_id.as_deref().map(Into::into),
            up_to_sent_at_ms: mark.up_to_sent_at_ms,
            read_at_ms: mark.read_at_ms,
            version: mark.version,
        }))
    }

    /// Who shares a direct conversation with a slot: the one other member of its roster; `None` where there is none or more
    /// than one, or that person was erased.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn peer_of(&self, conversation: u32, slot: u32) -> Result<Option<String>, S::Error> {
        let head = self.head_of(conversation)?;
        // Of a chat of two that so many have been on, nobody knows who the other one is without a long look.
        if head.people == 0 || head.people > PEOPLE_PER_PAGE {
            return Ok(None);
        }
        let page = self.people_of(conversation, 0)?;
        let is_other = |other: &u32| *other != slot && page.at(*other).is_some_and(|p| p.role == Role::Member);
        let mut others = (0..head.people).filter(is_other);
        match (others.next(), others.next()) {
            (Some(other), None) => self.user_id(conversation, &head.tenant, other),
            _ => Ok(None),
        }
    }

    /// Tenant and id of a conversation by its number.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn conversation_name(&self, conversation: u32) -> Result<(String, String), S::Error> {
        let head = self.head_of(conversation)?;
        Ok((head.tenant.as_ref().into(), head.conversation_id.as_ref().into()))
    }

    /// Whether somebody is on a roster now, as a member or an observer.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn is_member(&self, tenant: &str, conversation_id: &str, user_id: &str) -> Result<bool, S::Error> {
        let Some((conversation, head, slot)) = self.look_up_person(tenant, conversation_id, user_id)? else {
            return Ok(false);
        };
        let page = self.people_of(conversation, slot / PEOPLE_PER_PAGE)?;
        let person = page.at(slot % PEOPLE_PER_PAGE).ok_or(Error::Broken("a person"))?;
        Ok(person.role != Role::None && !self.unseen_erasures(&head).any(|e| *e.user_id == *user_id))
    }

    /// A message by its number in the partition, unless it has expired.
    pub(crate) fn find_number(&self, message: u64) -> Result<Option<Found<'_, S>>, S::Error> {
        let Some(page) = Table::<Messages>::get(&self.pages, message_key(message).0)? else { return Ok(None) };
        let Some(m) = page.at(message_key(message).1).filter(|m| !self.is_expired(m)) else { return Ok(None) };
        let head = self.head_of(m.conversation)?;
        self.found(message, page, head).map(Some)
    }

    fn look_up(&self, tenant: &str, conversation_id: &str, message_id: &str) -> Result<Option<Found<'_, S>>, S::Error> {
        let Some((conversation, head)) = self.look_up_conversation(tenant, conversation_id)? else { return Ok(None) };
        let within = Some((conversation, &head.stretches));
        for number in self.index.candidates(&self.pages, id_hash(message_id), within)? {
            let Some(page) = Table::<Messages>::get(&self.pages, message_key(number).0)? else { continue };
            if named_in_page(&page, number, conversation, message_id).is_some_and(|m| !self.is_expired(m)) {
                return self.found(number, page, head).map(Some);
            }
        }
        Ok(None)
    }

    /// A message that its page has, with no more slots than its conversation gave: a walk over them ends.
    fn found<'a>(
        &'a self,
        number: u64,
        page: Ref<'a, Messages>,
        head: Ref<'a, Head>,
    ) -> Result<Found<'a, S>, S::Error> {
        let slots = page.at(message_key(number).1).ok_or(Error::Broken("a message"))?.slots;
        if slots > head.people {
            return Err(Error::Broken("the people of a message"));
        }
        Ok(Found { state: self, number, page, head })
    }

    fn look_up_conversation(
        &self,
        tenant: &str,
        conversation_id: &str,
    ) -> Result<Option<(u32, Ref<'_, Head>)>, S::Error> {
        let mut name = Vec::with_capacity(tenant.len() + conversation_id.len() + 1);
        write_name(&mut name, tenant, conversation_id);
        let Some(conversation) = self.pages.conversation(&name)? else { return Ok(None) };
        Ok(Some((conversation, self.head_of(conversation)?)))
    }

    fn look_up_person(
        &self,
        tenant: &str,
        conversation_id: &str,
        user_id: &str,
    ) -> Result<Option<Known<'_>>, S::Error> {
        let Some((conversation, head)) = self.look_up_conversation(tenant, conversation_id)? else { return Ok(None) };
        let slot = self.slot_of(conversation, &head, user_id)?;
        Ok(slot.map(|slot| (conversation, head, slot)))
    }

    fn slot_of(&self, conversation: u32, head: &Head, user_id: &str) -> Result<Option<u32>, S::Error> {
        let hash = user_hash(user_id);
        if head.people == 0 {
            return Ok(None);
        }
        if head.index_pages == 0 {
            return Ok(self.people_of(conversation, 0)?.find(user_id, hash));
        }
        let k = key(conversation, index_page(hash, head.index_pages));
        let index = Table::<PeopleIndex>::get(&self.pages, k)?.ok_or(Error::Broken("an index of people"))?;
        for slot in index.slots(hash) {
            let page = self.people_of(conversation, slot / PEOPLE_PER_PAGE)?;
            if page.at(slot % PEOPLE_PER_PAGE).is_some_and(|p| &*p.id == user_id) {
                return Ok(Some(slot));
            }
        }
        Ok(None)
    }

    pub(crate) fn head_of(&self, conversation: u32) -> Result<Ref<'_, Head>, S::Error> {
        let head = Table::<Head>::get(&self.pages, key(conversation, 0))?.ok_or(Error::Broken("a conversation"))?;
        if head.erasures_seen as usize > self.erasures.len() {
            return Err(Error::Broken("an erasure"));
        }
        Ok(head)
    }

    pub(crate) fn people_of(&self, conversation: u32, page: u32) -> Result<Ref<'_, People>, S::Error> {
        Table::<People>::get(&self.pages, key(conversation, page))?.ok_or(Error::Broken("people of a conversation"))
    }

    fn user_id(&self, conversation: u32, tenant: &str, slot: u32) -> Result<Option<String>, S::Error> {
        let page = self.people_of(conversation, slot / PEOPLE_PER_PAGE)?;
        let person = page.at(slot % PEOPLE_PER_PAGE).ok_or(Error::Broken("a person"))?;
        Ok((!self.is_erased(tenant, &person.id)).then(|| person.id.as_ref().into()))
    }

    /// Erasures that a roster has not settled yet: nothing was written to the conversation since.
    fn unseen_erasures(&self, head: &Head) -> impl Iterator<Item = &Erased> {
        let tenant = head.tenant.clone();
        self.erasures[head.erasures_seen as usize..].iter().filter(move |e| e.tenant == tenant)
    }
}

impl<S: Pages> Found<'_, S> {
    pub(crate) fn message(&self) -> &Message {
        self.page.at(message_key(self.number).1).expect("was found")
    }

    pub(crate) fn receipt(&self) -> Result<Receipt, S::Error> {
        Ok(self.receipt_and_departed()?.0)
    }

    /// The receipt, and the slots of those whom it counts as departed, in any order.
    fn receipt_and_departed(&self) -> Result<(Receipt, Vec<u32>), S::Error> {
        let m = self.message();
        let state = self.state;
        let mut receipt =
            not_found(&self.head.tenant, Some(&self.head.conversation_id), self.page.id(message_key(self.number).1));
        receipt.status = match m.state {
            Fate::Ok => Status::Ok,
            Fate::NotRequested => Status::NotRequested,
            Fate::Unsupported => Status::Unsupported,
            Fate::Recalled => Status::Recalled,
        };
        receipt.kind = Some(m.kind);
        receipt.sender_id = state.user_id(m.conversation, &self.head.tenant, m.sender)?;
        receipt.sent_at_ms = Some(m.sent_at_ms);
        receipt.version = Some(m.changed.max(self.last_leave()?.filter(|leave| *leave > m.offset).unwrap_or(0)));
        if m.state != Fate::Ok {
            return Ok((receipt, Vec::new()));
        }
        let departed = self.departed()?;
        let departed_count = departed.len() as u32;
        // To the one reader of a direct chat a hidden read is invisible.
        let hidden_count = if m.is_direct_to_one() { 0 } else { m.hidden };
        let unread_count = m
            .audience
            .checked_sub(m.read)
            .and_then(|rest| rest.checked_sub(hidden_count))
            .and_then(|rest| rest.checked_sub(departed_count))
            .ok_or(Error::Broken("members that departed and are counted as read"))?;
        receipt.counts = Some(Counts {
            audience_count: m.audience,
            read_count: m.read,
            unread_count,
            hidden_count,
            departed_count,
            all_read: unread_count == 0 && hidden_count == 0,
        });
        receipt.last_read_at_ms = (m.read > 0).then_some(m.last_read_at_ms);
        if m.is_direct_to_one() {
            self.add_other_party(&mut receipt)?;
        }
        Ok((receipt, departed))
    }

    /// In a direct chat with an audience of one: who that is, and when they read.
    fn add_other_party(&self, receipt: &mut Receipt) -> Result<(), S::Error> {
        let m = self.message();
        let mut lists = self.lists();
        for slot in 0..m.slots {
            if lists.is_in_audience(slot)? {
                receipt.user_id = self.state.user_id(m.conversation, &self.head.tenant, slot)?;
                if receipt.user_id.is_some() && m.read > 0 {
                    receipt.read_at_ms = Some(m.last_read_at_ms);
                }
                break;
            }
        }
        Ok(())
    }

    /// Offset of the last leave, erasures included that the conversation has not seen.
    fn last_leave(&self) -> Result<Option<u64>, S::Error> {
        let (state, conversation) = (self.state, self.message().conversation);
        let mut last = self.head.last_leave;
        for erased in state.unseen_erasures(&self.head) {
            if let Some(slot) = state.slot_of(conversation, &self.head, &erased.user_id)? {
                let page = state.people_of(conversation, slot / PEOPLE_PER_PAGE)?;
                if page.at(slot % PEOPLE_PER_PAGE).is_some_and(Person::may_be_in_audience) {
                    last = last.max(Some(erased.offset));
                }
            }
        }
        Ok(last)
    }

    /// Who of the audience has not read and left after the send, by slot, in any order.
    fn departed(&self) -> Result<Vec<u32>, S::Error> {
        let (m, head) = (self.message(), &*self.head);
        let unseen = head.erasures_seen < self.state.meta.erasures;
        if head.last_leave.is_none_or(|leave| leave <= m.offset) && !unseen {
            return Ok(Vec::new());
        }
        let (mut lists, mut departed) = (self.lists(), Vec::new());
        if m.slots <= FEW_PEOPLE {
            for slot in 0..m.slots {
                if lists.class(slot)? == Some(MemberFilter::Departed) {
                    departed.push(slot);
                }
            }
            return Ok(departed);
        }
        let left = self.left_since(&mut lists)?;
        for slot in &*left {
            if lists.is_without_read(*slot)? {
                departed.push(*slot);
            }
        }
        let unseen: BTreeSet<&str> = self.state.unseen_erasures(head).map(|e| &*e.user_id).collect();
        for user_id in unseen {
            let Some(slot) = self.state.slot_of(m.conversation, head, user_id)? else { continue };
            if left.binary_search(&slot).is_err() && lists.class(slot)? == Some(MemberFilter::Departed) {
                departed.push(slot);
            }
        }
        Ok(departed)
    }

    /// Who of the audience left after the send, by slot, in order, whether they have read or not. Leaves that were looked at
    /// for this message before are not looked at again: nobody who left after the send ever ceases to have done so.
    fn left_since(&self, lists: &mut Lists<'_, S>) -> Result<Arc<Vec<u32>>, S::Error> {
        let (m, leaves) = (self.message(), self.head.leaves);
        let known = self.state.left.get(self.number).unwrap_or_default();
        if known.leaves == leaves {
            return Ok(known.slots);
        }
        let (mut slots, mut at) = (known.slots.to_vec(), leaves);
        'pages: while at > known.leaves {
            let page = (at - 1) / LEAVES_PER_PAGE;
            let of_page =
                Table::<Leaves>::get(&self.state.pages, key(m.conversation, page))?.ok_or(Error::Broken("leaves"))?;
            let first = page * LEAVES_PER_PAGE;
            for (place, (offset, slot)) in of_page.leaves.iter().enumerate().rev() {
                let leave = first + place as u32;
                if leave < known.leaves || *offset <= m.offset {
                    break 'pages;
                }
                at = leave;
                if lists.is_in_audience(*slot)? {
                    slots.push(*slot);
                }
            }
            at = first;
        }
        // Some left more than once.
        slots.sort_unstable();
        slots.dedup();
        let slots = Arc::new(slots);
        if known.leaves > 0 || leaves - at > FEW_LEAVES {
            self.state.left.put(self.number, Left { leaves, slots: Arc::clone(&slots) });
        }
        Ok(slots)
    }

    pub(crate) fn list(&self, filter: MemberFilter, from_slot: u32, limit: usize) -> Result<Members, S::Error> {
        let (receipt, mut departed) = self.receipt_and_departed()?;
        if receipt.status != Status::Ok {
            return Ok(Members { members: Vec::new(), next_slot: None, receipt });
        }
        let (members, next_slot) = match filter {
            MemberFilter::Read | MemberFilter::Unread => {
                self.members(filter, from_slot, limit, |lists, from| lists.next(from, filter))?
            }
            // Their slots are known: to look for them by bits would be to look at all who have not read.
            MemberFilter::Departed => {
                departed.sort_unstable();
                let next = |from| departed.get(departed.partition_point(|slot| *slot < from)).copied();
                self.members(filter, from_slot, limit, |_, from| Ok(next(from)))?
            }
        };
        Ok(Members { members, next_slot, receipt })
    }

    /// Members by what finds the next slot at or after one.
    fn members<'a>(
        &'a self,
        filter: MemberFilter,
        from_slot: u32,
        limit: usize,
        find: impl Fn(&mut Lists<'a, S>, u32) -> Result<Option<u32>, S::Error>,
    ) -> Result<(Vec<Member>, Option<u32>), S::Error> {
        let m = self.message();
        let mut lists = self.lists();
        let mut members = Vec::with_capacity(limit.min(m.slots as usize));
        let mut slot = from_slot;
        while let Some(next) = find(&mut lists, slot)? {
            if members.len() == limit {
                return Ok((members, Some(next)));
            }
            slot = next + 1;
            let person = lists.person(next)?;
            if self.state.is_erased(&self.head.tenant, &person.id) {
                continue;
            }
            let mut member = Member { user_id: person.id.as_ref().into(), read_at_ms: None, left: person.is_gone() };
            if filter == MemberFilter::Read {
                let after = lists.after_ms(next)?;
                member.read_at_ms = after.map(|after| m.sent_at_ms.saturating_add(after));
            }
            members.push(member);
        }
        Ok((members, None))
    }

    pub(crate) fn lists(&self) -> Lists<'_, S> {
        let m = self.message();
        Lists {
            pages: &self.state.pages,
            number: self.number,
            message: m,
            ignore_hidden: m.is_direct_to_one(),
            erased: self.state.unseen_erasures(&self.head).map(|e| &*e.user_id).collect(),
            people: Memo::default(),
            chunks: Memo::default(),
        }
    }
}

/// The receipt of a message that is not there.
fn not_found(tenant: &str, conversation_id: Option<&str>, message_id: &str) -> Receipt {
    Receipt::bare(tenant, conversation_id, message_id, Status::NotFound)
}
