//! Writes the seeds of a corpus, one file each, into the folder `RECEIPTS_FUZZ_SEEDS`, and ends the
//! target. Fuzzes nothing.

#![allow(clippy::disallowed_methods, reason = "asked by its environment for seeds, a target writes them and ends")]

use std::path::{Path, PathBuf};

/// Returns the root of the project.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Writes seeds and ends the process if the variable is set. Every target calls it before it
/// fuzzes.
pub fn write_if_asked(seeds: impl FnOnce() -> Vec<Vec<u8>>) {
    let Some(folder) = std::env::var_os("RECEIPTS_FUZZ_SEEDS").map(PathBuf::from) else { return };
    std::fs::create_dir_all(&folder).expect("a folder for the seeds");
    let seeds = seeds();
    for (i, seed) in seeds.iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{i:04}")), seed).expect("a seed is written");
    }
    eprintln!("{} seeds", seeds.len());
    std::process::exit(0);
}

/// Returns the golden examples: valid and invalid event values.
pub fn golden_events() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for folder in ["examples", "rejected"] {
        let folder = root().join("schemas/event/v1").join(folder);
        for entry in std::fs::read_dir(&folder).expect("golden examples") {
            let path = entry.expect("an entry").path();
            let text = std::fs::read(path).expect("a golden example");
            // A golden rejection has its reason beside the value.
            let value = serde_json::from_slice(&text)
                .ok()
                .and_then(|json: serde_json::Value| Some(json.get("value")?.to_string()));
            found.push(value.map_or(text, String::into_bytes));
        }
    }
    found.sort();
    found
}
