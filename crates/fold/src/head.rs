//! What is to be known of a conversation as a whole: kind, sizes, and the ends of its chains.

use crate::page::{Page, TableId};
use crate::stretches::Stretches;
use crate::wire::{Malformed, Reader, Writer};
use receipts_event::Kind;

/// A root of the skip list over a conversation's messages: see [`crate::chain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Root {
    /// Number of the message.
    pub message: u64,
    /// Messages under it.
    pub size: u64,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Whose.
    pub tenant: Box<str>,
    /// Its id.
    pub conversation_id: Box<str>,
    /// Direct chat or group; a group until configured.
    pub kind: Kind,
    /// The type that policies speak of.
    pub group_type: Box<str>,
    /// Slots given so far.
    pub people: u32,
    /// Members on the roster now, observers not counted.
    pub members: u32,
    /// Had a roster at any time.
    pub ever_roster: bool,
    /// Pages of the hash index of people; 0 while one page holds all of them.
    pub index_pages: u32,
    /// Offset of the last event by which somebody left.
    pub last_leave: Option<u64>,
    /// Leaves so far.
    pub leaves: u32,
    /// Erasures of the partition that this roster has seen.
    pub erasures_seen: u32,
    /// The greatest `sent_at_ms` of its messages.
    pub sent_at_max: u64,
    /// The most by which a message's `sent_at_ms` lay below the greatest before it, milliseconds.
    pub disorder_ms: u64,
    /// Where its messages are; what expired may be among them.
    pub stretches: Stretches,
    /// Roots of the skip list, newest first; the first is the newest message.
    pub roots: Vec<Root>,
}

impl Head {
    /// A conversation never configured is a group of type `default`.
    pub fn new(tenant: &str, conversation_id: &str, erasures_seen: u32) -> Self {
        Self {
            tenant: tenant.into(),
            conversation_id: conversation_id.into(),
            kind: Kind::Group,
            group_type: "default".into(),
            people: 0,
            members: 0,
            ever_roster: false,
            index_pages: 0,
            last_leave: None,
            leaves: 0,
            erasures_seen,
            sent_at_max: 0,
            disorder_ms: 0,
            stretches: Stretches::default(),
            roots: Vec::new(),
        }
    }
}

impl Page for Head {
    const TABLE: TableId = TableId::Heads;

    fn encode(&self, to: &mut Writer) {
        to.text(&self.tenant);
        to.text(&self.conversation_id);
        to.byte(u8::from(self.kind == Kind::Direct) | u8::from(self.ever_roster) << 1);
        to.text(&self.group_type);
        for n in [self.people, self.members, self.index_pages, self.leaves, self.erasures_seen] {
            to.number(n.into());
        }
        to.optional(self.last_leave);
        to.number(self.sent_at_max);
        to.number(self.disorder_ms);
        self.stretches.encode(to);
        to.number(self.roots.len() as u64);
        let mut last = 0;
        for root in &self.roots {
            to.difference(root.message, last);
            last = root.message;
            to.number(root.size);
        }
    }

    fn decode(from: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut head = Self::new(from.text()?, from.text()?, 0);
        let flags = from.byte()?;
        head.kind = if flags & 1 > 0 { Kind::Direct } else { Kind::Group };
        head.ever_roster = flags & 2 > 0;
        head.group_type = from.text()?.into();
        for n in [&mut head.people, &mut head.members, &mut head.index_pages, &mut head.leaves, &mut head.erasures_seen]
        {
            *n = from.small()?;
        }
        head.last_leave = from.optional()?;
        head.sent_at_max = from.number()?;
        head.disorder_ms = from.number()?;
        head.stretches = Stretches::decode(from)?;
        head.roots = Vec::with_capacity(from.count(2)?);
        let mut last = 0;
        for _ in 0..head.roots.capacity() {
            last = from.difference(last)?;
            head.roots.push(Root { message: last, size: from.number()? });
        }
        Ok(head)
    }

    fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.tenant.len()
            + self.conversation_id.len()
            + self.group_type.len()
            + 16 * self.roots.capacity()
            + self.stretches.heap_bytes()
            + 48
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::page::tests::accounts_for;

    #[test]
    fn a_conversation_accounts_for_its_names_roots_and_stretches() {
        let mut head = Head::new(&"t".repeat(100), &"c".repeat(128), 0);
        head.group_type = "g".repeat(90).into();
        head.roots = (0..40).map(|message| Root { message, size: 1 }).collect();
        (0..20).for_each(|stretch| head.stretches.add(2 * stretch, 0));
        assert!(head.stretches.heap_bytes() > 100);
        accounts_for(&head, 100 + 128 + 90 + 16 * head.roots.capacity() + head.stretches.heap_bytes());
    }
}
