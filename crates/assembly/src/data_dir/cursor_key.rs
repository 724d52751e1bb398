//! The key that signs cursors of member lists: made once, so that cursors survive a restart.

use super::DataDir;
use super::files::{random, write_whole};
use anyhow::{Context as _, Result, anyhow};
use receipts_query::CursorKey;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const KEY_BYTES: usize = 32;

impl DataDir {
    /// Returns the key that signs cursors; makes it the first time.
    ///
    /// # Errors
    /// If the key cannot be read or made, or has another size.
    pub fn cursor_key(&self) -> Result<CursorKey> {
        let path = self.path.join("cursor.key");
        if !path.exists() {
            write_whole(&path, &random::<KEY_BYTES>()?)?;
        }
        Self::cursor_key_in(&self.path)
    }

    /// Returns the cursor key of a data directory that need not be open.
    ///
    /// # Errors
    /// If there is no key, it cannot be read, or it has another size.
    pub fn cursor_key_in(path: &Path) -> Result<CursorKey> {
        let path = path.join("cursor.key");
        let bytes = fs::read(&path).with_context(|| format!("cannot read the key {}", path.display()))?;
        if fs::metadata(&path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0) {
            tracing::warn!(path = %path.display(), "other users may read the key that signs cursors: chmod 600");
        }
        let key = <[u8; KEY_BYTES]>::try_from(bytes).map_err(|bytes| {
            let (path, held) = (path.display(), bytes.len());
            anyhow!(
                "the key {path} has {held} bytes instead of {KEY_BYTES}: restore it, or remove it; without it clients \
                 start their member lists again"
            )
        })?;
        Ok(CursorKey::new(key))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::opened;
    use super::*;

    #[test]
    fn the_cursor_key_is_made_once_and_private() {
        let (_folder, data) = opened();
        data.cursor_key().expect("made");
        let path = data.path.join("cursor.key");
        let first = fs::read(&path).expect("a key");
        data.cursor_key().expect("read");
        assert_eq!((first.len(), fs::read(&path).expect("a key")), (KEY_BYTES, first));
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        fs::write(&path, "short").expect("written");
        assert!(data.cursor_key().expect_err("no key").to_string().contains("5 bytes"));
    }
}
