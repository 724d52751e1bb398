//! Runs a service until a signal, or until one of its parts fails. The four mains share it.
//!
//! Must not know which parts a service has, or in which order they start and stop: the service
//! does.

use crate::data_dir::DataDir;
use crate::parts::consumer_group;
use crate::process::{on_thread, run};
use crate::version::log_start;
use receipts_projection::Projector;
use receipts_runtime::build::Build;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::metrics::Metrics;
use receipts_runtime::output::Output;
use receipts_runtime::{shutdown, traces};
use receipts_traces::LogNames;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// How often a starting service checks whether it is ready.
const READY_POLL: Duration = Duration::from_millis(10);

/// The parts of a process, started, watched and stopped together.
pub trait Service {
    /// Returns the content of the ready line: addresses and the log, each with a label.
    fn addresses(&self) -> Vec<(&'static str, String)>;

    /// Resolves once the service is ready. Need not watch for parts that fail.
    fn ready(&self) -> impl Future<Output = ()> + 'static;

    /// Resolves once a part has ended by itself; [`Service::stop`] then returns why. Must not be
    /// called after that.
    fn ended(&mut self) -> impl Future<Output = ()>;

    /// Stops the parts in order. Returns the data directory if the service folded a log into it.
    ///
    /// # Errors
    /// Why a part ended by itself, or could not stop in order.
    fn stop(self) -> impl Future<Output = Result<Option<DataDir>, Failure>>;
}

/// Starts a service and runs it: logs its build and its settings, prints the ready line on standard
/// output, waits for a signal or for a part that ends by itself, and stops the service within
/// `drain_ms`.
///
/// `start` takes the addresses and opens the parts. A signal cancels it: no caller is answered yet,
/// and opened files survive a kill.
///
/// # Errors
/// Why the service did not start, why a part ended by itself, or why it could not stop in order.
pub fn serve<S: Service>(
    build: Build,
    settings: &Settings,
    json: bool,
    start: impl AsyncFnOnce(Metrics) -> Result<S, Failure>,
) -> Result<(), Failure> {
    receipts_runtime::private_files();
    run(build.name, settings, async |stop, metrics| {
        log_start(&build, settings);
        // Parts ask for traces once, when they start.
        let traces = traces::start(&settings.telemetry, build.name, log_names(settings), Handle::current())?;
        let served = serve_parts(build.name, settings, json, start, stop, metrics).await;
        let Some(traces) = traces else { return served };
        let sent = on_thread("traces", move || {
            traces.stop();
            Ok(())
        });
        served.and(sent.await)
    })
}

/// Starts the parts of a service, runs them, and stops them.
async fn serve_parts<S: Service>(
    name: &'static str,
    settings: &Settings,
    json: bool,
    start: impl AsyncFnOnce(Metrics) -> Result<S, Failure>,
    stop: CancellationToken,
    metrics: Metrics,
) -> Result<(), Failure> {
    let mut service = tokio::select! {
        started = start(metrics) => started?,
        () = stop.cancelled() => return Ok(()),
    };
    let is_ready = tokio::select! {
        () = service.ready() => true,
        () = service.ended() => false,
        () = stop.cancelled() => false,
    };
    let mut printed = Ok(());
    if is_ready {
        printed = Output::stdout(json).ready(name, &service.addresses());
        if printed.is_ok() {
            tokio::select! {
                () = service.ended() => {}
                () = stop.cancelled() => {}
            }
        }
    }
    stop.cancel();
    let data = shutdown::drain(&stop, Duration::from_millis(settings.drain_ms), service.stop()).await??;
    if let Some(data) = data {
        release(data).await?;
    }
    Ok(printed?)
}

/// Returns the names that spans show of the log.
fn log_names(settings: &Settings) -> LogNames {
    LogNames {
        system: if settings.kafka.bootstrap.is_some() { "kafka" } else { "receipts_embedded" },
        events_topic: settings.log.events_topic.clone(),
        updates_topic: settings.log.updates_topic.clone(),
        group: consumer_group(&settings.projector.group, settings.projector.standby),
    }
}

/// Resolves once a condition holds that [`Service::ready`] waits for.
pub async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(READY_POLL).await;
    }
}

/// Writes sled's snapshot of a stopped process's store, so that the next start is quick (ADR 0031),
/// and then releases the data directory. May take seconds if the store is large. Nothing is lost if
/// the process is killed meanwhile.
///
/// # Errors
/// If no thread can be started. A store that cannot be read is only logged: the next start
/// reports it.
async fn release(data: DataDir) -> Result<(), Failure> {
    on_thread("releasing", move || {
        if let Err(error) = Projector::write_sled_snapshot(&data.store()) {
            tracing::warn!(%error, "the next start will take longer");
        }
        Ok(())
    })
    .await
}
