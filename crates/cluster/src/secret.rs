//! The secret that the processes of one service share, and the keys derived from it. Reads no file.

use hmac::{Hmac, Mac};
use receipts_event::hex;
use receipts_query::CursorKey;
use sha2::Sha256;

/// The fewest bytes of a secret.
pub const SECRET_BYTES_MIN: usize = 32;

/// The secret that projectors and query edges share, so that a projector answers no other caller.
///
/// The credential of internal calls and the key that signs cursors are derived from it; the secret
/// itself is never sent.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Makes a secret of at least [`SECRET_BYTES_MIN`] bytes; returns `None` if there are fewer.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (bytes.len() >= SECRET_BYTES_MIN).then(|| Self(bytes.to_vec()))
    }

    /// Returns the credential that an edge sends: the value of `Authorization` after `Bearer `.
    pub fn credential(&self) -> String {
        hex(&self.derive(b"receipts internal call 1").finalize().into_bytes())
    }

    /// Returns whether `shown` is the credential. Every wrong one of the right length takes the
    /// same time.
    pub fn is_credential(&self, shown: &str) -> bool {
        unhex(shown).is_some_and(|shown| self.derive(b"receipts internal call 1").verify_slice(&shown).is_ok())
    }

    /// Returns the key that signs cursors.
    pub fn cursor_key(&self) -> CursorKey {
        CursorKey::new(self.derive(b"receipts cursor 1").finalize().into_bytes().into())
    }

    fn derive(&self, purpose: &[u8]) -> Hmac<Sha256> {
        Hmac::<Sha256>::new_from_slice(&self.0).expect("any length is a key").chain_update(purpose)
    }
}

/// Writes a projector's own cursor key as [`PeerState::cursor_key`](crate::PeerState::cursor_key)
/// carries it.
pub fn cursor_key_to_text(key: &CursorKey) -> String {
    hex(key.bytes())
}

/// Reads a key that [`cursor_key_to_text`] wrote.
pub fn cursor_key_from_text(text: &str) -> Option<CursorKey> {
    unhex(text).map(CursorKey::new)
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let text = text.as_bytes();
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}
