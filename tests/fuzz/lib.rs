//! What the fuzz targets share: a store in memory with a seeded past, its pages as plain bytes, and seeds for a corpus.
//! Judges nothing: what must hold stands in the targets.

pub mod fixture;
pub mod seeds;
pub mod values;
