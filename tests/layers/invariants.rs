//! Keeps `docs/invariants.md` true: each row names a file that holds its id and a test that exists,
//! and each id in the tree has a row. Does not judge whether the test proves the sentence.

use super::{TextFile, rust_files, text_files};
use receipts_tests::root;
use std::collections::BTreeSet;

const TABLE: &str = "docs/invariants.md";
/// Tables for users, whose last column names tests too.
const GUARANTEES: &str = "docs/guarantees.md";
/// Logs of measurements, which name tests of their day.
const HISTORY: &[&str] = &["docs/mutation.md", "docs/performance-log.md"];
/// Where the text cases of the fold's rules stand.
const CASES: &str = "crates/fold/tests/cases";
/// One row: the cells of `| id | always true | keeper | proof |`.
struct Row {
    line: usize,
    id: String,
    keepers: Vec<String>,
    proofs: Vec<String>,
}

fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(root().join(TABLE)).expect(TABLE);
    let lines = text.lines().enumerate().filter(|(_, line)| line.starts_with("| INV-"));
    lines
        .map(|(number, line)| {
            let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
            assert_eq!(cells.len(), 4, "{TABLE}:{}: a row has four cells", number + 1);
            let [id, keepers, proofs] = [cells[0].to_owned(), cells[2].to_owned(), cells[3].to_owned()];
            Row { line: number + 1, id, keepers: quoted(&keepers), proofs: quoted(&proofs) }
        })
        .collect()
}

/// The texts between backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Every `INV-…` id in a text.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.match_indices("INV-").map(|(start, _)| {
        let rest = &text[start..];
        let end = rest.find(|letter: char| !letter.is_ascii_uppercase() && letter != '-').unwrap_or(rest.len());
        rest[..end].trim_end_matches('-')
    })
}

fn holds(text: &str, id: &str) -> bool {
    ids(text).any(|found| found == id)
}

/// The names of a Rust file's test functions, which follow `#[test]` or `#[tokio::test]`.
pub(crate) fn test_names(text: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if is_test && !line.starts_with("#[") && !line.starts_with("//") {
            let declared = line.trim_start_matches("pub ").trim_start_matches("async ").strip_prefix("fn ");
            names.extend(declared.map(|rest| word(rest).to_owned()));
            is_test = false;
        }
    }
    names
}

/// The identifier with which a text begins.
fn word(text: &str) -> &str {
    let end = text.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').unwrap_or(text.len());
    &text[..end]
}

/// The names that a file gives its conformance macro, which makes one test per name and
/// implementation. Any identifier of three words in such a file may be one.
fn conformance_names(text: &str) -> Vec<String> {
    let is_suite = text.contains("macro_rules! suite") || text.contains("macro_rules! conformance");
    let words = text.lines().filter(|_| is_suite).flat_map(|line| line.split(|letter: char| !is_identifier(letter)));
    words.filter(|word| word.matches('_').count() >= 2).map(str::to_owned).collect()
}

fn is_identifier(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// The names of all tests of the tree.
fn tests() -> BTreeSet<String> {
    let names = |file: &TextFile| test_names(&file.text).into_iter().chain(conformance_names(&file.text));
    rust_files().iter().flat_map(names).collect()
}

/// Whether a proof is there: a path, a text case, or a test function.
fn exists(proof: &str, tests: &BTreeSet<String>) -> bool {
    match proof {
        path if path.contains('/') => root().join(path).exists(),
        case if case.ends_with(".txt") => root().join(CASES).join(case).exists(),
        test => tests.contains(test),
    }
}

/// Whether a text between backticks is the name of a test: five words or more, and neither one of
/// librdkafka nor a metric.
fn is_test_name(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '_';
    text.chars().all(plain)
        && text.split('_').count() >= 5
        && !["rd_", "receipts_"].iter().any(|start| text.starts_with(start))
}

#[test]
fn every_document_names_tests_that_exist() {
    let tests = tests();
    let mut wrong = Vec::new();
    for TextFile { path, text } in text_files() {
        if !path.starts_with("docs/") || HISTORY.contains(&path.as_str()) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let named = quoted(line).into_iter().filter(|text| is_test_name(text) || is_case(&path, text));
            let dead = named.filter(|test| !exists(test, &tests));
            wrong.extend(dead.map(|test| format!("{path}:{}: there is no test {test}", number + 1)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Whether a text names a text case: the tables of invariants and guarantees name some.
fn is_case(path: &str, text: &str) -> bool {
    [TABLE, GUARANTEES].contains(&path) && text.len() > 4 && text.ends_with(".txt")
}

#[test]
fn every_invariant_has_a_keeper_and_a_proof() {
    let tests = tests();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for row in rows() {
        let at = format!("{TABLE}:{}: {}", row.line, row.id);
        if !seen.insert(row.id.clone()) {
            wrong.push(format!("{at} has two rows"));
        }
        let no_keeper = row.keepers.is_empty().then(|| format!("{at} names no keeper"));
        let no_proof = row.proofs.is_empty().then(|| format!("{at} names no proof"));
        wrong.extend(no_keeper.into_iter().chain(no_proof));
        for keeper in &row.keepers {
            match std::fs::read_to_string(root().join(keeper)) {
                Ok(text) if holds(&text, &row.id) => {}
                Ok(_) => wrong.push(format!("{at}: the id does not stand in its keeper {keeper}")),
                Err(_) => wrong.push(format!("{at}: there is no file {keeper}")),
            }
        }
        for proof in &row.proofs {
            if !exists(proof, &tests) {
                wrong.push(format!("{at}: there is no test {proof}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_id_in_the_tree_has_a_row() {
    let known: BTreeSet<String> = rows().into_iter().map(|row| row.id).collect();
    let mut wrong = Vec::new();
    for TextFile { path, text } in text_files() {
        // This module and the changelog speak of ids in general.
        if path.ends_with("layers/invariants.rs") || path == "CHANGELOG.md" {
            continue;
        }
        let unknown: BTreeSet<&str> = ids(&text).filter(|id| *id != "INV" && !known.contains(*id)).collect();
        wrong.extend(unknown.into_iter().map(|id| format!("{path}: {id} has no row in {TABLE}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn functions_behind_test_attributes_are_found() {
    let text = "#[test]\n#[ignore = \"long\"]\nfn one_is_one() {}\n    #[tokio::test(flavor = \"x\")]\n    async fn two() {}\nfn helper() {}";
    assert_eq!(test_names(text), ["one_is_one", "two"]);
    assert_eq!(ids("a (INV-SUM), INV-NO-STALL: b").collect::<Vec<_>>(), ["INV-SUM", "INV-NO-STALL"]);
}
