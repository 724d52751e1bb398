//! `GET …/members`: lists the members who have read a message, have not, or left without reading
//! it.
//!
//! It must not walk a list: a page seeks to the slot of its cursor, at the same cost at any depth.

use crate::edge::access::Visibility;
use crate::edge::audit::{Act, Outcome, RequestId, audit};
use crate::edge::caller::Caller;
use crate::problem::{Code, Problem};
use crate::query_context::{Freshness, QueryContext, not_found, with_receipt};
use crate::request::{Parameters, PathIds};
use crate::response::answered;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use receipts_fold::view::{MemberFilter, Status};
use receipts_query::{Answers, ListId, Positions, json};
use std::sync::Arc;

/// Members of a page if the request does not say; the contract's number.
pub const LIMIT_DEFAULT: usize = 100;

/// The most members of a page; the contract's number.
pub const LIMIT_MAX: usize = 1_000;

/// Returns the route of member lists.
pub(super) fn router() -> Router<Arc<QueryContext>> {
    Router::new().route("/v1/conversations/{conversation_id}/messages/{message_id}/members", get(list_members))
}

/// The lists by their names.
const FILTERS: [(&str, MemberFilter); 3] =
    [("read", MemberFilter::Read), ("unread", MemberFilter::Unread), ("departed", MemberFilter::Departed)];

fn filter(parameters: &Parameters) -> Result<(&'static str, MemberFilter), Problem> {
    let Some(name) = parameters.one("filter")? else { return Err(Problem::invalid("/filter", "is missing")) };
    let found = FILTERS.into_iter().find(|(known, _)| *known == name);
    found.ok_or_else(|| Problem::invalid("/filter", "must be read, unread or departed"))
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
    PathIds([conversation_id, message_id]): PathIds<2>,
    parameters: Parameters,
    mut freshness: Freshness,
    request_id: RequestId,
) -> Result<Response, Problem> {
    let ((name, filter), limit) = (filter(&parameters)?, limit(&parameters)?);
    let list = ListId { tenant: &caller.tenant, conversation_id: &conversation_id, message_id: &message_id, filter };
    let from_slot = match parameters.one("cursor")? {
        None => 0,
        Some(cursor) => query.cursor_key.open(list, cursor).map_err(|_| {
            Problem::new(Code::BadCursor).item("/cursor", "must be the next_cursor of a page of this list")
        })?,
    };
    let conversation = query.locate(&caller, &conversation_id);
    let rule = query.access.of(&caller.tenant).list(filter);
    let told = |outcome, positions: &Positions| {
        audit(Act::MemberList(name), outcome, &caller, &request_id, positions);
    };
    if rule.visibility(&caller) != Visibility::All {
        // The caller is checked before the list is read, so that the time of a refusal does not
        // reveal its length.
        let answer = query.visible_receipt(rule, &caller, &mut freshness, &conversation_id, &message_id).await?;
        let Some(answer) = answer else {
            told(Outcome::Refused, &freshness.min);
            return Err(Problem::new(Code::Forbidden));
        };
        if !rule.admit(&caller, &answer.value) {
            told(Outcome::Refused, &answer.positions);
            return Err(Problem::new(Code::Forbidden).at(freshness.with(answer.positions, answer.stale_s)));
        }
    }
    let question =
        async |answers: Arc<dyn Answers>| answers.members(conversation, &message_id, filter, from_slot, limit).await;
    let answer = query.ask(&caller, &mut freshness, question).await?;
    let (page, state) = (answer.value, freshness.with(answer.positions, answer.stale_s));
    if !rule.admit(&caller, &page.receipt) {
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
