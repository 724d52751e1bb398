//! `GET …/members` and `POST /v1/members/list`: lists the members who have read a message, have
//! not, or left without reading it.
//!
//! It must not walk a list: a page seeks to the slot of its cursor, at the same cost at any depth.

use crate::edge::access::Visibility;
use crate::edge::audit::{Act, Outcome, RequestId, audit};
use crate::edge::caller::Caller;
use crate::json_body::{Fields, read_json};
use crate::problem::{Code, Problem};
use crate::query_context::{Freshness, QueryContext, not_found, with_receipt};
use crate::request::{Parameters, PathIds};
use crate::response::answered;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use receipts_fold::view::{MemberFilter, Status};
use receipts_query::{Answers, ListId, Positions, json};
use serde_json::Value;
use std::sync::Arc;

/// Members of a page if the request does not say; the contract's number.
pub const LIMIT_DEFAULT: usize = 100;

/// The most members of a page; the contract's number.
pub const LIMIT_MAX: usize = 1_000;

/// Returns the routes of member lists.
pub(super) fn router() -> Router<Arc<QueryContext>> {
    Router::new()
        .route("/v1/conversations/{conversation_id}/messages/{message_id}/members", get(list_members))
        .route("/v1/members/list", post(list_members_by_body))
}

/// The lists by their names.
const FILTERS: [(&str, MemberFilter); 3] =
    [("read", MemberFilter::Read), ("unread", MemberFilter::Unread), ("departed", MemberFilter::Departed)];

/// Says which names there are.
const NO_FILTER: &str = "must be read, unread or departed";

/// A page of a list.
struct Page {
    conversation_id: String,
    message_id: String,
    /// The list, and its name.
    filter: (&'static str, MemberFilter),
    limit: usize,
    cursor: Option<String>,
}

impl Page {
    /// Reads the parameters of a page.
    fn of_parameters([conversation_id, message_id]: [String; 2], parameters: &Parameters) -> Result<Self, Problem> {
        let name = parameters.one("filter")?.ok_or_else(|| Problem::invalid("/filter", "is missing"))?;
        let filter = filter(name).ok_or_else(|| Problem::invalid("/filter", NO_FILTER))?;
        let limit = limit(parameters)?;
        let cursor = parameters.one("cursor")?.map(str::to_owned);
        Ok(Self { conversation_id, message_id, filter, limit, cursor })
    }

    /// Reads a body.
    fn of_body(body: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::read(body)?;
        let (conversation_id, message_id) = (fields.required_id("conversation_id"), fields.required_id("message_id"));
        let filter = match fields.take("filter") {
            Some(Value::String(name)) => filter(&name).ok_or(NO_FILTER),
            Some(_) => Err(NO_FILTER),
            None => Err("is missing"),
        };
        if let Err(detail) = filter {
            fields.refuse("/filter", detail);
        }
        let limit = fields.whole_number("limit", &(1..=LIMIT_MAX)).unwrap_or(LIMIT_DEFAULT);
        let cursor = fields.text("cursor");
        fields.end()?;
        let filter = filter.map_err(|detail| Problem::invalid("/filter", detail))?;
        Ok(Self { conversation_id, message_id, filter, limit, cursor })
    }
}

fn filter(name: &str) -> Option<(&'static str, MemberFilter)> {
    FILTERS.into_iter().find(|(known, _)| *known == name)
}

fn limit(parameters: &Parameters) -> Result<usize, Problem> {
    let Some(limit) = parameters.one("limit")? else { return Ok(LIMIT_DEFAULT) };
    let digits = limit.bytes().all(|byte| byte.is_ascii_digit());
    match limit.parse() {
        Ok(limit @ 1..=LIMIT_MAX) if digits => Ok(limit),
        _ => Err(Problem::invalid("/limit", "must be a whole number from 1 to 1000")),
    }
}

/// Lists the members who have read, have not read, or left without having read.
///
/// In a walk with `next_cursor` no member appears twice, and a member whose state does not change
/// appears exactly once. A cursor is bound to tenant, message and filter. The limit may change
/// between pages.
#[utoipa::path(
    get, path = "/v1/conversations/{conversation_id}/messages/{message_id}/members", operation_id = "list_members",
    tag = "query",
    params(crate::shapes::MessagePath, crate::shapes::ListParameters),
    responses((status = 200, description = "A page of the list.", body = crate::shapes::MembersPage))
)]
pub(crate) async fn list_members(
    State(query): State<Arc<QueryContext>>,
    caller: Caller,
    PathIds(ids): PathIds<2>,
    parameters: Parameters,
    freshness: Freshness,
    request_id: RequestId,
) -> Result<Response, Problem> {
    answer(&query, &caller, Page::of_parameters(ids, &parameters)?, freshness, &request_id).await
}

/// Lists the members of a message whose ids are in the body.
///
/// The answer is that of the list whose ids are in the path, and both take the cursors of one
/// another. Some proxies decode or shorten paths, so ids with `/`, `.`, `%` or control characters
/// are safe only here.
#[utoipa::path(
    post, path = "/v1/members/list", operation_id = "list_members_by_body", tag = "query",
    request_body(description = "The list.", content = crate::shapes::MembersList),
    responses((status = 200, description = "A page of the list.", body = crate::shapes::MembersPage))
)]
pub(crate) async fn list_members_by_body(
    State(query): State<Arc<QueryContext>>,
    caller: Caller,
    freshness: Freshness,
    request_id: RequestId,
    request: Request,
) -> Result<Response, Problem> {
    let body = read_json(request, &caller, &query.limits, "the ids of a list need no more").await?;
    answer(&query, &caller, Page::of_body(&body)?, freshness, &request_id).await
}

/// Answers a page if the caller may see it.
async fn answer(
    query: &QueryContext,
    caller: &Caller,
    page: Page,
    mut freshness: Freshness,
    request_id: &RequestId,
) -> Result<Response, Problem> {
    let Page { conversation_id, message_id, filter: (name, filter), limit, cursor } = page;
    let list = ListId { tenant: &caller.tenant, conversation_id: &conversation_id, message_id: &message_id, filter };
    let from_slot = match cursor {
        None => 0,
        Some(cursor) => query.cursor_key.open(list, &cursor).map_err(|_| {
            Problem::new(Code::BadCursor).item("/cursor", "must be the next_cursor of a page of this list")
        })?,
    };
    let conversation = query.locate(caller, &conversation_id);
    let rule = query.access.of(&caller.tenant).list(filter);
    let told = |outcome, positions: &Positions| {
        audit(Act::MemberList(name), outcome, caller, request_id, positions);
    };
    if rule.visibility(caller) != Visibility::All {
        // The caller is checked before the list is read, so that the time of a refusal does not
        // reveal its length.
        let answer = query.visible_receipt(rule, caller, &mut freshness, &conversation_id, &message_id).await?;
        let Some(answer) = answer else {
            told(Outcome::Refused, &freshness.min);
            return Err(Problem::new(Code::Forbidden));
        };
        if !rule.admit(caller, &answer.value) {
            told(Outcome::Refused, &answer.positions);
            return Err(Problem::new(Code::Forbidden).at(freshness.with(answer.positions, answer.stale_s)));
        }
    }
    let question =
        async |answers: Arc<dyn Answers>| answers.members(conversation, &message_id, filter, from_slot, limit).await;
    let answer = query.ask(caller, &mut freshness, question).await?;
    let (page, state) = (answer.value, freshness.with(answer.positions, answer.stale_s));
    if !rule.admit(caller, &page.receipt) {
        told(Outcome::Refused, &state.positions);
        return Err(Problem::new(Code::Forbidden).at(state));
    }
    told(if page.receipt.status == Status::Ok { Outcome::Answered } else { Outcome::NoList }, &state.positions);
    match page.receipt.status {
        Status::Ok => {}
        Status::NotFound => return Err(not_found(&page.receipt).at(state)),
        _ => return Err(with_receipt(Problem::new(Code::NotOk), &page.receipt).at(state)),
    }
    let next_cursor = page.next_slot.map(|slot| query.cursor_key.sign(list, slot));
    Ok(answered(json::page(&page.members, next_cursor.as_deref(), &page.receipt), &state))
}
