//! Writes bytes as hexadecimal digits: digests, keys and random ids. Reads none.

/// Returns two lower-case hexadecimal digits per byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
