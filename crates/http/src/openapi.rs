//! The OpenAPI 3.1 document, generated from the declarations of the routes, the problem codes and
//! the event schemas.
//!
//! It must not say anything that the code does not do (INV-OPENAPI). `schemas/openapi.yaml` is this
//! document. A test keeps them equal, and rewrites the file with `RECEIPTS_TEST_WRITE_SCHEMAS=1`.

use crate::problem::{Code, TYPE_PREFIX};
use axum::Router;
use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use utoipa::OpenApi as _;

/// The routes with their own declarations.
#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Read receipts",
        description = "Read receipts: which members of a conversation have read which messages. Events go in, receipts \
                       come out. Tenant and caller come from the credential, or, if no authentication is configured, \
                       from the headers `Receipts-Tenant` and `Receipts-Caller`. Every error is an RFC 9457 problem."
    ),
    tags(
        (name = "ingest", description = "Write events"),
        (name = "query", description = "Ask for receipts, member lists, read marks and updates"),
        (name = "health", description = "Health of the service")
    ),
    paths(
        crate::routes::events::post_events,
        crate::routes::receipts::query_receipts,
        crate::routes::receipts::get_receipt,
        crate::routes::members::list_members,
        crate::routes::members::list_members_by_body,
        crate::routes::read_marks::get_read_mark,
        crate::routes::read_marks::query_read_marks,
        crate::routes::updates::stream_updates,
        crate::routes::updates::create_stream_ticket,
        crate::routes::health::livez,
        crate::routes::health::readyz,
        crate::routes::health::metrics,
        openapi,
    ),
    components(schemas(crate::shapes::Problem))
)]
struct Declared;

/// The event schemas of the log, which posted bodies use too: name and text of each.
const EVENT_SCHEMAS: [(&str, &str); 10] = [
    ("event", include_str!("../../../schemas/event/v1/event.schema.json")),
    ("common", include_str!("../../../schemas/event/v1/common.schema.json")),
    ("conversation.configured", include_str!("../../../schemas/event/v1/conversation.configured.schema.json")),
    ("members.changed", include_str!("../../../schemas/event/v1/members.changed.schema.json")),
    ("message.sent", include_str!("../../../schemas/event/v1/message.sent.schema.json")),
    ("message.read", include_str!("../../../schemas/event/v1/message.read.schema.json")),
    ("conversation.read", include_str!("../../../schemas/event/v1/conversation.read.schema.json")),
    ("message.recalled", include_str!("../../../schemas/event/v1/message.recalled.schema.json")),
    ("policy.changed", include_str!("../../../schemas/event/v1/policy.changed.schema.json")),
    ("user.erased", include_str!("../../../schemas/event/v1/user.erased.schema.json")),
];

/// The problem statuses of an operation beside those that all have.
const PROBLEMS: [(&str, &[u16]); 10] = [
    ("post_events", &[408, 413, 415]),
    ("query_receipts", &[408, 413, 415]),
    ("get_receipt", &[404]),
    ("list_members", &[404, 409]),
    ("list_members_by_body", &[404, 408, 409, 413, 415]),
    ("get_read_mark", &[404]),
    ("query_read_marks", &[408, 413, 415]),
    ("stream_updates", &[410]),
    ("create_stream_ticket", &[408, 413, 415]),
    ("readyz", &[503]),
];
/// The problem statuses of every operation: a bad `Host`, and a foreign web page.
const PROBLEMS_OF_ALL: [u16; 2] = [400, 403];
/// The problem statuses of every operation that needs a caller.
const PROBLEMS_OF_CALLERS: [u16; 5] = [401, 429, 431, 500, 503];

/// The document as it is served. It never changes while the process lives.
static SERVED: LazyLock<String> = LazyLock::new(|| document().to_string());

/// Returns the route of the document.
pub(crate) fn router() -> Router {
    Router::new().route("/openapi.json", get(openapi))
}

/// Returns this document.
///
/// It describes the version of the service that serves it.
#[utoipa::path(
    get, path = "/openapi.json", operation_id = "openapi", tag = "health",
    responses((status = 200, description = "OpenAPI 3.1.", body = Value, content_type = "application/json"))
)]
async fn openapi() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], SERVED.as_str()).into_response()
}

/// Returns the document.
///
/// It keeps to what generators of clients understand (`tests/tools/generators`): each schema has a
/// `type`, no rule stands beside properties as `oneOf`, `not` or `if`, and no header has a default,
/// which some clients would send. `schemas/event` and `schemas/update` have the exact rules.
pub fn document() -> Value {
    let mut document = serde_json::to_value(Declared::openapi()).unwrap_or_default();
    // Relative: the service that serves the document.
    document["servers"] = json!([{"url": "/", "description": "The service that serves this document."}]);
    document["info"]["version"] = env!("CARGO_PKG_VERSION").into();
    document["info"]["contact"] = json!({"name": "The operator of the service"});
    document["info"]["license"] = json!({"name": "Apache License 2.0", "identifier": "Apache-2.0"});
    for operation in operations(&mut document) {
        complete(operation);
    }
    let components = &mut document["components"];
    add_schemas(&mut components["schemas"]);
    components["responses"] = problem_responses();
    components["securitySchemes"] = json!({"bearer": {
        "type": "http", "scheme": "bearer", "bearerFormat": "JWT",
        "description": "If tokens are configured (`auth.*`): the tenant is the claim `tenant`, the user is `sub`, and the scopes \
                        are in `scope`, `scopes` or `scp`: `receipts:own` (a person's own reads and read marks), \
                        `receipts:members` (counts, lists and read marks of all), `receipts:policy`, `receipts:erase`, and \
                        `receipts:write` (all other events), which implies the other writing ones unless \
                        `auth.strict_scopes` is set. A token without `sub` belongs to a service.",
    }});
    components["headers"] = headers();
    components["parameters"] = parameters();
    document
}

/// Returns all operations of a document.
fn operations(document: &mut Value) -> impl Iterator<Item = &mut Value> {
    let paths = document["paths"].as_object_mut().into_iter().flat_map(Map::values_mut);
    paths.filter_map(Value::as_object_mut).flat_map(Map::values_mut).filter(|operation| operation.is_object())
}

/// Adds the parameters, headers and problems that an operation shares with others.
fn complete(operation: &mut Value) {
    let id = operation["operationId"].as_str().unwrap_or_default().to_owned();
    let needs_caller = operation["tags"] != json!(["health"]);
    let is_read = operation["tags"] == json!(["query"]) && id != "create_stream_ticket";
    let mut shared = Vec::new();
    operation["security"] = if needs_caller { json!([{"bearer": []}, {}]) } else { json!([]) };
    if needs_caller {
        shared.extend(["Receipts-Tenant", "Receipts-Caller"]);
    }
    if is_read {
        shared.extend(["Receipts-Min-Position", "Receipts-Wait-Ms"]);
    }
    if !shared.is_empty() {
        let references = shared.iter().map(|name| json!({"$ref": format!("#/components/parameters/{name}")}));
        let mut all = operation["parameters"].as_array().cloned().unwrap_or_default();
        all.extend(references);
        operation["parameters"] = all.into();
    }
    if id == "post_events" {
        operation["requestBody"]["content"]["application/json"]["schema"] =
            json!({"$ref": "#/components/schemas/events"});
        operation["requestBody"]["content"]["application/json"]["example"] = json!({
            "type": "message.read", "conversation_id": "g1", "reader_id": "bob", "message_ids": ["m1"],
            "read_at_ms": 1_780_000_004_000_u64,
        });
    }
    let header = |name: &str| json!({"$ref": format!("#/components/headers/{name}")});
    for response in operation["responses"].as_object_mut().into_iter().flat_map(Map::values_mut) {
        response["headers"]["X-Request-Id"] = header("X-Request-Id");
        if needs_caller {
            response["headers"]["Receipts-Position"] = header("Receipts-Position");
        }
        if is_read {
            response["headers"]["Receipts-Stale"] = header("Receipts-Stale");
        }
    }
    let own = PROBLEMS.iter().find(|(name, _)| *name == id).map_or(&[][..], |(_, own)| own);
    let of_callers = if needs_caller { &PROBLEMS_OF_CALLERS[..] } else { &[] };
    for status in own.iter().chain(&PROBLEMS_OF_ALL).chain(of_callers) {
        let name = status.to_string();
        operation["responses"][&name] = json!({"$ref": format!("#/components/responses/{name}")});
    }
}

/// Adds the event schemas, and the details that derived schemas cannot express.
fn add_schemas(schemas: &mut Value) {
    for (name, text) in EVENT_SCHEMAS {
        let mut schema: Value = serde_json::from_str(text).unwrap_or_default();
        let definitions = schema.as_object_mut().and_then(|schema| {
            schema.remove("$schema");
            schema.remove("$id");
            schema.remove("$defs")
        });
        for (definition, mut schema) in definitions.as_ref().and_then(Value::as_object).cloned().unwrap_or_default() {
            point_into_components(&mut schema, name);
            with_format(&mut schema);
            schemas[format!("{name}.{definition}")] = schema;
        }
        if name != "common" {
            point_into_components(&mut schema, name);
            schemas[name] = schema;
        }
    }
    // A description says it in words: generators take each branch for a class of its own.
    if let Some(read) = schemas["conversation.read"].as_object_mut() {
        read.remove("oneOf");
    }
    let event = json!({"$ref": "#/components/schemas/event"});
    // A component, because generators lose a union that stands in an operation.
    schemas["events"] = json!({
        "description": "One event, or an array of them.",
        "oneOf": [event, {"type": "array", "minItems": 1, "maxItems": crate::routes::events::EVENTS_MAX, "items": event}],
    });
    let types: Vec<_> = Code::ALL.iter().map(|code| format!("{TYPE_PREFIX}{}", code.spec().0)).collect();
    schemas["Problem"]["properties"]["type"]["examples"] = json!(types);
    // One type, because generators lose a union with null.
    let mut mark_or_null = schemas["ReadMark"].clone();
    mark_or_null["type"] = json!(["object", "null"]);
    mark_or_null.as_object_mut().map(|mark| mark.remove("example"));
    schemas["ReadMarksAnswer"]["properties"]["read_marks"]["items"] = mark_or_null;
    for (query, ids) in [("ReceiptsQuery", "message_ids"), ("ReadMarksQuery", "user_ids")] {
        schemas[query]["properties"][ids]["items"] = json!({"type": "string", "minLength": 1, "maxLength": 128});
    }
}

/// Names the width of an integer that 32 bits cannot hold, because generators take 32 without it.
/// JSON Schema has no such formats, so the event schemas do not have them.
fn with_format(schema: &mut Value) {
    if schema["maximum"].as_u64().is_some_and(|maximum| maximum > i32::MAX as u64) {
        schema["format"] = "int64".into();
    }
}

/// Rewrites references between the event schema files into references between components:
/// `common.schema.json#/$defs/id` becomes the component `common.id`.
fn point_into_components(schema: &mut Value, file: &str) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get_mut("$ref") {
                let (other, definition) = reference.split_once('#').unwrap_or((reference, ""));
                let other = other.strip_suffix(".schema.json").unwrap_or(file);
                let name = match definition.strip_prefix("/$defs/") {
                    Some(definition) => format!("{other}.{definition}"),
                    None => other.to_owned(),
                };
                *reference = format!("#/components/schemas/{name}");
            }
            fields.values_mut().for_each(|value| point_into_components(value, file));
        }
        Value::Array(values) => values.iter_mut().for_each(|value| point_into_components(value, file)),
        _ => {}
    }
}

/// Returns one response for each problem status, with an example for each of its codes.
fn problem_responses() -> Value {
    let mut by_status = BTreeMap::<u16, Vec<Code>>::new();
    for code in Code::ALL.into_iter().filter(|code| !matches!(code, Code::MethodNotAllowed)) {
        by_status.entry(code.spec().1.as_u16()).or_default().push(code);
    }
    let response = |(status, codes): (u16, Vec<Code>)| {
        let mut headers = json!({"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}});
        if status == 401 {
            headers["WWW-Authenticate"] = json!({"$ref": "#/components/headers/WWW-Authenticate"});
        }
        if matches!(status, 429 | 503) {
            headers["Retry-After"] = json!({"$ref": "#/components/headers/Retry-After"});
        }
        let mut examples = Map::new();
        let mut sentences = Vec::new();
        for (name, _, title) in codes.into_iter().map(Code::spec) {
            sentences.push(format!("`{name}`: {title}."));
            let example = json!({"type": format!("{TYPE_PREFIX}{name}"), "title": title, "status": status});
            examples.insert(name.to_owned(), json!({"value": example}));
        }
        let content = json!({"schema": {"$ref": "#/components/schemas/Problem"}, "examples": examples});
        let response = json!({
            "description": sentences.join(" "),
            "headers": headers,
            "content": {"application/problem+json": content},
        });
        (status.to_string(), response)
    };
    let head_too_large = json!({
        "description": "The head of the request is larger than `http.head_bytes_max`. The answer has no body, and the \
                        connection is closed.",
    });
    let by_code = by_status.into_iter().map(response);
    by_code.chain([("431".to_owned(), head_too_large)]).collect::<Map<_, _>>().into()
}

/// Returns the headers of answers.
fn headers() -> Value {
    json!({
        "Receipts-Position": {
            "description": "An opaque token: how far the log was folded for this answer, or the written events. A later read that \
                            sends it in `Receipts-Min-Position` is at least as fresh. It has at most 2,000 characters.",
            "schema": {"type": "string"},
        },
        "Receipts-Stale": {
            "description": "Only while the owner of the state does not hear from the log: for how many whole seconds it has not. \
                            Newer events may not be in the answer.",
            "schema": {"type": "integer", "minimum": 0},
        },
        "Retry-After": {"description": "When to retry, seconds.", "schema": {"type": "integer", "minimum": 1}},
        "WWW-Authenticate": {
            "description": "`Bearer`, with `error=\"invalid_token\"` if a token was sent and refused (RFC 6750).",
            "schema": {"type": "string"},
        },
        "X-Request-Id": {
            "description": "The `X-Request-Id` of the request, or one that the service generated.",
            "schema": {"type": "string"},
        },
    })
}

/// Returns the headers of requests.
fn parameters() -> Value {
    json!({
        "Receipts-Tenant": {
            "name": "Receipts-Tenant", "in": "header", "required": false,
            "description": "The tenant, `default` if absent. Only if no authentication is configured.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[^/]+$"},
        },
        "Receipts-Caller": {
            "name": "Receipts-Caller", "in": "header", "required": false,
            "description": "The calling user, percent-encoded, who then has the scope `receipts:own`. If absent, the caller is \
                            a service with all scopes. Only if no authentication is configured.",
            // At most 128 bytes, each of which may take three characters.
            "schema": {"type": "string", "minLength": 1, "maxLength": 384, "pattern": "^([^%]|%[0-9A-Fa-f]{2})+$"},
        },
        "Receipts-Min-Position": {
            "name": "Receipts-Min-Position", "in": "header", "required": false,
            "description": "A token, or up to 100 separated by commas. The answer waits until all their positions are folded.",
            "schema": {"type": "string", "minLength": 1},
        },
        "Receipts-Wait-Ms": {
            "name": "Receipts-Wait-Ms", "in": "header", "required": false,
            "description": format!(
                "The longest wait for the position, milliseconds; then the answer is 503. {} if absent. Values above 30,000 \
                 mean 30,000.",
                crate::edge::limits::WAIT_DEFAULT_MS
            ),
            "schema": {"type": "integer", "minimum": 0},
        },
    })
}
