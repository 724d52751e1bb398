//! Tests the questions that query edges ask a projector.

use crate::common::PARTITIONS;
use crate::common::table::Table;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use futures_util::FutureExt as _;
use receipts_cluster::{ASK_PATH, PeerReply, PeerRequest, Question};
use receipts_http::{Peer, peer_router};
use receipts_query::Positions;
use serde_json::json;
use std::pin::pin;
use std::sync::Arc;
use tower::ServiceExt as _;

/// Asks whether a person is a member, from a position of every partition on. `None` if the
/// projector refuses the question.
async fn ask(router: Router, next_offset: u64, wait_ms: u64) -> Option<PeerReply> {
    let question = Question::IsMember { tenant: "default".into(), conversation_id: "g".into(), user_id: "bob".into() };
    let min: Positions = (0..PARTITIONS).map(|partition| (partition, next_offset)).collect();
    let body = json!(PeerRequest { min, wait_ms, question }).to_string();
    let request = Request::post(ASK_PATH).header(header::HOST, "localhost").header("content-type", "application/json");
    let response = router.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    assert!(matches!(parts.status.as_u16(), 200 | 503), "{parts:?}");
    (parts.status == 200).then(|| serde_json::from_slice(&bytes).unwrap())
}

#[tokio::test]
async fn waiting_questions_take_no_place_of_others() {
    let table = Arc::new(Table::new(PARTITIONS));
    table.join("g", "bob");
    let peer = Peer {
        owner: Arc::clone(&table) as _,
        advertise: None,
        standby: false,
        cursor_key: None,
        secret: None,
        waits_max: 1,
    };
    let router = peer_router(peer, Router::new());
    let mut waiting = pin!(ask(router.clone(), 99, 30_000));
    assert!(waiting.as_mut().now_or_never().is_none(), "it has the only place");
    assert!(ask(router.clone(), 99, 1).await.is_none(), "another one that waits is refused");
    let folded = ask(router.clone(), 10, 30_000).await.expect("it need not wait").expect("an answer");
    assert_eq!(folded.value, json!(true));
    assert!(waiting.as_mut().now_or_never().is_none(), "it waits still");
    for partition in 0..PARTITIONS {
        table.fold_up_to(partition, 99);
    }
    let answer = waiting.await.expect("it had the place").expect("an answer");
    assert_eq!((answer.value, answer.positions.highest_partition().is_some()), (json!(true), true));
    assert!(ask(router, 99, 0).await.expect("nobody waits").is_ok());
}
