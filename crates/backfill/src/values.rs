//! Turns one value of a foreign table into an id, a list of ids, a flag or a text, as a person
//! would write it. It must not guess: a value that could mean two things is an error, whose
//! sentence the caller prefixes with the column's name.
//!
//! Values are JSON. What JSON cannot say has the tags of MongoDB's Extended JSON: `$oid`,
//! `$numberLong`, `$numberInt`, `$numberDouble`, `$numberDecimal`, `$uuid`. A value of a Parquet
//! type without a JSON form is `{"$type": NAME}` (`receipts_analytics::table`).

use receipts_event::{ID_BYTES_MAX, LISTED_IDS_MAX};
use serde_json::Value;

/// A double counts as a whole number up to here, 2^53; above, it stands for several numbers.
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// Returns an id: text of 1 to 128 bytes, or a whole number of any numeric type as its digits.
///
/// # Errors
/// A sentence without a subject that names the value's type.
pub fn id(value: &Value) -> Result<String, String> {
    let text = text(value)?;
    match text.len() {
        1..=ID_BYTES_MAX => Ok(text),
        bytes => Err(format!("has {bytes} bytes, but an id has 1 to {ID_BYTES_MAX}")),
    }
}

/// Returns a text, or a whole number of any numeric type as its digits.
///
/// # Errors
/// A sentence without a subject that names the value's type.
pub fn text(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) => match number.as_f64() {
            Some(double) if number.is_f64() => whole(double),
            _ => Ok(number.to_string()),
        },
        _ => match tag(value) {
            Some(("$oid" | "$uuid" | "$numberLong" | "$numberInt", Value::String(text))) => Ok(text.clone()),
            Some(("$numberDouble", Value::String(text))) => {
                text.parse().map_err(|_| format!("is {text}, no number")).and_then(whole)
            }
            Some(("$numberDecimal", Value::String(text))) => match text.split_once('.') {
                None => Ok(text.clone()),
                Some((digits, fraction)) if fraction.bytes().all(|digit| digit == b'0') => Ok(digits.to_owned()),
                Some(_) => Err(format!("is {text}, and an id that is a number is a whole one")),
            },
            _ => Err(format!("is {}, which no id is: write it as text", describe(value))),
        },
    }
}

fn whole(double: f64) -> Result<String, String> {
    if double.fract() != 0.0 || !double.is_finite() {
        return Err(format!("is {double}, and an id that is a number is a whole one"));
    }
    if double.abs() > EXACT_MAX {
        return Err(format!("is {double}, a double that stands for several whole numbers: write it as text"));
    }
    Ok(format!("{double:.0}").trim_start_matches("-0").to_owned()).map(|digits| match digits.as_str() {
        "" => "0".to_owned(),
        _ => digits,
    })
}

/// Returns a list of ids: a JSON array, also as text, or an array as PostgreSQL writes it, `{a,"b
/// c"}`.
///
/// # Errors
/// A sentence without a subject.
pub fn ids(value: &Value) -> Result<Vec<String>, String> {
    let parsed;
    let items = match value {
        Value::Array(items) => items,
        Value::String(text) => {
            let text = text.trim();
            parsed = if text.starts_with('{') {
                postgres_array(text)
            } else {
                serde_json::from_str(text).map_err(|_| "no JSON array")
            }
            .map_err(|why| format!("is {text}, which is no list of ids ({why}): write [\"a\",\"b\"] or {{a,b}}"))?;
            &parsed
        }
        other => return Err(format!("is {}, not a list", describe(other))),
    };
    if items.len() > LISTED_IDS_MAX {
        return Err(format!("has {} ids, at most {LISTED_IDS_MAX} are allowed", items.len()));
    }
    items.iter().map(id).collect::<Result<_, _>>().map_err(|reason| format!("has an entry that {reason}"))
}

/// Parses an array of one dimension as PostgreSQL's text output writes it.
fn postgres_array(text: &str) -> Result<Vec<Value>, &'static str> {
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).ok_or("it does not end with }")?;
    let mut items = Vec::new();
    let mut rest = inner.chars().peekable();
    if inner.is_empty() {
        return Ok(items);
    }
    loop {
        let mut item = String::new();
        let is_quoted = rest.next_if_eq(&'"').is_some();
        loop {
            match rest.peek() {
                Some('"') if is_quoted => {
                    rest.next();
                    break;
                }
                Some(',') | None if !is_quoted => break,
                None => return Err("a quote is open at its end"),
                Some('{' | '}' | '"') if !is_quoted => return Err("it has more than one dimension"),
                Some('\\') => {
                    rest.next();
                    item.push(rest.next().ok_or("it ends with a backslash")?);
                }
                Some(_) => item.extend(rest.next()),
            }
        }
        if !is_quoted && item.eq_ignore_ascii_case("null") {
            return Err("an entry is NULL");
        }
        items.push(Value::String(item));
        match rest.next() {
            None => return Ok(items),
            Some(',') => {}
            Some(_) => return Err("text follows a quoted entry"),
        }
    }
}

/// Returns a flag: true or false, t or f, yes or no, 1 or 0.
///
/// # Errors
/// A sentence without a subject.
pub fn flag(value: &Value) -> Result<bool, String> {
    let text = match value {
        Value::Bool(is) => return Ok(*is),
        _ => text(value).map_err(|_| format!("is {}, neither true nor false", describe(value)))?,
    };
    match text.to_ascii_lowercase().as_str() {
        "true" | "t" | "yes" | "y" | "1" => Ok(true),
        "false" | "f" | "no" | "n" | "0" => Ok(false),
        _ => Err(format!("is {text}, neither true nor false")),
    }
}

/// Returns the only key and value of a tagged value, such as `{"$oid": "…"}`.
pub(crate) fn tag(value: &Value) -> Option<(&str, &Value)> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.iter().next().filter(|(key, _)| key.starts_with('$')).map(|(key, value)| (key.as_str(), value))
}

/// Names a value's type with an article, and shows a short one.
pub(crate) fn describe(value: &Value) -> String {
    match (value, tag(value)) {
        (Value::Null, _) => "null".to_owned(),
        (Value::Bool(is), _) => format!("the flag {is}"),
        (Value::Array(_), _) => "a list".to_owned(),
        (_, Some(("$date", _))) => "a timestamp".to_owned(),
        (_, Some(("$type", Value::String(name)))) => format!("of type {name}"),
        (_, Some((name, _))) => format!("a value with the mark {name}"),
        (Value::Object(_), None) => "an object of several columns".to_owned(),
        (Value::String(text), _) => text.clone(),
        (Value::Number(number), _) => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_id_is_what_a_person_would_write() {
        for (value, wanted) in [
            (json!("0042"), "0042"),
            (json!(12), "12"),
            (json!(12.0), "12"),
            (json!(-0.0), "0"),
            (json!(-7.0), "-7"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!({"$oid": "65f0"}), "65f0"),
            (json!({"$numberLong": "9007199254740993"}), "9007199254740993"),
            (
                json!({"$numberDecimal": "340282366920938463463374607431768211455.00"}),
                "340282366920938463463374607431768211455",
            ),
        ] {
            assert_eq!(id(&value).as_deref(), Ok(wanted), "{value}");
        }
        for (value, part) in [
            (json!(12.5), "whole"),
            (json!(9.1e15), "several whole numbers"),
            (json!({"$numberDecimal": "1.5"}), "whole"),
            (json!(true), "the flag true"),
            (json!({"$date": "2026-11-20T12:05:00Z"}), "a timestamp"),
            (json!({"$type": "Interval(MonthDayNano)"}), "Interval(MonthDayNano)"),
            (json!({"a": 1}), "an object"),
            (json!(""), "0 bytes"),
            (json!("x".repeat(129)), "129 bytes"),
        ] {
            let sentence = id(&value).unwrap_err();
            assert!(sentence.contains(part), "{value}: {sentence}");
        }
    }

    #[test]
    fn lists_come_as_json_or_from_postgresql() {
        for (value, wanted) in [
            (json!(["a", 2]), vec!["a", "2"]),
            (json!("[\"a\", 2]"), vec!["a", "2"]),
            (json!("{a,2}"), vec!["a", "2"]),
            (json!(r#"{"b c","q\"u\\o",NULLA}"#), vec!["b c", "q\"u\\o", "NULLA"]),
            (json!("{}"), vec![]),
            (json!([]), vec![]),
        ] {
            assert_eq!(ids(&value).unwrap(), wanted, "{value}");
        }
        for wrong in ["a,b", "{a,NULL}", "{{a},{b}}", "{a", "{\"a}", "{\"a\"b}", "{a,}", "[null]", "[1.5]"] {
            assert!(ids(&json!(wrong)).is_err(), "{wrong}");
        }
        assert!(ids(&json!(7)).is_err());
    }

    #[test]
    fn flags_have_the_usual_words() {
        for (value, wanted) in [(json!("T"), true), (json!(1.0), true), (json!("no"), false), (json!(0), false)] {
            assert_eq!(flag(&value), Ok(wanted), "{value}");
        }
        assert!(flag(&json!("perhaps")).is_err() && flag(&json!(2)).is_err() && flag(&json!([true])).is_err());
    }
}
