//! Whether a message's counts are the numbers of its bits (INV-BITS) and its lists what its receipt says (INV-SUM). For
//! audits: looks at every slot of the message, where a receipt looks at its counts.

use crate::message::State as Fate;
use crate::state::{Pages, Result, State};
use crate::view::MemberFilter;

impl<S: Pages> State<S> {
    /// What contradicts itself in a message, by its number, as a sentence; `None` where all agrees, or it has expired.
    ///
    /// # Errors
    /// Where the store fails or is broken.
    pub fn audit(&self, message: u64) -> Result<Option<String>, S::Error> {
        let Some(found) = self.find_number(message)? else { return Ok(None) };
        let m = found.message();
        if m.state != Fate::Ok {
            return Ok(None);
        }
        let mut lists = found.lists();
        let (mut audience, mut read, mut hidden) = (0, 0, 0);
        let (mut unread, mut departed) = (0, 0);
        for slot in 0..m.slots {
            let (open, concealed) = lists.bits(slot)?;
            if !lists.is_in_audience(slot)? {
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
            match lists.class(slot)? {
                Some(MemberFilter::Unread) => unread += 1,
                Some(MemberFilter::Departed) => departed += 1,
                Some(MemberFilter::Read) | None => {}
            }
        }
        let told = (m.audience, m.read, m.hidden);
        if told != (audience, read, hidden) {
            return Ok(Some(format!(
                "it counts {told:?} as audience, read and hidden, and its bits are {:?}",
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
