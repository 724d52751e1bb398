//! How far an import is: a file beside the tables, written whole after everything up to there is acknowledged. Holds no row.

use crate::columns::{Columns, Input};
use crate::import::{Counts, Plan};
use crate::{Error, Untimed};
use receipts_analytics::table::Place;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// The progress of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Of this file's form.
    version: u32,
    /// What tells the events of this import from all others.
    pub(crate) run: String,
    /// What is imported, and how it is read: another one is another import.
    of: Of,
    /// Number of the next event.
    pub(crate) next: u64,
    /// Where each table goes on.
    pub(crate) places: BTreeMap<Input, Place>,
    /// By partition the offset behind everything that was written up to here.
    pub(crate) ends: Vec<u64>,
    /// Length of the file of rejects.
    pub(crate) rejects_bytes: u64,
    /// The newest `at_ms` of members and `sent_at_ms` of messages.
    pub(crate) newest_ms: (u64, u64),
    /// What was counted so far.
    pub(crate) counts: Counts,
    /// Whether nothing is left.
    pub(crate) is_done: bool,
}

const VERSION: u32 = 1;

/// What makes an import the same one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Of {
    log: String,
    partitions: usize,
    tables: BTreeMap<Input, Identity>,
    columns: Columns,
    tenant: String,
    untimed: Untimed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    path: PathBuf,
    bytes: u64,
    modified_ms: u64,
}

impl Of {
    fn new(plan: &Plan, partitions: usize) -> Result<Self, Error> {
        let identity = |path: &Path| -> io::Result<Identity> {
            let (path, metadata) = (fs::canonicalize(path)?, fs::metadata(path)?);
            let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let modified_ms = u64::try_from(modified.as_millis()).unwrap_or(u64::MAX);
            Ok(Identity { path, bytes: metadata.len(), modified_ms })
        };
        let tables = plan.sources.iter().map(|source| {
            let identity = identity(&source.path).map_err(Error::io(format!("reading {}", source.path.display())))?;
            Ok((source.input, identity))
        });
        Ok(Self {
            log: plan.log.clone(),
            partitions,
            tables: tables.collect::<Result<_, Error>>()?,
            columns: plan.columns.clone(),
            tenant: plan.tenant.clone(),
            untimed: plan.untimed,
        })
    }

    /// In what another one differs, as a sentence's end.
    fn differs(&self, held: &Self) -> Option<String> {
        let name = |tables: &BTreeMap<Input, Identity>| {
            let all = tables.iter().map(|(input, identity)| format!("{input} {}", identity.path.display()));
            all.collect::<Vec<_>>().join(", ")
        };
        let paths = |tables: &BTreeMap<Input, Identity>| tables.values().map(|t| t.path.clone()).collect::<Vec<_>>();
        if (&held.log, held.partitions) != (&self.log, self.partitions) {
            Some(format!("goes into {} with {} partitions", held.log, held.partitions))
        } else if paths(&held.tables) != paths(&self.tables) {
            Some(format!("is of {}", name(&held.tables)))
        } else if let Some((input, _)) = held.tables.iter().find(|(input, held)| self.tables.get(input) != Some(held)) {
            Some(format!("read another version of the table of {input}: it has changed since"))
        } else {
            (held != self)
                .then(|| "was given other columns, another tenant or another meaning of rows without a time".to_owned())
        }
    }
}

impl Progress {
    /// The beginning of an import; `ends` are the log's.
    pub(crate) fn begin(plan: &Plan, ends: Vec<u64>) -> Result<Self, Error> {
        Ok(Self {
            version: VERSION,
            run: plan.run.clone(),
            of: Of::new(plan, ends.len())?,
            next: 1,
            places: BTreeMap::new(),
            ends,
            rejects_bytes: 0,
            newest_ms: (0, 0),
            counts: Counts::default(),
            is_done: false,
        })
    }

    /// What the file says, if there is one.
    pub(crate) fn load(plan: &Plan, partitions: usize) -> Result<Option<Self>, Error> {
        let path = &plan.progress;
        let held = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format!("reading {}", path.display()))(error)),
        };
        let other = |differs: String| Error::Progress { path: path.clone(), differs };
        let held: Self = serde_json::from_slice(&held).map_err(|error| other(format!("cannot be read ({error})")))?;
        if held.version != VERSION {
            return Err(other(format!("has version {} of its form, and this is version {VERSION}", held.version)));
        }
        match Of::new(plan, partitions)?.differs(&held.of) {
            Some(differs) => Err(other(differs)),
            None => Ok(Some(held)),
        }
    }

    /// Writes the file; it is there whole or as it was.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Error> {
        let mut part = path.as_os_str().to_owned();
        part.push(".tmp");
        let part = PathBuf::from(part);
        let write = || -> io::Result<()> {
            let mut file = File::create(&part)?;
            file.write_all(&serde_json::to_vec_pretty(self)?)?;
            file.sync_all()?;
            fs::rename(&part, path)
        };
        write().map_err(Error::io(format!("writing {}", path.display())))
    }
}
