//! Keeps the words of the tree plain: no old words, short test names, comment lines within 100
//! columns, a README of one screen and a half, and links that lead somewhere. Judges no sentence.

use super::invariants::test_names;
use super::{TextFile, rust_files, text_files};
use receipts_tests::root;

mod old_words;

const COMMENT_COLUMNS_MAX: usize = 100;
const TEST_NAME_WORDS_MAX: usize = 9;
const README_LINES_MAX: usize = 110;

/// Scripts that show faults of other projects, in their own format.
const FINDINGS: &str = "findings/";

/// Files that may hold old words: the table of them, and the logs of what was, in the words of
/// their day.
const HISTORY: &[&str] =
    &["CHANGELOG.md", "docs/mutation.md", "docs/performance-log.md", "tests/layers/prose/old_words.rs"];

#[test]
fn old_words_stay_out_of_the_tree() {
    let mut wrong = Vec::new();
    for TextFile { path, text } in text_files() {
        if HISTORY.contains(&path.as_str()) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            // The table of English before and after says what not to write.
            if path == "CONTRIBUTING.md" && line.starts_with("| ") {
                continue;
            }
            for old in old_words::found(&path, line) {
                wrong.push(format!("{path}:{}: {:?}: say {}", number + 1, old.pattern, old.instead));
            }
        }
    }
    assert!(wrong.is_empty(), "{} old words:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn names_of_tests_are_short() {
    let mut wrong = Vec::new();
    for TextFile { path, text } in rust_files() {
        for name in test_names(&text) {
            let words = name.split('_').count();
            if words > TEST_NAME_WORDS_MAX || name.starts_with("test_") {
                wrong.push(format!("{path}: {name}: {words} words"));
            }
        }
    }
    assert!(wrong.is_empty(), "at most {TEST_NAME_WORDS_MAX} words, without test_:\n{}", wrong.join("\n"));
}

/// Whether a line of a comment keeps its length: a link, a row of a table, code or a diagram.
fn is_unbreakable(comment: &str) -> bool {
    let text = comment.trim_start_matches(['/', '!']);
    let text = text.strip_prefix(' ').unwrap_or(text);
    comment.starts_with('!') && !comment.starts_with("! ")
        || text.contains("://")
        || text.starts_with('|')
        || text.starts_with("    ")
}

#[test]
fn comment_lines_are_short() {
    let mut wrong = Vec::new();
    for TextFile { path, text } in text_files() {
        let mark = match path.rsplit_once('.') {
            Some((_, "rs" | "ts")) => "//",
            Some((_, "md")) => continue,
            _ => "#",
        };
        if path.starts_with(FINDINGS) {
            continue;
        }
        let mut is_example = false;
        for (number, line) in text.lines().enumerate() {
            let Some(comment) = line.trim_start().strip_prefix(mark) else { continue };
            is_example ^= comment.contains("```");
            let columns = line.chars().count();
            if columns > COMMENT_COLUMNS_MAX && !is_example && !is_unbreakable(comment) {
                wrong.push(format!("{path}:{}: {columns} columns", number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "at most {COMMENT_COLUMNS_MAX} columns:\n{}", wrong.join("\n"));
}

#[test]
fn the_readme_is_a_screen_and_a_half() {
    let text = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let lines = text.lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines: at most {README_LINES_MAX}");
}

/// The targets of `[text](target)` in a line, without their anchors.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
        .map(|target| target.split('#').next().unwrap_or(""))
}

/// Whether a text between backticks is a path of this tree: it begins with one of its folders and
/// has no placeholder.
fn is_path(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./".contains(letter);
    let folders = ["crates/", "services/", "tests/", "docs/", "schemas/", "clients/"];
    folders.iter().any(|folder| text.starts_with(folder)) && text.chars().all(plain)
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut wrong = Vec::new();
    for TextFile { path, text } in text_files().into_iter().filter(|file| file.path.ends_with(".md")) {
        let file = root().join(&path);
        let folder = file.parent().expect("a folder");
        for (number, line) in text.lines().enumerate() {
            let targets = links(line).filter(|target| !target.is_empty() && !target.contains("://"));
            let dead_links = targets.filter(|target| !folder.join(target).exists());
            wrong.extend(dead_links.map(|target| format!("{path}:{}: link to {target}", number + 1)));
            if HISTORY.contains(&path.as_str()) {
                continue;
            }
            let quoted = line.split('`').skip(1).step_by(2).filter(|text| is_path(text));
            let dead_paths = quoted.filter(|quoted| !root().join(quoted).exists() && !folder.join(quoted).exists());
            wrong.extend(dead_paths.map(|quoted| format!("{path}:{}: no file {quoted}", number + 1)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_decision_is_in_the_index() {
    let folder = root().join("docs/adr");
    let index = std::fs::read_to_string(folder.join("README.md")).expect("docs/adr/README.md");
    let mut wrong = Vec::new();
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("docs/adr") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        let Some((number, _)) = name.split_once('-').filter(|(number, _)| number.parse::<u16>().is_ok()) else {
            continue;
        };
        let text = std::fs::read_to_string(folder.join(&name)).expect("a decision");
        let title = text.lines().next().and_then(|line| line.strip_prefix(&format!("# {number}: ")));
        let title = title.unwrap_or("(its first line is not \"# NUMBER: title\")");
        if !index.contains(&format!("| [{number}]({name}) | {title} |")) {
            wrong.push(format!("docs/adr/README.md has no row [{number}]({name}) | {title}"));
        }
        numbers.push(number.to_owned());
    }
    for TextFile { path, text } in text_files() {
        let cited = text.split("ADR ").skip(1).filter_map(|rest| rest.get(..4));
        let cited = cited.filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        wrong
            .extend(cited.filter(|&n| !numbers.iter().any(|m| m == n)).map(|n| format!("{path}: there is no ADR {n}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
