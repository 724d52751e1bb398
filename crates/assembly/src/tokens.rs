//! Fetches tokens for Kafka from the token endpoint of an identity provider (OpenID Connect, client
//! credentials).
//!
//! It keeps no token and retries nothing: the log does. No sentence holds the secret or a token.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use receipts_http::{FetchError, Fetcher};
use receipts_log::{Token, TokenError, TokenRequest, TokenSource};
use receipts_runtime::clock::unix_ms;
use serde_json::Value;
use std::time::Duration;

/// The time limit of one fetch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The largest answer, bytes. Tokens that name many groups have some KiB.
const ANSWER_BYTES_MAX: usize = 256 << 10;
/// The longest explanation of an endpoint that a sentence repeats, characters.
const SHOWN_MAX: usize = 200;

/// See the file's description.
#[derive(Debug)]
pub(crate) struct TokenEndpoint;

impl TokenSource for TokenEndpoint {
    fn fetch(&self, request: &TokenRequest) -> Result<Token, TokenError> {
        // A thread of its own, because the caller's may belong to a runtime already.
        let fetched = std::thread::scope(|scope| scope.spawn(|| fetch(request)).join());
        fetched.unwrap_or_else(|_| Err(TokenError::Unreachable("the thread that fetches tokens panicked".to_owned())))
    }
}

fn fetch(request: &TokenRequest) -> Result<Token, TokenError> {
    let url = &request.url;
    let fetcher = Fetcher::new(url, TIMEOUT, request.ca.as_deref()).map_err(|why| {
        TokenError::Refused(format!("the token endpoint {url} cannot be asked: {why} (https.ca.location)"))
    })?;
    let mut form = "grant_type=client_credentials".to_owned();
    if let Some(scope) = &request.scope {
        form = format!("{form}&scope={}", utf8_percent_encode(scope, NON_ALPHANUMERIC));
    }
    // Neither is percent-encoded within the header, as in librdkafka and by default in Java.
    let credentials = BASE64_STANDARD.encode(format!("{}:{}", request.client_id, request.client_secret));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| TokenError::Unreachable(format!("no runtime for the token endpoint: {error}")))?;
    let answer = runtime.block_on(fetcher.post_form(form, &format!("Basic {credentials}"), ANSWER_BYTES_MAX));
    let (status, body) = answer.map_err(|error| match error {
        FetchError::Certificate(why) => TokenError::Refused(format!(
            "the certificate of the token endpoint {url} is not accepted ({why}): set https.ca.location to a PEM file of \
             the CA that signed it, and the host of sasl.oauthbearer.token.endpoint.url to a name in it"
        )),
        FetchError::Unreachable(why) | FetchError::Incomplete(why) => TokenError::Unreachable(format!(
            "the token endpoint {url} does not answer ({why}): check sasl.oauthbearer.token.endpoint.url and that it runs"
        )),
    })?;
    let json: Option<Value> = serde_json::from_slice(&body).ok();
    if status != 200 {
        return Err(refusal(url, status, json.as_ref()));
    }
    token(url, json.as_ref(), unix_ms())
}

/// Reads an answer that holds no token.
fn refusal(url: &str, status: u16, json: Option<&Value>) -> TokenError {
    let field = |name: &str| json.and_then(|json| json.get(name)).and_then(Value::as_str);
    let shown = |text: &str| text.chars().filter(|c| !c.is_control()).take(SHOWN_MAX).collect::<String>();
    let code = field("error").map(|code| format!(" {}", shown(code))).unwrap_or_default();
    let why = field("error_description").map(|why| format!(": {}", shown(why))).unwrap_or_default();
    let said = format!("{status}{code}{why}");
    match (status, field("error")) {
        (_, Some("invalid_client" | "unauthorized_client")) | (401 | 403, _) => TokenError::Refused(format!(
            "the token endpoint {url} refuses the client ({said}): check sasl.oauthbearer.client.id and \
             sasl.oauthbearer.client.secret"
        )),
        (_, Some("invalid_scope" | "invalid_target" | "invalid_resource")) => TokenError::Refused(format!(
            "the token endpoint {url} refuses the scope ({said}): change sasl.oauthbearer.scope"
        )),
        (429 | 500..=599, _) => {
            TokenError::Unreachable(format!("the token endpoint {url} has no token just now ({said})"))
        }
        _ => TokenError::Refused(format!(
            "{url} gives no token ({said}): check sasl.oauthbearer.token.endpoint.url and that the client may use client \
             credentials"
        )),
    }
}

/// Reads a token and its life: from `expires_in` or, without it, from the claim `exp` of a JWT.
fn token(url: &str, json: Option<&Value>, now_ms: u64) -> Result<Token, TokenError> {
    let refused = |why: &str| {
        TokenError::Refused(format!("{url} answers without {why}: check sasl.oauthbearer.token.endpoint.url"))
    };
    let value = json.and_then(|json| json["access_token"].as_str()).ok_or_else(|| refused("an access_token"))?;
    // Some providers send the number as a text.
    let seconds = |field: &Value| field.as_f64().or_else(|| field.as_str().and_then(|text| text.parse().ok()));
    let valid = json.and_then(|json| seconds(&json["expires_in"]));
    let valid = valid.or_else(|| Some(expiry_of_jwt(value)? - now_ms as f64 / 1_000.0));
    let valid = valid.filter(|seconds| *seconds > 0.0).ok_or_else(|| refused("a life of its token (expires_in)"))?;
    let valid = Duration::try_from_secs_f64(valid).map_err(|_| refused("a life of its token that can be used"))?;
    let expires_at_ms = i64::try_from(u128::from(now_ms) + valid.as_millis());
    let expires_at_ms = expires_at_ms.map_err(|_| refused("a life of its token that can be used"))?;
    Ok(Token { value: value.to_owned(), valid, expires_at_ms })
}

/// Returns the claim `exp` of a JWT, Unix seconds. The broker verifies the token, this code does
/// not.
fn expiry_of_jwt(token: &str) -> Option<f64> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Value>(&claims).ok()?["exp"].as_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn life_of_a_token_comes_from_answer_or_claim() {
        let claims = BASE64_URL_SAFE_NO_PAD.encode(json!({"exp": 1_300}).to_string());
        let jwt = format!("e30.{claims}.sig");
        for (answer, valid_s) in [
            (json!({"access_token": "opaque", "expires_in": 60}), 60),
            (json!({"access_token": "opaque", "expires_in": "60"}), 60),
            (json!({"access_token": jwt}), 300),
        ] {
            let token = token("u", Some(&answer), 1_000_000).expect("a token");
            assert_eq!((token.valid.as_secs(), token.expires_at_ms), (valid_s, 1_000_000 + valid_s as i64 * 1_000));
        }
        for answer in [json!({}), json!({"access_token": "opaque"}), json!({"access_token": "o", "expires_in": 0})] {
            assert!(matches!(token("u", Some(&answer), 1_000_000), Err(TokenError::Refused(_))), "{answer}");
        }
    }

    #[test]
    fn refusals_name_the_property_to_change() {
        let said = |status, code: &str| refusal("u", status, Some(&json!({"error": code}))).to_string();
        assert!(said(401, "invalid_client").contains("sasl.oauthbearer.client.secret"));
        assert!(said(400, "invalid_scope").contains("sasl.oauthbearer.scope"));
        assert!(said(404, "").contains("sasl.oauthbearer.token.endpoint.url"));
        assert!(matches!(refusal("u", 503, None), TokenError::Unreachable(_)));
    }
}
