//! A rebuilt store: folded beside the store in use, switched to at the next start, and the replaced
//! store kept until an operator confirms. Folds nothing.

use super::files::write_whole;
use super::{DataDir, LogIdentity};
use anyhow::{Context as _, Result};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// The file in a rebuilt store that marks it as complete.
const READY: &str = "ready";

impl DataDir {
    /// The folder in which a store is rebuilt beside the one in use.
    pub fn rebuild_in(path: &Path) -> PathBuf {
        path.join("rebuild")
    }

    /// Marks the rebuilt store of a data directory as complete: the next start switches to it.
    ///
    /// # Errors
    /// If the mark cannot be written.
    pub fn mark_rebuilt(path: &Path, log: &LogIdentity) -> Result<()> {
        let folder = Self::rebuild_in(path);
        log.write_to(&folder)?;
        write_whole(&folder.join(READY), b"")
    }

    /// Returns true if a rebuilt store is complete and not in use yet.
    pub(crate) fn has_rebuilt(&self) -> bool {
        Self::rebuild_in(&self.path).join(READY).exists()
    }

    /// Switches to a rebuilt store that is complete, and keeps the replaced store; returns the
    /// replaced store's folder.
    ///
    /// # Errors
    /// If a folder cannot be renamed. The next start then tries again.
    pub fn adopt_rebuilt(&self) -> Result<Option<PathBuf>> {
        let (rebuilt, store) = (Self::rebuild_in(&self.path), self.store());
        if !self.has_rebuilt() {
            return Ok(None);
        }
        let before = self.numbered_before().find(|path| !path.exists()).expect("numbers do not end");
        let switch = || -> std::io::Result<()> {
            // If an earlier attempt died between the two renames, the first is done.
            if store.exists() {
                fs::rename(&store, &before)?;
            }
            fs::rename(&rebuilt, &store)?;
            File::open(&self.path)?.sync_all()?;
            fs::remove_file(store.join(READY))
        };
        switch().with_context(|| format!("cannot replace {} with {}", store.display(), rebuilt.display()))?;
        tracing::info!(before = %before.display(), "switched to the rebuilt store; the store before it is kept");
        Ok(Some(before))
    }

    /// Returns the folders of stores that rebuilt ones have replaced, oldest first.
    pub fn replaced(&self) -> Vec<PathBuf> {
        self.numbered_before().take_while(|path| path.exists()).collect()
    }

    fn numbered_before(&self) -> impl Iterator<Item = PathBuf> {
        (1..u32::MAX).map(|number| self.path.join(format!("store-before-{number}")))
    }
}
