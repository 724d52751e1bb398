//! Tests `receipts bench`: it writes what it announces, counts failures, and refuses an unbounded
//! load. Says nothing of how fast anything is.

use receipts_client::testing::EphemeralService;
use receipts_tests::binary;
use receipts_tests::process::{errors, run};
use serde_json::Value;

#[test]
fn bench_reports_a_bounded_load() {
    let service = EphemeralService::start_program(binary("receipts"), ["--log-partitions", "3"]).expect("started");
    let load = ["--events-per-second", "80", "--seconds", "1", "--connections", "4", "--group-size", "5"];
    let bench = |more: &[&str]| run("receipts", &[&["bench", "--url", service.url()], &load[..], more].concat());
    let output = bench(&["--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    assert!(errors(&output).contains("writes up to 84 events"), "{}", errors(&output));
    let report: Value = serde_json::from_slice(&output.stdout).expect("a line of JSON");
    // 40 posts of two events, and a roster for each connection.
    assert_eq!(
        (&report["events"], &report["post"]["count"], &report["read"]["count"]),
        (&84.into(), &40.into(), &40.into()),
        "{report}"
    );
    assert_eq!((&report["wrong_receipts"], &report["interrupted"]), (&0.into(), &false.into()), "{report}");
    assert!(report["errors"].as_object().is_some_and(serde_json::Map::is_empty), "{report}");
    let quantile = |kind: &str, name: &str| report[kind][name].as_f64().expect("a number");
    for kind in ["post", "read"] {
        let [p50, p99, max] = ["p50_ms", "p99_ms", "max_ms"].map(|name| quantile(kind, name));
        assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{report}");
    }
    assert!(report["tenant"].as_str().is_some_and(|tenant| tenant.starts_with("bench-")), "{report}");

    let output = bench(&[]);
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("read with position") && table.contains("0 failed requests, 0 wrong receipts"), "{table}");
}

#[test]
fn bench_fails_without_service_and_bounds() {
    let output = run("receipts", &["bench", "--url", "http://127.0.0.1:1", "--seconds", "1"]);
    let sentence = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{sentence}");
    assert!(sentence.contains("http://127.0.0.1:1 took no events"), "{sentence}");
    let output = run("receipts", &["bench", "--url", "http://127.0.0.1:1", "--seconds", "0"]);
    assert_eq!((output.status.code(), errors(&output).contains("1..=600")), (Some(2), true), "{}", errors(&output));
}
