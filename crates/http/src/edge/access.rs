//! Who may ask for counts and lists, as configured.
//!
//! Must not look anything up: a decision is a function of the caller and the receipt.

use crate::edge::caller::{Caller, Scope};
use receipts_fold::view::{MemberFilter, Receipt, Status};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Who may ask for one kind of answer. Nobody else ever may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessRule {
    /// The sender, and callers with the scope `receipts:members`.
    #[default]
    SenderAndScope,
    /// The sender alone.
    Sender,
    /// Callers with the scope `receipts:members` alone.
    Scope,
    /// Nobody: the answer is switched off.
    Nobody,
}

/// Who may ask for the counts and for each list. A list's answer holds the receipt too: who may ask for a list sees
/// the counts with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// Receipts.
    pub counts: AccessRule,
    /// The list of those who have read.
    pub read: AccessRule,
    /// The list of those who have not.
    pub unread: AccessRule,
    /// The list of those who have not and left.
    pub departed: AccessRule,
}

impl Access {
    /// Who may ask for a list.
    pub const fn list(&self, filter: MemberFilter) -> AccessRule {
        match filter {
            MemberFilter::Read => self.read,
            MemberFilter::Unread => self.unread,
            MemberFilter::Departed => self.departed,
        }
    }
}

/// Who may ask for what, of which tenant.
#[derive(Debug, Clone, Default)]
pub struct AccessByTenant {
    /// Of all tenants but those below.
    pub all: Access,
    /// Of tenants that have rules of their own.
    pub tenants: HashMap<String, Access>,
}

impl AccessByTenant {
    /// The rules of a tenant.
    pub fn of(&self, tenant: &str) -> &Access {
        self.tenants.get(tenant).unwrap_or(&self.all)
    }
}

/// The same rules for every tenant.
impl From<Access> for AccessByTenant {
    fn from(all: Access) -> Self {
        Self { all, tenants: HashMap::new() }
    }
}

/// Of which messages a caller may have an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visibility<'a> {
    /// Of all.
    All,
    /// Of those that this person sent. The state is asked for no others, so that it cannot tell of them.
    SentBy(&'a str),
    /// Of none: the state is not asked at all.
    Nothing,
}

impl<'a> Visibility<'a> {
    /// Returns the sender whose messages alone the state is asked for, or `None` for the messages of all senders. Nothing is
    /// returned where the state is not asked at all.
    pub(crate) const fn sender_id(self) -> Option<Option<&'a str>> {
        match self {
            Self::All => Some(None),
            Self::SentBy(user) => Some(Some(user)),
            Self::Nothing => None,
        }
    }
}

impl AccessRule {
    /// Of which messages a caller may have an answer.
    pub(crate) fn visibility(self, caller: &Caller) -> Visibility<'_> {
        let own = caller.user.as_deref().map_or(Visibility::Nothing, Visibility::SentBy);
        match (self, caller.scopes.has(Scope::Members)) {
            (Self::SenderAndScope | Self::Scope, true) => Visibility::All,
            (Self::SenderAndScope, false) | (Self::Sender, _) => own,
            (Self::Scope, false) | (Self::Nobody, _) => Visibility::Nothing,
        }
    }

    /// Whether a caller may have an answer about this message. A message that is not there has no sender, so to a
    /// user it answers as one of somebody else.
    pub fn admit(self, caller: &Caller, receipt: &Receipt) -> bool {
        let by_sender = receipt.sender_id.as_deref().is_some_and(|sender| caller.is(sender));
        self.permits(caller.scopes.has(Scope::Members), by_sender)
    }

    /// Whether somebody may have an answer who has the scope, or is the sender, or both.
    pub const fn permits(self, by_scope: bool, by_sender: bool) -> bool {
        match self {
            Self::SenderAndScope => by_scope || by_sender,
            Self::Sender => by_sender,
            Self::Scope => by_scope,
            Self::Nobody => false,
        }
    }
}

/// What a batch says of a message that the caller may not ask about: nothing that the caller did not say itself.
pub(crate) fn forbidden(receipt: Receipt, conversation_id: Option<&str>) -> Receipt {
    Receipt::bare(receipt.tenant, conversation_id, receipt.message_id, Status::Forbidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::caller::Scopes;

    fn sent_by(sender_id: Option<&str>) -> Receipt {
        let hollow = Receipt {
            tenant: "default".to_owned(),
            conversation_id: Some("g1".to_owned()),
            message_id: "m1".to_owned(),
            status: Status::Ok,
            kind: None,
            sender_id: None,
            sent_at_ms: Some(1),
            counts: None,
            last_read_at_ms: None,
            user_id: None,
            read_at_ms: None,
            version: Some(1),
        };
        Receipt { sender_id: sender_id.map(str::to_owned), ..hollow }
    }

    #[test]
    fn the_sender_and_the_scope_are_admitted_as_configured_and_nobody_else() {
        let service =
            Caller { tenant: "default".to_owned(), user: None, service: None, scopes: Scopes::ALL, expires: None };
        let user = |id: &str| Caller { user: Some(id.to_owned()), scopes: Scopes::NONE, ..service.clone() };
        let bare = Caller { scopes: Scopes::NONE, ..service.clone() };
        for (rule, sender, scope) in [
            (AccessRule::SenderAndScope, true, true),
            (AccessRule::Sender, true, false),
            (AccessRule::Scope, false, true),
            (AccessRule::Nobody, false, false),
        ] {
            let receipt = sent_by(Some("alice"));
            assert_eq!(rule.admit(&user("alice"), &receipt), sender, "{rule:?}");
            assert_eq!(rule.admit(&service, &receipt), scope, "{rule:?}");
            assert!(!rule.admit(&user("bob"), &receipt), "{rule:?}");
            assert!(!rule.admit(&bare, &receipt) && !rule.admit(&bare, &sent_by(None)), "{rule:?}");
        }
    }

    /// INV-STRANGER: what the state is asked for is never more than what is shown.
    #[test]
    fn a_caller_reaches_what_it_is_admitted_to_and_no_more() {
        for user in [None, Some("alice".to_owned())] {
            for scopes in [Scopes::NONE, Scopes::ALL] {
                let caller =
                    Caller { tenant: "default".to_owned(), user: user.clone(), service: None, scopes, expires: None };
                for rule in [AccessRule::SenderAndScope, AccessRule::Sender, AccessRule::Scope, AccessRule::Nobody] {
                    for sender in [Some("alice"), Some("bob"), None] {
                        let reached = match rule.visibility(&caller) {
                            Visibility::All => true,
                            Visibility::SentBy(user) => sender == Some(user),
                            Visibility::Nothing => false,
                        };
                        assert_eq!(reached, rule.admit(&caller, &sent_by(sender)), "{rule:?} {caller:?} {sender:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_forbidden_item_repeats_only_what_the_caller_said() {
        let shown = serde_json::to_value(forbidden(sent_by(Some("alice")), None)).unwrap();
        assert_eq!(shown, serde_json::json!({"tenant": "default", "message_id": "m1", "status": "forbidden"}));
    }

    #[test]
    fn the_configuration_names_each_list_and_leaves_the_rest_at_its_default() {
        let access: Access = serde_json::from_str(r#"{"unread": "scope", "departed": "nobody"}"#).unwrap();
        assert_eq!(
            (access.counts, access.list(MemberFilter::Read)),
            (AccessRule::SenderAndScope, AccessRule::SenderAndScope)
        );
        assert_eq!(
            (access.list(MemberFilter::Unread), access.list(MemberFilter::Departed)),
            (AccessRule::Scope, AccessRule::Nobody)
        );
    }
}
