//! Writes logs to standard error. Must not write to standard output, which carries results.

use crate::config::{LogFormat, Telemetry};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is invalid; the configuration checks it before.
    #[error("log filter {filter:?}: {cause}")]
    Filter {
        /// The filter.
        filter: String,
        /// Why it is invalid.
        cause: ParseError,
    },
    /// Another subscriber writes the logs of this process already.
    #[error("logs are already set up: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Parses a filter such as `info,receipts_projection=debug`: levels by module, with the syntax of
/// `RUST_LOG`.
pub(crate) fn parse_filter(filter: &str) -> Result<EnvFilter, ParseError> {
    // An empty filter stays one: it shows errors only.
    let quiet = if filter.is_empty() { "" } else { QUIET };
    EnvFilter::builder().parse(format!("{quiet}{filter}"))
}

/// Libraries that report each of their steps at info level. A filter that names them goes first.
const QUIET: &str = "delta_kernel=warn,delta_kernel_default_engine=warn,";

/// Sends the logs of this process to standard error. Panics go into the logs too, so that
/// machine-readable logs stay machine-readable.
///
/// # Errors
/// If the filter is invalid, or logs are already set up.
pub fn init(settings: &Telemetry) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt;
    let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let filter = parse_filter(&settings.log_filter)
        .map_err(|cause| TelemetryError::Filter { filter: settings.log_filter.clone(), cause })?;
    subscriber(settings.log_format, filter, colours, std::io::stderr).try_init()?;
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string);
        let message = panic.payload_as_str().unwrap_or("without a message");
        tracing::error!(place = location, message, backtrace = %std::backtrace::Backtrace::capture(), "panicked");
    }));
    Ok(())
}

fn subscriber<W>(
    format: LogFormat,
    filter: EnvFilter,
    colours: bool,
    to: W,
) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(to).with_ansi(colours);
    match format {
        LogFormat::Text => Box::new(builder.finish()),
        LogFormat::Json => Box::new(builder.json().flatten_event(true).finish()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("unpoisoned").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &str) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let logs = subscriber(format, parse_filter(filter).expect("a filter"), false, move || writer.clone());
        tracing::subscriber::with_default(logs, || {
            tracing::info!(partition = 3, "caught up");
            tracing::debug!("not asked for");
        });
        String::from_utf8(lines.0.lock().expect("unpoisoned").clone()).expect("text")
    }

    #[test]
    fn json_logs_are_one_object_per_line() {
        let text = logged(LogFormat::Json, "info");
        let event: serde_json::Value = serde_json::from_str(text.trim_end()).expect("one object");
        assert_eq!(
            (&event["message"], &event["partition"], &event["level"]),
            (&"caught up".into(), &3.into(), &"INFO".into())
        );
    }

    #[test]
    fn people_read_text_without_colours_in_a_file() {
        let text = logged(LogFormat::Text, "info");
        assert!(text.contains("INFO") && text.contains("caught up partition=3"), "{text}");
        assert!(!text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn the_filter_chooses_by_module() {
        assert_eq!(logged(LogFormat::Text, "receipts_runtime=warn"), "");
        assert_eq!(logged(LogFormat::Text, "warn,receipts_runtime=debug").lines().count(), 2);
        assert!(parse_filter("receipts_runtime=loud").is_err());
    }
}
