//! Audits one message: its counts are the numbers of its bits (INV-BITS), and its lists agree with
//! its receipt (INV-SUM). Looks at every slot, where a receipt looks at counts.

use crate::pages::{MessageStatus, Pages};
use crate::questions::view::MemberFilter;
use crate::state::{Result, State};

impl<S: Pages> State<S> {
    /// Audits a message by its number. Returns a sentence that names the contradiction; `None` if
    /// there is none, or the message has expired.
    ///
    /// # Errors
    /// If the store fails or is broken.
    pub fn audit(&self, message: u64) -> Result<Option<String>, S::Error> {
        let Some(found) = self.find_number(message)? else { return Ok(None) };
        let m = found.message();
        if m.status != MessageStatus::Ok {
            return Ok(None);
        }
        let mut slots = found.audience();
        let (mut audience, mut read, mut hidden) = (0, 0, 0);
        let (mut unread, mut departed) = (0, 0);
        for slot in 0..m.slots {
            let (open, concealed) = slots.bits(slot)?;
            if !slots.is_in_audience(slot)? {
                if open || concealed {
                    return Ok(Some(format!("slot {slot} has read it and is not in its audience")));
                }
                continue;
            }
            if open && concealed {
                return Ok(Some(format!("slot {slot} has read it both openly and hidden")));
            }
            audience += 1;
            read += u32::from(open);
            hidden += u32::from(concealed);
            match slots.list_of(slot)? {
                Some(MemberFilter::Unread) => unread += 1,
                Some(MemberFilter::Departed) => departed += 1,
                Some(MemberFilter::Read) | None => {}
            }
        }
        let counts = (m.audience, m.read, m.hidden);
        if counts != (audience, read, hidden) {
            return Ok(Some(format!(
                "it counts {counts:?} as audience, read and hidden, and its bits are {:?}",
                (audience, read, hidden)
            )));
        }
        let counts = found.receipt()?.counts;
        Ok(counts.filter(|c| (c.unread_count, c.departed_count) != (unread, departed)).map(|c| {
            format!(
                "its receipt says unread and departed are {:?}, and its lists have {:?}",
                (c.unread_count, c.departed_count),
                (unread, departed)
            )
        }))
    }
}
