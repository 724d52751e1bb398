//! Near-events: the schemas and the decoder must agree, except where a schema cannot express a
//! rule.

use jsonschema::Validator;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use receipts_event::{Reason, SENTENCE_BYTES_MAX, decode};
use serde_json::Value;

use crate::near::near_event;
use crate::schema;

/// Returns true if a schema must judge a value differently: a text near the limit with more bytes
/// than characters, or an integer that is not written as one.
fn is_beyond_schemas(value: &Value) -> bool {
    let is_wide = |text: &str| text.len() > 128 && text.chars().count() <= 128;
    match value {
        Value::String(text) => is_wide(text),
        Value::Number(number) => number.as_f64().is_some_and(|float| number.is_f64() && float.fract() == 0.0),
        Value::Array(items) => items.iter().any(is_beyond_schemas),
        Value::Object(members) => members.iter().any(|(name, value)| is_wide(name) || is_beyond_schemas(value)),
        Value::Null | Value::Bool(_) => false,
    }
}

fn agree(validator: &Validator, json: &str, has_twins: bool) -> Result<(), TestCaseError> {
    let verdict = decode(json.as_bytes());
    if let Err(rejection) = &verdict {
        let sentence = rejection.to_string();
        prop_assert!(!rejection.problems.is_empty() && !sentence.is_empty() && sentence.len() <= SENTENCE_BYTES_MAX);
    }
    // A schema never sees values that this parser rejects (numbers out of range, half a surrogate
    // pair).
    let Ok(value) = serde_json::from_str::<Value>(json) else { return Ok(()) };
    if has_twins {
        return Ok(());
    }
    let is_valid = validator.is_valid(&value);
    if is_beyond_schemas(&value) {
        prop_assert!(is_valid || verdict.is_err(), "the schema is stricter: {json}");
    } else {
        prop_assert_eq!(is_valid, verdict.is_ok(), "{}: {:?}", json, verdict);
    }
    if let Err(rejection) = verdict {
        prop_assert!(rejection.reason <= Reason::LimitExceeded);
        for problem in rejection.problems {
            let target = value.pointer(&problem.pointer);
            let is_right = if problem.detail.starts_with("is missing") {
                target.is_none_or(Value::is_null)
            } else {
                target.is_some()
            };
            prop_assert!(is_right, "{json}: {problem:?}");
        }
    }
    Ok(())
}

#[test]
fn schema_and_decoder_judge_near_events_alike() {
    let validator = schema::validator("event");
    let config = ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(near in near_event())| agree(&validator, &near.json, near.has_twins)?);
}

/// Otherwise the test above would compare rejections only.
#[test]
fn a_fair_share_of_near_events_are_events() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let count = (0..1_000)
        .filter(|_| {
            let near = near_event().new_tree(&mut runner).expect("a near-event can be made").current();
            decode(near.json.as_bytes()).is_ok()
        })
        .count();
    assert!((100..900).contains(&count), "{count} of 1,000");
}
