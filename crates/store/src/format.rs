//! The version of the formats of pages, journals and snapshots, which change together. Reads no
//! bytes itself.

use crate::error::Error;
use std::fmt;

/// The version of a format and, until its release, the number of its draft (ADR 0034).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FormatVersion {
    /// The version.
    pub version: u8,
    /// The draft; 0 for a version without drafts.
    pub draft: u8,
}

/// The format that is written, and the only one that is read.
pub const FORMAT: FormatVersion = FormatVersion { version: 2, draft: 1 };

/// The versions from this one on are damage: no format has them.
const VERSION_END: u8 = 64;

impl FormatVersion {
    /// Checks the version and the draft of something, for example of "a page". The draft is `None`
    /// where the bytes end before it; it is ignored in version 1, which had none.
    ///
    /// # Errors
    /// If it is another format. `Ok(false)` says that no format has this version: it is damage.
    pub(crate) fn check(what: &'static str, version: u8, draft: Option<u8>) -> Result<bool, Error> {
        let draft = if version < FORMAT.version { 0 } else { draft.unwrap_or(0) };
        let found = Self { version, draft };
        match found.cmp(&FORMAT) {
            _ if version == 0 || version >= VERSION_END => Ok(false),
            std::cmp::Ordering::Equal => Ok(true),
            std::cmp::Ordering::Less => Err(Error::OlderFormat { what, found, known: FORMAT }),
            std::cmp::Ordering::Greater => Err(Error::NewerFormat { what, found, known: FORMAT }),
        }
    }
}

impl fmt::Display for FormatVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.draft {
            0 => write!(f, "{}", self.version),
            draft => write!(f, "{} (draft {draft})", self.version),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INV-CODES
    #[test]
    fn only_the_present_draft_is_read() {
        let check = |version, draft| FormatVersion::check("a page", version, draft).map_err(|e| e.to_string());
        assert_eq!(check(2, Some(1)), Ok(true));
        for damaged in [0, 64, 255] {
            assert_eq!(check(damaged, Some(1)), Ok(false));
        }
        let older = check(1, Some(7)).unwrap_err();
        assert!(older.starts_with("a page has format version 1, "), "{older}");
        assert!(
            older.contains("version 2 (draft 1)") && older.contains("`receipts rebuild --even-if-different`"),
            "{older}"
        );
        for (version, draft, told) in [(2, Some(2), "2 (draft 2)"), (3, None, "3")] {
            let newer = check(version, draft).unwrap_err();
            assert!(
                newer.contains(&format!("has format version {told}, ")) && newer.contains("newer program"),
                "{newer}"
            );
        }
        assert!(check(2, Some(0)).unwrap_err().contains("`receipts rebuild --even-if-different`"));
    }
}
