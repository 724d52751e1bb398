//! Stops a process: the first SIGINT or SIGTERM begins an orderly stop, the second ends the process
//! at once. Must not stop parts itself: every part watches the token and ends its own work.

use crate::exit;
use std::future::Future;
use std::io;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A signal this soon after the first one is the same request: GNU `timeout` sends SIGTERM to its
/// child and to the child's process group, and a terminal's Ctrl-C may reach a process in two ways.
const SAME_REQUEST: Duration = Duration::from_millis(200);

/// The work did not end before the deadline of the drain.
#[derive(Debug, thiserror::Error)]
#[error("not drained within {deadline_ms} ms: unfinished work was cut off; the next start repeats it from the log")]
pub struct DeadlineExceeded {
    /// The time that the work had, in milliseconds.
    pub deadline_ms: u64,
}

/// Watches the signals that end a process, from now until the process ends.
///
/// The first SIGINT or SIGTERM cancels the returned token; threads poll its `is_cancelled`. A
/// second signal ends the process at once with exit code 1, without waiting for the drain, unless
/// it comes within 200 ms of the first one.
///
/// # Errors
/// If the handlers cannot be registered.
///
/// # Panics
/// Outside a tokio runtime.
pub fn on_signal() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let name = either(&mut interrupt, &mut terminate).await;
        let first = Instant::now();
        tracing::info!(signal = name, "stopping; a second signal stops at once");
        cancelled.cancel();
        let name = loop {
            let name = either(&mut interrupt, &mut terminate).await;
            if is_another_request(first, Instant::now()) {
                break name;
            }
        };
        tracing::warn!(signal = name, "stopped before the drain had ended");
        #[expect(clippy::disallowed_methods, reason = "the second signal asks not to wait for the drain")]
        std::process::exit(i32::from(exit::CODE_FAILED));
    });
    Ok(token)
}

/// Tells whether a signal at `now` asks for more than the one at `first`.
fn is_another_request(first: Instant, now: Instant) -> bool {
    now.duration_since(first) >= SAME_REQUEST
}

async fn either(interrupt: &mut Signal, terminate: &mut Signal) -> &'static str {
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

/// Runs `work` until it ends. Its time is unlimited until the token is cancelled; from then on it
/// has `deadline`.
///
/// # Errors
/// If the deadline has passed; `work` is then dropped.
pub async fn drain<T>(
    token: &CancellationToken,
    deadline: Duration,
    work: impl Future<Output = T>,
) -> Result<T, DeadlineExceeded> {
    let expired = async {
        token.cancelled().await;
        tokio::time::sleep(deadline).await;
    };
    tokio::select! {
        biased;
        done = work => Ok(done),
        () = expired => Err(DeadlineExceeded { deadline_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    #[tokio::test]
    async fn work_that_ends_by_itself_needs_no_signal() {
        let token = CancellationToken::new();
        assert_eq!(drain(&token, Duration::ZERO, async { 7 }).await.expect("done"), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn work_has_no_deadline_before_the_stop() {
        let token = CancellationToken::new();
        let work = async {
            tokio::time::sleep(Duration::from_secs(3600)).await;
            "done"
        };
        assert_eq!(drain(&token, Duration::from_secs(1), work).await.expect("done"), "done");
    }

    #[tokio::test(start_paused = true)]
    async fn unfinished_work_is_cut_off_at_the_deadline() {
        let token = CancellationToken::new();
        token.cancel();
        let error = drain(&token, Duration::from_secs(10), pending::<()>()).await.expect_err("cut off");
        assert_eq!(error.deadline_ms, 10_000);
    }

    /// Sends SIGTERM to a process, as an operator would.
    fn terminate(pid: u32) {
        let status = Command::new("sh").args(["-c", &format!("kill -TERM {pid}")]).status().expect("a shell");
        assert!(status.success());
    }

    #[tokio::test]
    async fn the_first_signal_only_cancels_the_token() {
        let token = on_signal().expect("handlers");
        assert!(!token.is_cancelled());
        terminate(std::process::id());
        tokio::time::timeout(Duration::from_secs(10), token.cancelled()).await.expect("cancelled");
    }

    #[test]
    fn signals_in_a_row_are_one_request() {
        let first = Instant::now();
        let is_another = |later_ms| is_another_request(first, first + Duration::from_millis(later_ms));
        assert_eq!([0, 1, 199, 200, 5_000].map(is_another), [false, false, false, true, true]);
    }

    /// Runs this test again as a child process, because the signal ends its whole process.
    #[test]
    fn the_second_request_ends_the_process_at_once() {
        const CHILD: &str = "RECEIPTS_TEST_SHUTDOWN_CHILD";
        if std::env::var_os(CHILD).is_some() {
            let runtime = tokio::runtime::Runtime::new().expect("a runtime");
            return runtime.block_on(async {
                let token = on_signal().expect("handlers");
                println!("\nlistening");
                token.cancelled().await;
                tokio::time::sleep(2 * SAME_REQUEST).await;
                println!("\nstopping");
                drain(&CancellationToken::new(), Duration::ZERO, pending::<()>()).await.expect("a drain without end");
            });
        }
        let name = "shutdown::tests::the_second_request_ends_the_process_at_once";
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, "1")
            .stdout(Stdio::piped())
            .spawn()
            .expect("started");
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        for wanted in ["listening", "stopping"] {
            assert!(lines.any(|line| line.is_ok_and(|line| line == wanted)), "the process never said {wanted}");
            terminate(child.id());
        }
        assert_eq!(child.wait().expect("ended").code(), Some(1));
    }
}
