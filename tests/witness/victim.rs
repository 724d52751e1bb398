//! `receipts serve`, or a projector, as a process that is killed. Waits for nothing that it was not asked to wait for.

use receipts_tests::binary;
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running process, ready or not. Dropping it kills it.
pub(crate) struct Victim {
    child: Child,
    /// What it writes to standard error.
    errors: PathBuf,
}

impl Victim {
    /// Starts `receipts serve` and returns at once. Its log, in JSON, goes into a file beside the data directory.
    pub(crate) fn spawn(data_dir: &Path, more: &[String]) -> Self {
        Self::start("receipts", &["serve", "--http-listen", "127.0.0.1:0"], data_dir, more)
    }

    /// Starts a binary as [`Victim::spawn`] does.
    pub(crate) fn start(name: &str, arguments: &[&str], data_dir: &Path, more: &[String]) -> Self {
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
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&errors).expect("a file for its log"))
            .spawn()
            .expect("the binary starts");
        Self { child, errors }
    }

    /// Waits until it has folded its log to the end, and returns its address.
    pub(crate) fn ready(&mut self) -> String {
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

    /// Kills it as the system does when memory runs out. It must have lived until now.
    pub(crate) fn kill(&mut self) {
        assert!(self.kill_if_it_lives(), "it ended by itself and said\n{}", self.log());
    }

    /// Kills it, though it may have ended by now, but only in order; tells whether it lived.
    pub(crate) fn kill_if_it_lives(&mut self) -> bool {
        if let Some(status) = self.child.try_wait().expect("a child") {
            assert!(status.success(), "it ended with {status} and said\n{}", self.log());
            return false;
        }
        self.child.kill().and_then(|()| self.child.wait()).expect("killed");
        true
    }

    /// Ends it in order.
    pub(crate) fn terminate(&mut self) {
        self.tell_to_end();
        self.await_end();
    }

    /// Asks it to end in order, and does not wait.
    pub(crate) fn tell_to_end(&self) {
        let sent = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.child.id())]).status();
        assert!(sent.expect("a shell").success());
    }

    /// Waits until it has ended in order.
    pub(crate) fn await_end(&mut self) {
        let status = self.child.wait().expect("a child");
        assert!(status.success(), "it ended with {status} and said\n{}", self.log());
    }

    /// What it wrote to standard error.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// For each partition that it opened: the offset that its checkpoint led on from, and the end of the log.
    pub(crate) fn opened(&self) -> Vec<(u64, u64)> {
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
