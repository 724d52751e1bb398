//! A key of an issuer that is played by a command, and the tokens that it signs: for trying tokens
//! without an identity provider.
//!
//! It must not accept a token, and no service may hold such a key.

use aws_lc_rs::rand;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The bytes of an Ed25519 private key (RFC 8032).
const SEED_BYTES: usize = 32;

/// An Ed25519 key that signs tokens.
pub struct TrialKey {
    pair: Ed25519KeyPair,
    jwk: PrivateJwk,
}

/// A private key as a JWK (RFC 8037).
#[derive(Serialize, Deserialize)]
struct PrivateJwk {
    kty: String,
    crv: String,
    alg: String,
    kid: String,
    x: String,
    d: String,
}

impl TrialKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn generate() -> Result<Self, String> {
        let mut seed = [0; SEED_BYTES];
        rand::fill(&mut seed).map_err(|_| "the system gave no random numbers".to_owned())?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|error| error.to_string())?;
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let jwk = PrivateJwk {
            kty: "OKP".to_owned(),
            crv: "Ed25519".to_owned(),
            alg: "EdDSA".to_owned(),
            // The public key tells it apart from every other key.
            kid: x.clone(),
            x,
            d: URL_SAFE_NO_PAD.encode(seed),
        };
        Ok(Self { pair, jwk })
    }

    /// Reads a key that [`TrialKey::private`] has shown.
    ///
    /// # Errors
    /// A reason, if the text is no such key.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let jwk: PrivateJwk = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let part = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|error| error.to_string());
        let pair = Ed25519KeyPair::from_seed_and_public_key(&part(&jwk.d)?, &part(&jwk.x)?)
            .map_err(|error| format!("no Ed25519 key: {error}"))?;
        Ok(Self { pair, jwk })
    }

    /// Returns the private key, a JWK.
    pub fn private(&self) -> Value {
        json!(self.jwk)
    }

    /// Returns the public key in a JWK Set, as `auth.jwks_file` and `auth.jwks_url` take it.
    pub fn public_set(&self) -> Value {
        let PrivateJwk { kty, crv, alg, kid, x, .. } = &self.jwk;
        json!({"keys": [{"kty": kty, "crv": crv, "alg": alg, "use": "sig", "kid": kid, "x": x}]})
    }

    /// Signs a token with these claims.
    pub fn sign(&self, claims: &Map<String, Value>) -> String {
        let header = json!({"alg": self.jwk.alg, "typ": "at+jwt", "kid": self.jwk.kid});
        let part = |json: String| URL_SAFE_NO_PAD.encode(json);
        let signed = format!("{}.{}", part(header.to_string()), part(json!(claims).to_string()));
        let signature = URL_SAFE_NO_PAD.encode(self.pair.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_comes_back_as_it_was_written() {
        let key = TrialKey::generate().expect("a key");
        let again = TrialKey::read(key.private().to_string().as_bytes()).expect("the same key");
        let claims = json!({"sub": "alice"});
        let claims = claims.as_object().expect("an object");
        assert_eq!(key.sign(claims), again.sign(claims));
        assert_eq!(key.public_set(), again.public_set());
        assert!(!key.public_set().to_string().contains(key.private()["d"].as_str().expect("a text")));
        for other in ["", "{}", &key.public_set()["keys"][0].to_string()] {
            assert!(TrialKey::read(other.as_bytes()).is_err(), "{other}");
        }
    }
}
