//! The departed of a message: people of its audience who have not read it and left after its send.
//! Searches the log of departures, because a look at every slot would cost too much in a large
//! group.

use crate::pages::{DEPARTURES_PER_PAGE, Departures, PEOPLE_PER_PAGE, PageKey, Pages, Table};
use crate::questions::audience::Audience;
use crate::questions::departed_cache::{DepartedSlots, FEW_DEPARTURES};
use crate::questions::find::Found;
use crate::questions::view::MemberFilter;
use crate::state::{Error, Result};
use std::sync::Arc;

/// A message with at most this number of slots is searched slot by slot.
const FEW_SLOTS: u32 = 4 * PEOPLE_PER_PAGE;

impl<S: Pages> Found<'_, S> {
    /// The offset of the last departure, including erasures that the conversation has not applied
    /// yet.
    pub(super) fn last_departure(&self) -> Option<u64> {
        let unseen = self.unseen_departures.iter().map(|(_, offset)| *offset).max();
        self.conversation_page.last_departure.max(unseen)
    }

    /// The slots of the departed, in any order.
    pub(super) fn departed(&self) -> Result<Vec<u32>, S::Error> {
        let (m, conversation_page) = (self.message(), &*self.conversation_page);
        let departed_before = conversation_page.last_departure.is_none_or(|departure| departure <= m.offset);
        if departed_before && self.unseen_departures.is_empty() {
            return Ok(Vec::new());
        }
        let (mut audience, mut departed) = (self.audience(), Vec::new());
        if m.slots <= FEW_SLOTS {
            for slot in 0..m.slots {
                if audience.list_of(slot)? == Some(MemberFilter::Departed) {
                    departed.push(slot);
                }
            }
            return Ok(departed);
        }
        let left = self.departed_since_send(&mut audience)?;
        for slot in &*left {
            if audience.has_not_read(*slot)? {
                departed.push(*slot);
            }
        }
        for (slot, _) in &*self.unseen_departures {
            if left.binary_search(slot).is_err() && audience.list_of(*slot)? == Some(MemberFilter::Departed) {
                departed.push(*slot);
            }
        }
        Ok(departed)
    }

    /// The slots of the audience that left after the send, read or not, in order.
    ///
    /// Looks only at departures that the cache does not cover: a departure after the send is never
    /// undone.
    fn departed_since_send(&self, audience: &mut Audience<'_, S>) -> Result<Arc<Vec<u32>>, S::Error> {
        let (m, departures) = (self.message(), self.conversation_page.departures);
        let known = self.state.departed_cache.get(self.number).unwrap_or_default();
        if known.departures == departures {
            return Ok(known.slots);
        }
        let (mut slots, mut at) = (known.slots.to_vec(), departures);
        'pages: while at > known.departures {
            let page = (at - 1) / DEPARTURES_PER_PAGE;
            let of_page = Table::<Departures>::read(&self.state.pages, PageKey::new(m.conversation, page))?
                .ok_or(Error::Broken("departures"))?;
            let first = page * DEPARTURES_PER_PAGE;
            // A damaged page may hold more departures than the conversation has.
            for (index, (offset, slot)) in of_page.departures.iter().enumerate().take((at - first) as usize).rev() {
                let departure = first + index as u32;
                if departure < known.departures || *offset <= m.offset {
                    break 'pages;
                }
                at = departure;
                if audience.is_in_audience(*slot)? {
                    slots.push(*slot);
                }
            }
            at = first;
        }
        // A person may have left more than once.
        slots.sort_unstable();
        slots.dedup();
        let slots = Arc::new(slots);
        if known.departures > 0 || departures - at > FEW_DEPARTURES {
            self.state.departed_cache.put(self.number, DepartedSlots { departures, slots: Arc::clone(&slots) });
        }
        Ok(slots)
    }
}
