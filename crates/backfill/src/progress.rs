//! The progress of an import: a file that is replaced as a whole, after all events up to that point
//! are acknowledged. It holds no rows.

use crate::columns::{Columns, Input};
use crate::draft::Judgement;
use crate::feed::Position;
use crate::import::{Counts, Plan};
use crate::{Error, Readings, Untimed};
use receipts_analytics::table::{DataFile, Format, Options};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// The progress of an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// The version of this file's format.
    version: u32,
    /// Identifies the events of this import.
    pub(crate) run: String,
    /// The inputs of the import; other inputs are another import.
    #[serde(rename = "of")]
    inputs: Inputs,
    /// Number of the next event.
    pub(crate) next: u64,
    /// The next row of each table.
    #[serde(rename = "places")]
    pub(crate) cursors: BTreeMap<Input, Position>,
    /// The end of the log at the last save, by partition.
    pub(crate) ends: Vec<u64>,
    /// The length of the report of rejects, bytes.
    pub(crate) rejects_bytes: u64,
    /// The newest `at_ms` of members and `sent_at_ms` of messages.
    pub(crate) newest_ms: (u64, u64),
    /// The counts so far.
    pub(crate) counts: Counts,
    /// Rows of members that have a time.
    pub(crate) timed_members: u64,
    /// True once all members without a time are imported: the table is read from its beginning
    /// again, for those with one.
    pub(crate) is_second_pass: bool,
    /// The judgement before the import began.
    #[serde(default)]
    pub(crate) judgement: Option<Judgement>,
    /// True if the import is complete.
    pub(crate) is_done: bool,
}

const VERSION: u32 = 2;

/// The part of the file that every version has.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

/// The inputs that identify an import.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Inputs {
    log: String,
    partitions: usize,
    tables: BTreeMap<Input, Held>,
    columns: Columns,
    readings: Readings,
    /// The text of the mapping file.
    #[serde(default)]
    mapping: Option<String>,
    tenant: String,
    untimed: Untimed,
}

/// A table: its files in order, and how they are read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    files: Vec<Identity>,
    options: Options,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    path: PathBuf,
    format: Format,
    bytes: u64,
    modified_ms: u64,
}

impl Inputs {
    fn new(plan: &Plan, partitions: usize) -> Result<Self, Error> {
        let identity = |file: &DataFile| -> io::Result<Identity> {
            let (path, metadata) = (fs::canonicalize(&file.path)?, fs::metadata(&file.path)?);
            let modified = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let modified_ms = u64::try_from(modified.as_millis()).unwrap_or(u64::MAX);
            Ok(Identity { path, format: file.format, bytes: metadata.len(), modified_ms })
        };
        let tables = plan.sources.iter().map(|source| {
            let file = |file| identity(file).map_err(Error::io(format!("reading {}", file.path.display())));
            let files = source.files.iter().map(file).collect::<Result<_, Error>>()?;
            Ok((source.input, Held { files, options: source.options.clone() }))
        });
        Ok(Self {
            log: plan.log.clone(),
            partitions,
            tables: tables.collect::<Result<_, Error>>()?,
            columns: plan.columns.clone(),
            readings: plan.readings.clone(),
            mapping: plan.mapping.as_ref().map(|mapping| mapping.text.clone()),
            tenant: plan.tenant.clone(),
            untimed: plan.untimed,
        })
    }

    /// Describes how `held` differs, as the end of a sentence whose subject is the held import.
    fn difference(&self, held: &Self) -> Option<String> {
        let name = |tables: &BTreeMap<Input, Held>| {
            let all = tables.iter().map(|(input, held)| match held.files.as_slice() {
                [file] => format!("{input} {}", file.path.display()),
                [first, rest @ ..] => format!("{input} {} and {} more files", first.path.display(), rest.len()),
                [] => format!("{input} nothing"),
            });
            all.collect::<Vec<_>>().join(", ")
        };
        let paths = |tables: &BTreeMap<Input, Held>| {
            let paths = |held: &Held| held.files.iter().map(|file| file.path.clone()).collect::<Vec<_>>();
            tables.iter().map(|(input, held)| (*input, paths(held))).collect::<Vec<_>>()
        };
        if (&held.log, held.partitions) != (&self.log, self.partitions) {
            Some(format!("goes into {} with {} partitions", held.log, held.partitions))
        } else if paths(&held.tables) != paths(&self.tables) {
            Some(format!("reads {}", name(&held.tables)))
        } else if let Some((input, file)) = self.changed(held) {
            Some(format!("read another version of {}, a file of {input} which has changed since", file.display()))
        } else {
            (held != self).then(|| {
                "has other columns, units or zones, another format or mapping, another tenant or another meaning of rows without a time"
                    .to_owned()
            })
        }
    }
}

impl Inputs {
    /// Returns the first file that is not as `held` has it; both have the same paths.
    fn changed<'h>(&self, held: &'h Self) -> Option<(Input, &'h Path)> {
        held.tables.iter().find_map(|(input, table)| {
            let now = &self.tables.get(input)?.files;
            let mut files = table.files.iter().zip(now);
            let (file, _) = files.find(|(held, now)| (held.bytes, held.modified_ms) != (now.bytes, now.modified_ms))?;
            Some((*input, file.path.as_path()))
        })
    }
}

impl Progress {
    /// Starts an import; `ends` are the ends of the log's partitions.
    pub(crate) fn begin(plan: &Plan, ends: Vec<u64>) -> Result<Self, Error> {
        Ok(Self {
            version: VERSION,
            run: plan.run.clone(),
            inputs: Inputs::new(plan, ends.len())?,
            next: 1,
            cursors: BTreeMap::new(),
            ends,
            rejects_bytes: 0,
            newest_ms: (0, 0),
            counts: Counts::default(),
            timed_members: 0,
            is_second_pass: false,
            judgement: plan.judgement.clone(),
            is_done: false,
        })
    }

    /// Reads the progress file, if it exists, and checks that it belongs to this import.
    pub(crate) fn load(plan: &Plan, partitions: usize) -> Result<Option<Self>, Error> {
        let path = &plan.progress;
        let held = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(format!("reading {}", path.display()))(error)),
        };
        let other = |difference: String| Error::Progress { path: path.clone(), difference };
        let unreadable = |error: serde_json::Error| other(format!("this program cannot read ({error})"));
        let Version { version } = serde_json::from_slice(&held).map_err(unreadable)?;
        if version != VERSION {
            return Err(other(format!("has format version {version}, and this program reads {VERSION}")));
        }
        let held: Self = serde_json::from_slice(&held).map_err(unreadable)?;
        match Inputs::new(plan, partitions)?.difference(&held.inputs) {
            Some(difference) => Err(other(difference)),
            None => Ok(Some(held)),
        }
    }

    /// Replaces the file atomically.
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
