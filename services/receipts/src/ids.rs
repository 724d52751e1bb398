//! Reads ids of people, messages, conversations and tenants from the command line.
//!
//! It does not know what an id is for.

use receipts_event::ID_BYTES_MAX;

/// Reads an id.
///
/// # Errors
/// A sentence about its length.
pub(crate) fn id(text: &str) -> Result<String, String> {
    match text.len() {
        1..=ID_BYTES_MAX => Ok(text.to_owned()),
        bytes => Err(format!("has {bytes} bytes, but an id has 1 to {ID_BYTES_MAX}")),
    }
}

/// Reads a tenant.
///
/// # Errors
/// A sentence about its length, or its slash.
pub(crate) fn tenant(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a tenant has at least one byte".to_owned()),
        _ if text.len() > ID_BYTES_MAX => Err(format!("a tenant has at most {ID_BYTES_MAX} bytes")),
        _ if text.contains('/') => Err("a tenant has no slash".to_owned()),
        _ => Ok(text.to_owned()),
    }
}
