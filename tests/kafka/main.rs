//! The service on a real Kafka, in all its deployments. Needs Java, Maven and kcat, and fails where
//! one is missing; `RECEIPTS_TEST_KAFKA=off` leaves these tests out. Must not kill brokers or
//! services at random: `tests/long` does.

mod analysts;
mod dead_letters;
mod described;
mod edges;
mod end_to_end;
mod hostile;
mod ingest;
mod live;
mod made_anew;
mod members;
mod operator;
mod outages;
mod restores;
mod secured;
mod support_bundle;
mod tail;
mod topics;
mod traces;
mod transactions;
mod updates;
