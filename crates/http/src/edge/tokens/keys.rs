//! Reads the public keys of a JWK Set (RFC 7517) that may verify tokens, each for one algorithm.
//!
//! It must not use a key for a purpose or an algorithm that the key or the configuration excludes.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use serde_json::Value;

/// The most usable keys of a set. Issuers have a few. A token that names no key is tried with each.
const KEYS_MAX: usize = 100;

/// A key, the id by which tokens name it, and its algorithm.
pub(super) struct Key {
    pub(super) id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// Reads a set. It skips keys of unknown or unwanted kinds, as the RFC asks (section 5), and shared
/// secrets, which do not belong in a public set.
///
/// # Errors
/// A reason, if the text is not a set, or the set holds no usable key or too many.
pub(super) fn read(text: &[u8], algorithms: &[Algorithm]) -> Result<Vec<Key>, String> {
    let Set { keys } = serde_json::from_slice(text).map_err(|error| format!("not a JWK Set: {error}"))?;
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
    let (algorithm, named) = match &key.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(curve) if curve.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    let is_for_signatures = key.common.public_key_use.as_ref().is_none_or(|r#use| *r#use == PublicKeyUse::Signature)
        && key.common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    let is_for_algorithm =
        key.common.key_algorithm.is_none_or(|of_key| of_key == named) && algorithms.contains(&algorithm);
    let usable = is_for_signatures && is_for_algorithm;
    usable.then(|| DecodingKey::from_jwk(&key).ok()).flatten().map(|decoding| Key {
        id: key.common.key_id.clone(),
        algorithm,
        key: decoding,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ALL: [Algorithm; 4] = [Algorithm::HS256, Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];

    fn read_keys(keys: &[Value], algorithms: &[Algorithm]) -> Result<Vec<(String, Algorithm)>, String> {
        let keys = read(json!({"keys": keys}).to_string().as_bytes(), algorithms)?;
        Ok(keys.into_iter().map(|key| (key.id.unwrap_or_default(), key.algorithm)).collect())
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
        let taken = [("d".to_owned(), Algorithm::EdDSA), ("e".to_owned(), Algorithm::ES256)];
        assert_eq!(read_keys(&good, &ALL), Ok(taken.to_vec()));
        let renamed = [ed(json!({"kid": "d", "alg": "Ed25519"}))];
        assert_eq!(read_keys(&renamed, &ALL), Ok(taken[..1].to_vec()));
        for other in [
            ed(json!({"use": "enc"})),
            ed(json!({"key_ops": ["sign"]})),
            ec(json!({"alg": "ES384"})),
            ec(json!({"alg": "Ed25519"})),
            ec(json!({"alg": "ECDH-ES"})),
            ec(json!({"crv": "P-384"})),
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
        assert_eq!(read_keys(&keys, &[Algorithm::ES256]), Ok(vec![("e".to_owned(), Algorithm::ES256)]));
        let refused = read_keys(&keys, &[Algorithm::RS256]);
        assert_eq!(refused, Err("the set has no public key for signatures by RS256".to_owned()));
    }

    #[test]
    fn invalid_or_oversized_set_is_refused_with_a_reason() {
        for text in ["", "{", "[]", "{}", r#"{"keys":{}}"#, "\u{feff}{}", "<html>"] {
            assert!(read(text.as_bytes(), &ALL).is_err_and(|problem| problem.starts_with("not a JWK Set: ")), "{text}");
        }
        let many = vec![ed(json!({})); KEYS_MAX + 1];
        assert_eq!(read_keys(&many[1..], &ALL).map(|keys| keys.len()), Ok(KEYS_MAX));
        assert!(read_keys(&many, &ALL).is_err_and(|problem| problem.contains("more than 100")));
    }
}
