//! The settings in force, each with its value and its origin, for people. Must not show a secret.

use super::mistakes::Origin;
use super::sources::{NAMED_BY_USER, TENANTS};
use serde::Serialize;
use serde_json::{Value, json};

/// Stands for a value that is not shown.
pub const SECRET: &str = "(secret)";

/// A setting in force. Holds no secret.
#[derive(Debug, Clone, PartialEq)]
pub struct InForce {
    /// Its key, as in the file: `http.listen`.
    pub key: String,
    /// Its value: a text, a number, a boolean or a list of texts, and [`SECRET`] for a secret;
    /// `None` if it is not set.
    pub value: Option<Value>,
    /// Its origin.
    pub origin: Origin,
    /// True if the value is the default, even if a source sets it.
    pub is_default: bool,
}

impl InForce {
    pub(super) fn unset(key: &str) -> Self {
        Self { key: key.to_owned(), value: None, origin: Origin::Default, is_default: true }
    }

    /// A setting without a default.
    pub(super) fn set(key: &str, value: Value, origin: &Origin) -> Self {
        Self { key: key.to_owned(), value: Some(value), origin: origin.clone(), is_default: false }
    }

    /// Returns the value of a property of the Kafka client, as far as it may be shown.
    pub(super) fn property(name: &str, value: &str) -> Value {
        if is_public(name) { hidden(value.into()) } else { SECRET.into() }
    }

    /// True if a source sets it.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.origin != Origin::Default
    }

    /// True if its value is not shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.value.as_ref().is_some_and(|value| value == SECRET)
    }

    /// Returns `KEY = VALUE` as a line of TOML. The line is a comment if the setting is not set or
    /// its value is not shown.
    #[must_use]
    pub fn toml(&self) -> String {
        let key = toml_key(&self.key);
        match &self.value {
            None => format!("# {key} is not set"),
            Some(_) if self.is_secret() => format!("# {key} = {SECRET}"),
            // JSON's texts, whole numbers, booleans and lists are TOML's.
            Some(value) => format!("{key} = {value}"),
        }
    }
}

impl Serialize for InForce {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let origin = match &self.origin {
            Origin::File { path, line } => json!({"kind": "file", "path": path, "line": line}),
            Origin::Env(name) => json!({"kind": "variable", "name": name}),
            Origin::Flag(name) => json!({"kind": "flag", "name": format!("--{name}")}),
            Origin::Default => json!({"kind": "default"}),
        };
        let (key, value, is_secret) = (&self.key, &self.value, self.is_secret());
        json!({"key": key, "value": value, "secret": is_secret, "origin": origin}).serialize(serializer)
    }
}

/// Quotes the part of a key that the user names.
fn toml_key(key: &str) -> String {
    let all = NAMED_BY_USER.iter().find(|all| key.strip_prefix(**all).is_some_and(|rest| rest.starts_with('.')));
    let Some((all, name)) = all.and_then(|all| Some((*all, key.get(all.len() + 1..)?))) else { return key.to_owned() };
    match name.rsplit_once('.').filter(|_| all == TENANTS) {
        Some((tenant, item)) => format!("{all}.{}.{item}", Value::from(tenant)),
        None => format!("{all}.{}", Value::from(name)),
    }
}

/// Hides user, password and query of a URL within a value.
pub(super) fn hidden(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(without_credentials(&text)),
        Value::Array(items) => Value::Array(items.into_iter().map(hidden).collect()),
        other => other,
    }
}

fn without_credentials(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (rest, query) = match rest.split_once('?') {
        Some((rest, _)) => (rest, format!("?{SECRET}")),
        None => (rest, String::new()),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = match authority.rsplit_once('@') {
        Some((_, host)) => format!("{SECRET}@{host}"),
        None => authority.to_owned(),
    };
    format!("{scheme}://{authority}{path}{query}")
}

/// Whether the value of a property of the Kafka client may be shown. All others may be secrets: a
/// newer librdkafka may know some that nobody thought of here.
fn is_public(name: &str) -> bool {
    const PUBLIC: [&str; 23] = [
        "acks",
        "broker.address.family",
        "client.dns.lookup",
        "client.id",
        "client.rack",
        "compression.codec",
        "compression.type",
        "debug",
        "enable.idempotence",
        "enable.ssl.certificate.verification",
        "group.protocol",
        "group.remote.assignor",
        "isolation.level",
        "log_level",
        "partition.assignment.strategy",
        "sasl.kerberos.service.name",
        "sasl.mechanism",
        "sasl.mechanisms",
        "sasl.oauthbearer.method",
        "security.protocol",
        "ssl.cipher.suites",
        "ssl.endpoint.identification.algorithm",
        "socket.keepalive.enable",
    ];
    const PUBLIC_ENDS: [&str; 4] = [".ms", ".bytes", ".messages", ".location"];
    PUBLIC.contains(&name) || PUBLIC_ENDS.iter().any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_credentials() {
        for (text, wanted) in [
            ("s3://key:pass@bucket/a?sig=x", "s3://(secret)@bucket/a?(secret)"),
            ("https://id.example/keys", "https://id.example/keys"),
            ("https://u@h", "https://(secret)@h"),
            ("a@b", "a@b"),
        ] {
            assert_eq!(hidden(text.into()), wanted, "{text}");
        }
    }

    #[test]
    fn names_of_users_are_quoted_in_keys() {
        for (key, wanted) in [
            ("http.listen", "http.listen"),
            ("kafka.properties.sasl.password", "kafka.properties.\"sasl.password\""),
            ("access.tenants.b.example.read", "access.tenants.\"b.example\".read"),
        ] {
            assert_eq!(toml_key(key), wanted);
        }
    }
}
