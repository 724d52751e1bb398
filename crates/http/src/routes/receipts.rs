//! `POST /v1/receipts/query` and `GET …/receipt`: the receipts of many messages, and of one.
//!
//! They must not tell a stranger whether a message exists: to a user, a missing message looks like
//! one of another sender.

use crate::edge::access::forbidden;
use crate::edge::caller::Caller;
use crate::json_body::{Fields, IDS_MAX, read_json};
use crate::problem::{Code, Problem};
use crate::query_context::{Freshness, QueryContext, not_found};
use crate::request::{PathIds, id_problem};
use crate::response::answered;
use axum::Router;
use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::{get, post};
use receipts_fold::view::{Receipt, Status};
use receipts_query::{Answer, Answers, json};
use serde::Deserialize;
use std::sync::Arc;

/// Returns the routes of receipts.
pub(super) fn router() -> Router<Arc<QueryContext>> {
    Router::new()
        .route("/v1/receipts/query", post(query_receipts))
        .route("/v1/conversations/{conversation_id}/messages/{message_id}/receipt", get(get_receipt))
}

/// The messages of a batch.
#[derive(Debug, PartialEq, Eq, Deserialize, utoipa::ToSchema)]
pub(crate) struct ReceiptsQuery {
    /// Their conversation. Absent or null to search all conversations of the tenant.
    #[schema(min_length = 1, max_length = 128, example = "g1")]
    conversation_id: Option<String>,
    /// The messages. An id that appears twice is answered twice.
    #[schema(min_items = 1, max_items = 100, example = json!(["m1", "m2"]))]
    message_ids: Vec<String>,
}

impl ReceiptsQuery {
    /// Reads a body. Unknown fields are ignored.
    fn read(body: &[u8]) -> Result<Self, Problem> {
        // serde would accept an array as a struct too.
        let is_object = body.trim_ascii_start().starts_with(b"{");
        match is_object.then(|| serde_json::from_slice::<Self>(body)) {
            Some(Ok(asked)) if asked.is_valid() => Ok(asked),
            _ => Self::diagnose(body),
        }
    }

    fn is_valid(&self) -> bool {
        let mut ids = self.message_ids.iter().chain(&self.conversation_id);
        (1..=IDS_MAX).contains(&self.message_ids.len()) && ids.all(|id| id_problem(id).is_none())
    }

    /// Reads a body by hand, to name every invalid item.
    fn diagnose(body: &[u8]) -> Result<Self, Problem> {
        let mut fields = Fields::read(body)?;
        let conversation_id = fields.optional_id("conversation_id");
        let message_ids = fields.ids("message_ids");
        fields.end()?;
        Ok(Self { conversation_id, message_ids })
    }
}

/// Returns many receipts at once: one for each id, in the order of the request.
///
/// Without `conversation_id` the ids are searched in all conversations of the tenant. If an id
/// exists in several, one message among those that the caller may see is answered: a live one
/// before a recalled one, then the one with the greatest `sent_at_ms`. If more messages have the id
/// than the service looks at (`query.candidates_max`), the status is `ambiguous`: name the
/// conversation. A message that the caller may not see has the status `forbidden`; for a user
/// without the scope `receipts:members` a missing message has it too. This route also serves the
/// ids `.` and `..`, which cannot appear in a path.
#[utoipa::path(
    post, path = "/v1/receipts/query", operation_id = "query_receipts", tag = "query",
    request_body(description = "The messages.", content = ReceiptsQuery),
    responses((status = 200, description = "One receipt for each id.", body = crate::shapes::ReceiptsAnswer))
)]
pub(crate) async fn query_receipts(
    State(query): State<Arc<QueryContext>>,
    caller: Caller,
    mut freshness: Freshness,
    request: Request,
) -> Result<Response, Problem> {
    let asked = ReceiptsQuery::read(&read_json(request, &caller, &query.limits, "ask for fewer messages").await?)?;
    let (rule, ids) = (query.access.of(&caller.tenant).counts, &asked.message_ids);
    let conversation = asked.conversation_id.as_deref();
    let mut answer = if let Some(sender_id) = rule.visibility(&caller).sender_id() {
        let question = async |answers: Arc<dyn Answers>| match conversation {
            Some(id) => answers.receipts(query.locate(&caller, id), sender_id, ids).await,
            None => answers.find(&caller.tenant, sender_id, ids).await,
        };
        query.ask(&caller, &mut freshness, question).await?
    } else {
        query.wait(&caller, &mut freshness).await?;
        let bare = |id: &String| Receipt::bare(caller.tenant.clone(), conversation, id.clone(), Status::Forbidden);
        Answer::fresh(ids.iter().map(bare).collect(), query.answers.positions())
    };
    if answer.value.len() != asked.message_ids.len() {
        tracing::error!(
            asked = asked.message_ids.len(),
            answered = answer.value.len(),
            "the state did not return one receipt for each id"
        );
        return Err(Problem::new(Code::Internal));
    }
    for receipt in &mut answer.value {
        // The state answers `ambiguous` only about messages that the caller may see: to a person,
        // only where the person sent one of them.
        if receipt.status != Status::Ambiguous && !rule.admit(&caller, receipt) {
            *receipt = forbidden(receipt.clone(), conversation);
        }
    }
    let state = freshness.with(answer.positions, answer.stale_s);
    Ok(answered(json::receipts(&answer.value, &state.token().to_string()), &state))
}

/// Returns one receipt.
///
/// The answer is 404 only if the message does not exist, and only to callers with the scope
/// `receipts:members`. A user who did not send the message gets 403, whether it exists or not.
#[utoipa::path(
    get, path = "/v1/conversations/{conversation_id}/messages/{message_id}/receipt", operation_id = "get_receipt",
    tag = "query",
    params(crate::shapes::MessagePath),
    responses((status = 200, description = "The receipt.", body = crate::shapes::Receipt))
)]
pub(crate) async fn get_receipt(
    State(query): State<Arc<QueryContext>>,
    caller: Caller,
    PathIds([conversation_id, message_id]): PathIds<2>,
    mut freshness: Freshness,
) -> Result<Response, Problem> {
    let rule = query.access.of(&caller.tenant).counts;
    let answer = query.visible_receipt(rule, &caller, &mut freshness, &conversation_id, &message_id).await?;
    let Some(answer) = answer else {
        return Err(Problem::new(Code::Forbidden));
    };
    let state = freshness.with(answer.positions, answer.stale_s);
    let receipt = &answer.value;
    if !rule.admit(&caller, receipt) {
        Err(Problem::new(Code::Forbidden).at(state))
    } else if receipt.status == Status::NotFound {
        Err(not_found(receipt).at(state))
    } else {
        Ok(answered(json::receipt(receipt), &state))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_ignores_unknown_fields_and_reads_null_as_absent() {
        let asked = ReceiptsQuery::read(br#"{"message_ids":["a","a"],"conversation_id":null,"limit":3}"#).unwrap();
        assert_eq!(asked, ReceiptsQuery { conversation_id: None, message_ids: vec!["a".to_owned(), "a".to_owned()] });
    }

    #[test]
    fn fast_path_and_diagnosis_read_the_same() {
        let long = format!(r#"{{"message_ids":["{}"]}}"#, "a".repeat(129));
        let many = format!(r#"{{"message_ids":[{}]}}"#, ["1"; 101].map(|id| format!("\"{id}\"")).join(","));
        let bodies = [
            r#"{"message_ids":["a","b"],"conversation_id":"g"}"#,
            r#"{"conversation_id":null,"message_ids":["\u0061\n"],"x":[{}]}"#,
            r#"{"message_ids":["a"],"message_ids":["b"]}"#,
            r#"{"message_ids":["a"],"conversation_id":"g","conversation_id":null}"#,
            r#"{"message_ids":[]}"#,
            r#"{"message_ids":[""]}"#,
            r#"{"message_ids":["a",1,null]}"#,
            r#"{"message_ids":["a"],"conversation_id":""}"#,
            r#"{"message_ids":["a"],"conversation_id":7}"#,
            r#"{"message_ids":"a"}"#,
            r#"{"message_ids":null}"#,
            r#"[["a"],"g"]"#,
            r#"[null,["a"]]"#,
            r#"{"message_ids":["a"]} "#,
            r#"{"message_ids":["a"]}x"#,
            "",
            &long,
            &many,
        ];
        for body in bodies {
            let outcome = |asked: Result<ReceiptsQuery, Problem>| asked.map_err(|problem| format!("{problem:?}"));
            assert_eq!(
                outcome(ReceiptsQuery::read(body.as_bytes())),
                outcome(ReceiptsQuery::diagnose(body.as_bytes())),
                "{body}"
            );
        }
    }
}
