//! What the tests that kill share: a process to be killed, the history fed to it, and the judge who knows what it must
//! answer. Holds no test, and trusts nothing that the process says of itself.

pub(crate) mod feed;
pub(crate) mod http;
pub(crate) mod judge;
pub(crate) mod questions;
pub(crate) mod victim;
