//! A real service for tests: starts `receipts serve --ephemeral`, which keeps everything in memory,
//! and ends it with the test. Builds and downloads nothing.

use crate::{Client, Error};
use serde::Deserialize;
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The variable that names the binary. Without it, `receipts` is looked for in `PATH`.
pub const BIN_ENV: &str = "RECEIPTS_BIN";
/// All variables with this prefix are settings of the service, or steer its tests.
const ENV_PREFIX: &str = "RECEIPTS_";
/// The one setting of the service whose variable has another name.
const OTLP_ENDPOINT_ENV: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
const NO_FLAGS: [&str; 0] = [];
/// How long a service may take until it is ready. It takes less than a second.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A service of its own for a test, with an empty log in memory. Dropping it kills it; it also ends
/// if the test is killed.
///
/// ```no_run
/// use receipts_client::event;
/// use receipts_client::testing::EphemeralService;
///
/// # async fn test() -> Result<(), Box<dyn std::error::Error>> {
/// let service = EphemeralService::start()?;
/// let client = service.client()?;
/// client.post_events(&[
///     event::members_changed("g1").joined(["alice", "bob"]).build(),
///     event::message_sent("g1", "m1", "alice", 1_780_000_000_000).need_read_receipt().build(),
///     event::message_read("g1", "bob", ["m1"]).build(),
/// ]).await?;
/// // Reads of the client wait for its writes, so no test sleeps.
/// assert_eq!(client.receipt("g1", "m1").await?.counts.map(|counts| counts.read_count), Some(1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct EphemeralService {
    url: String,
    child: Child,
    /// The service ends once this is closed, which the system does even if this process is killed.
    _stdin: Option<ChildStdin>,
}

/// Why the service did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// There is no such binary.
    #[error("there is no program {}: install `receipts` into PATH, or name it with {BIN_ENV}", .0.display())]
    NoBinary(OsString),
    /// The binary cannot be run.
    #[error("{} cannot be run: check that {BIN_ENV} names the program `receipts`", .0.display())]
    NotRun(OsString, #[source] io::Error),
    /// The service ended before it was ready. It has said why on standard error.
    #[error("the service ended with {0} before it was ready: its reason is on standard error")]
    Ended(ExitStatus),
    /// The first line on its standard output is not that of a service.
    #[error("the service's first line is {line:?} instead of its address: is {} a `receipts` of this version?", .program.display())]
    NotReady {
        /// The binary.
        program: OsString,
        /// The line.
        line: String,
    },
    /// The service was not ready in time.
    #[error("the service was not ready within {} s", START_TIMEOUT.as_secs())]
    Late,
}

/// The line of a service that is ready.
#[derive(Deserialize)]
struct Ready {
    http: String,
}

impl EphemeralService {
    /// Starts a service and blocks until it is ready. Takes no settings from this process's
    /// environment.
    ///
    /// # Errors
    /// If the service does not start.
    pub fn start() -> Result<Self, StartError> {
        Self::start_with(NO_FLAGS)
    }

    /// As [`Self::start`], with more flags of `receipts serve`: `["--log-partitions", "3"]`.
    ///
    /// # Errors
    /// If the service does not start.
    pub fn start_with(flags: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Result<Self, StartError> {
        let named = std::env::var_os(BIN_ENV).filter(|name| !name.is_empty());
        Self::start_program(named.unwrap_or_else(|| OsString::from("receipts")), flags)
    }

    /// As [`Self::start_with`], of a binary at a path.
    ///
    /// # Errors
    /// If the service does not start.
    pub fn start_program(
        program: impl Into<OsString>,
        flags: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Result<Self, StartError> {
        let program = program.into();
        let mut command = Command::new(&program);
        command.args(["serve", "--ephemeral", "--until-stdin-closes"]).args(flags);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let names = std::env::vars_os().map(|(name, _)| name);
        for name in names.filter(|name| name.to_string_lossy().starts_with(ENV_PREFIX) || name == OTLP_ENDPOINT_ENV) {
            command.env_remove(name);
        }
        let spawned = command.spawn().map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StartError::NoBinary(program.clone()),
            _ => StartError::NotRun(program.clone(), error),
        });
        let mut child = spawned?;
        let stdout = child.stdout.take().expect("it is piped");
        // From here on the drop kills the child.
        let mut service = Self { url: String::new(), _stdin: child.stdin.take(), child };
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            let read = BufReader::new(stdout).read_line(&mut line).map(|_| line);
            _ = sender.send(read);
        });
        let line = match lines.recv_timeout(START_TIMEOUT) {
            Ok(Ok(line)) => line,
            Ok(Err(error)) => return Err(StartError::NotRun(program, error)),
            Err(_) => return Err(StartError::Late),
        };
        if line.is_empty() {
            let status = service.child.wait().map_err(|error| StartError::NotRun(program, error))?;
            return Err(StartError::Ended(status));
        }
        let ready: Ready = serde_json::from_str(&line).map_err(|_| StartError::NotReady { program, line })?;
        service.url = ready.http;
        Ok(service)
    }

    /// The address of the service: `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns a client of the service, with all scopes. It uses no proxy.
    ///
    /// # Errors
    /// As [`Builder::build`](crate::Builder::build).
    pub fn client(&self) -> Result<Client, Error> {
        Client::builder(&self.url).http(reqwest::ClientBuilder::no_proxy).build()
    }
}

impl Drop for EphemeralService {
    fn drop(&mut self) {
        // Nothing of it is on the disk, so it need not end in order.
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_program_is_named_with_the_remedy() {
        let started = EphemeralService::start_program("/nowhere/receipts", NO_FLAGS);
        let sentence = started.expect_err("absent").to_string();
        assert!(sentence.contains("/nowhere/receipts") && sentence.contains(BIN_ENV), "{sentence}");
    }

    #[test]
    fn other_program_is_told_apart_from_the_service() {
        let said = |program: &str| EphemeralService::start_program(program, NO_FLAGS).expect_err("no service");
        assert!(matches!(said("false"), StartError::Ended(_)));
        assert!(said("echo").to_string().contains("serve --ephemeral --until-stdin-closes"));
    }
}
