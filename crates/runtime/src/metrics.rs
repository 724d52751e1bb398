//! Records metrics and renders them as text. Must not open a port: the HTTP edge of each service
//! serves [`Metrics::render`].

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_process::Collector;
use receipts_metrics::catalogue::{BUCKETS_SECONDS, BUILD};
use std::time::Duration;

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
    process: Collector,
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
        receipts_metrics::describe();
        let process = Collector::default();
        process.describe();
        BUILD.of([service, env!("CARGO_PKG_VERSION")]).set(1.0);
        Ok(Self { handle, process })
    }

    /// Writes all metrics in the Prometheus text format, for `GET /metrics` (`text/plain;
    /// version=0.0.4`).
    #[must_use]
    pub fn render(&self) -> String {
        self.process.collect();
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
        receipts_metrics::catalogue::RECORDS.of(["0"]).increment(3);
        receipts_metrics::catalogue::CHECKPOINT_SECONDS.get().record(0.02);
        let text = metrics.render();
        let version = env!("CARGO_PKG_VERSION");
        for line in [
            &format!("receipts_build_info{{service=\"receipts-query\",version=\"{version}\"}} 1"),
            "receipts_records_total{partition=\"0\"} 3",
            "receipts_checkpoint_seconds_bucket{le=\"0.025\"} 1",
            "receipts_checkpoint_seconds_bucket{le=\"0.01\"} 0",
            "# HELP receipts_checkpoint_seconds ",
            "process_start_time_seconds ",
            "process_resident_memory_bytes ",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(Metrics::install("receipts-query").is_err(), "the second one is refused");
    }
}
