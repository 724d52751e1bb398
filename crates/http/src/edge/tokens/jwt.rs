//! The parts of a signed JWT (RFC 7515, RFC 7519), read strictly: a name that stands twice is seen.
//!
//! It must not verify a signature or decide what a claim means.

use super::refusals::{Reason, Refusal, quoted};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::fmt;

/// A token in its parts.
pub(super) struct Jwt<'t> {
    /// The text that is signed: header and claims, encoded.
    pub(super) signed: &'t str,
    /// The signature, encoded.
    pub(super) signature: &'t str,
    /// The name of the algorithm.
    pub(super) algorithm_name: String,
    /// The algorithm, if this service knows it.
    pub(super) algorithm: Option<Algorithm>,
    /// The id of the key.
    pub(super) key_id: Option<String>,
    /// The claims, encoded.
    claims: &'t str,
}

/// The header, as far as it matters here. serde refuses a name that stands twice.
#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    crit: Option<IgnoredAny>,
}

impl<'t> Jwt<'t> {
    /// Splits a token and reads its header.
    ///
    /// # Errors
    /// The reason, if the token is not a signed JWT.
    pub(super) fn read(token: &'t [u8]) -> Result<Self, Refusal> {
        let text = std::str::from_utf8(token).map_err(|_| Reason::Malformed.found("bytes that are no UTF-8"))?;
        // An opaque token has one part, an encrypted one has five.
        let parts = || Reason::Malformed.found(format!("parts: {}", text.split('.').count()));
        let (signed, signature) = text.rsplit_once('.').ok_or_else(parts)?;
        let (head, claims) = signed.split_once('.').ok_or_else(parts)?;
        if claims.contains('.') {
            return Err(parts());
        }
        let Head { alg, kid, crit } = decoded(head, "a header that is not JSON with one alg")?;
        // A critical extension that is unknown here must be refused (RFC 7515, section 4.1.11).
        if crit.is_some() {
            return Err(Reason::Algorithm.found("crit"));
        }
        Ok(Self { signed, signature, algorithm: algorithm(&alg), algorithm_name: alg, key_id: kid, claims })
    }

    /// Reads the claims.
    ///
    /// # Errors
    /// The reason, if they are not an object, or name a claim twice: two readers of such a token
    /// could believe different values.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, Refusal> {
        let Claims { claims, repeated } = decoded(self.claims, "claims that are not a JSON object")?;
        match repeated {
            Some(name) => Err(Reason::RepeatedClaim.found(quoted(&name))),
            None => Ok(claims),
        }
    }
}

/// Returns the algorithm of this name. RFC 9864 replaces the name `EdDSA` by that of the curve.
pub(super) fn algorithm(name: &str) -> Option<Algorithm> {
    match name {
        "HS256" => Some(Algorithm::HS256),
        "RS256" => Some(Algorithm::RS256),
        "PS256" => Some(Algorithm::PS256),
        "ES256" => Some(Algorithm::ES256),
        "ES384" => Some(Algorithm::ES384),
        "EdDSA" | "Ed25519" => Some(Algorithm::EdDSA),
        _ => None,
    }
}

fn decoded<T: DeserializeOwned>(part: &str, otherwise: &str) -> Result<T, Refusal> {
    let json = URL_SAFE_NO_PAD.decode(part).map_err(|_| Reason::Malformed.found("a part that is not base64url"))?;
    serde_json::from_slice(&json).map_err(|_| Reason::Malformed.found(otherwise))
}

/// Claims, and a name that stands twice among them.
struct Claims {
    claims: Map<String, Value>,
    repeated: Option<String>,
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of claims")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Claims, A::Error> {
                let (mut claims, mut repeated) = (Map::new(), None);
                while let Some((name, value)) = entries.next_entry::<String, Value>()? {
                    if claims.contains_key(&name) {
                        repeated = Some(name);
                    } else {
                        claims.insert(name, value);
                    }
                }
                Ok(Claims { claims, repeated })
            }
        }

        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(head: &str, claims: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims))
    }

    fn read(head: &str, claims: &str) -> Result<Map<String, Value>, Reason> {
        let claims = Jwt::read(token(head, claims).as_bytes()).and_then(|jwt| jwt.claims());
        claims.map_err(|refusal| refusal.reason)
    }

    #[test]
    fn parts_of_a_token_are_read() {
        let text = token(r#"{"alg":"Ed25519","kid":"k","typ":"at+jwt","jku":"x"}"#, r#"{"iss":"i"}"#);
        let jwt = Jwt::read(text.as_bytes()).expect("a token");
        assert_eq!((jwt.algorithm, jwt.key_id.as_deref()), (Some(Algorithm::EdDSA), Some("k")));
        assert_eq!((jwt.signature, format!("{}.c2ln", jwt.signed)), ("c2ln", text.clone()));
        assert_eq!(jwt.claims().ok().map(|claims| claims.len()), Some(1));
    }

    /// INV-CALLER
    #[test]
    fn repeated_names_are_refused() {
        const HEAD: &str = r#"{"alg":"HS256"}"#;
        assert!(read(HEAD, r#"{"a":{"b":1},"b":{"b":1}}"#).is_ok());
        for claims in
            [r#"{"tenant":"a","tenant":"b"}"#, r#"{"tenant":"a","\u0074enant":"a"}"#, r#"{"x":1,"y":2,"x":1}"#]
        {
            assert_eq!(read(HEAD, claims), Err(Reason::RepeatedClaim), "{claims}");
        }
        for head in [r#"{"alg":"HS256","alg":"RS256"}"#, r#"{"alg":"HS256","kid":"a","kid":"b"}"#] {
            assert_eq!(read(head, "{}"), Err(Reason::Malformed), "{head}");
        }
    }

    #[test]
    fn other_texts_are_no_tokens() {
        for token in ["", "x", "a.b", "..", "e30.e30.", "a.b.c.d", "\u{fffd}.e30.x"] {
            assert_eq!(
                Jwt::read(token.as_bytes()).err().map(|refusal| refusal.reason),
                Some(Reason::Malformed),
                "{token}"
            );
        }
        assert_eq!(Jwt::read(b"\xff.e30.x").err().map(|refusal| refusal.reason), Some(Reason::Malformed));
        for (head, claims) in
            [(r#"{"alg":7}"#, "{}"), ("{}", "{}"), (r#"{"alg":"HS256"}"#, "[]"), (r#"{"alg":"HS256"}"#, "{")]
        {
            assert_eq!(read(head, claims), Err(Reason::Malformed), "{head} {claims}");
        }
        assert_eq!(read(r#"{"alg":"HS256","crit":["exp"]}"#, "{}"), Err(Reason::Algorithm));
    }
}
