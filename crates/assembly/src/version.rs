//! What a binary says of itself: its version with those of the formats, and the line at its start.
//! Must not show a secret.

use receipts_log::kafka::library_version;
use receipts_runtime::build::Build;
use receipts_runtime::config::{InForce, Settings};

/// The versions of the formats that processes and programs share, as `schemas/` names them.
const FORMATS: &str = "events 1, updates 1, tokens 2, export 2, internal protocol 1";

/// Returns the text of `--version` after the binary's name: version, commit, librdkafka and
/// formats.
#[must_use]
pub fn long_version(build: &Build) -> String {
    let Build { version, commit, .. } = build;
    let (store, library) = (receipts_store::FORMAT, library_version());
    format!(
        "{version}\ncommit      {commit}\nlibrdkafka  {library}\nformats     store and snapshots {store}, {FORMATS}"
    )
}

/// Logs the start of a service: version, commit, and the settings that are not the default.
pub(crate) fn log_start(build: &Build, settings: &Settings) {
    let Build { name, version, .. } = build;
    tracing::info!(
        version,
        commit = build.short_commit(),
        settings = %changed(&settings.in_force),
        "{name} starts"
    );
}

/// Lists the settings that are not the default, as `KEY=VALUE`.
fn changed(settings: &[InForce]) -> String {
    let changed = settings.iter().filter(|setting| !setting.is_default);
    let shown = changed.map(|setting| match &setting.value {
        Some(serde_json::Value::String(text)) if !text.contains([' ', '"']) => format!("{}={text}", setting.key),
        Some(value) => format!("{}={value}", setting.key),
        None => format!("{} is not set", setting.key),
    });
    shown.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_runtime::config::{Override, load};

    #[test]
    fn changed_settings_are_listed_without_secrets() {
        let flag = |key: &str, value: &str| Override { key: key.into(), value: value.into(), flag: key.into() };
        let flags = [
            flag("kafka.bootstrap", "a:1"),
            flag("kafka.properties", "sasl.password=hush,client.id=a b"),
            flag("http.listen", "127.0.0.1:8080"),
            flag("projector.updates", "false"),
        ];
        let settings = load(None, [], &flags).expect("no mistake");
        assert_eq!(
            changed(&settings.in_force),
            "kafka.bootstrap=a:1 kafka.properties.client.id=\"a b\" kafka.properties.sasl.password=(secret) \
             projector.updates=false"
        );
    }
}
