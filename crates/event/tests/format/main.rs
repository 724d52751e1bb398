//! Holds the crate to the format in `schemas/event/v1`: golden examples, limits, round trips, and near-events that the
//! schemas and the decoder must judge alike. Looks at public API only.

mod golden;
mod limits;
mod near;
mod near_events;
mod round_trip;
mod schema;
