//! What every command that serves does around its work: logs, metrics, signals, and threads for what blocks.

use anyhow::Context as _;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::metrics::Metrics;
use receipts_runtime::{shutdown, telemetry};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Sets the process up under a service's name and runs `work` until it ends. The token is cancelled by the first signal; `work` ends by itself
/// then.
///
/// # Errors
/// Those of `work`, and where the process cannot be set up.
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
    settings.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
    let runtime = tokio::runtime::Runtime::new()?;
    let result = runtime.block_on(async {
        let stop = shutdown::on_signal()?;
        tokio::spawn(metrics.clone().upkeep());
        work(stop, metrics).await
    });
    // What had its time and is not done is not waited for: everything here survives a kill.
    runtime.shutdown_background();
    result
}

/// Takes an address to listen at; `flag` is the one that chooses another.
///
/// # Errors
/// Where it cannot be had, with that flag.
pub async fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener, Failure> {
    let listener = TcpListener::bind(address).await;
    Ok(listener.with_context(|| format!("cannot listen at {address}; choose another {flag}"))?)
}

/// Runs what blocks on a thread of its own and waits for it. Where nobody waits any more the thread is left alone and
/// goes with the process: unlike a blocking task of the runtime it never holds the process up.
///
/// # Errors
/// Those of `work`, and where it panics.
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
    async fn a_thread_hands_back_what_it_did_or_that_it_panicked() {
        assert_eq!(on_thread("adds", || Ok(2 + 2)).await.expect("done"), 4);
        let failure = on_thread::<()>("breaks", || panic!("on purpose")).await.expect_err("panicked");
        assert!(failure.message().contains("breaks"), "{}", failure.message());
    }
}
