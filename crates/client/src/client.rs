//! The calls: what can be told and asked. Holds no state of its own but the positions that the transport remembers.

use crate::builder::Builder;
use crate::error::Error;
use crate::event::{Body, Event};
use crate::transport::{Ask, Transport, encode, segment};
use crate::types::{Accepted, Filter, Member, MembersPage, ReadMark, Receipt, ReceiptsAnswer};
use crate::updates::Subscription;
use futures_util::stream::{Stream, TryStreamExt as _, iter, try_unfold};
use reqwest::Method;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// Messages of one query, events of one body, members of one page at most; the contract's numbers.
const MESSAGES_MAX: usize = 100;
const EVENTS_MAX: usize = 1_000;
const PAGE_MAX: u32 = 1_000;
/// Half of what a body may have by default.
const BODY_BYTES: usize = 512 << 10;

/// Tells and asks a read-receipt service. Cheap to clone; clones share connections and positions.
///
/// What one client has written or seen, its later reads see too: it sends the newest positions that it was given.
///
/// ```no_run
/// use receipts_client::{Client, event};
///
/// # async fn run() -> Result<(), receipts_client::Error> {
/// let client = Client::builder("http://127.0.0.1:8080").build()?;
/// client
///     .post_events(&[
///         event::members_changed("g1").joined(["alice", "bob", "carol"]).build(),
///         event::message_sent("g1", "m1", "alice", 1_780_000_000_000).need_read_receipt().build(),
///         event::message_read("g1", "bob", ["m1"]).build(),
///     ])
///     .await?;
/// let receipt = client.receipt("g1", "m1").await?;
/// assert_eq!(receipt.counts.map(|counts| counts.read_count), Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Transport>);

/// What a batch asks for.
#[derive(Serialize)]
struct Query<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_id: Option<&'a str>,
    message_ids: Vec<&'a str>,
}

impl Client {
    /// A client of the service that answers at this URL: `https://receipts.example.com`.
    pub fn builder(base_url: impl Into<String>) -> Builder {
        Builder::new(base_url)
    }

    pub(crate) const fn new(transport: Arc<Transport>) -> Self {
        Self(transport)
    }

    /// What this client has written or seen. Handed to another one's [`Self::observe_position`], that one sees it too.
    #[must_use]
    pub fn position(&self) -> String {
        self.0.position()
    }

    /// Makes later reads wait for a position that came another way, such as from the backend that sent the message.
    pub fn observe_position(&self, position: &str) {
        self.0.observe(position);
    }

    /// Writes events, in order, and returns once the log has acknowledged them. Needs the scope `receipts:write`.
    ///
    /// What does not fit into one request (1,000 events, 512 KiB) goes by several: each is all or nothing. A request is tried
    /// again only where that changes nothing twice, which is so of reads and sends: a changed roster, a recall, a policy or
    /// an erasure with an open outcome is the caller's to decide, and so is what was in the same request.
    ///
    /// # Errors
    /// [`Error::Problem`] with the offending events by JSON Pointer, and nothing is written; or whether something is, is open
    /// (`outcome-open`, [`Error::Unanswered`]); [`Error::PartlyWritten`] where a request before was written.
    pub async fn post_events(&self, events: &[Event<'_>]) -> Result<Accepted, Error> {
        let mut whole = Accepted { accepted: 0, position: String::new() };
        for (body, is_repeatable) in bodies(events) {
            let ask = Ask {
                what: "events",
                method: Method::POST,
                path: "/v1/events".to_owned(),
                body: Some(body),
                is_repeatable,
                is_read: false,
            };
            match self.0.ask::<Accepted>(&ask).await {
                Ok(answer) => {
                    self.observe_position(&answer.position);
                    whole.accepted += answer.accepted;
                    if !whole.position.is_empty() {
                        whole.position.push(',');
                    }
                    whole.position += &answer.position;
                }
                Err(error) if whole.accepted == 0 => return Err(error),
                Err(error) => {
                    return Err(Error::PartlyWritten { accepted: whole.accepted, source: Box::new(error) });
                }
            }
        }
        Ok(whole)
    }

    /// Answers the receipts of messages: one each, in their order; `status` says what there is to say. Of more than 100
    /// messages by several requests.
    ///
    /// Without a conversation they are looked for in all of the tenant's; an id that stands in several is answered by the
    /// greatest `sent_at_ms`.
    ///
    /// # Errors
    /// Where a request fails.
    pub async fn receipts<I: AsRef<str>>(
        &self,
        conversation_id: Option<&str>,
        message_ids: &[I],
    ) -> Result<Vec<Receipt>, Error> {
        let mut receipts = Vec::with_capacity(message_ids.len());
        for some in message_ids.chunks(MESSAGES_MAX) {
            let query = Query { conversation_id, message_ids: some.iter().map(AsRef::as_ref).collect() };
            let ask = Ask {
                what: "a query of receipts",
                method: Method::POST,
                path: "/v1/receipts/query".to_owned(),
                body: Some(serde_json::to_vec(&query).map_err(|error| Error::Usage(error.to_string()))?),
                is_repeatable: true,
                is_read: true,
            };
            receipts.extend(self.0.ask::<ReceiptsAnswer>(&ask).await?.receipts);
        }
        Ok(receipts)
    }

    /// Answers the receipt of one message; its status is [`Status::NotFound`](crate::Status::NotFound) where there is none.
    ///
    /// # Errors
    /// `forbidden` for those who may not ask, whether there is such a message or not; or where the request fails.
    pub async fn receipt(&self, conversation_id: &str, message_id: &str) -> Result<Receipt, Error> {
        let path = format!("{}/receipt", message_path(conversation_id, message_id)?);
        match self.read("a receipt", path).await {
            Err(Error::Problem(mut problem)) if problem.is("not-found") => match problem.receipt.take() {
                Some(receipt) => Ok(*receipt),
                None => Err(Error::Problem(problem)),
            },
            answer => answer,
        }
    }

    /// Answers a page of those who have read a message, have not, or left without having read: at most `limit` (1 to
    /// 1,000), from `cursor` on, the `next_cursor` of the page before.
    ///
    /// # Errors
    /// `not-ok` where the message has no lists, with its receipt; `bad-cursor` for one of another list; or where the
    /// request fails.
    pub async fn members_page(
        &self,
        conversation_id: &str,
        message_id: &str,
        filter: Filter,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<MembersPage, Error> {
        let mut path = message_path(conversation_id, message_id)?;
        path += &format!("/members?filter={}&limit={limit}", filter.name());
        if let Some(cursor) = cursor {
            path += &format!("&cursor={}", encode(cursor));
        }
        self.read("a page of members", path).await
    }

    /// Walks through a whole list, a page of 1,000 at a time as it is read. Nobody comes twice, and everybody whose state
    /// does not change meanwhile comes once. The first error ends it.
    ///
    /// ```no_run
    /// use futures_util::TryStreamExt as _;
    /// use receipts_client::Filter;
    ///
    /// # async fn run(client: receipts_client::Client) -> Result<(), receipts_client::Error> {
    /// let mut unread = std::pin::pin!(client.members("g1", "m1", Filter::Unread));
    /// while let Some(member) = unread.try_next().await? {
    ///     println!("{} has not read it yet", member.user_id);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn members(
        &self,
        conversation_id: &str,
        message_id: &str,
        filter: Filter,
    ) -> impl Stream<Item = Result<Member, Error>> + Send + use<> {
        let walk = (self.clone(), conversation_id.to_owned(), message_id.to_owned(), Some(None::<String>));
        let pages = try_unfold(walk, move |(client, conversation, message, next)| async move {
            let Some(cursor) = next else { return Ok(None) };
            let page = client.members_page(&conversation, &message, filter, PAGE_MAX, cursor.as_deref()).await?;
            Ok::<_, Error>(Some((page.members, (client, conversation, message, page.next_cursor.map(Some)))))
        });
        pages.map_ok(|members| iter(members.into_iter().map(Ok))).try_flatten()
    }

    /// Answers up to where a person has read a conversation; `None` where there is no read mark.
    ///
    /// # Errors
    /// `forbidden` for those who may not ask; or where the request fails.
    pub async fn read_mark(&self, conversation_id: &str, user_id: &str) -> Result<Option<ReadMark>, Error> {
        let path = format!("/v1/conversations/{}/read-marks/{}", segment(conversation_id)?, segment(user_id)?);
        match self.read("a read mark", path).await {
            Ok(mark) => Ok(Some(mark)),
            Err(error) if error.is("not-found") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The updates of the messages that a person sent, and of the read marks of those who share a direct conversation with
    /// the person: for that person, and for callers with the scope `receipts:members`.
    pub fn updates_of_sender(&self, sender_id: &str) -> Subscription {
        Subscription::new(Arc::clone(&self.0), format!("/v1/updates?sender_id={}", encode(sender_id)))
    }

    /// The updates of a conversation: for callers with the scope `receipts:members`.
    pub fn updates_of_conversation(&self, conversation_id: &str) -> Subscription {
        Subscription::new(Arc::clone(&self.0), format!("/v1/updates?conversation_id={}", encode(conversation_id)))
    }

    async fn read<Answer: serde::de::DeserializeOwned>(
        &self,
        what: &'static str,
        path: String,
    ) -> Result<Answer, Error> {
        self.0.ask(&Ask { what, method: Method::GET, path, body: None, is_repeatable: true, is_read: true }).await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.0.base).finish_non_exhaustive()
    }
}

fn message_path(conversation_id: &str, message_id: &str) -> Result<String, Error> {
    Ok(format!("/v1/conversations/{}/messages/{}", segment(conversation_id)?, segment(message_id)?))
}

/// Events by request, as many as a body may hold by number and by bytes: a JSON array each, and whether it may be sent
/// twice.
fn bodies(events: &[Event<'_>]) -> Vec<(Vec<u8>, bool)> {
    let mut bodies: Vec<(Vec<u8>, bool)> = Vec::new();
    let mut count = 0;
    for event in events {
        let json = event.to_json();
        // Written twice, these change nothing the second time.
        let is_repeatable =
            matches!(event.body, Body::MessageRead(_) | Body::ConversationRead(_) | Body::MessageSent(_));
        match bodies.last_mut() {
            Some((body, all_repeatable)) if count < EVENTS_MAX && body.len() + json.len() < BODY_BYTES => {
                body.push(b',');
                body.extend(json);
                *all_repeatable &= is_repeatable;
                count += 1;
            }
            _ => {
                bodies.push(([&b"["[..], &json].concat(), is_repeatable));
                count = 1;
            }
        }
    }
    bodies.iter_mut().for_each(|(body, _)| body.push(b']'));
    bodies
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{members_changed, message_read, message_recalled};

    #[test]
    fn events_go_by_as_few_requests_as_hold_them_and_in_order() {
        let read = |n: usize, bytes: usize| message_read("g", "bob", [format!("{n:0>bytes$}")]).build();
        let all = |events: &[Event<'_>]| -> Vec<(Vec<serde_json::Value>, bool)> {
            bodies(events)
                .into_iter()
                .map(|(body, is_repeatable)| {
                    assert!(body.len() <= 1 << 20);
                    (serde_json::from_slice(&body).unwrap(), is_repeatable)
                })
                .collect()
        };
        assert!(all(&[]).is_empty());
        let events: Vec<_> = (0..2_500).map(|n| read(n, 8)).collect();
        let by_number = all(&events);
        assert_eq!(by_number.iter().map(|(some, _)| some.len()).collect::<Vec<_>>(), [1_000, 1_000, 500]);
        let told: Vec<_> =
            by_number.iter().flat_map(|(some, _)| some).map(|event| event["message_ids"][0].clone()).collect();
        assert!(told.iter().enumerate().all(|(n, id)| *id == format!("{n:08}")));
        let people = || (0..9_000).map(|n| format!("{n:060}"));
        let large: Vec<_> = (0..3).map(|_| members_changed("g").joined(people()).build()).collect();
        assert_eq!(all(&large).len(), 3);
    }

    #[test]
    fn a_request_may_be_sent_twice_only_where_all_of_it_may() {
        let is_repeatable = |events: &[Event<'_>]| bodies(events)[0].1;
        let (read, recall) = (message_read("g", "bob", ["m"]).build(), message_recalled("g", "m").build());
        assert!(is_repeatable(std::slice::from_ref(&read)));
        assert!(!is_repeatable(&[members_changed("g").joined(["a"]).build(), read.clone()]));
        assert!(!is_repeatable(&[read, recall]));
    }
}
