//! Tools for tests and benches: a naive oracle of one partition, seeded histories, text cases, and
//! the speed workload. A dev-dependency only: no product code may depend on it.
//!
//! The oracle follows the contract alone, and shares only the shapes of answers with the fold
//! ([`receipts_fold::view`]). It must stay naive: plain sets of string ids, no bits, and no index
//! that could be wrong in the same way as the fold's.
//!
//! ```
//! use receipts_testkit::{At, Limits, Oracle, Subject};
//! use receipts_testkit::history::{History, Shape};
//!
//! let shape = Shape::quiet();
//! let mut oracle = Oracle::new(Limits { retention_ms: shape.retention_ms, ..Limits::default() });
//! for (at, event) in History::generate(7, &shape) {
//!     oracle.apply(at, &event);
//! }
//! assert_eq!(oracle.receipt("default", "g0", "never sent").counts, None);
//! ```

pub mod bench;
pub mod cases;
pub mod compare;
pub mod history;
pub mod laws;
pub mod oracle;
pub mod property;
pub mod random;
mod subject;
pub mod workload;

pub use oracle::{Limits, Oracle};
pub use subject::{At, OracleEffect, Subject, reason};
