//! The set-up of a process that runs for long: logs, metrics, signals, and threads for blocking
//! work. Opens nothing.

use crate::secrets::check_secret_files;
use anyhow::Context as _;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::metrics::Metrics;
use receipts_runtime::{descriptors, shutdown, telemetry};
use tokio_util::sync::CancellationToken;

/// Sets the process up under a service's name and runs `work` to its end. The first signal cancels
/// the token, on which `work` must end by itself.
///
/// # Errors
/// The error of `work`, or why the process could not be set up.
pub fn run<F>(
    service: &'static str,
    settings: &Settings,
    work: impl FnOnce(CancellationToken, Metrics) -> F,
) -> Result<(), Failure>
where
    F: Future<Output = Result<(), Failure>>,
{
    telemetry::init(&settings.telemetry)?;
    let metrics = Metrics::install(service)?;
    descriptors::raise_limit();
    settings.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    for name in &settings.foreign_variables {
        tracing::debug!(name, "ignored a variable that Kubernetes sets for a Service");
    }
    check_secret_files(settings)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(async {
        let stop = shutdown::on_signal()?;
        tokio::spawn(metrics.clone().upkeep());
        work(stop, metrics).await
    });
    // Tasks that did not end in their time are abandoned: everything here survives a kill.
    runtime.shutdown_background();
    result
}

/// Runs blocking work on a thread of its own and waits for it. If the wait is cancelled, the thread
/// runs on and ends with the process; unlike a blocking task of the runtime, it never delays the
/// exit.
///
/// # Errors
/// The error of `work`, or that it panicked.
pub async fn on_thread<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let (done, result) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name(name.to_owned()).spawn(move || _ = done.send(work()))?;
    result.await.with_context(|| format!("the thread {name} panicked; this is a bug: please report it with the log"))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_thread_returns_its_result_or_its_panic() {
        assert_eq!(on_thread("adds", || Ok(2 + 2)).await.expect("done"), 4);
        let failure = on_thread::<()>("breaks", || panic!("on purpose")).await.expect_err("panicked");
        assert!(failure.message().contains("breaks"), "{}", failure.message());
    }
}
