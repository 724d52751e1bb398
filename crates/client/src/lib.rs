//! The typed client of the read-receipt service. It posts events and returns receipts, member
//! lists, read marks and updates, over the service's HTTP API. It is for chat backends and
//! applications on tokio, and depends on no other part of the service but the event types.
//!
//! ```no_run
//! use receipts_client::{Client, Status, event};
//!
//! # async fn run() -> Result<(), receipts_client::Error> {
//! // In a trusted network a client without credentials is a service with all scopes. Elsewhere use
//! // `.token(…)` or `.token_from(…)`.
//! let backend = Client::builder("http://127.0.0.1:8080").build()?;
//! backend
//!     .post_events(&[
//!         event::members_changed("g1").joined(["alice", "bob", "carol"]).build(),
//!         event::message_sent("g1", "m1", "alice", 1_780_000_000_000).need_read_receipt().build(),
//!     ])
//!     .await?;
//! for receipt in backend.receipts(Some("g1"), &["m1", "m2"]).await? {
//!     match (receipt.status, receipt.counts) {
//!         (Status::Ok, Some(counts)) => println!("read by {} of {}", counts.read_count, counts.audience_count),
//!         (status, _) => println!("{}: {status:?}", receipt.message_id),
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//! - **It sees its own writes.** Each answer carries a position, and later reads of the same client
//!   wait until the service has folded the log up to it. [`Client::position`] and
//!   [`Client::observe_position`] pass it on, for instance from the backend that sends a message to
//!   the process that shows it.
//! - **It retries** if the service asks for it (503, 429: not before `Retry-After`) or does not
//!   answer. It repeats reads, and posts of events that change nothing the second time. If the
//!   outcome of a changed roster is unknown, the caller decides.
//! - **A stream outlives its connections** and continues without a gap: [`Updates`].
//! - **Errors are typed**: [`Error::Problem`] has the `type`, the `status` and the offending items
//!   of RFC 9457.
//!
//! # Tests
//! With the feature `testing`, `testing::EphemeralService` starts a real service for a test,
//! without disk and Kafka.
//!
//! # Ids
//! Proxies and URLs change some ids in paths: `.`, `..`, and those with `/`, `\`, `%` or control
//! characters. The client sends these in bodies, so they are as good as others.

mod builder;
mod client;
mod error;
pub mod event;
mod positions;
#[cfg(feature = "testing")]
pub mod testing;
mod transport;
mod types;
mod updates;

pub use builder::Builder;
pub use client::Client;
pub use error::{BoxError, Error, Problem, ProblemItem};
pub use types::{
    Accepted, Counts, Filter, Kind, Member, MembersPage, NewReader, ReadMark, ReadMarkUpdate, ReadMarksAnswer, Receipt,
    ReceiptUpdate, ReceiptsAnswer, Status, StreamTicket, Update,
};
pub use updates::{Subscription, Updates};
