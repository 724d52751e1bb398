//! Every question that the API allows about a history, asked over HTTP. Must not judge the answers.

use super::http::{Answer, Client};
use receipts_fold::view::MemberFilter;
use receipts_testkit::compare::Questions;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Message ids per query at most; the contract's number.
const IDS_MAX: usize = 100;
/// Lengths of pages, used in turn.
const PAGES: [usize; 4] = [100, 2, 1_000, 33];

/// A question. Its fields are ids, as they stand in paths and bodies.
#[allow(missing_docs, reason = "each field is the id of the thing that names it")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Many receipts: of one conversation, or of any.
    Receipts { tenant: String, conversation: Option<String>, ids: Vec<String> },
    /// One receipt.
    Receipt { tenant: String, conversation: String, message: String },
    /// A whole member list, page by page.
    Members { tenant: String, conversation: String, message: String, filter: MemberFilter, limit: usize },
    /// A read mark.
    Mark { tenant: String, conversation: String, user: String },
}

impl Question {
    /// All questions about a history, in an order that depends on the history alone.
    #[must_use]
    pub fn all(of: &Questions) -> Vec<Question> {
        let mut questions = Vec::new();
        let mut conversations = BTreeMap::<(&String, &String), Vec<&String>>::new();
        let mut tenants = BTreeMap::<&String, BTreeSet<&String>>::new();
        for (tenant, conversation, message) in &of.messages {
            conversations.entry((tenant, conversation)).or_default().push(message);
            tenants.entry(tenant).or_default().insert(message);
        }
        let mut receipts = |tenant: &String, conversation: Option<&String>, ids: &[&String]| {
            questions.extend(ids.chunks(IDS_MAX).map(|ids| Question::Receipts {
                tenant: tenant.clone(),
                conversation: conversation.cloned(),
                ids: ids.iter().map(|id| (*id).clone()).collect(),
            }));
        };
        conversations.iter().for_each(|((tenant, conversation), ids)| receipts(tenant, Some(conversation), ids));
        tenants.iter().for_each(|(tenant, ids)| receipts(tenant, None, &ids.iter().copied().collect::<Vec<_>>()));
        for (number, (tenant, conversation, message)) in of.messages.iter().cloned().enumerate() {
            questions.push(Question::Receipt {
                tenant: tenant.clone(),
                conversation: conversation.clone(),
                message: message.clone(),
            });
            for (turn, filter) in
                [MemberFilter::Read, MemberFilter::Unread, MemberFilter::Departed].into_iter().enumerate()
            {
                let (tenant, conversation, message) = (tenant.clone(), conversation.clone(), message.clone());
                let limit = PAGES[(number + turn) % PAGES.len()];
                questions.push(Question::Members { tenant, conversation, message, filter, limit });
            }
        }
        questions.extend(of.people.iter().cloned().map(|(tenant, conversation, user)| Question::Mark {
            tenant,
            conversation,
            user,
        }));
        questions
    }

    /// Asks, and follows cursors to the last page.
    ///
    /// # Panics
    /// If the service does not answer.
    #[must_use]
    pub fn ask(&self, client: &mut Client) -> Vec<Answer> {
        let answer = match self {
            Self::Receipts { tenant, conversation, ids } => {
                let body = json!({"conversation_id": conversation, "message_ids": ids});
                client.post(tenant, "/v1/receipts/query", &body.to_string())
            }
            Self::Receipt { tenant, conversation, message } => {
                client.get(tenant, &format!("/v1/conversations/{conversation}/messages/{message}/receipt"), None)
            }
            Self::Mark { tenant, conversation, user } => {
                client.get(tenant, &format!("/v1/conversations/{conversation}/read-marks/{user}"), None)
            }
            Self::Members { tenant, conversation, message, filter, limit } => {
                let filter = json!(filter);
                let filter = filter.as_str().expect("a word");
                let path = format!(
                    "/v1/conversations/{conversation}/messages/{message}/members?filter={filter}&limit={limit}"
                );
                return walk(client, tenant, &path);
            }
        };
        vec![answer.unwrap_or_else(|error| panic!("{self:?}: {error}"))]
    }
}

fn walk(client: &mut Client, tenant: &str, path: &str) -> Vec<Answer> {
    let mut pages: Vec<Answer> = Vec::new();
    loop {
        let cursor = match pages.last() {
            None => String::new(),
            Some(page) => match serde_json::from_str::<Value>(&page.body).expect("JSON")["next_cursor"].as_str() {
                Some(cursor) => format!("&cursor={cursor}"),
                None => return pages,
            },
        };
        pages.push(
            client.get(tenant, &format!("{path}{cursor}"), None).unwrap_or_else(|error| panic!("{path}: {error}")),
        );
        assert!(pages.len() < 100_000, "{path} never ends");
    }
}
