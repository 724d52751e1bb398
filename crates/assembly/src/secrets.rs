//! The secrets of internal calls: the one that projectors and query edges share, and the one that
//! an operator's command sends to a running process. Sends nothing.

use crate::data_dir::DataDir;
use receipts_cluster::{SECRET_BYTES_MIN, Secret, cursor_key_to_text};
use receipts_query::CursorKey;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;

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
/// As [`shared_secret`] and [`DataDir::cursor_key`].
pub fn operator_secret(settings: &Settings, data: &DataDir) -> Result<Secret, Failure> {
    shared_secret(settings)?.map_or_else(|| Ok(from_key(&data.cursor_key()?)), Ok)
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
