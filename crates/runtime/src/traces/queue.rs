//! The queue of ended spans: the library's, with a count of those that find no room. The library
//! drops these without a word.

use super::loss::Loss;
use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter as Otlp;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Span, SpanData, SpanExporter, SpanProcessor};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The most spans that wait: some megabytes. One request may end a thousand in a moment.
const WAITING_MAX: usize = 16_384;
/// The most spans of one request to the collector.
const BATCH_MAX: usize = 512;

/// Returns the processor that sends ended spans.
pub(super) fn processor(exporter: Otlp, loss: Arc<Loss>) -> impl SpanProcessor {
    let waiting = Arc::<AtomicUsize>::default();
    let config =
        BatchConfigBuilder::default().with_max_queue_size(WAITING_MAX).with_max_export_batch_size(BATCH_MAX).build();
    let exporter = Counting { exporter, waiting: Arc::clone(&waiting), loss: Arc::clone(&loss) };
    let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    Queue { batches, waiting, loss }
}

#[derive(Debug)]
struct Queue {
    batches: BatchSpanProcessor,
    /// Spans that wait or are being sent.
    waiting: Arc<AtomicUsize>,
    loss: Arc<Loss>,
}

impl SpanProcessor for Queue {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.batches.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) < WAITING_MAX {
            self.batches.on_end(span);
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            self.loss.full();
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.batches.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.batches.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.batches.set_resource(resource);
    }
}

/// The exporter, with a count of what it takes and what it loses.
#[derive(Debug)]
struct Counting {
    exporter: Otlp,
    waiting: Arc<AtomicUsize>,
    loss: Arc<Loss>,
}

impl SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let sent = self.exporter.export(batch).await;
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        if sent.is_err() {
            self.loss.refused(count);
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn shutdown(&self) -> OTelSdkResult {
        self.exporter.shutdown()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
