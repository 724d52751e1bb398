//! The parts that the tests that kill share: the process, the history posted to it, and the judge
//! of its answers. Holds no test, and must not trust the process about itself.

pub mod feed;
pub mod http;
pub mod judge;
pub mod questions;
pub mod victim;
