//! Kills, cuts of the network and full disks, on the embedded log and on a real Kafka. How often is
//! set by the environment: a few times in every run of `tests/run`, a thousand kills with
//! `tests/run --long`.

mod crash;
mod cuts;
mod disk;
mod kafka_kills;
mod moves;
mod replicas;
mod restarts;
