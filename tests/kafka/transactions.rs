//! Transactions of producers outside the project, on a real Kafka: one that stays open is told, and
//! after its end all or nothing of it is there.

use super::end_to_end::{read, receipt, sent};
use receipts_event::{key, partition_of};
use receipts_log::testing::Transaction;
use receipts_tests::kafka::{Kafka, PARTITIONS, broker};
use receipts_tests::process::{Service, errors, run};
use receipts_tests::{eventually, receipt_path};
use serde_json::{Value, json};

fn open(kafka: &Kafka, conversation: &str, event: &Value) -> Transaction {
    let key = key("default", conversation);
    Transaction::begin(&kafka.bootstrap, &kafka.events, &[(&key, event.to_string().as_bytes())])
}

/// INV-TRANSACTIONS
#[test]
fn an_open_transaction_is_told_until_it_ends() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "transaction");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &flags);
    let joined = json!({"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob", "carol"]});
    let _ = service.write(&json!([joined, sent("g1", "m1", "alice")]));
    let partition = partition_of(&key("default", "g1"), PARTITIONS);
    let gauge = format!("receipts_partition_held_by_transaction{{partition=\"{partition}\"}}");
    let is_held = |value: u8| {
        let metrics = service.get("/metrics").body;
        metrics.as_str().is_some_and(|metrics| metrics.contains(&format!("{gauge} {value}\n")))
    };
    eventually("the metric", || is_held(0), |held| *held);

    let transaction = open(&kafka, "g1", &read("g1", "m1", "bob"));
    let token = service.write(&json!([read("g1", "m1", "carol")]));
    let ready = eventually("not ready", || service.get("/readyz"), |ready| ready.status == 503);
    let detail = ready.body["detail"].as_str().expect("a reason");
    assert!(detail.contains(&format!("in partition {partition} the records from offset 2 on wait")), "{detail}");
    assert_eq!(
        (&ready.body["caught_up"], &ready.body["partitions_caught_up"]),
        (&json!(false), &json!(PARTITIONS - 1))
    );
    eventually("the metric", || is_held(1), |held| *held);
    let after = [("Receipts-Min-Position", token.as_str()), ("Receipts-Wait-Ms", "100")];
    let behind = service.request("GET", &receipt_path("g1", "m1"), &after, "");
    assert_eq!((behind.status, &behind.body["type"]), (503, &json!("urn:receipts:problem:behind")));
    let detail = behind.body["detail"].as_str().expect("a reason");
    assert!(detail.contains(&format!("in partition {partition} the records from offset 2 on wait")), "{detail}");
    receipt(&service, "g1", "m1", &json!({"read_count": 0}));
    let output = run("receipts", &[&["stats"], &flags[..]].concat());
    let said = errors(&output);
    assert!(output.status.success() && said.contains("transaction is open") && said.contains("left out"), "{said}");

    transaction.commit();
    let answer = service.get_after(&receipt_path("g1", "m1"), &token);
    assert_eq!(answer.body["read_count"], 2, "all of it is there: {}", answer.body);
    eventually("ready again", || service.get("/readyz"), |ready| ready.status == 200);
    eventually("the metric", || is_held(0), |held| *held);
    let told = service.errors();
    for line in ["transaction is open, and all records from this offset on wait", "the transaction is over"] {
        assert_eq!(told.matches(line).count(), 1, "{line}\n{told}");
    }

    let transaction = open(&kafka, "g1", &sent("g1", "m2", "alice"));
    let token = service.write(&json!([sent("g1", "m3", "alice")]));
    transaction.abort();
    assert_eq!(service.get_after(&receipt_path("g1", "m3"), &token).body["status"], "ok");
    assert_eq!(service.get(&receipt_path("g1", "m2")).status, 404, "nothing of it is there");
    assert_eq!(service.get("/readyz").status, 200);
    let output = run("receipts", &[&["stats"], &flags[..]].concat());
    assert!(!errors(&output).contains("transaction is open"), "{}", errors(&output));
    assert_eq!(service.terminate(), Some(0));
}
