//! `receipts support-bundle` on a real Kafka: the archive must hold no id and no secret.

use super::end_to_end::{read, sent};
use receipts_tests::kafka::{Kafka, broker, produce};
use receipts_tests::process::{Service, errors, run};
use receipts_tests::{eventually, root};
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

fn joined(conversation: &str) -> Value {
    json!({"type": "members.changed", "conversation_id": conversation, "joined": ["alice", "bob"]})
}

/// A folder that is not in memory, wherever the other temporary ones are.
fn on_disk() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder")
}

const KAFKA_PASSWORD: &str = "hush-of-kafka";
const URL_PASSWORD: &str = "hush-of-the-url";
const TOKEN_SECRET: &str = "hush-of-the-tokens-0123456789abcdef";

/// INV-PRIVATE: the archive holds no id and no secret, and only its owner may read it.
#[test]
fn support_bundle_holds_neither_ids_nor_secrets() {
    let Some(broker) = broker() else { return };
    let (kafka, folder) = (Kafka::named(broker, "bundle"), on_disk());
    let text = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let flags = kafka.flags();
    let service = Service::serve(&folder.path().join("data"), &flags.iter().map(String::as_str).collect::<Vec<_>>());
    let of_alive = joined("conversation-zebra");
    let message = [
        of_alive,
        sent("conversation-zebra", "message-zebra", "alice"),
        read("conversation-zebra", "message-zebra", "bob"),
    ];
    _ = service.write(&json!(message));
    let lines: String = (0..20)
        .map(|number| format!("default/letter-zebra{number}\t{}\n", joined(&format!("letter-zebra{number}"))))
        .collect();
    let wrong = ["-K", "\t", "-X", "partitioner=consistent_random"];
    produce(&kafka.bootstrap, &kafka.events, &wrong, &lines, Duration::ZERO);
    eventually("there are dead letters", || kafka.records(receipts_log::Topic::DeadLetters), |count| *count > 0);

    std::fs::write(text("secret"), TOKEN_SECRET).expect("written");
    let elsewhere = format!("ftp://alice:{URL_PASSWORD}@host/snapshots");
    let password = format!("sasl.password={KAFKA_PASSWORD}");
    let (output, data, secret) = (text("bundle.tar.gz"), text("data"), text("secret"));
    std::fs::write(&output, "an older archive").expect("written");
    let own = ["support-bundle", "--json", "--output", &output, "--url", &service.url, "--data-dir", &data];
    let more = ["--kafka-properties", &password, "--snapshot-url", &elsewhere];
    let more = more.into_iter().chain(["--query-secret-file", &secret]);
    let arguments = own.into_iter().chain(more).chain(flags.iter().map(String::as_str));
    let packed = run("receipts", &arguments.collect::<Vec<_>>());
    assert_eq!(packed.status.code(), Some(0), "{}", errors(&packed));
    let mode = std::fs::metadata(&output).expect("written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let unpacked = |arguments: &[&str]| {
        let output = Command::new("tar").args(arguments).arg(&output).current_dir(root()).output().expect("tar runs");
        assert!(output.status.success(), "{}", errors(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let listed = unpacked(&["-tzf"]);
    for name in ["version.txt", "settings.json", "doctor.json", "topics.json", "metrics.txt", "readyz.json"] {
        assert!(listed.contains(&format!("receipts-support/{name}\n")), "{listed}");
    }
    let all = unpacked(&["-xzOf"]);
    // What it is for is in it.
    let wanted = ["kafka.dead_letters", "receipts_build_info", "caught_up", &*kafka.events, "(secret)@host/snapshots"];
    for part in wanted {
        assert!(all.contains(part), "lacks {part}: {all}");
    }
    for part in [KAFKA_PASSWORD, URL_PASSWORD, TOKEN_SECRET, "zebra", "\"alice\"", "\"bob\""] {
        assert!(!all.contains(part), "holds {part}: {all}");
    }
    assert_eq!(service.terminate(), Some(0));
}
