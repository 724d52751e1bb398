//! The typed client of the read-receipt service: events in, receipts, member lists, read marks and updates out, over its HTTP
//! API. For chat backends and applications on tokio; knows nothing of how the service is made.
//!
//! ```no_run
//! use receipts_client::{Client, Status, event};
//!
//! # async fn run() -> Result<(), receipts_client::Error> {
//! // In a trusted network a service asks, with all scopes; elsewhere `.token(…)` or `.token_from(…)`.
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
//! # What it does by itself
//! - **It sees its own writes.** Each answer carries a position; later reads of the same client wait until that is folded.
//!   [`Client::position`] and [`Client::observe_position`] hand it on, from the backend that sent a message to whoever shows it.
//! - **It tries again** where the service asks for that (503, 429: not before `Retry-After`) or did not answer: reads, and
//!   of events those that change nothing twice. A changed roster with an open outcome is the caller's to decide.
//! - **A stream outlives its connections** and goes on without a gap: [`Updates`].
//! - **Errors are typed**: [`Error::Problem`] has `type`, `status` and the offending items of RFC 9457.
//!
//! Ids that are `.` or `..` cannot stand in a URL's path; single receipts, lists and read marks of such are refused.

mod builder;
mod client;
mod error;
pub mod event;
mod transport;
mod types;
mod updates;

pub use builder::Builder;
pub use client::Client;
pub use error::{BoxError, Error, Problem, ProblemItem};
pub use types::{
    Accepted, Counts, Filter, Kind, Member, MembersPage, NewReader, ReadMark, ReadMarkUpdate, Receipt, ReceiptUpdate,
    ReceiptsAnswer, Status, Update,
};
pub use updates::{Subscription, Updates};
