//! The permissions of a caller, and the one that writing an event needs.
//!
//! It must not look anything up: a decision is a function of the caller and the event.
//! Keeps INV-SCOPE.

use receipts_event::{Body, ConversationRead, Event, MessageRead};

/// A permission beyond those of a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `receipts:own`: write a person's own reads and read marks.
    Own,
    /// `receipts:members`: see counts and lists of all messages, and all read marks.
    Members,
    /// `receipts:write`: write every event that has no scope of its own.
    Write,
    /// `receipts:policy`: change which group types support receipts.
    Policy,
    /// `receipts:erase`: erase people.
    Erase,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 5] = [Self::Own, Self::Members, Self::Write, Self::Policy, Self::Erase];

    /// Returns the name of the scope, as tokens have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Own => "receipts:own",
            Self::Members => "receipts:members",
            Self::Write => "receipts:write",
            Self::Policy => "receipts:policy",
            Self::Erase => "receipts:erase",
        }
    }

    /// Returns the scope of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.name() == name)
    }

    /// Returns the scope that writing an event needs. `user` is the calling person, `None` for a
    /// service.
    pub(crate) fn to_write(event: &Event<'_>, user: Option<&str>) -> Self {
        match &event.body {
            Body::PolicyChanged(_) => Self::Policy,
            Body::UserErased(_) => Self::Erase,
            // A person's own events: each type is one pattern here.
            Body::MessageRead(MessageRead { reader_id, .. })
            | Body::ConversationRead(ConversationRead { reader_id, .. })
                if user == Some(&**reader_id) =>
            {
                Self::Own
            }
            _ => Self::Write,
        }
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of scopes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scopes(u8);

impl Scopes {
    /// No scope. A user then sees only answers about the user's own messages, and writes nothing.
    pub const NONE: Self = Self(0);

    /// The scopes of a person whom a trusted network names: the person's own reads.
    pub const PERSON: Self = Self::NONE.with(Scope::Own);

    /// The scopes of a service in a trusted network.
    pub const ALL: Self = Self::NONE.with(Scope::Members).with(Scope::Write).with_implied();

    /// Returns this set with one more scope.
    #[must_use]
    pub const fn with(self, scope: Scope) -> Self {
        Self(self.0 | scope.bit())
    }

    /// Returns this set with the scopes that `receipts:write` implies: all others that permit
    /// writing.
    #[must_use]
    pub const fn with_implied(self) -> Self {
        if self.has(Scope::Write) { self.with(Scope::Own).with(Scope::Policy).with(Scope::Erase) } else { self }
    }

    /// Whether the set has a scope.
    pub const fn has(self, scope: Scope) -> bool {
        self.0 & scope.bit() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(scopes: Scopes) -> Vec<&'static str> {
        Scope::ALL.into_iter().filter(|scope| scopes.has(*scope)).map(Scope::name).collect()
    }

    #[test]
    fn scopes_are_found_by_their_names_only() {
        for scope in Scope::ALL {
            assert_eq!(Scope::named(scope.name()), Some(scope));
            assert_eq!(held(Scopes::NONE.with(scope)), [scope.name()]);
        }
        for other in ["", "write", "receipts:", "receipts:Write", "receipts:write "] {
            assert_eq!(Scope::named(other), None, "{other:?}");
        }
    }

    /// INV-SCOPE
    #[test]
    fn write_implies_only_the_other_writing_scopes() {
        let write = Scopes::NONE.with(Scope::Write);
        assert_eq!(held(write), ["receipts:write"]);
        assert_eq!(held(write.with_implied()), ["receipts:own", "receipts:write", "receipts:policy", "receipts:erase"]);
        let others = Scopes::PERSON.with(Scope::Members).with(Scope::Policy).with(Scope::Erase);
        assert_eq!(others.with_implied(), others);
        assert_eq!(held(Scopes::ALL).len(), Scope::ALL.len());
    }

    /// INV-SCOPE
    #[test]
    fn each_event_needs_the_scope_of_its_kind() {
        for (event, of_person) in [
            (r#"{"type":"message.read","conversation_id":"g","reader_id":"bob","message_ids":["m"]}"#, Scope::Own),
            (
                r#"{"type":"conversation.read","conversation_id":"g","reader_id":"bob","up_to_message_id":"m"}"#,
                Scope::Own,
            ),
            (r#"{"type":"message.read","conversation_id":"g","reader_id":"eve","message_ids":["m"]}"#, Scope::Write),
            (
                r#"{"type":"conversation.read","conversation_id":"g","reader_id":"Bob","up_to_message_id":"m"}"#,
                Scope::Write,
            ),
            (
                r#"{"type":"message.sent","conversation_id":"g","message_id":"m","sender_id":"bob","sent_at_ms":1}"#,
                Scope::Write,
            ),
            (r#"{"type":"members.changed","conversation_id":"g","left":["bob"]}"#, Scope::Write),
            (r#"{"type":"message.recalled","conversation_id":"g","message_id":"m"}"#, Scope::Write),
            (r#"{"type":"policy.changed","read_receipts":{"*":true}}"#, Scope::Policy),
            (r#"{"type":"user.erased","user_id":"bob"}"#, Scope::Erase),
        ] {
            let decoded = receipts_event::decode(event.as_bytes()).expect(event);
            assert_eq!(Scope::to_write(&decoded, Some("bob")), of_person, "{event}");
            let of_service = if of_person == Scope::Own { Scope::Write } else { of_person };
            assert_eq!(Scope::to_write(&decoded, None), of_service, "{event}");
        }
    }
}
