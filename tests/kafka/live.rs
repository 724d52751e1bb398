//! INV-LIVE on a real Kafka: `receipts export --follow` beside a running service, killed and
//! started again. Must not repeat the kills of `tests/it`: one is enough to see the topic read
//! again.

use super::end_to_end::{read, sent};
use receipts_tests::kafka::{Kafka, broker};
use receipts_tests::process::{Service, errors, kill, run};
use receipts_tests::tables::{DATASETS, exported, rows, versions};
use receipts_tests::{TIMEOUT, receipt_path};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// Returns whether all tables are there, and have more versions than these.
fn have_grown(tables: &Path, than: &BTreeMap<&str, usize>) -> bool {
    let count = |dataset| match tables.join(dataset).join("_delta_log").exists() {
        true => versions(&tables.join(dataset)).len(),
        false => 0,
    };
    DATASETS.iter().all(|dataset| count(dataset) > than.get(dataset).copied().unwrap_or(0))
}

fn counts(tables: &Path) -> BTreeMap<&'static str, usize> {
    DATASETS.into_iter().map(|dataset| (dataset, versions(&tables.join(dataset)).len())).collect()
}

#[test]
fn live_tables_follow_a_topic_through_kills() {
    let Some(broker) = broker() else { return };
    let kafka = Kafka::named(broker, "live");
    let flags = kafka.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let tables = folder.path().join("tables");
    let service = Service::serve(&folder.path().join("data"), &flags);
    let out = ["--out", tables.to_str().expect("UTF-8")];
    let follow = [&["export", "--follow", "--every-s", "1"][..], &out, &flags].concat();
    let people: Vec<String> = (0..20).map(|person| format!("u{person}")).collect();
    let groups = ["g0", "g1", "g2", "g3", "g4", "g5"];
    let joined = groups.map(|of| json!({"type": "members.changed", "conversation_id": of, "joined": people}));
    _ = service.write_all(&joined);
    let mut grown = BTreeMap::new();
    let mut token = String::new();
    for round in 0..3 {
        let mut events = Vec::new();
        for of in groups {
            let ids: Vec<String> = (0..20).map(|number| format!("m{}", round * 20 + number)).collect();
            events.extend(ids.iter().map(|id| sent(of, id, "u0")));
            // Reads of old messages too, so that files of earlier rounds change.
            events.extend((1..6).map(|person| read(of, &format!("m{}", person * 3), &format!("u{}", person + round))));
            events.extend(ids.iter().map(|id| read(of, id, "u9")));
            let last = &ids[ids.len() - 1];
            let reader = format!("u{}", 10 + round);
            events.push(json!({"type": "conversation.read", "conversation_id": of, "reader_id": reader,
                               "up_to_message_id": last}));
        }
        token = service.write_all(&events);
        let deadline = Instant::now() + TIMEOUT;
        // It follows until it is killed, at any moment after its tables have changed.
        let was_killed = kill("receipts", &follow, || {
            assert!(Instant::now() < deadline, "no new version of every table: {grown:?}");
            have_grown(&tables, &grown)
        });
        assert!(was_killed, "it follows until it is killed");
        grown = counts(&tables);
    }
    _ = service.get_after(&receipt_path("g0", "m1"), &token);
    let once = run("receipts", &[&["export", "--follow", "--once"][..], &out, &flags].concat());
    assert_eq!(once.status.code(), Some(0), "{}", errors(&once));

    let told = run("receipts", &[&["export", "--versions", "--json"][..], &out].concat());
    let told = String::from_utf8(told.stdout).expect("UTF-8");
    let told: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let mut exports: BTreeMap<String, tempfile::TempDir> = BTreeMap::new();
    for dataset in DATASETS {
        let versions = versions(&tables.join(dataset));
        let positions: Vec<&str> = versions.iter().map(|version| &*version.position).collect();
        let listed = told.iter().filter(|line| line["dataset"] == dataset);
        assert_eq!(listed.map(|line| line["position"].as_str().expect("a token")).collect::<Vec<_>>(), positions);
        // The first, one in the middle and the newest: each is an export of its position.
        for version in [&versions[0], &versions[versions.len() / 2], &versions[versions.len() - 1]] {
            let export = exports.entry(version.position.clone()).or_insert_with(|| {
                let at = tempfile::tempdir().expect("a folder");
                let to = ["export", "--position", &version.position, "--out", at.path().to_str().expect("UTF-8")];
                let exported = run("receipts", &[&to, &flags[..]].concat());
                assert_eq!(exported.status.code(), Some(0), "{}", errors(&exported));
                at
            });
            let (held, wanted) = (rows(&version.files), rows(&exported(&export.path().join(dataset))));
            assert!(
                held == wanted,
                "{dataset} at {}: {} rows, exported {}",
                version.position,
                held.len(),
                wanted.len()
            );
        }
        let newest = rows(&versions[versions.len() - 1].files);
        assert!(!newest.is_empty(), "{dataset} has rows");
    }
    assert_eq!(rows(&versions(&tables.join("messages")).pop().expect("a version").files).len(), groups.len() * 60);
    assert_eq!(service.terminate(), Some(0), "it served on");
}
