//! Shared parts of the fuzz targets: a store in memory with a seeded history, its pages as plain
//! bytes, and seeds for a corpus. The targets check the properties.

pub mod fixture;
pub mod seeds;
pub mod values;
