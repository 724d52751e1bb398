//! The catalogue of metrics: every name, kind, label and help text of the service, once; and what
//! keeps the log lines of all parts few. Measures nothing, and knows no part that does.
//!
//! A part writes to a metric by its constant: `catalogue::RECORDS.of([partition]).increment(1)`.
//! The compiler counts the labels. [`page`] writes `docs/metrics.md`.

pub mod catalogue;
pub mod log_lines;
mod page;

pub use page::page;

use metrics::{Key, Label, Level, Metadata, SharedString};

/// A counter with `N` labels, which only grows while the process lives.
#[derive(Debug, Clone, Copy)]
pub struct Counter<const N: usize>(Metric<N>);

/// A gauge with `N` labels: the value now.
#[derive(Debug, Clone, Copy)]
pub struct Gauge<const N: usize>(Metric<N>);

/// A histogram with `N` labels. All of ours are of seconds and share
/// [`catalogue::BUCKETS_SECONDS`].
#[derive(Debug, Clone, Copy)]
pub struct Histogram<const N: usize>(Metric<N>);

#[derive(Debug, Clone, Copy)]
struct Metric<const N: usize> {
    name: &'static str,
    labels: [&'static str; N],
}

/// How a metric behaves over time, by Prometheus' word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It only grows while the process lives.
    Counter,
    /// It is the value now.
    Gauge,
    /// It counts values by size.
    Histogram,
}

impl Kind {
    /// Returns the word in the text format of Prometheus.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric of the catalogue, as the documents and the exporter know it.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// The name, with its unit.
    pub name: &'static str,
    /// The kind.
    pub kind: Kind,
    /// The names of the labels.
    pub labels: &'static [&'static str],
    /// One sentence, for `# HELP`.
    pub help: &'static str,
}

/// Metrics that one part writes.
#[derive(Debug, Clone, Copy)]
pub struct Section {
    /// The heading.
    pub title: &'static str,
    /// The binaries that export it.
    pub binaries: &'static str,
    /// The metrics.
    pub entries: &'static [Entry],
}

impl<const N: usize> Metric<N> {
    fn key(&self, values: [SharedString; N]) -> Key {
        let labels = self.labels.into_iter().zip(values).map(|(name, value)| Label::new(name, value));
        Key::from_parts(self.name, labels.collect::<Vec<_>>())
    }
}

const METADATA: Metadata<'static> = Metadata::new("receipts", Level::INFO, None);

macro_rules! kinds {
    ($($kind:ident: $handle:ty, $register:ident;)*) => {$(
        impl<const N: usize> $kind<N> {
            const fn new(name: &'static str, labels: [&'static str; N]) -> Self {
                Self(Metric { name, labels })
            }

            /// Returns the name.
            pub fn name(&self) -> &'static str {
                self.0.name
            }

            /// Returns the series with these values of the labels, in the order of the catalogue.
            pub fn of<V: Into<SharedString>>(&self, values: [V; N]) -> $handle {
                let key = self.0.key(values.map(Into::into));
                metrics::with_recorder(|recorder| recorder.$register(&key, &METADATA))
            }
        }

        impl $kind<0> {
            /// Returns the only series.
            pub fn get(&self) -> $handle {
                self.of::<&'static str>([])
            }
        }
    )*};
}

kinds! {
    Counter: metrics::Counter, register_counter;
    Gauge: metrics::Gauge, register_gauge;
    Histogram: metrics::Histogram, register_histogram;
}

/// Gives the recorder of this process the help of every metric.
pub fn describe() {
    for entry in catalogue::SECTIONS.iter().flat_map(|section| section.entries) {
        match entry.kind {
            Kind::Counter => metrics::describe_counter!(entry.name, entry.help),
            Kind::Gauge => metrics::describe_gauge!(entry.name, entry.help),
            Kind::Histogram => metrics::describe_histogram!(entry.name, entry.help),
        }
    }
}
