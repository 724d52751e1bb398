//! `GET …/read-marks/{user_id}`: the point up to which a person has read a conversation.
//!
//! It must not tell a caller outside of the conversation whether a mark exists.

use crate::edge::caller::Caller;
use crate::edge::scopes::Scope;
use crate::problem::{Code, Problem};
use crate::query_context::{Freshness, QueryContext};
use crate::request::PathIds;
use crate::response::answered;
use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use receipts_query::{Answers, json};
use std::sync::Arc;

/// Returns the route of read marks.
pub(super) fn router() -> Router<Arc<QueryContext>> {
    Router::new().route("/v1/conversations/{conversation_id}/read-marks/{user_id}", get(get_read_mark))
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
    if !caller.scopes.has(Scope::Members) && !caller.is(&user_id) {
        let is_member = match &caller.user {
            Some(user) => {
                let question = async |answers: Arc<dyn Answers>| answers.is_member(conversation, user).await;
                Some(query.ask(&caller, &mut freshness, question).await?)
            }
            None => {
                query.wait(&caller, &mut freshness).await?;
                None
            }
        };
        match is_member {
            Some(answer) if answer.value => {}
            Some(answer) => {
                return Err(Problem::new(Code::Forbidden).at(freshness.with(answer.positions, answer.stale_s)));
            }
            None => return Err(Problem::new(Code::Forbidden)),
        }
    }
    let question = async |answers: Arc<dyn Answers>| answers.read_mark(conversation, &user_id).await;
    let answer = query.ask(&caller, &mut freshness, question).await?;
    let state = freshness.with(answer.positions, answer.stale_s);
    match answer.value {
        Some(mark) => Ok(answered(json::read_mark(&mark), &state)),
        None => Err(Problem::new(Code::NotFound).detail("the read mark does not exist").at(state)),
    }
}
