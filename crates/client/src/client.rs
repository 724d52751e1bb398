//! The calls of the API. The only state is the positions, which the transport keeps.

use crate::builder::Builder;
use crate::error::{Error, Problem};
use crate::event::{Body, Event};
use crate::positions::Positions;
use crate::transport::{Request, Transport, encode, is_mangled_in_paths};
use crate::types::{Accepted, Filter, Member, MembersPage, ReadMark, ReadMarksAnswer, Receipt, ReceiptsAnswer, Status};
use crate::updates::{Subject, Subscription};
use futures_util::stream::{Stream, TryStreamExt as _, iter, try_unfold};
use reqwest::Method;
use serde::Serialize;
use std::fmt;
use std::sync::Arc;

/// The contract's limits: messages per query, events per body, members per page.
const MESSAGES_MAX: usize = 100;
const EVENTS_MAX: usize = 1_000;
const PAGE_MAX: u32 = 1_000;
/// Half of the service's default limit of a body.
const BODY_BYTES: usize = 512 << 10;

/// Calls a read-receipt service. Cheap to clone; clones share connections and positions.
///
/// A client's later reads include everything that it has written or seen, because it sends the
/// newest positions that it has received.
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

/// The body of a query for several receipts.
#[derive(Serialize)]
struct Query<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    conversation_id: Option<&'a str>,
    message_ids: Vec<&'a str>,
}

/// The body of a page of members.
#[derive(Serialize)]
struct List<'a> {
    conversation_id: &'a str,
    message_id: &'a str,
    filter: &'a str,
    limit: u32,
    cursor: Option<&'a str>,
}

/// The body of a query for several read marks.
#[derive(Serialize)]
struct Marks<'a> {
    conversation_id: &'a str,
    user_ids: Vec<&'a str>,
}

impl Client {
    /// Returns a builder for a client of the service at this URL: `https://receipts.example.com`.
    pub fn builder(base_url: impl Into<String>) -> Builder {
        Builder::new(base_url)
    }

    pub(crate) const fn new(transport: Arc<Transport>) -> Self {
        Self(transport)
    }

    /// Returns the position of everything that this client has written or seen. Another client that
    /// gets it with [`Self::observe_position`] sees the same.
    #[must_use]
    pub fn position(&self) -> String {
        self.0.position()
    }

    /// Makes later reads wait for a position that came from elsewhere, for instance from the
    /// backend that sent the message.
    pub fn observe_position(&self, position: &str) {
        self.0.observe(position);
    }

    /// Returns for how many seconds the service had not heard from its log when it answered the
    /// last read (`Receipts-Stale`); `None` if it hears from it. Such an answer may lack newer
    /// events.
    #[must_use]
    pub fn stale_seconds(&self) -> Option<u64> {
        self.0.stale_seconds()
    }

    /// Writes events in order, and returns once the log has acknowledged them. A person's own reads
    /// and read marks need the scope `receipts:own`, `policy.changed` needs `receipts:policy`,
    /// `user.erased` `receipts:erase`, and every other event `receipts:write`, which implies the
    /// others unless the service sets `auth.strict_scopes`.
    ///
    /// More than one request's worth (1,000 events, 512 KiB) is split; each request is written as a
    /// whole or not at all. A request is retried only if a repetition changes nothing, as for reads
    /// and sends. If the outcome of a changed roster, a recall, a policy or an erasure is unknown,
    /// the caller decides about that whole request.
    ///
    /// One event is never split: a `members.changed` whose ids fill more than a body (1 MiB) is the
    /// problem `too-large`. Send some thousand ids per event, all of them before the next send,
    /// which takes the roster as it stands.
    ///
    /// # Errors
    /// [`Error::Problem`] names the offending events by JSON Pointer, and nothing is written. The
    /// outcome is unknown for the problem `outcome-open` and for [`Error::Unanswered`].
    /// [`Error::PartlyWritten`] if an earlier request of the call was written.
    pub async fn post_events(&self, events: &[Event<'_>]) -> Result<Accepted, Error> {
        let mut whole = Accepted { accepted: 0, position: String::new() };
        let mut written = Positions::default();
        for (body, is_repeatable) in bodies(events) {
            let request = Request {
                what: "events",
                method: Method::POST,
                path: "/v1/events".to_owned(),
                body: Some(body),
                is_repeatable,
                is_read: false,
            };
            match self.0.call::<Accepted>(&request).await {
                Ok(answer) => {
                    self.observe_position(&answer.position);
                    whole.accepted += answer.accepted;
                    written.add(&answer.position);
                    whole.position = written.token();
                }
                Err(error) if whole.accepted == 0 => return Err(error),
                Err(error) => {
                    return Err(Error::PartlyWritten { accepted: whole.accepted, source: Box::new(error) });
                }
            }
        }
        Ok(whole)
    }

    /// Returns one receipt per message, in the given order; `status` says whether there are counts.
    /// More than 100 messages take several requests.
    ///
    /// Without a conversation the service looks in all conversations of the tenant. If an id is in
    /// several of them, it returns the message with the greatest `sent_at_ms`.
    ///
    /// # Errors
    /// If a request fails.
    pub async fn receipts<I: AsRef<str>>(
        &self,
        conversation_id: Option<&str>,
        message_ids: &[I],
    ) -> Result<Vec<Receipt>, Error> {
        let mut receipts = Vec::with_capacity(message_ids.len());
        for some in message_ids.chunks(MESSAGES_MAX) {
            let query = Query { conversation_id, message_ids: some.iter().map(AsRef::as_ref).collect() };
            let what = "a query of receipts";
            let answer = self.query::<ReceiptsAnswer>(what, "/v1/receipts/query", &query).await?.receipts;
            let are_of = answer.len() == some.len()
                && answer.iter().zip(some).all(|(receipt, id)| is_of(receipt, conversation_id, id.as_ref()));
            if !are_of {
                return Err(Error::OtherIds { what });
            }
            receipts.extend(answer);
        }
        Ok(receipts)
    }

    /// Returns the receipt of one message. Its status is
    /// [`Status::NotFound`](crate::Status::NotFound) if there is no such message.
    ///
    /// # Errors
    /// `forbidden` if the caller may not see the receipt, whether the message exists or not; or if
    /// the request fails.
    pub async fn receipt(&self, conversation_id: &str, message_id: &str) -> Result<Receipt, Error> {
        if is_mangled_in_paths(conversation_id) || is_mangled_in_paths(message_id) {
            let found = self.receipts(Some(conversation_id), &[message_id]).await?.into_iter().next();
            let receipt = found.ok_or(Error::OtherIds { what: "a receipt" })?;
            return if receipt.status == Status::Forbidden { Err(forbidden()) } else { Ok(receipt) };
        }
        let path = format!("{}/receipt", message_path(conversation_id, message_id));
        let receipt = match self.read("a receipt", path).await {
            Err(Error::Problem(mut problem)) if problem.is("not-found") => match problem.receipt.take() {
                Some(receipt) => *receipt,
                None => return Err(Error::Problem(problem)),
            },
            answer => answer?,
        };
        if is_of(&receipt, Some(conversation_id), message_id) {
            Ok(receipt)
        } else {
            Err(Error::OtherIds { what: "a receipt" })
        }
    }

    /// Returns a page of the members who have read a message, have not read it, or left without
    /// reading: at most `limit` (1 to 1,000), from `cursor` on, which is the `next_cursor` of the
    /// previous page.
    ///
    /// # Errors
    /// `not-ok`, with the receipt, if the message has no lists; `bad-cursor` for a cursor of
    /// another list; or if the request fails.
    pub async fn members_page(
        &self,
        conversation_id: &str,
        message_id: &str,
        filter: Filter,
        limit: u32,
        cursor: Option<&str>,
    ) -> Result<MembersPage, Error> {
        let what = "a page of members";
        let page: MembersPage = if is_mangled_in_paths(conversation_id) || is_mangled_in_paths(message_id) {
            let list = List { conversation_id, message_id, filter: filter.name(), limit, cursor };
            self.query(what, "/v1/members/list", &list).await?
        } else {
            let mut path = message_path(conversation_id, message_id);
            path += &format!("/members?filter={}&limit={limit}", filter.name());
            if let Some(cursor) = cursor {
                path += &format!("&cursor={}", encode(cursor));
            }
            self.read(what, path).await?
        };
        if is_of(&page.receipt, Some(conversation_id), message_id) { Ok(page) } else { Err(Error::OtherIds { what }) }
    }

    /// Streams a whole list and fetches pages of 1,000 as they are needed. No member appears twice,
    /// and every member whose state does not change meanwhile appears once. The first error ends
    /// the stream.
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

    /// Returns how far a person has read a conversation; `None` if there is no read mark.
    ///
    /// # Errors
    /// `forbidden` if the caller may not see the read mark; or if the request fails.
    pub async fn read_mark(&self, conversation_id: &str, user_id: &str) -> Result<Option<ReadMark>, Error> {
        if is_mangled_in_paths(conversation_id) || is_mangled_in_paths(user_id) {
            return Ok(self.read_marks(conversation_id, &[user_id]).await?.into_iter().next().flatten());
        }
        let path = format!("/v1/conversations/{}/read-marks/{}", encode(conversation_id), encode(user_id));
        match self.read::<ReadMark>("a read mark", path).await {
            Ok(mark) if mark.reader_id == user_id => Ok(Some(mark)),
            Ok(_) => Err(Error::OtherIds { what: "a read mark" }),
            Err(error) if error.is("not-found") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns how far each person has read a conversation, in the given order; `None` where there
    /// is no read mark. More than 100 people take several requests.
    ///
    /// # Errors
    /// `forbidden` if the caller may not see one of the read marks; or if a request fails.
    pub async fn read_marks<I: AsRef<str>>(
        &self,
        conversation_id: &str,
        user_ids: &[I],
    ) -> Result<Vec<Option<ReadMark>>, Error> {
        let (what, mut marks) = ("a query of read marks", Vec::with_capacity(user_ids.len()));
        for some in user_ids.chunks(MESSAGES_MAX) {
            let query = Marks { conversation_id, user_ids: some.iter().map(AsRef::as_ref).collect() };
            let answer = self.query::<ReadMarksAnswer>(what, "/v1/read-marks/query", &query).await?.read_marks;
            let is_of = |(mark, id): (&Option<ReadMark>, &I)| mark.as_ref().is_none_or(|m| m.reader_id == id.as_ref());
            if answer.len() != some.len() || !answer.iter().zip(some).all(is_of) {
                return Err(Error::OtherIds { what });
            }
            marks.extend(answer);
        }
        Ok(marks)
    }

    /// Subscribes to the updates of the messages that a person sent, and of the read marks of that
    /// person's partners in direct conversations. For that person, and for callers with the scope
    /// `receipts:members`.
    pub fn updates_of_sender(&self, sender_id: &str) -> Subscription {
        Subscription::new(Arc::clone(&self.0), Subject::SenderId(sender_id.to_owned()))
    }

    /// Subscribes to the updates of a conversation. For callers with the scope `receipts:members`.
    pub fn updates_of_conversation(&self, conversation_id: &str) -> Subscription {
        Subscription::new(Arc::clone(&self.0), Subject::ConversationId(conversation_id.to_owned()))
    }

    /// Asks with ids in a body.
    async fn query<Answer: serde::de::DeserializeOwned>(
        &self,
        what: &'static str,
        path: &str,
        query: &(impl Serialize + Sync),
    ) -> Result<Answer, Error> {
        let body = serde_json::to_vec(query).map_err(|error| Error::Usage(error.to_string()))?;
        let (path, body) = (path.to_owned(), Some(body));
        self.0.call(&Request { what, method: Method::POST, path, body, is_repeatable: true, is_read: true }).await
    }

    async fn read<Answer: serde::de::DeserializeOwned>(
        &self,
        what: &'static str,
        path: String,
    ) -> Result<Answer, Error> {
        self.0.call(&Request { what, method: Method::GET, path, body: None, is_repeatable: true, is_read: true }).await
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("base", &self.0.base).finish_non_exhaustive()
    }
}

/// The problem of a single receipt, which a query puts into the receipt's status.
fn forbidden() -> Error {
    Error::Problem(Box::new(Problem {
        type_uri: "urn:receipts:problem:forbidden".to_owned(),
        title: "The caller may not see this".to_owned(),
        status: 403,
        detail: None,
        errors: Vec::new(),
        receipt: None,
        retry_after: None,
    }))
}

/// Whether a receipt is of this message.
fn is_of(receipt: &Receipt, conversation_id: Option<&str>, message_id: &str) -> bool {
    receipt.message_id == message_id
        && conversation_id.is_none_or(|wanted| receipt.conversation_id.as_deref() == Some(wanted))
}

fn message_path(conversation_id: &str, message_id: &str) -> String {
    format!("/v1/conversations/{}/messages/{}", encode(conversation_id), encode(message_id))
}

/// Splits events into requests, as many per request as its number and bytes allow. Returns for each
/// the JSON array and whether it may be sent twice.
fn bodies(events: &[Event<'_>]) -> Vec<(Vec<u8>, bool)> {
    let mut bodies: Vec<(Vec<u8>, bool)> = Vec::new();
    let mut count = 0;
    for event in events {
        let json = event.to_json();
        // A repetition of these changes nothing.
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
    fn events_go_in_few_requests_and_in_order() {
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
        let ids: Vec<_> =
            by_number.iter().flat_map(|(some, _)| some).map(|event| event["message_ids"][0].clone()).collect();
        assert!(ids.iter().enumerate().all(|(n, id)| *id == format!("{n:08}")));
        let people = || (0..9_000).map(|n| format!("{n:060}"));
        let large: Vec<_> = (0..3).map(|_| members_changed("g").joined(people()).build()).collect();
        assert_eq!(all(&large).len(), 3);
    }

    #[test]
    fn request_is_repeatable_only_if_all_events_are() {
        let is_repeatable = |events: &[Event<'_>]| bodies(events)[0].1;
        let (read, recall) = (message_read("g", "bob", ["m"]).build(), message_recalled("g", "m").build());
        assert!(is_repeatable(std::slice::from_ref(&read)));
        assert!(!is_repeatable(&[members_changed("g").joined(["a"]).build(), read.clone()]));
        assert!(!is_repeatable(&[read, recall]));
    }
}
