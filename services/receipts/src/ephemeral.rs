//! `receipts serve --ephemeral`: a whole service for the test of a program that uses it. Decides
//! the settings of such a service, and when it ends; starts nothing itself. Keeps INV-EPHEMERAL.

use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use std::io::{self, Read as _};
use std::net::Ipv4Addr;
use tokio_util::sync::CancellationToken;

/// Settings that say where log or state are kept.
const CONTRADICTIONS: [&str; 3] = ["data_dir", "kafka.bootstrap", "snapshot.url"];

/// Replaces the defaults of settings that are not set: a free port of the loopback, and logs of
/// warnings only.
///
/// # Errors
/// A usage failure that names a setting which contradicts `--ephemeral`, and where it is set.
pub(crate) fn prepare(settings: &mut Settings) -> Result<(), Failure> {
    let set = CONTRADICTIONS.iter().filter_map(|key| Some((key, settings.origin(key)?)));
    let set: Vec<String> = set.map(|(key, origin)| format!("{key} ({origin})")).collect();
    if !set.is_empty() {
        return Err(Failure::usage(format!(
            "--ephemeral keeps log and state in memory, which contradicts {}: leave out either",
            set.join(" and ")
        )));
    }
    if settings.origin("http.listen").is_none() {
        settings.http.listen = (Ipv4Addr::LOCALHOST, 0).into();
    }
    if settings.origin("telemetry.log_filter").is_none() {
        "warn".clone_into(&mut settings.telemetry.log_filter);
    }
    Ok(())
}

/// Cancels the token once standard input is closed. A pipe is closed by the system even if the
/// process at its other end is killed, so a service that a test has started ends with the test.
///
/// # Errors
/// If no thread can be started.
pub(crate) fn end_with_stdin(ends: CancellationToken) -> io::Result<()> {
    let wait = move || {
        let mut ignored = [0; 1_024];
        let mut stdin = io::stdin().lock();
        loop {
            match stdin.read(&mut ignored) {
                Ok(bytes) if bytes > 0 => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return ends.cancel(),
            }
        }
    };
    std::thread::Builder::new().name("stdin".into()).spawn(wait).map(drop)
}
