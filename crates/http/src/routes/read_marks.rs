//! `GET …/read-marks/{user_id}` and `POST /v1/read-marks/query`: the point up to which a person, or
//! each of several, has read a conversation.
//!
//! It must not tell a caller outside of the conversation whether a mark exists.

use crate::edge::caller::Caller;
use crate::edge::scopes::Scope;
use crate::json_body::{Fields, read_json};
use crate::problem::{Code, Problem};
use crate::query_context::{Freshness, QueryContext};
use crate::request::PathIds;
use crate::response::answered;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use receipts_query::{Answers, Conversation, json};
use std::sync::Arc;

/// Returns the routes of read marks.
pub(super) fn router() -> Router<Arc<QueryContext>> {
    Router::new()
        .route("/v1/conversations/{conversation_id}/read-marks/{user_id}", get(get_read_mark))
        .route("/v1/read-marks/query", post(query_read_marks))
}

/// Refuses a caller who may not see the read marks of these people: the caller has no scope for it,
/// asks for others than the own one, and is neither a member nor an observer of the conversation.
async fn admit(
    query: &QueryContext,
    caller: &Caller,
    freshness: &mut Freshness,
    conversation: Conversation<'_>,
    user_ids: &[String],
) -> Result<(), Problem> {
    if caller.scopes.has(Scope::Members) || user_ids.iter().all(|id| caller.is(id)) {
        return Ok(());
    }
    let Some(user) = &caller.user else {
        query.wait(caller, freshness).await?;
        return Err(Problem::new(Code::Forbidden));
    };
    let question = async |answers: Arc<dyn Answers>| answers.is_member(conversation, user).await;
    let answer = query.ask(caller, freshness, question).await?;
    match answer.value {
        true => Ok(()),
        false => Err(Problem::new(Code::Forbidden).at(freshness.with(answer.positions, answer.stale_s))),
    }
}

/// Returns up to where a person has read a conversation.
///
/// For callers with the scope `receipts:members`, for the person, and for current members and
/// observers of the conversation.
#[utoipa::path(
    get, path = "/v1/conversations/{conversation_id}/read-marks/{user_id}", operation_id = "get_read_mark",
    tag = "query",
    params(crate::shapes::ReaderPath),
    responses((status = 200, description = "The read mark.", body = crate::shapes::ReadMark))
)]
pub(crate) async fn get_read_mark(
    State(query): State<Arc<QueryContext>>,
    caller: Caller,
    PathIds([conversation_id, user_id]): PathIds<2>,
    mut freshness: Freshness,
) -> Result<Response, Problem> {
    let conversation = query.locate(&caller, &conversation_id);
    admit(&query, &caller, &mut freshness, conversation, std::slice::from_ref(&user_id)).await?;
    let question = async |answers: Arc<dyn Answers>| answers.read_mark(conversation, &user_id).await;
    let answer = query.ask(&caller, &mut freshness, question).await?;
    let state = freshness.with(answer.positions, answer.stale_s);
    match answer.value {
        Some(mark) => Ok(answered(json::read_mark(&mark), &state)),
        None => Err(Problem::new(Code::NotFound).detail("the read mark does not exist").at(state)),
    }
}

/// Returns up to where each of several people has read a conversation.
///
/// The answer has one read mark for each id, in the order of the request, or null where there is
/// none. For callers with the scope `receipts:members`, for current members and observers of the
/// conversation, and for a person who asks for nobody else. The ids are in the body, so ids with
/// `/`, `.`, `%` or control characters pass every proxy.
#[utoipa::path(
    post, path = "/v1/read-marks/query", operation_id = "query_read_marks", tag = "query",
    request_body(description = "The people.", content = crate::shapes::ReadMarksQuery),
    responses((status = 200, description = "One read mark or null for each id.", body = crate::shapes::ReadMarksAnswer))
)]
pub(crate) async fn query_read_marks(
    State(query): State<Arc<QueryContext>>,
    caller: Caller,
    mut freshness: Freshness,
    request: Request,
) -> Result<Response, Problem> {
    let body = read_json(request, &caller, &query.limits, "ask for fewer people").await?;
    let mut fields = Fields::read(&body)?;
    let (conversation_id, user_ids) = (fields.required_id("conversation_id"), fields.ids("user_ids"));
    if fields.take("thread_id").is_some() {
        // Without this, the mark of the whole conversation would pass for that of the thread.
        fields.refuse("/thread_id", "must be absent: there are no read marks of threads");
    }
    fields.end()?;
    let conversation = query.locate(&caller, &conversation_id);
    admit(&query, &caller, &mut freshness, conversation, &user_ids).await?;
    let question = async |answers: Arc<dyn Answers>| answers.read_marks(conversation, &user_ids).await;
    let answer = query.ask(&caller, &mut freshness, question).await?;
    if answer.value.len() != user_ids.len() {
        tracing::error!(asked = user_ids.len(), answered = answer.value.len(), "not one read mark for each id");
        return Err(Problem::new(Code::Internal));
    }
    let state = freshness.with(answer.positions, answer.stale_s);
    Ok(answered(json::read_marks(&answer.value, &state.token().to_string()), &state))
}
