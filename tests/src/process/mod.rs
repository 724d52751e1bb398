//! Running binaries of the project and speaking HTTP to them, as an operator and a client would.
//! Knows no crate of the product: what is tested is what is shipped.

mod stream;

pub use stream::{Event, Stream};

use crate::{TIMEOUT, binary};
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Events in one body, and bytes, at most: well below what the service takes.
const BODY_EVENTS: usize = 1_000;
const BODY_BYTES: usize = 512 << 10;

/// A command of a binary without configuration from this process's environment, its output piped.
fn command(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary(name));
    command.args(arguments);
    plain(command)
}

fn plain(mut command: Command) -> Command {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("RECEIPTS_") || name.starts_with("OTEL_") {
            command.env_remove(variable);
        }
    }
    command
}

/// As [`command`], with this many descriptors and no way to raise their number.
fn limited(descriptors: usize, name: &str, arguments: &[&str]) -> Command {
    let mut shell = Command::new("sh");
    // `exec`, so that the shell's process becomes the service's.
    shell.args(["-c", &format!("ulimit -n {descriptors} && exec \"$0\" \"$@\"")]).arg(binary(name)).args(arguments);
    plain(shell)
}

/// As [`run`], with this many descriptors and no way to raise their number.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn run_limited(descriptors: usize, name: &str, arguments: &[&str]) -> Output {
    limited(descriptors, name, arguments).output().expect("the binary runs")
}

/// Runs a binary that ends by itself.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn run(name: &str, arguments: &[&str]) -> Output {
    command(name, arguments).output().expect("the binary runs")
}

/// As [`run`], with variables of the environment.
///
/// # Panics
/// If it cannot be run.
#[must_use]
pub fn run_in(environment: &[(&str, &str)], name: &str, arguments: &[&str]) -> Output {
    command(name, arguments).envs(environment.iter().copied()).output().expect("the binary runs")
}

/// Runs a binary and presses Ctrl-C (SIGINT) once it has written a line to standard error that
/// holds `part`, and `is_due`.
///
/// # Panics
/// If it ends before.
#[must_use]
pub fn interrupt(name: &str, arguments: &[&str], part: &str, mut is_due: impl FnMut() -> bool) -> Output {
    let mut child = command(name, arguments).spawn().expect("the binary starts");
    let mut errors = BufReader::new(child.stderr.take().expect("piped"));
    let mut stderr = String::new();
    let mut from = 0;
    while !stderr[from..].contains(part) {
        from = stderr.len();
        assert!(errors.read_line(&mut stderr).expect("readable") > 0, "{arguments:?} ended: {stderr}");
    }
    let deadline = Instant::now() + TIMEOUT;
    while !is_due() {
        assert!(child.try_wait().expect("a child").is_none(), "{arguments:?} ended before it was due");
        assert!(Instant::now() < deadline, "{arguments:?} is not due");
        std::thread::sleep(Duration::from_millis(1));
    }
    let kill = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status();
    assert!(kill.expect("a shell").success());
    errors.read_to_string(&mut stderr).expect("readable");
    let output = child.wait_with_output().expect("it ends");
    Output { stderr: stderr.into_bytes(), ..output }
}

/// Starts a command that prints lines until it is interrupted.
///
/// # Panics
/// If it does not start.
#[must_use]
pub fn follow(name: &str, arguments: &[&str]) -> Following {
    let mut child = command(name, arguments).spawn().expect("the binary starts");
    let lines = BufReader::new(child.stdout.take().expect("piped"));
    let errors = BufReader::new(child.stderr.take().expect("piped"));
    Following { child, lines, errors }
}

/// A command that prints lines until it is interrupted. Dropping it kills it.
pub struct Following {
    child: Child,
    lines: BufReader<ChildStdout>,
    errors: BufReader<ChildStderr>,
}

impl Following {
    /// Waits for a line on standard error that holds `part`.
    ///
    /// # Panics
    /// If the command ends before.
    pub fn wait_for_error(&mut self, part: &str) {
        let (mut all, mut from) = (String::new(), 0);
        while !all[from..].contains(part) {
            from = all.len();
            assert!(self.errors.read_line(&mut all).expect("readable") > 0, "it ended without {part:?}: {all}");
        }
    }

    /// Waits for the next line on standard output.
    ///
    /// # Panics
    /// If the command ends before.
    pub fn next_line(&mut self) -> String {
        let mut line = String::new();
        assert!(self.lines.read_line(&mut line).expect("readable") > 0, "it ended");
        line
    }

    /// Presses Ctrl-C (SIGINT) and returns the exit code.
    ///
    /// # Panics
    /// If the command cannot be interrupted.
    pub fn interrupt(mut self) -> Option<i32> {
        let kill = Command::new("sh").args(["-c", &format!("kill -INT {}", self.child.id())]).status();
        assert!(kill.expect("a shell").success());
        let mut rest = String::new();
        self.errors.read_to_string(&mut rest).expect("readable");
        self.child.wait().expect("it ends").code()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Runs a binary and kills it (SIGKILL) as soon as `is_due`. Returns whether it was killed: false
/// if it had ended well before.
///
/// # Panics
/// If it fails by itself.
#[must_use]
pub fn kill(name: &str, arguments: &[&str], is_due: impl FnMut() -> bool) -> bool {
    kill_in(&[], name, arguments, is_due)
}

/// As [`kill`], with variables of the environment.
///
/// # Panics
/// As [`kill`].
#[must_use]
pub fn kill_in(environment: &[(&str, &str)], name: &str, arguments: &[&str], mut is_due: impl FnMut() -> bool) -> bool {
    let mut command = command(name, arguments);
    command.envs(environment.iter().copied()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("it starts");
    loop {
        if let Some(status) = child.try_wait().expect("a child") {
            assert!(status.success(), "{arguments:?} ended with {status}");
            return false;
        }
        if is_due() {
            child.kill().expect("killed");
            // It may have ended meanwhile.
            return !child.wait().expect("a child").success();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// What a run wrote to standard error.
#[must_use]
pub fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A running service. Dropping it kills it.
pub struct Service {
    child: Child,
    lines: BufReader<ChildStdout>,
    /// What it has written to standard error so far.
    errors: Arc<Mutex<String>>,
    /// Where it answers HTTP: `127.0.0.1:PORT`.
    pub address: String,
    /// The same as a URL.
    pub url: String,
    /// Where it answers operators, if that is another address.
    pub admin: Option<String>,
}

impl Service {
    /// Starts a service that prints JSON lines, and waits for the line that says it is ready.
    ///
    /// # Panics
    /// If it ends before; then with what it wrote to standard error.
    #[must_use]
    pub fn start(name: &str, arguments: &[&str]) -> Self {
        Self::start_in(&[], name, arguments)
    }

    /// As [`Self::start`], of the binary in a folder.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_from(folder: &Path, name: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(folder.join(name));
        command.args(arguments);
        Self::spawn(plain(command), name, arguments)
    }

    /// As [`Self::start`], with variables of the environment.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_in(environment: &[(&str, &str)], name: &str, arguments: &[&str]) -> Self {
        let mut command = command(name, arguments);
        command.envs(environment.iter().copied());
        Self::spawn(command, name, arguments)
    }

    /// As [`Self::start`], with this many descriptors and no way to raise their number.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_limited(descriptors: usize, name: &str, arguments: &[&str]) -> Self {
        Self::spawn(limited(descriptors, name, arguments), name, arguments)
    }

    fn spawn(mut command: Command, name: &str, arguments: &[&str]) -> Self {
        command.arg("--json");
        let mut child = command.spawn().expect("the binary starts");
        // Read on a thread, so that a chatty service never waits for its reader.
        let mut from = BufReader::new(child.stderr.take().expect("piped"));
        let errors = Arc::<Mutex<String>>::default();
        let into = Arc::clone(&errors);
        let reading = std::thread::spawn(move || {
            let mut line = String::new();
            while from.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
                into.lock().expect("no panic").push_str(&line);
                line.clear();
            }
        });
        let mut lines = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        lines.read_line(&mut line).expect("readable");
        if line.is_empty() {
            let status = child.wait().expect("ended");
            reading.join().expect("read");
            panic!("{name} {arguments:?} ended with {status}: {}", errors.lock().expect("no panic"));
        }
        let ready: Value = serde_json::from_str(&line).expect("a JSON line");
        assert_eq!(ready["ready"], name, "{line}");
        let address_of = |url: &str| url.split_once("://").expect("a URL").1.to_owned();
        let url = ready["http"].as_str().or(ready["listen"].as_str()).expect("an address").to_owned();
        let address = address_of(&url);
        Self { child, lines, errors, url, address, admin: ready["admin"].as_str().map(address_of) }
    }

    /// Starts `receipts serve` on a free port.
    #[must_use]
    pub fn serve(data_dir: &Path, more: &[&str]) -> Self {
        let data_dir = data_dir.to_str().expect("UTF-8");
        Self::start("receipts", &[&["serve", "--http-listen", "127.0.0.1:0", "--data-dir", data_dir], more].concat())
    }

    /// The process, as the kernel numbers it.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints, as JSON; `None` once it ends.
    ///
    /// # Panics
    /// If the line is no JSON.
    pub fn next_line(&mut self) -> Option<Value> {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("readable");
        (!line.is_empty()).then(|| serde_json::from_str(&line).expect("a JSON line"))
    }

    /// Returns what it has written to standard error so far.
    ///
    /// # Panics
    /// If the thread that reads it has panicked.
    #[must_use]
    pub fn errors(&self) -> String {
        self.errors.lock().expect("no panic").clone()
    }

    /// Sends a request and returns the head of the answer too.
    ///
    /// # Panics
    /// If it is not answered.
    #[must_use]
    pub fn exchange(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (String, Answer) {
        exchange(&self.address, method, path, headers, body).expect("it answers")
    }

    /// Ends it as an operator does and returns its exit code.
    ///
    /// # Panics
    /// If it does not end.
    pub fn terminate(mut self) -> Option<i32> {
        self.signal("TERM");
        self.ended()
    }

    /// Waits until it ends, and returns its exit code.
    ///
    /// # Panics
    /// If it does not end.
    pub fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => return status.code(),
                None => assert!(Instant::now() < deadline, "it does not end"),
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends it a signal by name: `STOP`, `CONT`.
    ///
    /// # Panics
    /// If it is gone.
    pub fn signal(&self, name: &str) {
        let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status();
        assert!(status.expect("a shell").success());
    }

    /// Kills it as the system does when memory runs out.
    ///
    /// # Panics
    /// If it cannot be killed.
    pub fn kill(mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("killed");
    }

    /// Asks for a path.
    pub fn get(&self, path: &str) -> Answer {
        self.request("GET", path, &[], "")
    }

    /// Asks for a path once everything before a token is folded.
    pub fn get_after(&self, path: &str, token: &str) -> Answer {
        self.request("GET", path, &[("Receipts-Min-Position", token), ("Receipts-Wait-Ms", "30000")], "")
    }

    /// Sends JSON.
    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.request("POST", path, &[("Content-Type", "application/json")], &body.to_string())
    }

    /// Writes events and returns the token that covers them.
    ///
    /// # Panics
    /// If they are not accepted.
    #[must_use]
    pub fn write(&self, events: &Value) -> String {
        let answer = self.post("/v1/events", events);
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.body["position"].as_str().expect("a token").to_owned()
    }

    /// Posts events in as many bodies as they need; returns a token that covers them.
    ///
    /// # Panics
    /// If they are not accepted.
    #[must_use]
    pub fn write_all(&self, events: &[Value]) -> String {
        let (mut tokens, mut body, mut bytes) = (Vec::new(), Vec::new(), 0);
        for event in events {
            let size = event.to_string().len();
            if body.len() == BODY_EVENTS || bytes + size > BODY_BYTES {
                tokens.push(self.write(&json!(std::mem::take(&mut body))));
                bytes = 0;
            }
            body.push(event);
            bytes += size;
        }
        tokens.push(self.write(&json!(body)));
        // All of them would be too long for a header; the last ones name what was written last in
        // each partition.
        tokens.split_off(tokens.len().saturating_sub(8)).join(",")
    }

    /// Opens a stream of updates: `query` is what stands behind `/v1/updates?`.
    pub fn listen(&self, query: &str, headers: &[(&str, &str)]) -> Stream {
        Stream::open(&self.address, query, headers)
    }

    /// Sends a request with headers of one's own.
    ///
    /// # Panics
    /// If it is not answered.
    #[must_use]
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        request(&self.address, method, path, headers, body).expect("it answers")
    }
}

/// Sends a request to the service at an address.
///
/// # Errors
/// If nothing listens there, or the connection breaks before the head of the answer is whole.
pub fn request(address: &str, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> io::Result<Answer> {
    exchange(address, method, path, headers, body).map(|(_, answer)| answer)
}

/// Sends a request and returns the head of the answer, too.
fn exchange(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<(String, Answer)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    let body = serde_json::from_str(body).unwrap_or_else(|_| Value::from(body));
    Ok((head.to_owned(), Answer { status, body }))
}

impl Drop for Service {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// What a service answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body; a string where it is no JSON.
    pub body: Value,
}
