//! Configuration mistakes: the origin of each, what is wrong and what is allowed. Must not show
//! values that may be secret.

use std::fmt;
use std::path::PathBuf;

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A file, and the line in it, counted from 1.
    File {
        /// The file.
        path: PathBuf,
        /// The line; `None` for the whole file.
        line: Option<usize>,
    },
    /// An environment variable.
    Env(String),
    /// A flag, without its dashes.
    Flag(String),
    /// The default: no source sets the key.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line: Some(line) } => write!(f, "file {} line {line}", path.display()),
            Self::File { path, line: None } => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag --{name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The origin of the value.
    pub origin: Origin,
    /// The key; `None` for a whole source.
    pub key: Option<String>,
    /// What is wrong.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, &self.key) {
            // The name of a variable or a flag names the key already.
            (Origin::File { .. } | Origin::Default, Some(key)) => write!(f, "{}, key {key}: ", self.origin)?,
            _ => write!(f, "{}: ", self.origin)?,
        }
        f.write_str(&self.problem)
    }
}

/// All mistakes of a configuration; at least one. The process ends with exit code 2.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// Succeeds if `mistakes` is empty.
    pub(super) fn none(mistakes: Vec<Mistake>) -> Result<(), Self> {
        if mistakes.is_empty() { Ok(()) } else { Err(Self(mistakes)) }
    }

    /// Returns the mistakes: those of whole files first, then unknown keys, then values in the
    /// order of keys.
    #[must_use]
    pub fn as_slice(&self) -> &[Mistake] {
        &self.0
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("1 configuration mistake:")?,
            count => write!(f, "{count} configuration mistakes:")?,
        }
        self.0.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

/// Finds the known name that `given` most likely means: a few letters apart, or the same name in
/// another section.
pub(super) fn nearest<'k>(given: &str, known: impl Iterator<Item = &'k str> + Clone) -> Option<&'k str> {
    let within = (given.chars().count() / 4).clamp(1, 3);
    let close = known.clone().map(|name| (distance(given, name), name)).min().filter(|(apart, _)| *apart <= within);
    let last = |name: &'_ str| name.rsplit('.').next().unwrap_or_default().to_owned();
    close.map(|(_, name)| name).or_else(|| known.clone().find(|name| last(name) == last(given)))
}

/// Returns how many letters must be inserted, removed or replaced to turn `a` into `b`
/// (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_letters() {
        for (a, b, apart) in [("", "abc", 3), ("listn", "listen", 1), ("kitten", "sitting", 3), ("same", "same", 0)] {
            assert_eq!((distance(a, b), distance(b, a)), (apart, apart), "{a} {b}");
        }
    }

    #[test]
    fn the_nearest_name_is_close_or_in_another_section() {
        let known = ["http.listen", "projector.group", "log.partitions"];
        for (given, wanted) in [
            ("http.listn", Some("http.listen")),
            ("htpp.listen", Some("http.listen")),
            ("kafka.partitions", Some("log.partitions")),
            ("group", Some("projector.group")),
            ("colour", None),
        ] {
            assert_eq!(nearest(given, known.into_iter()), wanted, "{given}");
        }
    }
}
