//! The result of a check. It checks nothing.

use serde::Serialize;
use std::sync::mpsc::Sender;

/// The result of one check.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Finding {
    /// The check's name, which stays.
    pub(crate) check: &'static str,
    /// How it went.
    pub(crate) status: Status,
    /// What was found.
    pub(crate) detail: String,
    /// What to type or change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    Ok,
    /// The service works, but an operator should know.
    Warning,
    /// The service does not start, does not work, or loses something.
    Problem,
    /// There is nothing to check, or it could not be checked.
    Skipped,
}

impl Status {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
            Self::Skipped => "skipped",
        }
    }
}

impl Finding {
    pub(crate) fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, status: Status::Ok, detail: detail.into(), remedy: None }
    }

    pub(crate) fn skipped(check: &'static str, detail: impl Into<String>) -> Self {
        Self { check, status: Status::Skipped, detail: detail.into(), remedy: None }
    }

    pub(crate) fn warning(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Warning, detail: detail.into(), remedy: Some(remedy.into()) }
    }

    pub(crate) fn problem(check: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, status: Status::Problem, detail: detail.into(), remedy: Some(remedy.into()) }
    }
}

/// Takes the findings of a group as they are made, so that a later check that hangs hides none.
pub(crate) struct Findings(Sender<Finding>);

impl Findings {
    pub(crate) fn new(sender: Sender<Finding>) -> Self {
        Self(sender)
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        // The receiver is gone once the time is over.
        _ = self.0.send(finding);
    }

    /// Skips checks for one reason.
    pub(crate) fn skip(&mut self, checks: &[&'static str], why: &str) {
        checks.iter().for_each(|check| self.add(Finding::skipped(check, why)));
    }

    /// Adds the findings, or that there are none.
    pub(crate) fn add_all(&mut self, check: &'static str, found: Vec<Finding>, otherwise: impl Into<String>) {
        if found.is_empty() {
            self.add(Finding::ok(check, otherwise));
        }
        found.into_iter().for_each(|finding| self.add(finding));
    }
}
