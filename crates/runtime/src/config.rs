//! Reads the configuration from a file, the environment and flags. Flags win over the environment,
//! which wins over the file.
//!
//! Reports all mistakes at once, each with its origin and the allowed values. Must not know what
//! the keys mean to the parts of the service. `docs/configuration.md` is generated from
//! [`reference()`].
//!
//! Each key has three spellings: `http.body_bytes_max` in the file is
//! `RECEIPTS_HTTP__BODY_BYTES_MAX` in the environment and `--http-body-bytes-max` as a flag.

mod flags;
mod foreign;
mod help;
mod in_force;
mod mistakes;
mod property_files;
mod reader;
mod schema;
mod settings;
mod sources;

pub use flags::{FILE_FLAG, Named, file, joined, overrides, with_flags};
pub use help::{CommandHelp, with_help, with_used_flags};
pub use in_force::{InForce, SECRET};
pub use mistakes::{Mistake, Mistakes, Origin};
pub use reader::KeyDoc;
pub use settings::{
    Access, AccessRule, AccessRules, Algorithm, Auth, Http, Kafka, KafkaProperties, Log, LogFormat, Projector, Query,
    Scope, Settings, Shares, Snapshot, Telemetry, TlsFiles, Unwrap,
};

use reader::Reader;
use sources::Sources;
use std::path::Path;

/// The environment variable that names the configuration file if no flag does.
pub const FILE_ENV: &str = "RECEIPTS_CONFIG";
/// The environment variable that names this program for the tests of users; no setting.
pub const BIN_ENV: &str = "RECEIPTS_BIN";
/// The environment variable of the log filter, used instead of `RUST_LOG`.
pub const FILTER_ENV: &str = "RECEIPTS_LOG";
/// OpenTelemetry's own variable for `telemetry.otlp_endpoint`.
pub const OTLP_ENDPOINT_ENV: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// The variable that names the commit of a build. It is no configuration.
pub const COMMIT_ENV: &str = "RECEIPTS_COMMIT";
/// The prefix of every environment variable of this program.
pub const ENV_PREFIX: &str = "RECEIPTS_";
/// The prefix of variables that steer tests and are no configuration.
pub const ENV_PREFIX_TEST: &str = "RECEIPTS_TEST_";

/// A value from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The key it sets, as in the file: `http.listen`.
    pub key: String,
    /// Its value, as typed.
    pub value: String,
    /// The flag that set it, without dashes, for messages: `http-listen`.
    pub flag: String,
}

/// Reads the configuration. `file` is named by flag or by [`FILE_ENV`] (see [`file()`]); `env` is
/// the process's environment ([`environment`]; variables without the prefix `RECEIPTS_` are
/// ignored, but for [`OTLP_ENDPOINT_ENV`]); `flags` are those of the command line.
///
/// ```
/// use receipts_runtime::config::{self, Override};
///
/// let env = [("RECEIPTS_HTTP__LISTEN".to_owned(), "127.0.0.1:9000".to_owned())];
/// let settings = config::load(None, env, &[]).expect("no mistake");
/// assert_eq!(settings.http.listen.port(), 9000);
///
/// let (key, flag) = ("log.partitions".into(), "log-partitions".into());
/// let flag = Override { key, value: "0".into(), flag };
/// let env = [("RECEIPTS_HTPP__LISTEN".into(), "x".into())];
/// let mistakes = config::load(None, env, &[flag]).unwrap_err();
/// assert_eq!(mistakes.as_slice().len(), 2);
/// ```
///
/// # Errors
/// All mistakes in the three sources: an unreadable file, invalid TOML, unknown keys, values that
/// are not allowed, and values that contradict one another.
pub fn load(
    file: Option<&Path>,
    env: impl IntoIterator<Item = (String, String)>,
    flags: &[Override],
) -> Result<Settings, Mistakes> {
    let mut sources = Sources::default();
    if let Some(path) = file {
        sources.add_file(path);
    }
    sources.add_env(env);
    sources.add_flags(flags);
    let mut reader = Reader::new(sources);
    let mut settings = Settings::read(&mut reader);
    settings.foreign_variables = reader.foreign();
    settings.in_force = reader.in_force();
    reader.finish()?;
    Ok(settings)
}

/// Reads the configuration of a process whose command line was made by [`with_flags`]: from its
/// flags, its environment, and the file that either names.
///
/// # Errors
/// As [`load`].
pub fn of_process(matches: &clap::ArgMatches) -> Result<Settings, Mistakes> {
    let env = environment();
    let file = file(matches, &env);
    load(file.as_deref(), env, &overrides(matches))
}

/// Copies this program's variables from the process's environment, for [`load`].
#[must_use]
pub fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())))
        .filter(|(name, _)| name.starts_with(ENV_PREFIX) || name == OTLP_ENDPOINT_ENV)
        .collect()
}

/// Lists every key in the order of the reference, with its meaning, default and allowed values.
#[must_use]
pub fn reference() -> Vec<KeyDoc> {
    let mut reader = Reader::new(Sources::default());
    let _ = Settings::read(&mut reader);
    reader.into_docs()
}

/// Returns the JSON Schema of the configuration file, `schemas/config/v1.schema.json`.
#[must_use]
pub fn schema() -> serde_json::Value {
    schema::schema(&reference())
}

/// Returns the text of `docs/configuration.md`.
#[must_use]
pub fn reference_markdown() -> String {
    use std::fmt::Write;
    let mut text = String::from(
        "# Configuration\n\nGenerated from `crates/runtime/src/config/settings.rs`; a test keeps it up to date \
         (`RECEIPTS_TEST_BLESS=1 cargo test -p receipts-runtime` rewrites it).\n\n\
         Each key has three spellings: `http.body_bytes_max` in the file (TOML; `--config FILE` or `RECEIPTS_CONFIG`) is \
         `RECEIPTS_HTTP__BODY_BYTES_MAX` in the\nenvironment and `--http-body-bytes-max` as a flag. Flags win over the \
         environment, which wins over the file. An empty variable counts as absent.\n`RECEIPTS_LOG` is a short name for \
         `RECEIPTS_TELEMETRY__LOG_FILTER`, and `OTEL_EXPORTER_OTLP_ENDPOINT` another one for `RECEIPTS_TELEMETRY__OTLP_ENDPOINT`; `RECEIPTS_BIN` is no setting ([testing.md](testing.md)). Outside the file, lists are separated by commas,\nand so are the NAME=VALUE of `kafka.properties`, `kafka.property_files` and `access.tenants`; a comma within a value is written `\\,`. A variable for one of them ends with its name:\n`RECEIPTS_KAFKA__PROPERTIES__SASL__PASSWORD` is `sasl.password`, and takes commas as they are; `RECEIPTS_KAFKA__PROPERTY_FILES__SASL__PASSWORD` names a file that holds it. Variables that Kubernetes sets for a Service called\n`receipts` or `receipts-…` (`RECEIPTS_SERVICE_HOST`, `RECEIPTS_PORT_8080_TCP`) are ignored. A flag of a boolean needs no value to be true. Times are in milliseconds, \
         sizes in bytes.\nA mistake in any source ends the process with exit code 2, after it has named all mistakes. `receipts config check` names them without a start, and\n`receipts config print` shows the settings in force with the file and line, the variable or the flag of each, without secrets. [kafka.md](kafka.md#a-secured-cluster) has a file for a\nsecured Kafka.\n\n\
         ## In an editor\n\n\
         [`schemas/config/v1.schema.json`](../schemas/config/v1.schema.json) is a JSON Schema of the file; `receipts config schema` prints it. Editors with\nTaplo, such as VS Code with Even Better TOML, complete keys and mark mistakes once the file names it in its first line, by URL or by a path\nfrom the file:\n\n\
         ```toml\n#:schema ./v1.schema.json\n[http]\nlisten = \"127.0.0.1:8080\"\n```\n\n\
         `taplo lint receipts.toml` checks the same in CI.\n\n## All keys\n\n\
         | key | default | allowed | meaning |\n| --- | --- | --- | --- |\n",
    );
    for doc in reference() {
        let default = doc.default.map_or_else(|| "none".to_owned(), |value| format!("`{value}`"));
        let allowed = doc.allowed.replace('|', "\\|");
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| `{}` | {default} | {allowed} | {} |", doc.key, doc.help);
    }
    text
}

#[cfg(test)]
mod tests;
