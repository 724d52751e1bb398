//! Signs tokens for tests. Uses no crate of the product.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use hmac::{Hmac, Mac as _};
use serde_json::Value;
use sha2::Sha256;

/// The secret of HS256, for `auth.secret_file`.
pub const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Returns a JWT with these claims, signed by [`SECRET`].
///
/// # Panics
/// Never: HMAC takes a key of any length.
#[must_use]
pub fn token(claims: &Value) -> String {
    let signed = format!("{}.{}", BASE64.encode(r#"{"alg":"HS256","typ":"JWT"}"#), BASE64.encode(claims.to_string()));
    let mac = Hmac::<Sha256>::new_from_slice(SECRET).expect("any length").chain_update(&signed);
    format!("{signed}.{}", BASE64.encode(mac.finalize().into_bytes()))
}
