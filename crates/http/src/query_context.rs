//! Everything that read routes share: the state that they ask, the wait for a position, deadlines,
//! and the receipt that a caller may see.
//!
//! It must not know a route's own shapes.

use crate::edge::access::{AccessByTenant, AccessRule};
use crate::edge::budget::Budgets;
use crate::edge::caller::Caller;
use crate::edge::limits::{Limits, MIN_POSITION_HEADER, RequestHold};
use crate::edge::tickets::Tickets;
use crate::problem::{Code, Problem};
use crate::response::AnsweredFrom;
use axum::extract::FromRequestParts;
use axum::http::HeaderName;
use axum::http::request::Parts;
use futures_util::FutureExt as _;
use receipts_fold::view::Receipt;
use receipts_query::{
    Answer, Answers, BadToken, Conversation, CursorKey, LogTag, Positions, Since, Token, Unavailable,
};
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Limits the wait for [`MIN_POSITION_HEADER`], milliseconds.
pub const WAIT_HEADER: HeaderName = HeaderName::from_static("receipts-wait-ms");

/// The most tokens of a request. A token names all partitions in a few characters, so more of them
/// would cost more than the rest of the request.
const TOKENS_MAX: usize = 100;

/// The longest wait, milliseconds. A longer one in [`WAIT_HEADER`] is shortened to this.
pub const WAIT_MAX_MS: u64 = 30_000;

/// The state and the settings of the query routes.
#[derive(Clone)]
pub struct QueryContext {
    /// Answers questions about the state.
    pub answers: Arc<dyn Answers>,
    /// Signs the cursors of member lists. It is the same on every edge and after a restart.
    pub cursor_key: CursorKey,
    /// Issues tickets for streams. All edges open one another's.
    pub tickets: Tickets,
    /// Says which callers may ask for counts and lists.
    pub access: AccessByTenant,
    /// Bounds the size of a body, the time of an answer, and the default wait for a position.
    pub limits: Limits,
}

impl QueryContext {
    /// Returns a conversation of the caller's tenant with its partition.
    pub(crate) fn locate<'a>(&self, caller: &'a Caller, conversation_id: &'a str) -> Conversation<'a> {
        Conversation::locate(&caller.tenant, conversation_id, self.answers.partition_count())
    }

    /// Waits until the state is as fresh as the request asks for.
    pub(crate) async fn wait(&self, caller: &Caller, freshness: &mut Freshness) -> Result<(), Problem> {
        if freshness.is_met {
            return Ok(());
        }
        self.look_up_ends(caller, freshness).await?;
        let wait = self.answers.wait(&freshness.min, freshness.wait);
        self.without_place(caller, freshness, wait).await?;
        freshness.is_met = true;
        Ok(())
    }

    /// Asks the state as fresh as the request asks for it, with a deadline. A wait that is not over
    /// yet and costs an exchange with the owner of the state is a part of the question.
    pub(crate) async fn ask<T, F>(
        &self,
        caller: &Caller,
        freshness: &mut Freshness,
        question: impl FnOnce(Arc<dyn Answers>) -> F,
    ) -> Result<Answer<T>, Problem>
    where
        F: Future<Output = Result<Answer<T>, Unavailable>>,
    {
        if !freshness.is_met {
            self.look_up_ends(caller, freshness).await?;
        }
        if !freshness.is_met
            && let Some(answers) = self.answers.after(&freshness.min, freshness.wait)
        {
            let answer = self.without_place(caller, freshness, question(answers)).await?;
            freshness.is_met = true;
            return Ok(answer);
        }
        self.wait(caller, freshness).await?;
        let answer = tokio::time::timeout(self.limits.request_timeout, question(Arc::clone(&self.answers))).await;
        answer.unwrap_or_else(|_| Err(Unavailable::Failed("no answer in time".to_owned()))).map_err(Problem::from)
    }

    /// Turns a rounded position into one to wait for: of each partition the greatest offset that
    /// the token may stand for, or the end of the log where that is less. The true position is
    /// never beyond either, and the log has records up to there (INV-TOKEN).
    async fn look_up_ends(&self, caller: &Caller, freshness: &mut Freshness) -> Result<(), Problem> {
        if freshness.most.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        let ends = self.without_place(caller, freshness, self.answers.ends(&freshness.most)).await?;
        freshness.min.merge(&ends);
        freshness.most = Positions::new();
        freshness.wait = freshness.wait.saturating_sub(began.elapsed());
        Ok(())
    }

    /// Waits for the owner of the state. Meanwhile the request holds no place among the requests,
    /// but one among the waits.
    async fn without_place<T>(
        &self,
        caller: &Caller,
        freshness: &Freshness,
        waiting: impl Future<Output = Result<T, Unavailable>>,
    ) -> Result<T, Problem> {
        // The owner of the state keeps the time of the wait. This deadline is for an owner that is
        // out of reach.
        let deadline = freshness.wait + self.limits.request_timeout;
        let mut waited = pin!(tokio::time::timeout(deadline, waiting));
        let waited = match waited.as_mut().now_or_never() {
            Some(waited) => waited,
            None => {
                let Budgets { requests, waits, .. } = &self.limits.budgets;
                let held = waits.acquire(caller, 1)?;
                if let Some(place) = &freshness.place {
                    place.give_back();
                }
                let waited = waited.await;
                drop(held);
                if let (Some(place), Ok(Ok(_))) = (&freshness.place, &waited) {
                    place.keep(requests.acquire(caller, 1)?);
                }
                waited
            }
        };
        waited.unwrap_or(Err(Unavailable::Behind)).map_err(Problem::from)
    }

    /// Returns the receipt of a message as far as the caller may see it: a message of another
    /// sender looks like one that does not exist. `None` means that the caller may see no receipt
    /// at all; then the state is not asked.
    pub(crate) async fn visible_receipt(
        &self,
        rule: AccessRule,
        caller: &Caller,
        freshness: &mut Freshness,
        conversation_id: &str,
        message_id: &String,
    ) -> Result<Option<Answer<Receipt>>, Problem> {
        let Some(sender_id) = rule.visibility(caller).sender_id() else {
            self.wait(caller, freshness).await?;
            return Ok(None);
        };
        let (conversation, ids) = (self.locate(caller, conversation_id), std::slice::from_ref(message_id));
        let question = async |answers: Arc<dyn Answers>| answers.receipts(conversation, sender_id, ids).await;
        let answer = self.ask(caller, freshness, question).await?;
        let Answer { value, positions, stale_s } = answer;
        match value.into_iter().next() {
            Some(value) => Ok(Some(Answer { value, positions, stale_s })),
            None => {
                tracing::error!("the state returned no receipt for a message id");
                Err(Problem::new(Code::Internal))
            }
        }
    }
}

/// Returns the 404 of a message. It holds the receipt for clients that read the status there.
pub(crate) fn not_found(receipt: &Receipt) -> Problem {
    with_receipt(Problem::new(Code::NotFound).detail("the message does not exist"), receipt)
}

/// Adds a receipt to a problem, as an extension member.
pub(crate) fn with_receipt(problem: Problem, receipt: &Receipt) -> Problem {
    problem.with("receipt", serde_json::to_value(receipt).unwrap_or_default())
}

/// How fresh the answer to a read must be.
pub(crate) struct Freshness {
    /// The positions that must be folded first.
    pub(crate) min: Positions,
    /// The greatest positions that rounded tokens may stand for, until the ends of the log are
    /// known.
    most: Positions,
    /// The log of the state, if that is known.
    log: Option<LogTag>,
    /// How long to wait for them.
    pub(crate) wait: Duration,
    /// The place of the request, if it names a position.
    place: Option<RequestHold>,
    /// Whether the state is that fresh. It never gets older again.
    is_met: bool,
}

impl Freshness {
    /// Returns what an answer that was given after the wait tells about its state. The positions
    /// include those that the request waited for, so a client that passes on only the newest token
    /// loses nothing.
    pub(crate) fn with(&self, mut answered: Positions, stale_s: Option<u64>) -> AnsweredFrom {
        answered.merge(&self.min);
        AnsweredFrom { positions: answered, log: self.log, stale_s }
    }
}

impl FromRequestParts<Arc<QueryContext>> for Freshness {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, query: &Arc<QueryContext>) -> Result<Self, Problem> {
        let (mut min, mut most, log) = (Positions::new(), Positions::new(), query.answers.log());
        let bad = |detail: String| Problem::new(Code::BadPosition).item("/Receipts-Min-Position", detail);
        let values = parts.headers.get_all(MIN_POSITION_HEADER).iter();
        let tokens = values.flat_map(|tokens| tokens.to_str().unwrap_or("\u{fffd}").split(','));
        for (at, token) in tokens.enumerate() {
            if at == TOKENS_MAX {
                return Err(bad(format!("must have at most {TOKENS_MAX} tokens")));
            }
            let token = token.trim().parse::<Token>().and_then(|token| token.into_position(log));
            let position = token.map_err(|error| bad(error.to_string()))?;
            if position.highest_partition().is_some_and(|highest| highest >= query.answers.partition_count()) {
                return Err(bad("must be a token of this log".to_owned()));
            }
            match position {
                Since::Rounded(rounded) => {
                    min.merge(&rounded.least());
                    most.merge(&rounded.most());
                }
                Since::Events(positions) => min.merge(&positions),
                Since::Stream(_) | Since::Remainders(_) => return Err(bad(BadToken::OfStream.to_string())),
            }
        }
        let mut waits = parts.headers.get_all(WAIT_HEADER).iter();
        let wait = match (waits.next(), waits.next()) {
            (None, _) => query.limits.wait_default,
            (Some(_), Some(_)) => return Err(Problem::invalid("/Receipts-Wait-Ms", "must not appear more than once")),
            (Some(value), None) => value
                .to_str()
                .ok()
                .filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
                // A number that does not fit into u64 is above the maximum too.
                .map(|text| Duration::from_millis(text.parse().unwrap_or(WAIT_MAX_MS).min(WAIT_MAX_MS)))
                .ok_or_else(|| Problem::invalid("/Receipts-Wait-Ms", "must be a whole number of milliseconds"))?,
        };
        let is_met = min.is_empty() && most.is_empty();
        Ok(Self { is_met, min, most, log, wait, place: parts.extensions.get().cloned() })
    }
}
