//! What a version of a live table stands for, as its commit records it
//! (`schemas/export/live-v1.md`). Does no IO.

use receipts_fold::Limits;
use serde::{Deserialize, Serialize};

/// The version of the format.
const FORMAT: u32 = 1;

/// A version's log, settings and position, for the process that goes on from it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stamp {
    format: u32,
    pub(super) dataset: String,
    pub(super) log: String,
    pub(super) settings: String,
    /// The position as a token.
    pub(super) position: String,
    /// Erasures by the position, of all partitions.
    pub(super) erasures: u64,
    pub(super) partitions: Vec<Mark>,
}

/// The state of one partition at a version's position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) partition: u32,
    /// The first offset that is not in the version.
    pub(super) next_offset: u64,
    /// The first offset that the log had when its fold began there. A fold that begins later
    /// numbers messages otherwise.
    pub(super) first_offset: u64,
    pub(super) messages: u64,
    pub(super) conversations: u32,
    /// Erasures by the position.
    pub(super) erasures: u64,
}

/// The part of a stamp that is for people.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct UserMetadata {
    pub(super) position: String,
    pub(super) erasures: u64,
}

impl UserMetadata {
    pub(super) fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

impl Stamp {
    pub(super) fn new(dataset: &str, log: &str, settings: &str, position: String, partitions: Vec<Mark>) -> Self {
        let erasures = partitions.iter().map(|mark| mark.erasures).sum();
        let (dataset, log, settings) = (dataset.to_owned(), log.to_owned(), settings.to_owned());
        Self { format: FORMAT, dataset, log, settings, position, erasures, partitions }
    }

    pub(super) fn for_people(&self) -> String {
        let metadata = UserMetadata { position: self.position.clone(), erasures: self.erasures };
        serde_json::to_string(&metadata).expect("it has string keys only")
    }

    /// Says why a table with this stamp cannot be continued; `None` if it can.
    pub(super) fn refusal(&self, log: &str, settings: &str, partitions: u32) -> Option<String> {
        if self.format != FORMAT {
            return Some(format!("has format {}, and this version of receipts writes format {FORMAT}", self.format));
        }
        if self.log != log {
            return Some(format!("was made from the log {}, and this is the log {log}", self.log));
        }
        if self.settings != settings {
            return Some(format!("was made with the settings {}, and these are {settings}", self.settings));
        }
        if self.partitions.len() != partitions as usize {
            let made = self.partitions.len();
            return Some(format!("was made from a log of {made} partitions, and this one has {partitions}"));
        }
        None
    }
}

/// Returns the settings that decide rows, as text.
pub(super) fn settings(limits: &Limits) -> String {
    format!("{limits:?}")
}
