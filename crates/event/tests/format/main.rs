//! Checks the crate against the format in `schemas/event/v1`: golden examples, limits, round trips,
//! and near-events, on which the schemas and the decoder must agree. Uses the public API only.

mod golden;
mod limits;
mod near;
mod near_events;
mod round_trip;
mod schema;
