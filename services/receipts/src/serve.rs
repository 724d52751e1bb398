//! `receipts serve`: runs the service until a signal, or until a part of it fails.

use crate::service::Service;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use receipts_runtime::shutdown;
use std::time::Duration;

/// Serves. Says on standard output when it is ready, and nothing else there.
///
/// # Errors
/// What kept it from starting, made it end, or kept it from ending in order.
pub(crate) fn run(settings: Settings, json: bool) -> Result<(), Failure> {
    receipts_assembly::run("receipts", &settings, async |stop, metrics| {
        let started = tokio::select! {
            started = Service::start(&settings, &metrics) => started?,
            // Nothing is served yet, and what was opened survives a kill.
            () = stop.cancelled() => return Ok(()),
        };
        let mut service = started;
        let ready = tokio::select! {
            ready = service.ready() => ready,
            () = stop.cancelled() => false,
        };
        let mut said = Ok(());
        if ready {
            said = announce(&mut Output::stdout(json), &service);
            if said.is_ok() {
                tokio::select! {
                    () = service.ended() => {}
                    () = stop.cancelled() => {}
                }
            }
        }
        stop.cancel();
        let data = shutdown::drain(&stop, Duration::from_millis(settings.drain_ms), service.stop()).await??;
        receipts_assembly::leave(data).await?;
        Ok(said?)
    })
}

/// Prints the line of a ready service.
///
/// # Errors
/// Where standard output cannot be written.
pub(crate) fn announce(output: &mut Output, service: &Service) -> std::io::Result<()> {
    output.ready("receipts", &[("http", service.url()), ("log", service.log_name().to_owned())])
}
