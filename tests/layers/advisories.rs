//! Holds the locked versions against RustSec's advisories, as `.ci/advisories.toml` has them. Asks
//! no network: `tests/tools/advisories/refresh` brings the file up to date.

use crate::{deny, toml_file};
use semver::{Version, VersionReq};
use std::collections::BTreeSet;
use toml::Value as Toml;

fn texts(value: &Toml) -> impl Iterator<Item = &str> {
    value.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text"))
}

/// Whether one of the requirements holds for a version.
fn holds(requirements: &Toml, version: &Version) -> bool {
    texts(requirements).any(|text| text.parse::<VersionReq>().expect(text).matches(version))
}

/// The locked crates of registries: names and versions.
fn locked(lock: &Toml) -> Vec<(&str, Version)> {
    let packages = lock["package"].as_array().expect("packages").iter();
    packages
        .filter(|package| package.get("source").is_some())
        .map(|package| (package["name"].as_str().expect("a name"), package["version"].as_str().expect("a version")))
        .map(|(name, version)| (name, version.parse().expect("a version")))
        .collect()
}

#[test]
fn no_locked_version_has_an_open_advisory() {
    let (known, lock, deny) = (toml_file(".ci/advisories.toml"), toml_file("Cargo.lock"), deny());
    let looked_up: BTreeSet<&str> = texts(&known["crates"]).collect();
    let excepted: BTreeSet<&str> = deny["advisories"]["ignore"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|exception| exception["id"].as_str().expect("an id"))
        .collect();
    let mut wrong = Vec::new();
    for (name, version) in locked(&lock) {
        if !looked_up.contains(name) {
            wrong.push(format!("{name} has not been looked up: run tests/tools/advisories/refresh"));
        }
        for advisory in known["advisory"].as_array().expect("advisories") {
            let id = advisory["id"].as_str().expect("an id");
            let is_affected = advisory["crate"].as_str() == Some(name)
                && !holds(&advisory["patched"], &version)
                && !holds(&advisory["unaffected"], &version);
            if is_affected && !excepted.contains(id) {
                wrong.push(format!("{name} {version}: {id}, {}", advisory["title"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
