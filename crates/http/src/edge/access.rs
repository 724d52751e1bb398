//! The configured rules that say which callers may ask for counts and member lists.
//!
//! It must not look anything up: a decision is a function of the caller and the receipt.

use crate::edge::caller::Caller;
use crate::edge::scopes::Scope;
use receipts_fold::view::{MemberFilter, Receipt, Status};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The callers that may ask for one kind of answer. All others are refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AccessRule {
    /// The sender, and callers with the scope `receipts:members`.
    #[default]
    SenderAndScope,
    /// The sender only.
    Sender,
    /// Callers with the scope `receipts:members` only.
    Scope,
    /// No caller: the answer is switched off.
    Nobody,
}

/// The rules for counts and for each member list. The answer of a list includes the receipt, so a
/// caller that may ask for a list sees the counts too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Access {
    /// For receipts.
    pub counts: AccessRule,
    /// For the list of members who have read.
    pub read: AccessRule,
    /// For the list of members who have not read.
    pub unread: AccessRule,
    /// For the list of members who left without having read.
    pub departed: AccessRule,
}

impl Access {
    /// Returns the rule for a list.
    pub const fn list(&self, filter: MemberFilter) -> AccessRule {
        match filter {
            MemberFilter::Read => self.read,
            MemberFilter::Unread => self.unread,
            MemberFilter::Departed => self.departed,
        }
    }
}

/// The rules of every tenant.
#[derive(Debug, Clone, Default)]
pub struct AccessByTenant {
    /// The rules of all tenants that have none of their own.
    pub all: Access,
    /// The rules of tenants that have their own.
    pub tenants: HashMap<String, Access>,
}

impl AccessByTenant {
    /// Returns the rules of a tenant.
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

/// The messages that a caller may see under a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visibility<'a> {
    /// All messages.
    All,
    /// The messages that this person sent. The state is asked for these only, so that its answer
    /// cannot reveal others.
    SentBy(&'a str),
    /// None: the state is not asked at all.
    Nothing,
}

impl<'a> Visibility<'a> {
    /// Returns the sender to ask the state for, `Some(None)` for all senders, or `None` if the
    /// state must not be asked.
    pub(crate) const fn sender_id(self) -> Option<Option<&'a str>> {
        match self {
            Self::All => Some(None),
            Self::SentBy(user) => Some(Some(user)),
            Self::Nothing => None,
        }
    }
}

impl AccessRule {
    /// Returns the messages that a caller may see.
    pub(crate) fn visibility(self, caller: &Caller) -> Visibility<'_> {
        let own = caller.user.as_deref().map_or(Visibility::Nothing, Visibility::SentBy);
        match (self, caller.scopes.has(Scope::Members)) {
            (Self::SenderAndScope | Self::Scope, true) => Visibility::All,
            (Self::SenderAndScope, false) | (Self::Sender, _) => own,
            (Self::Scope, false) | (Self::Nobody, _) => Visibility::Nothing,
        }
    }

    /// Whether a caller may see this receipt. A message that does not exist has no sender, so to a
    /// user it looks like a message of another sender.
    pub fn admit(self, caller: &Caller, receipt: &Receipt) -> bool {
        let by_sender = receipt.sender_id.as_deref().is_some_and(|sender| caller.is(sender));
        self.permits(caller.scopes.has(Scope::Members), by_sender)
    }

    /// Whether a caller that has the scope, or is the sender, or both, may have the answer.
    pub const fn permits(self, by_scope: bool, by_sender: bool) -> bool {
        match self {
            Self::SenderAndScope => by_scope || by_sender,
            Self::Sender => by_sender,
            Self::Scope => by_scope,
            Self::Nobody => false,
        }
    }
}

/// Returns the item of a batch for a message that the caller may not see. It repeats only ids that
/// the caller sent.
pub(crate) fn forbidden(receipt: Receipt, conversation_id: Option<&str>) -> Receipt {
    Receipt::bare(receipt.tenant, conversation_id, receipt.message_id, Status::Forbidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::scopes::Scopes;

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
    fn rules_admit_the_sender_and_the_scope_as_configured() {
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

    /// INV-STRANGER: the state is asked only for messages that the caller may see.
    #[test]
    fn visibility_equals_admission() {
        for user in [None, Some("alice".to_owned())] {
            for scopes in [Scopes::NONE, Scopes::ALL] {
                let caller =
                    Caller { tenant: "default".to_owned(), user: user.clone(), service: None, scopes, expires: None };
                for rule in [AccessRule::SenderAndScope, AccessRule::Sender, AccessRule::Scope, AccessRule::Nobody] {
                    for sender in [Some("alice"), Some("bob"), None] {
                        let is_visible = match rule.visibility(&caller) {
                            Visibility::All => true,
                            Visibility::SentBy(user) => sender == Some(user),
                            Visibility::Nothing => false,
                        };
                        assert_eq!(is_visible, rule.admit(&caller, &sent_by(sender)), "{rule:?} {caller:?} {sender:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn forbidden_item_repeats_only_the_request() {
        let shown = serde_json::to_value(forbidden(sent_by(Some("alice")), None)).unwrap();
        assert_eq!(shown, serde_json::json!({"tenant": "default", "message_id": "m1", "status": "forbidden"}));
    }

    #[test]
    fn configured_lists_change_and_others_keep_the_default() {
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
