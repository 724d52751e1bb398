//! Keeps the dashboard, the inspector, the alerts and their runbook true: they ask for metrics and
//! labels of the catalogue, and every alert has a test and a paragraph. Runs no query:
//! `tests/tools/promtool/run` does.

use receipts_metrics::catalogue::SECTIONS;
use receipts_metrics::{Entry, Kind};
use receipts_tests::root;
use serde_json::Value as Json;
use std::collections::BTreeSet;

const DASHBOARD: &str = "docs/monitoring/grafana/receipts.json";
const ALERTS: &str = "docs/monitoring/alerts.yml";
const ALERT_TESTS: &str = "docs/monitoring/alerts.test.yml";
const RUNBOOK: &str = "docs/operating.md";
const INSPECTOR: &str = "crates/http/src/inspector/operations.js";
/// Labels that Prometheus adds.
const ADDED: [&str; 3] = ["job", "instance", "le"];
/// Metrics that other code exports: <https://docs.rs/metrics-process>, and Prometheus itself.
const FOREIGN: [&str; 5] =
    ["up", "process_open_fds", "process_max_fds", "process_resident_memory_bytes", "process_cpu_seconds_total"];

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect(path)
}

fn yaml(path: &str) -> Json {
    yaml_serde::from_str(&read(path)).expect(path)
}

fn items<'j>(json: &'j Json, field: &str) -> &'j [Json] {
    json[field].as_array().map_or(&[], Vec::as_slice)
}

fn alerts() -> Vec<(String, String)> {
    let rules = yaml(ALERTS);
    let rules = items(&rules, "groups").iter().flat_map(|group| items(group, "rules")).map(|rule| {
        let text = |field: &str| rule[field].as_str().expect(field).to_owned();
        (text("alert"), text("expr"))
    });
    rules.collect()
}

/// The names in an expression, outside of texts: metrics, labels, functions.
fn names(expression: &str) -> BTreeSet<&str> {
    let outside = expression.split('"').step_by(2);
    outside.flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '$')).collect()
}

/// The metric of a series.
fn entry(series: &str) -> Option<&'static Entry> {
    let of = |name: &str| SECTIONS.iter().flat_map(|section| section.entries).find(|entry| entry.name == name);
    of(series).or_else(|| {
        let name = ["_bucket", "_sum", "_count"].iter().find_map(|end| series.strip_suffix(end))?;
        of(name).filter(|entry| entry.kind == Kind::Histogram)
    })
}

/// Returns why an expression cannot have an answer, if it cannot.
fn mistake(expression: &str) -> Option<String> {
    let names = names(expression);
    let series = names.iter().filter(|name| name.starts_with("receipts_") || name.starts_with("process_"));
    let mut labels: BTreeSet<&str> = ADDED.into();
    let mut any = names.contains("up");
    for series in series {
        any = true;
        match entry(series) {
            Some(entry) => labels.extend(entry.labels),
            None if FOREIGN.contains(series) => {}
            None => return Some(format!("no metric {series}")),
        }
    }
    if !any {
        return Some("no metric of ours".to_owned());
    }
    // Labels stand in selectors and after `by`.
    let selectors = expression.split('{').skip(1).filter_map(|rest| rest.split('}').next());
    let selected = selectors.flat_map(|inner| inner.split(',')).filter_map(|matcher| matcher.split(['=', '!']).next());
    let grouped = expression.split("by (").skip(1).filter_map(|rest| rest.split(')').next());
    let used = selected.chain(grouped.flat_map(|inner| inner.split(','))).map(str::trim);
    used.filter(|label| !label.is_empty())
        .find(|label| !labels.contains(label))
        .map(|label| format!("no label {label}"))
}

#[test]
fn dashboard_asks_for_metrics_that_exist() {
    let dashboard: Json = serde_json::from_str(&read(DASHBOARD)).expect("JSON");
    let mut count = 0;
    for panel in items(&dashboard, "panels") {
        for target in items(panel, "targets") {
            let expression = target["expr"].as_str().expect("an expression");
            assert_eq!(mistake(expression), None, "{DASHBOARD}, {}: {expression}", panel["title"]);
            count += 1;
        }
    }
    assert!(count > 30, "{count} queries");
}

#[test]
fn alerts_ask_for_metrics_and_have_test_and_paragraph() {
    let (tests, runbook) = (read(ALERT_TESTS), read(RUNBOOK));
    let alerts = alerts();
    for (alert, expression) in &alerts {
        assert_eq!(mistake(expression), None, "{ALERTS}, {alert}: {expression}");
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} has no test in {ALERT_TESTS}");
        assert!(runbook.contains(&format!("### {alert}\n")), "{alert} has no paragraph in {RUNBOOK}");
    }
    let known: BTreeSet<&str> = alerts.iter().map(|(alert, _)| alert.as_str()).collect();
    let told = runbook.lines().filter_map(|line| line.strip_prefix("### Receipts"));
    told.for_each(|rest| assert!(known.contains(format!("Receipts{rest}").as_str()), "Receipts{rest} is no alert"));
}

#[test]
fn mistakes_in_expressions_are_found() {
    for (expression, wrong) in [
        ("sum(receipts_lag)", "no metric receipts_lag"),
        ("receipts_lag_seconds_bucket", "no metric receipts_lag_seconds_bucket"),
        ("receipts_streams{tenant=\"a\"}", "no label tenant"),
        ("sum by (route) (receipts_streams)", "no label route"),
        ("vector(0)", "no metric of ours"),
    ] {
        assert_eq!(mistake(expression).as_deref(), Some(wrong), "{expression}");
    }
    assert_eq!(mistake("sum by (job, reason) (receipts_dead_letters_total{job=~\"$job\"}) > 0"), None);
}

#[test]
fn inspector_shows_metrics_of_the_catalogue() {
    let source = read(INSPECTOR);
    let shown: BTreeSet<&str> = source.split('"').filter(|text| text.starts_with("receipts_")).collect();
    assert!(shown.len() > 5, "{shown:?}");
    let unknown: Vec<_> = shown.iter().filter(|name| entry(name).is_none()).collect();
    assert!(unknown.is_empty(), "{INSPECTOR}: no metrics: {unknown:?}");
}
