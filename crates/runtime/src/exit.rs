//! Exit codes: 0 for success, 1 for failure, 2 for wrong usage or configuration. Must not exit by
//! itself: only `main` converts a failure into a code.

use crate::config::Mistakes;
use crate::output::printable_lines;
use std::process::ExitCode;

/// The exit code of a process that failed at its work.
pub const CODE_FAILED: u8 = 1;
/// The exit code of a process that did nothing because its arguments or configuration are wrong.
pub const CODE_USAGE: u8 = 2;

/// The reason why a process ends without success.
///
/// Every error converts by `?`: [`Mistakes`] of the configuration, also deep within an error's
/// chain, become [`Failure::Usage`], all others [`Failure::Failed`]. It is deliberately no
/// `std::error::Error`, because it ends the process.
#[derive(Debug)]
pub enum Failure {
    /// The command line or the configuration is wrong: exit code 2.
    Usage(anyhow::Error),
    /// The work failed: exit code 1.
    Failed(anyhow::Error),
}

impl Failure {
    /// Makes a usage failure, for a rule of the command line that clap cannot check.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::Usage(anyhow::Error::msg(message.into()))
    }

    /// Returns the exit code of this failure.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => CODE_USAGE,
            Self::Failed(_) => CODE_FAILED,
        }
    }

    /// Returns the text for standard error: the error and its causes on one line, or one line per
    /// configuration mistake.
    #[must_use]
    pub fn message(&self) -> String {
        format!("error: {}", self.detail())
    }

    /// Returns the same without its first word, for callers that print it within their own text.
    #[must_use]
    pub fn detail(&self) -> String {
        let (Self::Usage(error) | Self::Failed(error)) = self;
        match mistakes_in(error) {
            Some(mistakes) => mistakes.to_string(),
            None => printable_lines(&told_once(error.as_ref())).into_owned(),
        }
    }
}

/// Returns an error and its causes, each once: many errors show their cause themselves.
#[must_use]
pub fn told_once(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    for cause in std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        if mistakes_in(&error).is_some() { Self::Usage(error) } else { Self::Failed(error) }
    }
}

fn mistakes_in(error: &anyhow::Error) -> Option<&Mistakes> {
    error.chain().find_map(|cause| cause.downcast_ref::<Mistakes>())
}

/// Turns the result of a process's work into its exit code, and writes a failure to standard error.
///
/// ```
/// use receipts_runtime::exit::{self, Failure};
///
/// fn body() -> Result<(), Failure> {
///     let port: u16 = "8080".parse()?;
///     if port == 0 { Err(Failure::usage("--port 0 is no port")) } else { Ok(()) }
/// }
///
/// fn main() -> std::process::ExitCode {
///     exit::report(body())
/// }
/// ```
pub fn report(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            use std::io::Write;
            // If standard error is closed, there is no other way to report it.
            let _ = writeln!(std::io::stderr().lock(), "{}", failure.message());
            ExitCode::from(failure.code())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Override};
    use anyhow::Context;

    fn mistakes() -> Mistakes {
        let wrong = Override { key: "log.partitions".into(), value: "none".into(), flag: "log-partitions".into() };
        config::load(None, [], &[wrong]).expect_err("no number")
    }

    #[test]
    fn failed_work_exits_with_1_and_its_causes() {
        let io = std::io::Error::other("disk full");
        let failure = Failure::from(anyhow::Error::from(io).context("cannot write the export"));
        assert_eq!(failure.code(), 1);
        assert_eq!(failure.message(), "error: cannot write the export: disk full");
    }

    #[derive(Debug, thiserror::Error)]
    enum Nested {
        #[error("{0}")]
        Same(#[from] std::io::Error),
        #[error("partition 3: {source}; free some space")]
        Within { source: std::io::Error },
    }

    #[test]
    fn a_cause_that_its_error_shows_is_told_once() {
        let disk = || std::io::Error::other("disk full");
        for (error, wanted) in [
            (Nested::Same(disk()), "error: disk full"),
            (Nested::Within { source: disk() }, "error: partition 3: disk full; free some space"),
        ] {
            let failure = Failure::from(error);
            assert_eq!(failure.message(), wanted);
        }
        let deep =
            anyhow::Error::from(Nested::Within { source: disk() }).context("cannot start").context("cannot start");
        assert_eq!(Failure::from(deep).message(), "error: cannot start: partition 3: disk full; free some space");
    }

    #[test]
    fn ids_in_errors_do_not_command_a_terminal() {
        assert_eq!(Failure::usage("no mark of \u{1b}[2J").message(), r"error: no mark of \u{1b}[2J");
    }

    #[test]
    fn a_nested_configuration_mistake_exits_with_2() {
        let failure: Failure = Err::<(), _>(mistakes()).context("while starting").expect_err("a mistake").into();
        assert_eq!(failure.code(), 2);
        assert!(failure.message().contains("--log-partitions"), "{}", failure.message());
    }

    #[test]
    fn wrong_usage_exits_with_2() {
        let failure = Failure::usage("either --kafka-bootstrap or --data-dir");
        assert_eq!((failure.code(), failure.message().as_str()), (2, "error: either --kafka-bootstrap or --data-dir"));
    }
}
