//! The build script of the four binaries: tells each the commit that it is built from, as
//! `RECEIPTS_COMMIT`. That variable itself wins, for builds without a repository, such as an
//! image's; without both the commit is `unknown`.
//!
//! Must not make any other crate build again after a commit, so no library has it.

#![expect(clippy::print_stdout, reason = "cargo reads there what a build script says")]

use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=RECEIPTS_COMMIT");
    println!("cargo:rerun-if-changed=../commit.rs");
    let given = std::env::var("RECEIPTS_COMMIT").ok().map(|commit| commit.trim().to_owned());
    let commit = given.filter(|commit| !commit.is_empty()).or_else(|| {
        // The files that change with the commit: HEAD, the branch that it names, or all of them
        // packed. Cargo would build again each time if it were told one that does not exist.
        let branch = git(&["symbolic-ref", "--quiet", "HEAD"]);
        for name in [Some("HEAD"), branch.as_deref(), Some("packed-refs")].into_iter().flatten() {
            let path = git(&["rev-parse", "--git-path", name]);
            if let Some(path) = path.filter(|path| std::path::Path::new(path).exists()) {
                println!("cargo:rerun-if-changed={path}");
            }
        }
        git(&["rev-parse", "HEAD"])
    });
    println!("cargo:rustc-env=RECEIPTS_COMMIT={}", commit.as_deref().unwrap_or("unknown"));
}

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
