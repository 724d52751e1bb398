//! Attacks a running service from outside while another tenant asks it, and holds that the tenant
//! is answered, the memory is bounded, and the process lives (docs/security.md, ADR 0036).
//!
//! Each attack is bounded in count and time and stays on loopback. `tests/kafka` has the attacks
//! that need records of a real Kafka.

mod attacks;
mod besieged;
mod delay;
