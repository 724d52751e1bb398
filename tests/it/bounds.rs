//! Tests the bounds of a process as an operator meets them: its descriptors, its budgets in
//! metrics, and the listener for operators. The tests of `crates/http` meet each bound.

use receipts_tests::process::{Service, errors, request, run_limited};
use serde_json::json;
use std::net::TcpStream;
use std::path::Path;

fn flags(data: &Path) -> Vec<&str> {
    vec!["serve", "--http-listen", "127.0.0.1:0", "--data-dir", data.to_str().expect("UTF-8")]
}

/// Asserts that a service shows these metrics.
#[track_caller]
fn shows(metrics: &str, lines: &[&str]) {
    for line in lines {
        assert!(metrics.lines().any(|shown| shown == *line), "{line} is not in\n{metrics}");
    }
}

/// INV-DESCRIPTORS: more idle connections than the process may open.
#[test]
fn idle_connections_leave_descriptors_for_all_else() {
    let data = tempfile::tempdir().expect("a folder");
    let more = ["--projector-checkpoint-interval-ms", "10"];
    let service = Service::start_limited(256, "receipts", &[&flags(data.path())[..], &more].concat());
    let metrics = service.get("/metrics").body;
    let metrics = metrics.as_str().expect("text");
    shows(
        metrics,
        &[
            "receipts_budget_limit{budget=\"connections\"} 128",
            "receipts_budget_limit{budget=\"streams\"} 64",
            "receipts_budget_limit{budget=\"waits\"} 32",
            "receipts_budget_limit{budget=\"requests\"} 32",
            "receipts_budget_limit{budget=\"body_bytes\"} 67108864",
        ],
    );
    let idle: Vec<TcpStream> = (0..400).map(|_| TcpStream::connect(&service.address).expect("it accepts")).collect();
    let event = json!({"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob"]});
    for _ in 0..5 {
        _ = service.write(&event);
    }
    assert_eq!(service.get("/readyz").status, 200);
    assert_eq!(service.terminate(), Some(0), "it checkpoints at its end");
    drop(idle);
}

#[test]
fn budgets_are_in_metrics_from_the_start() {
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &["--http-requests-max", "40", "--http-connections-max", "200"]);
    let metrics = service.get("/metrics").body;
    let metrics = metrics.as_str().expect("text");
    shows(
        metrics,
        &[
            "receipts_budget_limit{budget=\"connections\"} 200",
            "receipts_budget_limit{budget=\"requests\"} 40",
            "receipts_budget_used{budget=\"connections\"} 1",
            "receipts_budget_refused_total{budget=\"connections\",share=\"total\"} 0",
        ],
    );
    for budget in ["requests", "waits", "streams", "body_bytes"] {
        shows(metrics, &[&format!("receipts_budget_used{{budget=\"{budget}\"}} 0")]);
        for share in ["total", "tenant", "caller"] {
            shows(metrics, &[&format!("receipts_budget_refused_total{{budget=\"{budget}\",share=\"{share}\"}} 0")]);
        }
    }
}

/// INV-DESCRIPTORS
#[test]
fn too_few_descriptors_are_refused_with_exit_code_2() {
    let data = tempfile::tempdir().expect("a folder");
    for (limit, more, said) in [
        (150, [].as_slice(), "may open 150 files and sockets, and needs 160"),
        (220, &["--http-admin-listen", "127.0.0.1:0"], "needs 224"),
        (256, &["--http-connections-max", "129"], "http.connections_max is 129"),
    ] {
        let output = run_limited(limit, "receipts", &[&flags(data.path())[..], more].concat());
        let errors = errors(&output);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{errors}");
        assert!(errors.contains(said) && errors.contains("ulimit -Hn"), "{errors}");
    }
}

#[test]
fn operators_have_a_listener_of_their_own() {
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &["--http-admin-listen", "127.0.0.1:0"]);
    let admin = service.admin.clone().expect("the ready line names it");
    let at_admin = |method: &str, path: &str| request(&admin, method, path, &[], "{}").expect("an answer").status;
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(at_admin("GET", path), 200, "{path}");
    }
    assert_eq!(at_admin("POST", "/internal/v1/snapshots"), 401, "they are there, for who knows the secret");
    assert_eq!(at_admin("POST", "/v1/events"), 404);
    for (path, status) in [("/livez", 200), ("/readyz", 404), ("/metrics", 404), ("/internal/v1/snapshots", 404)] {
        assert_eq!(service.get(path).status, status, "{path}");
    }
    let metrics = request(&admin, "GET", "/metrics", &[], "").expect("an answer").body;
    shows(metrics.as_str().expect("text"), &["receipts_budget_limit{budget=\"admin_connections\"} 64"]);
    assert_eq!(service.terminate(), Some(0));
}
