//! Reads the public keys of a JWK Set (RFC 7517) that may verify tokens.
//!
//! It must not use a key for a purpose or an algorithm that the key or the configuration excludes.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// The most usable keys of a set. Issuers have a few. A token that names no key is tried with each.
const KEYS_MAX: usize = 100;

/// A key, the id by which tokens name it, and the algorithms that it may verify.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithms: Vec<Algorithm>,
    pub(super) key: DecodingKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Option<Vec<Value>>,
    /// The description of an issuer has it (OpenID Connect Discovery 1.0).
    jwks_uri: Option<IgnoredAny>,
}

/// Reads a set. It skips keys of unknown or unwanted kinds, as the RFC asks (section 5), and shared
/// secrets, which do not belong in a public set.
///
/// # Errors
/// A reason, if the text is not a set, or the set holds no usable key or too many.
pub(super) fn read(text: &[u8], algorithms: &[Algorithm]) -> Result<Vec<Key>, String> {
    let Set { keys, jwks_uri } = serde_json::from_slice(text).map_err(|error| format!("not a JWK Set: {error}"))?;
    let keys = match (keys, jwks_uri) {
        (Some(keys), _) => keys,
        (None, Some(_)) => {
            return Err("not a JWK Set, but the description of an issuer: set auth.issuer alone, and its keys are \
                        found"
                .to_owned());
        }
        (None, None) => return Err("not a JWK Set: it has no keys".to_owned()),
    };
    let keys: Vec<Key> = keys.into_iter().filter_map(|key| usable(key, algorithms)).collect();
    if keys.is_empty() {
        let wanted: Vec<_> = algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect();
        Err(format!("the set has no public key for signatures by {}", wanted.join(", ")))
    } else if keys.len() > KEYS_MAX {
        Err(format!("the set has {} public keys for signatures, more than {KEYS_MAX}", keys.len()))
    } else {
        Ok(keys)
    }
}

fn usable(mut key: Value, algorithms: &[Algorithm]) -> Option<Key> {
    // The newer name of the same algorithm (RFC 9864), which the library does not know.
    if let Some(name @ Value::String(_)) = key.get_mut("alg")
        && name == "Ed25519"
    {
        *name = "EdDSA".into();
    }
    let key: Jwk = serde_json::from_value(key).ok()?;
    let of_kind: &[(Algorithm, KeyAlgorithm)] = match &key.algorithm {
        // Without its own `alg`, an RSA key verifies both.
        AlgorithmParameters::RSA(_) => {
            &[(Algorithm::RS256, KeyAlgorithm::RS256), (Algorithm::PS256, KeyAlgorithm::PS256)]
        }
        AlgorithmParameters::EllipticCurve(curve) => match curve.curve {
            EllipticCurve::P256 => &[(Algorithm::ES256, KeyAlgorithm::ES256)],
            EllipticCurve::P384 => &[(Algorithm::ES384, KeyAlgorithm::ES384)],
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(curve) if curve.curve == EllipticCurve::Ed25519 => {
            &[(Algorithm::EdDSA, KeyAlgorithm::EdDSA)]
        }
        _ => return None,
    };
    let is_for_signatures = key.common.public_key_use.as_ref().is_none_or(|r#use| *r#use == PublicKeyUse::Signature)
        && key.common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let is_wanted = |(algorithm, name): &&(Algorithm, KeyAlgorithm)| {
        key.common.key_algorithm.as_ref().is_none_or(|of_key| of_key == name) && algorithms.contains(algorithm)
    };
    let algorithms: Vec<Algorithm> = of_kind.iter().filter(is_wanted).map(|(algorithm, _)| *algorithm).collect();
    if !is_for_signatures || algorithms.is_empty() {
        return None;
    }
    let decoding = DecodingKey::from_jwk(&key).ok()?;
    Some(Key { id: key.common.key_id, algorithms, key: decoding })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ALL: [Algorithm; 6] =
        [Algorithm::HS256, Algorithm::RS256, Algorithm::PS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA];

    fn read_keys(keys: &[Value], algorithms: &[Algorithm]) -> Result<Vec<(String, Vec<Algorithm>)>, String> {
        let keys = read(json!({"keys": keys}).to_string().as_bytes(), algorithms)?;
        Ok(keys.into_iter().map(|key| (key.id.unwrap_or_default(), key.algorithms)).collect())
    }

    /// RFC 8037, appendix A.2, and RFC 7517, appendix A.1.
    fn ed(more: Value) -> Value {
        merged(json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}), more)
    }

    fn ec(more: Value) -> Value {
        let key = json!({"kty": "EC", "crv": "P-256", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
            "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"});
        merged(key, more)
    }

    fn merged(mut key: Value, more: Value) -> Value {
        for (name, value) in more.as_object().into_iter().flatten() {
            key[name] = value.clone();
        }
        key
    }

    /// INV-CALLER
    #[test]
    fn key_is_used_only_for_its_declared_purpose() {
        let good =
            [ed(json!({"kid": "d", "use": "sig", "alg": "EdDSA"})), ec(json!({"kid": "e", "key_ops": ["verify"]}))];
        let taken = [("d".to_owned(), vec![Algorithm::EdDSA]), ("e".to_owned(), vec![Algorithm::ES256])];
        assert_eq!(read_keys(&good, &ALL), Ok(taken.to_vec()));
        let renamed = [ed(json!({"kid": "d", "alg": "Ed25519"}))];
        assert_eq!(read_keys(&renamed, &ALL), Ok(taken[..1].to_vec()));
        for other in [
            ed(json!({"use": "enc"})),
            ed(json!({"key_ops": ["sign"]})),
            ec(json!({"alg": "ES384"})),
            ec(json!({"alg": "Ed25519"})),
            ec(json!({"alg": "ECDH-ES"})),
            ec(json!({"crv": "P-521"})),
            ec(json!({"crv": "secp256k1"})),
            json!({"kty": "oct", "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T", "alg": "HS256"}),
            json!({"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}),
            json!({"kty": "EC", "crv": "P-256"}),
            json!("a key"),
        ] {
            assert_eq!(read_keys(&[other.clone(), good[0].clone()], &ALL).map(|keys| keys.len()), Ok(1), "{other}");
        }
    }

    /// INV-CALLER
    #[test]
    fn keys_of_unlisted_algorithms_are_skipped() {
        let keys = [ed(json!({"kid": "d"})), ec(json!({"kid": "e"}))];
        assert_eq!(read_keys(&keys, &[Algorithm::ES256]), Ok(vec![("e".to_owned(), vec![Algorithm::ES256])]));
        let refused = read_keys(&keys, &[Algorithm::RS256]);
        assert_eq!(refused, Err("the set has no public key for signatures by RS256".to_owned()));
    }

    /// RFC 7517, appendix A.1. INV-CALLER
    #[test]
    fn rsa_key_verifies_what_its_alg_allows() {
        let modulus = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRX\
                       jBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSq\
                       zs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHa\
                       Q-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let rsa = |more| merged(json!({"kty": "RSA", "n": modulus, "e": "AQAB", "kid": "r"}), more);
        let taken = |more| read_keys(&[rsa(more)], &ALL).map(|keys| keys[0].1.clone());
        assert_eq!(taken(json!({})), Ok(vec![Algorithm::RS256, Algorithm::PS256]));
        assert_eq!(taken(json!({"alg": "PS256"})), Ok(vec![Algorithm::PS256]));
        assert_eq!(taken(json!({"alg": "RS256"})), Ok(vec![Algorithm::RS256]));
        assert!(taken(json!({"alg": "RS512"})).is_err() && taken(json!({"alg": "RSA-OAEP"})).is_err());
        assert_eq!(read_keys(&[rsa(json!({}))], &[Algorithm::PS256]).map(|k| k[0].1.len()), Ok(1));
    }

    #[test]
    fn invalid_or_oversized_set_is_refused_with_a_reason() {
        for text in ["", "{", "[]", "{}", r#"{"keys":{}}"#, "\u{feff}{}", "<html>"] {
            assert!(read(text.as_bytes(), &ALL).is_err_and(|problem| problem.starts_with("not a JWK Set: ")), "{text}");
        }
        let description = read(br#"{"issuer":"i","jwks_uri":"u"}"#, &ALL);
        assert!(description.is_err_and(|problem| problem.contains("auth.issuer alone")));
        let many = vec![ed(json!({})); KEYS_MAX + 1];
        assert_eq!(read_keys(&many[1..], &ALL).map(|keys| keys.len()), Ok(KEYS_MAX));
        assert!(read_keys(&many, &ALL).is_err_and(|problem| problem.contains("more than 100")));
    }
}
