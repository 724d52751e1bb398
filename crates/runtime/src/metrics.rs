//! Records metrics and renders them as text. Must not open a port: the HTTP edge of each service
//! serves [`Metrics::render`].

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use std::time::Duration;

/// The upper bounds in seconds of every histogram whose name ends in `_seconds`: from a store read
/// to a slow export.
pub const BUCKETS_SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// The interval at which histograms are compacted, in milliseconds. Without it samples would
/// accumulate until the next scrape.
const UPKEEP_EVERY_MS: u64 = 5_000;

/// The recorder could not be installed.
#[derive(Debug, thiserror::Error)]
#[error("cannot install the metrics recorder, a process has one: {0}")]
pub struct MetricsError(#[from] metrics_exporter_prometheus::BuildError);

/// The metrics of this process.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Installs the recorder that all `metrics` macros write to, and names the binary in
    /// `receipts_build_info`.
    ///
    /// # Errors
    /// If the process has a recorder already.
    pub fn install(service: &'static str) -> Result<Self, MetricsError> {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS_SECONDS)?
            .install_recorder()?;
        metrics::describe_gauge!("receipts_build_info", "1, with the version of the running binary");
        metrics::gauge!("receipts_build_info", "service" => service, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        metrics::describe_gauge!("process_start_time_seconds", "When the process started, Unix seconds");
        metrics::gauge!("process_start_time_seconds").set(crate::clock::unix_ms() as f64 / 1_000.0);
        Ok(Self { handle })
    }

    /// Writes all metrics in the Prometheus text format, for `GET /metrics` (`text/plain;
    /// version=0.0.4`).
    #[must_use]
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Tidies up histograms for as long as the runtime lives; a service spawns it once.
    pub async fn upkeep(self) {
        let mut every = tokio::time::interval(Duration::from_millis(UPKEEP_EVERY_MS));
        loop {
            every.tick().await;
            self.handle.run_upkeep();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A process has one recorder, hence one test.
    #[test]
    fn a_process_has_one_recorder_that_renders_its_metrics() {
        let metrics = Metrics::install("receipts-query").expect("the first");
        metrics::counter!("receipts_folded_total").increment(3);
        metrics::histogram!("receipts_checkpoint_seconds").record(0.02);
        let text = metrics.render();
        let version = env!("CARGO_PKG_VERSION");
        for line in [
            &format!("receipts_build_info{{service=\"receipts-query\",version=\"{version}\"}} 1"),
            "receipts_folded_total 3",
            "receipts_checkpoint_seconds_bucket{le=\"0.025\"} 1",
            "receipts_checkpoint_seconds_bucket{le=\"0.01\"} 0",
            "process_start_time_seconds ",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(Metrics::install("receipts-query").is_err(), "the second one is refused");
    }
}
