//! The name, the version and the commit of a binary. Finds none of them out: the binary's build
//! does (`services/commit.rs`).

/// A build of a binary.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    /// The name of the binary: `receipts-query`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// The commit that it was built from, in full; `unknown` where that was not known.
    pub commit: &'static str,
}

impl Build {
    /// Returns the commit in short, for lines that people read.
    #[must_use]
    pub fn short_commit(&self) -> &'static str {
        self.commit.get(..12).unwrap_or(self.commit)
    }
}
