//! Keeps the shape of the tree: arrows between our crates, homes of technologies, licences,
//! sources, headings. Reads `deny.toml` and `cargo metadata`, so that `cargo deny` and this test
//! agree. Tests no behaviour.

use receipts_tests::root;
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use toml::Value as Toml;

mod advisories;
mod invariants;
mod monitoring;
mod prose;
mod spdx;

/// The crates of ours that each crate may use. A new arrow is a decision: it is added here, in a
/// review, with its reason in `ARCHITECTURE.md`.
const ARROWS: &[(&str, &[&str])] = &[
    // To projection for its decoder and its partition step: analytics folds as the projector does.
    (
        "receipts-analytics",
        &[
            "receipts-event",
            "receipts-fold",
            "receipts-log",
            "receipts-objects",
            "receipts-projection",
            "receipts-snapshots",
            "receipts-store",
        ],
    ),
    // To analytics for reading tables: Arrow and Parquet have one home.
    // To fold for the receipts of a draft.
    ("receipts-backfill", &["receipts-analytics", "receipts-event", "receipts-fold", "receipts-log"]),
    // Light on purpose: a caller of the service needs none of its parts.
    ("receipts-client", &["receipts-event"]),
    ("receipts-event", &[]),
    // Every part that measures names its metrics in it.
    ("receipts-metrics", &[]),
    // Every part that spans cross names its spans in it.
    ("receipts-traces", &[]),
    ("receipts-fold", &["receipts-event"]),
    ("receipts-log", &["receipts-event", "receipts-metrics"]),
    ("receipts-store", &["receipts-event", "receipts-fold"]),
    // To query, though answers flow the other way: the asking side owns the port, and the owner of
    // partitions implements it.
    (
        "receipts-projection",
        &[
            "receipts-event",
            "receipts-fold",
            "receipts-cluster",
            "receipts-log",
            "receipts-metrics",
            "receipts-objects",
            "receipts-query",
            "receipts-snapshots",
            "receipts-store",
            "receipts-traces",
        ],
    ),
    ("receipts-query", &["receipts-event", "receipts-fold"]),
    (
        "receipts-http",
        &[
            "receipts-cluster",
            "receipts-event",
            "receipts-fold",
            "receipts-log",
            "receipts-metrics",
            "receipts-query",
            "receipts-traces",
        ],
    ),
    ("receipts-cluster", &["receipts-event", "receipts-fold", "receipts-metrics", "receipts-query", "receipts-traces"]),
    // Above all parts: it opens the parts that the settings name, for every service.
    (
        "receipts-assembly",
        &[
            "receipts-cluster",
            "receipts-event",
            "receipts-fold",
            "receipts-http",
            "receipts-log",
            "receipts-objects",
            "receipts-projection",
            "receipts-query",
            "receipts-runtime",
            "receipts-snapshots",
            "receipts-store",
            "receipts-traces",
        ],
    ),
    // Uses no crate of ours: it carries whole files of any kind.
    ("receipts-objects", &[]),
    ("receipts-runtime", &["receipts-metrics", "receipts-traces"]),
    ("receipts-snapshots", &["receipts-event", "receipts-fold", "receipts-objects", "receipts-store"]),
    ("receipts-testkit", &["receipts-event", "receipts-fold", "receipts-log", "receipts-store"]),
];
/// Any crate may use it, in tests only.
const TESTKIT: &str = "receipts-testkit";
/// The only files in which the workspace's ban on `unsafe` may be lifted: each calls what rdkafka
/// does not wrap.
const UNSAFE_HOMES: [&str; 3] =
    ["crates/log/src/kafka/member.rs", "crates/log/src/kafka/native.rs", "crates/log/src/kafka/topic_id.rs"];

fn deny() -> Toml {
    toml_file("deny.toml")
}

fn toml_file(path: &str) -> Toml {
    let text = std::fs::read_to_string(root().join(path)).expect(path);
    text.parse::<toml::Table>().map(Toml::Table).expect(path)
}

fn strings(list: &Toml) -> BTreeSet<&str> {
    list.as_array().expect("a list").iter().map(|item| item.as_str().expect("a text")).collect()
}

/// Cargo's metadata of the tree, for the targets that `deny.toml` names.
fn metadata() -> Json {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--format-version=1", "--all-features"]).current_dir(root());
    for target in strings(&deny()["graph"]["targets"]) {
        cargo.args(["--filter-platform", target]);
    }
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn list<'j>(json: &'j Json, field: &str) -> &'j [Json] {
    json[field].as_array().map_or(&[], Vec::as_slice)
}

fn text<'j>(json: &'j Json, field: &str) -> &'j str {
    json[field].as_str().unwrap_or_default()
}

/// The packages of this workspace.
fn ours(metadata: &Json) -> Vec<&Json> {
    let members: BTreeSet<&str> = list(metadata, "workspace_members").iter().filter_map(Json::as_str).collect();
    list(metadata, "packages").iter().filter(|package| members.contains(text(package, "id"))).collect()
}

/// The folder that holds a package's folder: `crates`, `services`, or the root for `tests`.
fn shelf(package: &Json) -> String {
    let folder = Path::new(text(package, "manifest_path")).parent().and_then(Path::parent).expect("a folder");
    folder.strip_prefix(root()).map_or_else(|_| folder.display().to_string(), |shelf| shelf.display().to_string())
}

#[test]
fn arrows_between_our_crates_point_one_way() {
    let metadata = metadata();
    let packages = ours(&metadata);
    let names: BTreeSet<&str> = packages.iter().map(|package| text(package, "name")).collect();
    let services: BTreeSet<&str> =
        packages.iter().filter(|package| shelf(package) == "services").map(|package| text(package, "name")).collect();
    let table: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    let mut wrong = Vec::new();
    for package in &packages {
        let name = text(package, "name");
        let is_crate = shelf(package) == "crates";
        if is_crate && !table.contains_key(name) {
            wrong.push(format!("{name} is not in the table of arrows"));
        }
        for dependency in list(package, "dependencies") {
            let (to, kind) = (text(dependency, "name"), dependency["kind"].as_str());
            if !names.contains(to) {
                continue;
            }
            let allowed = match kind {
                // A crate's own tests may ask for one of its features.
                Some("dev") if to == name => true,
                // The rules are tested over a real store.
                Some("dev") if name == "receipts-fold" && to == "receipts-store" => true,
                _ if services.contains(to) => false,
                Some("dev") if to == TESTKIT => true,
                _ if name == "receipts-tests" => true,
                _ if to == TESTKIT || to == "receipts-tests" => false,
                _ if is_crate => table.get(name).is_some_and(|allowed| allowed.contains(&to)),
                _ => true,
            };
            if !allowed {
                wrong.push(format!("{name} may not use {to} ({})", kind.unwrap_or("normal")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_technology_has_one_home() {
    let (deny, metadata) = (deny(), metadata());
    let name_of: BTreeMap<&str, &str> =
        list(&metadata, "packages").iter().map(|package| (text(package, "id"), text(package, "name"))).collect();
    let mut wrong = Vec::new();
    for ban in deny["bans"]["deny"].as_array().expect("a list") {
        let banned = ban["crate"].as_str().expect("a name");
        let wrappers = ban.get("wrappers").map(strings).unwrap_or_default();
        for node in list(&metadata["resolve"], "nodes") {
            let parent = name_of[text(node, "id")];
            let uses = list(node, "deps").iter().any(|dep| name_of[text(dep, "pkg")] == banned);
            if uses && !wrappers.contains(parent) {
                wrong.push(format!("{parent} may not use {banned}: {}", ban["reason"].as_str().expect("a reason")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn licences_are_on_the_list() {
    let (deny, metadata) = (deny(), metadata());
    let allowed = strings(&deny["licenses"]["allow"]);
    let wrong: Vec<String> = resolved(&metadata)
        .filter(|package| !spdx::is_satisfied(text(package, "license"), &allowed))
        .map(|package| format!("{}: {:?}", text(package, "name"), text(package, "license")))
        .collect();
    assert!(wrong.is_empty(), "licences that deny.toml does not allow:\n{}", wrong.join("\n"));
}

#[test]
fn sources_are_on_the_list() {
    let (deny, metadata) = (deny(), metadata());
    let allowed = strings(&deny["sources"]["allow-registry"]);
    let members: BTreeSet<&str> = ours(&metadata).into_iter().map(|package| text(package, "id")).collect();
    let wrong: Vec<&str> = resolved(&metadata)
        .filter(|package| match package["source"].as_str() {
            Some(source) => !source.strip_prefix("registry+").is_some_and(|registry| allowed.contains(registry)),
            None => !members.contains(text(package, "id")),
        })
        .map(|package| text(package, "id"))
        .collect();
    assert!(wrong.is_empty(), "from elsewhere than deny.toml allows:\n{}", wrong.join("\n"));
}

/// The packages of cargo's list that the targets use.
fn resolved(metadata: &Json) -> impl Iterator<Item = &Json> {
    let used: BTreeSet<&str> = list(&metadata["resolve"], "nodes").iter().map(|node| text(node, "id")).collect();
    list(metadata, "packages").iter().filter(move |package| used.contains(text(package, "id")))
}

/// Every file below `folder` whose name ends with `ending`, without build output, npm packages and
/// hidden folders.
fn files(folder: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !["target", "node_modules"].contains(&name.as_str()) && !name.starts_with('.') {
            files(&path, ending, found);
        } else if path.is_file() && format!("/{name}").ends_with(ending) {
            found.push(path);
        }
    }
}

/// A file of ours: its path within the workspace, and its text.
struct TextFile {
    path: String,
    text: String,
}

/// Our Rust files.
fn rust_files() -> Vec<TextFile> {
    let mut found = Vec::new();
    for shelf in ["crates", "services", "tests"] {
        files(&root().join(shelf), ".rs", &mut found);
    }
    read(found)
}

/// Our Rust files, documents, schemas with prose, scripts and manifests.
fn text_files() -> Vec<TextFile> {
    let mut found = vec![root().join(".ci/run"), root().join("Dockerfile")];
    for ending in [".rs", ".md", ".yaml", ".toml", ".py", ".ts", ".mjs", ".sh", "/run", "/check", "/install"] {
        files(root(), ending, &mut found);
    }
    read(found)
}

fn read(mut paths: Vec<PathBuf>) -> Vec<TextFile> {
    paths.sort();
    let within = |path: &Path| path.strip_prefix(root()).expect("within").display().to_string();
    let read = |path: PathBuf| TextFile { path: within(&path), text: std::fs::read_to_string(&path).expect("text") };
    paths.into_iter().map(read).collect()
}

#[test]
fn every_file_opens_with_its_purpose() {
    let wrong: Vec<String> =
        rust_files().into_iter().filter(|file| !file.text.starts_with("//! ")).map(|file| file.path).collect();
    assert!(wrong.is_empty(), "no heading that begins with //!:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stands_in_three_modules_of_log() {
    let lifted = ["allow", "expect"].map(|lint| format!("{lint}(unsafe_code"));
    let homes: Vec<String> = rust_files()
        .into_iter()
        .filter(|file| lifted.iter().any(|lift| file.text.contains(lift.as_str())))
        .map(|file| file.path)
        .collect();
    assert!(homes.iter().all(|path| UNSAFE_HOMES.contains(&path.as_str())), "{homes:?}");
}

#[test]
fn every_crate_keeps_the_lints_of_the_workspace() {
    for package in ours(&metadata()) {
        let manifest = std::fs::read_to_string(text(package, "manifest_path")).expect("a manifest");
        let manifest: toml::Table = manifest.parse().expect("TOML");
        let inherits = manifest.get("lints").and_then(|lints| lints.get("workspace")).and_then(Toml::as_bool);
        assert_eq!(inherits, Some(true), "{} needs [lints] workspace = true", text(package, "name"));
    }
}

/// The file that must declare a module: `main.rs` or `mod.rs` beside it, or the file named as its
/// folder.
fn declaring_files(module: &Path) -> [PathBuf; 3] {
    let folder = module.parent().expect("a folder");
    [folder.join("main.rs"), folder.join("mod.rs"), folder.with_extension("rs")]
}

#[test]
fn every_test_file_belongs_to_a_program() {
    let manifest = std::fs::read_to_string(root().join("tests/Cargo.toml")).expect("a manifest");
    let manifest: toml::Table = manifest.parse().expect("TOML");
    let mut left_out = Vec::new();
    for test in manifest["test"].as_array().expect("[[test]]") {
        let main = root().join("tests").join(test["path"].as_str().expect("a path"));
        let mut found = Vec::new();
        files(main.parent().expect("a folder"), ".rs", &mut found);
        left_out.extend(found.into_iter().filter(|file| {
            let name = file.file_stem().expect("a name").to_string_lossy();
            let declaration = format!("mod {name};");
            let declares = |path: &PathBuf| std::fs::read_to_string(path).is_ok_and(|text| text.contains(&declaration));
            *file != main && !declaring_files(file).iter().any(declares)
        }));
    }
    let mut programs = Vec::new();
    files(&root().join("tests"), "main.rs", &mut programs);
    let named: BTreeSet<PathBuf> = ["test", "bench"]
        .iter()
        .flat_map(|kind| manifest[*kind].as_array().expect("targets"))
        .map(|target| root().join("tests").join(target["path"].as_str().expect("a path")))
        .collect();
    left_out.extend(programs.into_iter().filter(|program| !named.contains(program)));
    assert!(left_out.is_empty(), "no program declares these files, so they never run: {left_out:?}");
}
