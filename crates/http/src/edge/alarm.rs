//! A timer for a time that changes often.
//!
//! It must not be asked from two tasks.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep, sleep_until};

/// Wakes its task when a time has come. A task that may change the time asks again each time it
/// runs.
#[derive(Default)]
pub(crate) struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    /// Whether the time has come. If it has become later, the timer fires too early and is set
    /// again then, which costs less than setting it at each change.
    pub(crate) fn poll(&mut self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if at <= Instant::now() {
                return Poll::Ready(());
            }
            let timer = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
            if at < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(at);
            }
            ready!(timer.as_mut().poll(context));
        }
    }
}
