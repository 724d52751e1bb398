//! The state of the oracle: tenants, conversations, messages, and each person by name. Knows the
//! rules of one message and one roster, not the order of a record's effects.

use std::collections::{BTreeMap, BTreeSet};

use receipts_event::{Kind, MembersChanged};
use receipts_fold::view::{Counts, ReadMark, Status};

use super::parking::Reader;

#[derive(Debug, Clone, Default)]
pub(super) struct Tenant {
    /// By group type; empty without any policy.
    pub(super) policy: BTreeMap<String, bool>,
    /// Erased ids stay erased for ever.
    // DECISION: an erased id that joins or reads again counts as usual, and stays unnamed for ever.
    pub(super) erased: BTreeSet<String>,
    pub(super) conversations: BTreeMap<String, Conversation>,
}

impl Tenant {
    /// Tells whether the policy supports receipts for a message sent now (rule 6).
    // DECISION: a policy is about group types; no policy, not even `"*": false`, affects a direct
    // chat.
    pub(super) fn supports(&self, conversation: &Conversation) -> bool {
        let listed = self.policy.get(&conversation.group_type).or_else(|| self.policy.get("*"));
        conversation.kind == Kind::Direct || listed.copied().unwrap_or(true)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Member,
    Observer,
}

#[derive(Debug, Clone)]
pub(super) struct Conversation {
    pub(super) kind: Kind,
    pub(super) group_type: String,
    pub(super) roster: BTreeMap<String, Role>,
    /// All people who were ever on the roster.
    pub(super) once: BTreeSet<String>,
    /// All people who were ever on the roster or in an audience.
    pub(super) known: BTreeSet<String>,
    /// The offset of each person's last leave.
    pub(super) leaves: BTreeMap<String, u64>,
    /// The offset of the last event with a leave.
    pub(super) last_leave: Option<u64>,
    /// In log order. If an id was sent again after its message expired, it means the later one.
    pub(super) messages: Vec<Message>,
    pub(super) marks: BTreeMap<String, ReadMark>,
}

impl Default for Conversation {
    fn default() -> Self {
        Self {
            kind: Kind::Group,
            group_type: "default".into(),
            roster: BTreeMap::new(),
            once: BTreeSet::new(),
            known: BTreeSet::new(),
            leaves: BTreeMap::new(),
            last_leave: None,
            messages: vec![],
            marks: BTreeMap::new(),
        }
    }
}

impl Conversation {
    /// `left` first, then `joined`, then `observers`.
    // DECISION: a person in `left` who is not on the roster does not leave.
    pub(super) fn change(&mut self, offset: u64, event: &MembersChanged<'_>) {
        for user in &event.left {
            if self.roster.contains_key(&**user) {
                self.leave(offset, user);
            }
        }
        let joined = event.joined.iter().map(|user| (user, Role::Member));
        for (user, role) in joined.chain(event.observers.iter().map(|user| (user, Role::Observer))) {
            self.roster.insert(user.to_string(), role);
            self.once.insert(user.to_string());
            self.known.insert(user.to_string());
        }
    }

    pub(super) fn leave(&mut self, offset: u64, user: &str) {
        self.roster.remove(user);
        self.leaves.insert(user.into(), offset);
        self.last_leave = Some(offset);
    }

    /// Finds the message of this id, expired or not.
    pub(super) fn message(&self, id: &str) -> Option<usize> {
        self.messages.iter().rposition(|message| message.id == id)
    }

    /// Returns the roster without the sender and the observers.
    pub(super) fn audience_by_roster(&self, sender: &str) -> BTreeMap<String, Bit> {
        let members = self.roster.iter().filter(|(user, role)| **role == Role::Member && *user != sender);
        members.map(|(user, _)| (user.clone(), Bit::Unread)).collect()
    }

    /// Tells whether a person was once on the roster and is not now.
    pub(super) fn left(&self, user: &str) -> bool {
        self.once.contains(user) && !self.roster.contains_key(user)
    }

    /// Tells whether this person's last leave is after the send in the log.
    pub(super) fn left_after(&self, user: &str, message: &Message) -> bool {
        self.leaves.get(user).is_some_and(|leave| *leave > message.offset)
    }

    /// Returns the greater of two offsets: the last change of the message itself, and the last
    /// leave after its send.
    pub(super) fn version(&self, message: &Message) -> u64 {
        // A leave before the send is below the send's own offset, so it does not count.
        self.last_leave.unwrap_or(0).max(message.changed)
    }

    pub(super) fn counts(&self, message: &Message) -> Counts {
        let (mut read_count, mut unread_count, mut hidden_count, mut departed_count) = (0, 0, 0, 0);
        for user in message.audience.keys() {
            match self.standing(message, user) {
                Standing::Read => read_count += 1,
                Standing::Unread => unread_count += 1,
                Standing::Hidden => hidden_count += 1,
                Standing::Departed => departed_count += 1,
            }
        }
        Counts {
            audience_count: message.audience.len() as u32,
            read_count,
            unread_count,
            hidden_count,
            departed_count,
            all_read: unread_count == 0 && hidden_count == 0,
        }
    }

    /// Returns the one of the four counts that a member of the audience is in.
    // DECISION: in a direct chat a hidden reader who leaves is departed, because an unread member
    // would be.
    pub(super) fn standing(&self, message: &Message, user: &str) -> Standing {
        match message.audience[user] {
            Bit::Read(_) => Standing::Read,
            Bit::Hidden if !message.is_between_two() => Standing::Hidden,
            Bit::Hidden | Bit::Unread if self.left_after(user, message) => Standing::Departed,
            Bit::Hidden | Bit::Unread => Standing::Unread,
        }
    }
}

/// The count of a member of the audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    Read,
    Unread,
    Hidden,
    Departed,
}

/// The read state of a member of the audience.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bit {
    Unread,
    /// The read time, Unix milliseconds.
    Read(u64),
    Hidden,
}

#[derive(Debug, Clone)]
pub(super) struct Message {
    pub(super) id: String,
    pub(super) sender_id: String,
    pub(super) sent_at_ms: u64,
    /// The record's timestamp, Unix milliseconds: the retention depends on it.
    pub(super) timestamp_ms: u64,
    /// Of the send.
    pub(super) offset: u64,
    pub(super) kind: Kind,
    /// Never `NotFound`, which depends on the partition's time.
    pub(super) status: Status,
    pub(super) audience: BTreeMap<String, Bit>,
    /// The offset of the last event that changed the message itself.
    pub(super) changed: u64,
}

/// The outcome of a read of one message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// No visible change.
    Unchanged,
    /// Counted as hidden.
    Hidden,
    /// Counted as read, at this time in Unix milliseconds.
    Read(u64),
}

impl Message {
    /// Tells whether this is a direct chat with an audience of one, where a hidden read is
    /// invisible.
    pub(super) fn is_between_two(&self) -> bool {
        self.kind == Kind::Direct && self.audience.len() == 1
    }

    /// Applies a read at `offset`. Only the first one counts.
    // DECISION: a hidden read that is visible in the counts makes a new version and an update
    // without names.
    pub(super) fn read(&mut self, reader: &Reader, offset: u64) -> Outcome {
        let invisible = reader.hidden && self.is_between_two();
        let time_ms = reader.time_ms(self.sent_at_ms);
        match self.audience.get_mut(&reader.id) {
            Some(bit @ Bit::Unread) if self.status == Status::Ok => {
                *bit = if reader.hidden { Bit::Hidden } else { Bit::Read(time_ms) };
            }
            _ => return Outcome::Unchanged,
        }
        if invisible {
            return Outcome::Unchanged;
        }
        self.changed = offset;
        if reader.hidden { Outcome::Hidden } else { Outcome::Read(time_ms) }
    }

    /// Applies a recall; returns true for the first one.
    // DECISION: a second recall changes nothing, not even the version. `recalled` goes before
    // `not_requested` and `unsupported`.
    pub(super) fn recall(&mut self, offset: u64) -> bool {
        let first = self.status != Status::Recalled;
        if first {
            self.status = Status::Recalled;
            self.audience.clear();
            self.changed = offset;
        }
        first
    }

    /// Returns the greatest read time, Unix milliseconds.
    pub(super) fn last_read_at_ms(&self) -> Option<u64> {
        self.audience.values().filter_map(|bit| if let Bit::Read(at) = bit { Some(*at) } else { None }).max()
    }
}
