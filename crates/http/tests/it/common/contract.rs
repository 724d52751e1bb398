//! Checks answers and accepted bodies against the OpenAPI document: the status is declared, the
//! body has the declared shape and no other field, and the common headers are present.

use super::Answer;
use jsonschema::Validator;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// The document with closed shapes of answers: an undeclared field is an error. Only a receipt with
/// the status `ok` has counts, which the document says in words.
static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = receipts_http::openapi_document();
    for name in ["Accepted", "Receipt", "ReceiptsAnswer", "Member", "MembersPage", "ReadMark", "ReadinessAnswer"] {
        let schema = &mut document["components"]["schemas"][name];
        assert!(schema.is_object(), "{name}");
        schema["additionalProperties"] = false.into();
    }
    let counts = ["audience_count", "read_count", "unread_count", "hidden_count", "departed_count", "all_read"];
    let none: Vec<_> = counts.iter().map(|count| json!({"required": [count]})).collect();
    let receipt = &mut document["components"]["schemas"]["Receipt"];
    receipt["if"] = json!({"properties": {"status": {"const": "ok"}}});
    receipt["then"] = json!({"required": counts});
    receipt["else"] = json!({"not": {"anyOf": none}});
    document
});

/// Checks one answer.
pub(crate) fn check(method: &str, path: &str, answer: &Answer) {
    let status = answer.status.as_u16();
    assert!(answer.headers.contains_key("x-request-id"), "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store", "{answer:?}");
    // Preflights need no declaration.
    if method == "OPTIONS" {
        return;
    }
    let content_type = answer.headers.get("content-type").map_or("", |value| value.to_str().unwrap());
    if status >= 400 {
        assert_eq!(content_type, "application/problem+json", "{answer:?}");
        conforms(&json!({"$ref": "#/components/schemas/Problem"}), &answer.json);
        assert_eq!(answer.json["status"], status, "{answer:?}");
        let uri = answer.json["type"].as_str().unwrap();
        assert!(receipts_http::Code::ALL.iter().any(|code| uri.ends_with(&format!(":{}", code.spec().0))), "{uri}");
        assert_eq!(answer.headers.contains_key("retry-after"), matches!(status, 429 | 503), "{answer:?}");
    }
    let Some(operation) = operation(method, path) else {
        assert!(matches!(status, 404 | 405), "{method} {path} is not in the document: {answer:?}");
        return;
    };
    let declared = &operation["responses"][status.to_string()];
    assert!(declared.is_object(), "{method} {path} does not declare {status}");
    if status < 400 && answer.json.is_object() && path != "/openapi.json" {
        conforms(&declared["content"]["application/json"]["schema"], &answer.json);
    }
    if operation["tags"] == json!(["query"]) && !matches!(answer.code(), "overloaded" | "rate-limited" | "internal") {
        let seen = answer.headers.contains_key("receipts-position");
        // A bad caller is refused before the read begins, and a foreign web page before that.
        let pointer = answer.json["errors"][0]["pointer"].as_str().unwrap_or_default();
        let is_early = ["/Receipts-", "/ticket", "/Host", "/Origin", "/Sec-Fetch-Site"]
            .iter()
            .any(|name| pointer.starts_with(name));
        assert!(seen || status == 401 || is_early, "{answer:?}");
    }
}

/// Checks that the document allows an accepted JSON body.
pub(crate) fn check_accepted_body(body: &str) {
    if let Ok(body) = serde_json::from_str(body) {
        conforms(
            &operation("POST", "/v1/events").unwrap()["requestBody"]["content"]["application/json"]["schema"],
            &body,
        );
    }
}

/// Finds the operation of a method and a path, by the templates.
fn operation(method: &str, path: &str) -> Option<&'static Value> {
    let matches = |template: &str| {
        template.split('/').count() == path.split('/').count()
            && template.split('/').zip(path.split('/')).all(|(name, segment)| name.starts_with('{') || name == segment)
    };
    let paths = DOCUMENT["paths"].as_object().unwrap();
    let (_, item) = paths.iter().find(|(template, _)| matches(template))?;
    item.get(method.to_ascii_lowercase())
}

/// Panics unless a value conforms to a schema of the document.
fn conforms(schema: &Value, value: &Value) {
    assert!(schema.is_object(), "no schema for {value}");
    let mut schema = schema.clone();
    schema["components"] = DOCUMENT["components"].clone();
    let validator: Validator = jsonschema::draft202012::new(&schema).unwrap();
    let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{value}: {errors:?}");
}
