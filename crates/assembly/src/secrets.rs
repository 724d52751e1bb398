//! The secrets of internal calls: the one that projectors and query edges share, and the one that
//! an operator's command sends to a running process. Sends nothing.

use crate::data_dir::DataDir;
use receipts_cluster::{SECRET_BYTES_MIN, Secret, cursor_key_to_text};
use receipts_query::CursorKey;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Checks that only their owner may read the files of secrets: warns, or refuses if
/// `secret_files_strict` is set.
///
/// # Errors
/// A usage failure that names each file and the command that closes it.
pub(crate) fn check_secret_files(settings: &Settings) -> Result<(), Failure> {
    closed(settings)?.iter().for_each(|sentence| tracing::warn!("{sentence}"));
    Ok(())
}

/// Checks as much of the settings as can be checked without a start: properties of the Kafka
/// client, and files of secrets. Returns warnings.
///
/// # Errors
/// A usage failure.
pub fn check_settings(settings: &Settings) -> Result<Vec<String>, Failure> {
    // The properties are checked without brokers too: nothing connects.
    let bootstrap = settings.kafka.bootstrap.as_deref().unwrap_or("localhost:9092");
    crate::kafka_settings(settings, bootstrap).check().map_err(|error| Failure::Usage(error.into()))?;
    shared_secret(settings)?;
    closed(settings)
}

/// Returns a warning about each file of a secret that others than its owner may read.
fn closed(settings: &Settings) -> Result<Vec<String>, Failure> {
    let open = open_secret_files(settings);
    if settings.secret_files_strict && !open.is_empty() {
        return Err(Failure::usage(format!("{} (secret_files_strict is set)", open.join("; "))));
    }
    Ok(open)
}

/// Returns a sentence about each file of secrets that others than its owner may read: its key, and
/// the command that closes it.
pub fn open_secret_files(settings: &Settings) -> Vec<String> {
    let kafka = &settings.kafka;
    let tls_key = settings.http.tls.as_ref().map(|tls| tls.key.clone());
    let files = [
        ("http.tls_key_file", &tls_key),
        ("auth.secret_file", &settings.auth.secret_file),
        ("query.secret_file", &settings.query.secret_file),
        ("kafka.properties_file", &kafka.properties_file),
    ];
    let named = files.into_iter().filter_map(|(key, path)| Some((key.to_owned(), path.as_deref()?)));
    // Those of certificates may be open, those of passwords and keys may not.
    let single = kafka
        .property_files
        .iter()
        .filter(|(name, _)| ["password", "secret", "passphrase", "key.pem"].iter().any(|part| name.contains(part)));
    let single = single.map(|(name, path)| (format!("kafka.property_files.{name}"), path.as_path()));
    let key = kafka.properties.0.get("ssl.key.location");
    let key = key.map(|path| ("kafka.properties.ssl.key.location".to_owned(), Path::new(path)));
    let open = named.chain(single).chain(key).filter_map(|(key, path)| {
        // A file that cannot be looked at cannot be read either, which has an error of its own.
        let mode = std::fs::metadata(path).ok()?.mode();
        let path = path.display();
        (mode & 0o077 != 0)
            .then(|| format!("{key}: users other than the owner of {path} may read or change it: chmod 600 {path}"))
    });
    open.collect()
}

/// Reads the secret that projectors and query edges share; `None` if the settings name no file.
///
/// # Errors
/// A usage failure if the file cannot be read or holds too few bytes.
pub fn shared_secret(settings: &Settings) -> Result<Option<Secret>, Failure> {
    let Some(path) = &settings.query.secret_file else { return Ok(None) };
    let file = path.display();
    let text = std::fs::read(path)
        .map_err(|error| Failure::usage(format!("query.secret_file: cannot read {file}: {error}")))?;
    let too_short = || {
        Failure::usage(format!(
            "query.secret_file: {file} holds less than {SECRET_BYTES_MIN} bytes; try: openssl rand -hex 32"
        ))
    };
    Secret::new(text.trim_ascii()).ok_or_else(too_short).map(Some)
}

/// Returns the secret that an operator's call to this process must prove: the shared secret or,
/// without one, the cursor key, which only readers of the data directory know.
///
/// # Errors
/// As [`shared_secret`].
pub fn operator_secret(settings: &Settings, key: &CursorKey) -> Result<Secret, Failure> {
    Ok(shared_secret(settings)?.unwrap_or_else(|| from_key(key)))
}

/// Returns the same secret to a command that calls the process which holds the data directory.
///
/// # Errors
/// As [`shared_secret`] and [`DataDir::cursor_key_in`].
pub fn operator_secret_of_holder(settings: &Settings) -> Result<Secret, Failure> {
    shared_secret(settings)?.map_or_else(|| Ok(from_key(&DataDir::cursor_key_in(&settings.data_dir)?)), Ok)
}

fn from_key(key: &CursorKey) -> Secret {
    Secret::new(cursor_key_to_text(key).as_bytes()).expect("64 digits are enough")
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_runtime::config;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt as _;

    /// INV-PRIVATE
    #[test]
    fn open_secret_file_is_refused_where_that_is_set() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("secret");
        fs::write(&path, "0123456789abcdef0123456789abcdef").expect("written");
        let checked = |mode: u32, strict: &str| {
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("changed");
            let text = path.display().to_string();
            let set =
                |key: &str, value: &str| config::Override { key: key.into(), value: value.into(), flag: key.into() };
            let flags = [set("query.secret_file", &text), set("secret_files_strict", strict)];
            check_secret_files(&config::load(None, [], &flags).expect("no mistake"))
        };
        for mode in [0o600, 0o400, 0o700] {
            checked(mode, "true").expect("private");
        }
        for mode in [0o640, 0o604, 0o620] {
            checked(mode, "false").expect("a warning");
            let failure = checked(mode, "true").expect_err("refused");
            assert_eq!(failure.code(), 2);
            let message = failure.message();
            assert!(
                message.contains(&format!("chmod 600 {}", path.display())) && message.contains("query.secret_file"),
                "{message}"
            );
        }
    }
}
