//! A process of the service that a test kills. Waits for nothing unless the test asks for it.

use crate::{binary, eventually};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running process, ready or not. Dropping it kills it.
pub struct Victim {
    child: Child,
    /// The file of its standard error.
    errors: PathBuf,
}

impl Victim {
    /// Starts `receipts serve` and returns at once. The process writes its log, in JSON, beside the
    /// data directory.
    ///
    /// # Panics
    /// If the binary cannot be started.
    #[must_use]
    pub fn spawn(data_dir: &Path, more: &[String]) -> Self {
        Self::start("receipts", &["serve", "--http-listen", "127.0.0.1:0"], data_dir, more)
    }

    /// Starts another binary as [`Victim::spawn`] does.
    ///
    /// # Panics
    /// If the binary cannot be started.
    #[must_use]
    pub fn start(name: &str, arguments: &[&str], data_dir: &Path, more: &[String]) -> Self {
        let errors = data_dir.with_extension("log");
        let mut command = Command::new(binary(name));
        for (variable, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RECEIPTS_")) {
            command.env_remove(variable);
        }
        let child = command
            .args(arguments)
            .args(["--json", "--telemetry-log-format", "json", "--data-dir"])
            .arg(data_dir)
            .args(more)
            .env("RECEIPTS_LOG", "info,receipts_projection::open=debug")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).expect("a file for its log"))
            .spawn()
            .expect("the binary starts");
        Self { child, errors }
    }

    /// Waits until the process has folded its log to the end, and returns its address. Call it
    /// once.
    ///
    /// # Panics
    /// If the process ends before.
    pub fn ready(&mut self) -> String {
        let mut line = String::new();
        let stdout = self.child.stdout.take().expect("asked once");
        BufReader::new(stdout).read_line(&mut line).expect("readable");
        let ready: Value = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("it ended with {:?} and said\n{}", self.child.wait(), self.log()));
        ready["http"]
            .as_str()
            .or(ready["listen"].as_str())
            .and_then(|url| url.strip_prefix("http://"))
            .expect("an address")
            .to_owned()
    }

    /// Sends SIGKILL.
    ///
    /// # Panics
    /// If the process has ended by itself.
    pub fn kill(&mut self) {
        assert!(self.kill_if_it_lives(), "it ended by itself and said\n{}", self.log());
    }

    /// Sends SIGKILL if the process still runs, and returns whether it did.
    ///
    /// # Panics
    /// If the process has ended with an error.
    pub fn kill_if_it_lives(&mut self) -> bool {
        if let Some(status) = self.child.try_wait().expect("a child") {
            assert!(status.success(), "it ended with {status} and said\n{}", self.log());
            return false;
        }
        self.child.kill().and_then(|()| self.child.wait()).expect("killed");
        true
    }

    /// Ends the process with SIGTERM and waits for it.
    ///
    /// # Panics
    /// If it ends with an error.
    pub fn terminate(&mut self) {
        self.send_term();
        self.await_end();
    }

    /// Sends SIGTERM and does not wait.
    ///
    /// # Panics
    /// If the signal cannot be sent.
    pub fn send_term(&self) {
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        assert!(sent.expect("a shell").success());
    }

    /// Waits for the end of the process.
    ///
    /// # Panics
    /// If it ends with an error.
    pub fn await_end(&mut self) {
        let status = self.child.wait().expect("a child");
        assert!(status.success(), "it ended with {status} and said\n{}", self.log());
    }

    /// Waits until the process has ended by itself, and returns its exit code.
    ///
    /// # Panics
    /// If it runs on.
    pub fn await_failure(&mut self) -> Option<i32> {
        let ended = eventually("it ends", || self.child.try_wait().expect("a child"), Option::is_some);
        ended.and_then(|status| status.code())
    }

    /// Reads the process's standard error.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Reads from the log, for each partition that the process opened: the offset after its
    /// checkpoint, and the end of the log.
    #[must_use]
    pub fn opened(&self) -> Vec<(u64, u64)> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let opened = lines.filter_map(|line| {
            let fields = line.get("fields").unwrap_or(&line);
            (fields["message"] == "partition opened")
                .then(|| Some((fields["next_offset"].as_u64()?, fields["end_offset"].as_u64()?)))?
        });
        opened.collect()
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}
