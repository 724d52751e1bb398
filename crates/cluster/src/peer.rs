//! What edges and projectors say to one another, version 1: one question at a time, and what a projector holds.
//!
//! Knows no transport. The shapes are serde's; a position travels as its token.

use hmac::{Hmac, Mac};
use receipts_fold::view::{MemberFilter, Receipt};
use receipts_query::{Answer, Answers, Conversation, CursorKey, Positions, Unavailable, answers_before};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Sha256;
use std::time::Duration;

/// Where a projector says what it holds.
pub const STATE_PATH: &str = "/internal/v1/state";
/// Where it is asked.
pub const ASK_PATH: &str = "/internal/v1/ask";

/// What projectors and edges share, so that no stranger's question is answered. Derived from it, and never the secret
/// itself, are the credential of internal calls and the key of cursors.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

/// The fewest bytes of a secret.
pub const SECRET_BYTES_MIN: usize = 32;

impl Secret {
    /// A secret of at least [`SECRET_BYTES_MIN`] bytes; `None` where it is shorter.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= SECRET_BYTES_MIN).then(|| Self(bytes.to_vec()))
    }

    /// What an edge shows: the value of `Authorization` behind `Bearer `.
    pub fn credential(&self) -> String {
        hex(&self.derive(b"receipts internal call 1").finalize().into_bytes())
    }

    /// Whether somebody else has shown it; takes as long for every wrong one.
    pub fn is_credential(&self, shown: &str) -> bool {
        unhex(shown).is_some_and(|shown| self.derive(b"receipts internal call 1").verify_slice(&shown).is_ok())
    }

    /// The key of cursors.
    pub fn cursor_key(&self) -> CursorKey {
        CursorKey::new(self.derive(b"receipts cursor 1").finalize().into_bytes().into())
    }

    fn derive(&self, purpose: &[u8]) -> Hmac<Sha256> {
        Hmac::<Sha256>::new_from_slice(&self.0).expect("any length is a key").chain_update(purpose)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// A projector's key of cursors as [`Held::cursor_key`] has it.
pub fn cursor_key_text(key: &CursorKey) -> String {
    hex(key.bytes())
}

/// The key that [`cursor_key_text`] wrote.
pub fn cursor_key_of(text: &str) -> Option<CursorKey> {
    unhex(text).map(CursorKey::new)
}

/// What a projector holds just now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// `HOST:PORT` under which it wants to be asked; absent: where this came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Partitions of the log.
    pub partition_count: u32,
    /// Whether it stands by: another one is asked first.
    pub standby: bool,
    /// The partitions that it answers for, and how far each is folded.
    pub positions: Positions,
    /// The same partitions by number; one that holds no event yet has no position.
    pub partitions: Vec<u32>,
    /// Signs cursors where no secret is shared: the edges take the smallest that they find. 64 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor_key: Option<String>,
}

/// A question, and how fresh its answer must be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ask {
    /// An answer from an earlier state is none.
    pub min: Positions,
    /// How long to wait until the state is there, milliseconds.
    pub wait_ms: u64,
    /// What is asked.
    pub question: Question,
}

/// What is asked: a call of [`Answers`] of one partition, or a search in some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Nothing but the position.
    Position,
    /// [`Answers::receipts`].
    Receipts {
        /// Whose.
        tenant: String,
        /// Of which conversation.
        conversation_id: String,
        /// Which messages.
        message_ids: Vec<String>,
        /// Only those that this person sent: [`Answers::receipts_sent_by`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender_id: Option<String>,
    },
    /// [`Answers::find`] within some partitions.
    Find {
        /// Where.
        partitions: Vec<u32>,
        /// Whose.
        tenant: String,
        /// Which messages.
        message_ids: Vec<String>,
        /// Only those that this person sent: [`Answers::find_sent_by`].
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender_id: Option<String>,
    },
    /// [`Answers::members`].
    Members {
        /// Whose.
        tenant: String,
        /// Of which conversation.
        conversation_id: String,
        /// Of which message.
        message_id: String,
        /// Which members.
        filter: MemberFilter,
        /// From where on.
        from_slot: u32,
        /// At most so many.
        limit: usize,
    },
    /// [`Answers::read_mark`].
    ReadMark {
        /// Whose.
        tenant: String,
        /// Of which conversation.
        conversation_id: String,
        /// Whose mark.
        user_id: String,
    },
    /// [`Answers::are_erased`].
    AreErased {
        /// As which partition has heard.
        partition: u32,
        /// Whose people.
        tenant: String,
        /// Who.
        user_ids: Vec<String>,
    },
    /// [`Answers::is_member`].
    IsMember {
        /// Whose.
        tenant: String,
        /// Of which conversation.
        conversation_id: String,
        /// Who.
        user_id: String,
    },
}

/// What a projector replies: an answer, or why there is none.
pub type Reply = Result<Answer<Value>, Unavailable>;

/// Whoever has partitions of its own.
pub trait Owner: Answers {
    /// The partitions that it answers for.
    fn held(&self) -> Vec<u32>;

    /// [`Answers::find`] within some partitions, or [`Answers::find_sent_by`] where a sender is named.
    ///
    /// # Errors
    /// Where any of them cannot be asked.
    fn find_in(
        &self,
        partitions: &[u32],
        tenant: &str,
        sender_id: Option<&str>,
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable>;
}

/// Answers an edge's question.
///
/// # Errors
/// Where there is no answer that is fresh enough.
pub async fn reply(owner: &dyn Owner, ask: &Ask) -> Reply {
    let count = owner.partition_count();
    let held = owner.held();
    if let Some((partition, _)) = ask.min.iter().find(|(partition, _)| !held.contains(partition)) {
        return Err(Unavailable::NoOwner { partition });
    }
    owner.wait(&ask.min, Duration::from_millis(ask.wait_ms)).await?;
    let answer = match &ask.question {
        Question::Position => value(Answer { value: (), positions: owner.positions() }),
        Question::Receipts { tenant, conversation_id, message_ids, sender_id } => {
            let conversation = Conversation::locate(tenant, conversation_id, count);
            value(match sender_id {
                Some(sender_id) => owner.receipts_sent_by(conversation, sender_id, message_ids).await?,
                None => owner.receipts(conversation, message_ids).await?,
            })
        }
        Question::Find { partitions, tenant, message_ids, sender_id } => {
            value(owner.find_in(partitions, tenant, sender_id.as_deref(), message_ids)?)
        }
        Question::Members { tenant, conversation_id, message_id, filter, from_slot, limit } => {
            let conversation = Conversation::locate(tenant, conversation_id, count);
            value(owner.members(conversation, message_id, *filter, *from_slot, *limit).await?)
        }
        Question::ReadMark { tenant, conversation_id, user_id } => {
            value(owner.read_mark(Conversation::locate(tenant, conversation_id, count), user_id).await?)
        }
        Question::AreErased { partition, tenant, user_ids } => {
            value(owner.are_erased(tenant, *partition, user_ids).await?)
        }
        Question::IsMember { tenant, conversation_id, user_id } => {
            value(owner.is_member(Conversation::locate(tenant, conversation_id, count), user_id).await?)
        }
    };
    // A partition may have been given up and taken back since the wait, from an earlier checkpoint.
    let answer = answer?;
    let behind = answer.positions.iter().any(|(partition, next)| next < ask.min.next_offset(partition));
    if behind { Err(Unavailable::Behind) } else { Ok(answer) }
}

fn value<T: Serialize>(answer: Answer<T>) -> Reply {
    let Answer { value, positions } = answer;
    let value = serde_json::to_value(value).map_err(|error| Unavailable::Failed(error.to_string()))?;
    Ok(Answer { value, positions })
}

/// The answer that a reply holds.
///
/// # Errors
/// Those of the reply, and where it answers another question.
pub fn read<T: DeserializeOwned>(reply: Reply) -> Result<Answer<T>, Unavailable> {
    let Answer { value, positions } = reply?;
    let value = serde_json::from_value(value)
        .map_err(|error| Unavailable::Failed(format!("an answer of another version: {error}")))?;
    Ok(Answer { value, positions })
}

/// Puts together what several owners found, by the rule of [`Answers::find`]. Every part has one receipt for each id.
pub fn merge_found(parts: impl IntoIterator<Item = Answer<Vec<Receipt>>>) -> Option<Answer<Vec<Receipt>>> {
    parts.into_iter().reduce(|mut best, part| {
        best.positions.merge(&part.positions);
        for (best, found) in best.value.iter_mut().zip(part.value) {
            if answers_before(&found, best) {
                *best = found;
            }
        }
        best
    })
}
