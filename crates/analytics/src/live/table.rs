//! A live table: which of its files a round must write anew, and the commit of the round. It knows
//! one dataset, and nothing of other tables.

use super::changes::{Changes, Subject};
use super::delta::{Delta, Written};
use super::keep::Keeper;
use super::ranges::{self, DataFile};
use super::rows::{schema, subject};
use super::stamp::{Mark, Stamp};
use super::write::Writer;
use super::{Committed, Partition, Plan};
use crate::export::Dataset;
use crate::{Error, ProgressMonitor};
use receipts_event::Event;
use receipts_fold::effects::Effects;
use receipts_projection::partition::Fold;
use std::collections::BTreeSet;
use std::path::Path;

/// A table, and what has changed since its newest version.
pub(super) struct Table {
    dataset: Dataset,
    settings: String,
    delta: Delta,
    /// What the newest version stands for; `None` before the first.
    stamp: Option<Stamp>,
    /// Files by partition, in the order of their pages.
    files: Vec<Vec<DataFile>>,
    /// Changes by partition since the newest version.
    changes: Vec<Changes>,
    keeper: Keeper,
}

impl Table {
    /// Opens a table, or prepares a new one.
    pub(super) fn open(plan: &Plan<'_>, dataset: Dataset, settings: &str, partitions: u32) -> Result<Self, Error> {
        let delta = Delta::open(&plan.out, dataset.name())?;
        let stamp = delta.stamp()?;
        let shown = delta.shown();
        match (&stamp, delta.version()) {
            (None, Some(_)) => return Err(foreign(&shown)),
            (None, None) => {}
            (Some(stamp), _) => {
                if let Some(why) = stamp.refusal(&plan.log, settings, partitions) {
                    return Err(Error::Refused(format!("{shown} {why}: name a new --out")));
                }
                if !delta.has_columns(&schema(dataset))? {
                    return Err(Error::Refused(format!(
                        "{shown} has the columns of another version of receipts: name a new --out"
                    )));
                }
            }
        }
        let mut files = vec![Vec::new(); partitions as usize];
        for active in delta.active(None)? {
            let file =
                DataFile::parse(&active.name, active.bytes, active.modified_ms).ok_or_else(|| foreign(&shown))?;
            files.get_mut(file.partition as usize).ok_or_else(|| foreign(&shown))?.push(file);
        }
        for files in &mut files {
            files.sort_by_key(|file| file.pages.start);
            if files.windows(2).any(|pair| pair[0].pages.end > pair[1].pages.start) {
                return Err(foreign(&shown));
            }
        }
        let everything = Changes { everything: stamp.is_none(), ..Changes::default() };
        let keeper = Keeper::open(&delta)?;
        let (settings, changes) = (settings.to_owned(), vec![everything; partitions as usize]);
        Ok(Self { dataset, settings, delta, stamp, files, changes, keeper })
    }

    /// Returns the offset at which the newest version stands in a partition.
    pub(super) fn next_offset(&self, partition: u32) -> Option<u64> {
        self.mark(partition).map(|mark| mark.next_offset)
    }

    fn mark(&self, partition: u32) -> Option<&Mark> {
        self.stamp.as_ref()?.partitions.iter().find(|mark| mark.partition == partition)
    }

    /// Refuses a state that is not the one that the newest version was made from.
    pub(super) fn check(&self, partition: u32, held: &Partition) -> Result<(), Error> {
        let now = mark(partition, held);
        match self.mark(partition) {
            Some(made) if *made != now => Err(Error::Refused(format!(
                "{} was made from another fold of partition {partition}: {} messages and {} conversations from offset {} \
                 on, but the log gives {} and {} from {} on; give the snapshots with which it was made, or name a new --out",
                self.delta.shown(),
                made.messages,
                made.conversations,
                made.first_offset,
                now.messages,
                now.conversations,
                now.first_offset
            ))),
            _ => Ok(()),
        }
    }

    /// Adds what an event may have changed, unless the newest version has it.
    pub(super) fn add(
        &mut self,
        state: &Fold,
        partition: u32,
        offset: u64,
        event: &Event<'_>,
        effects: &Effects,
    ) -> Result<(), Error> {
        let is_in_it = self.next_offset(partition).is_some_and(|next_offset| offset < next_offset);
        let changes = &mut self.changes[partition as usize];
        if is_in_it || changes.everything { Ok(()) } else { changes.add(state, partition, event, effects) }
    }

    /// As [`Changes::find_erased`].
    pub(super) fn find_erased(&mut self, state: &Fold, partition: u32) -> Result<(), Error> {
        self.changes[partition as usize].find_erased(state, partition)
    }

    /// Commits a version for the state of all partitions, if its position or its files differ from
    /// those of the newest version. Files are made in a temporary folder.
    pub(super) fn round(
        &mut self,
        plan: &Plan<'_>,
        partitions: &[Partition],
        folder: &Path,
        monitor: &dyn ProgressMonitor,
    ) -> Result<Option<Committed>, Error> {
        let now_ms = (plan.now_ms)();
        let (mut added, mut removed) = (Vec::new(), BTreeSet::new());
        let mut files = Vec::new();
        for (partition, held) in (0u32..).zip(partitions) {
            let state = &held.folded.state;
            let writer = Writer {
                state,
                partition,
                dataset: self.dataset,
                schema: schema(self.dataset),
                table: &self.delta,
                folder,
                now_ms,
                monitor,
            };
            let own = self.write_partition(plan, &writer, &mut added, &mut removed)?;
            files.push(own);
        }
        let marks: Vec<Mark> = (0u32..).zip(partitions).map(|(partition, held)| mark(partition, held)).collect();
        let offsets: Vec<(u32, u64)> = marks.iter().map(|mark| (mark.partition, mark.next_offset)).collect();
        let stamp = Stamp::new(self.dataset.name(), &plan.log, &self.settings, (plan.token)(&offsets), marks);
        if added.is_empty() && removed.is_empty() && self.stamp.as_ref() == Some(&stamp) {
            self.files = files;
            return Ok(None);
        }
        let (count_added, count_removed) = (added.len() as u64, removed.len() as u64);
        let names: Vec<String> = added.iter().map(|file: &Written| file.name.clone()).collect();
        let version = self.delta.commit(&schema(self.dataset), &stamp, &added, &removed, now_ms)?;
        self.keeper.committed(version, now_ms, stamp.erasures, names);
        let committed = Committed {
            dataset: self.dataset,
            version,
            position: stamp.position.clone(),
            added: count_added,
            removed: count_removed,
            files: files.iter().map(|own| own.len() as u64).sum(),
            bytes: files.iter().flatten().map(|file| file.bytes).sum(),
            versions_removed: 0,
            behind_ms: 0,
        };
        self.files = files;
        self.stamp = Some(stamp);
        self.changes.fill(Changes::default());
        Ok(Some(committed))
    }

    /// Writes the changed ranges of a partition; returns its files from then on.
    fn write_partition(
        &self,
        plan: &Plan<'_>,
        writer: &Writer<'_>,
        added: &mut Vec<Written>,
        removed: &mut BTreeSet<String>,
    ) -> Result<Vec<DataFile>, Error> {
        let (state, at) = (writer.state, writer.partition as usize);
        let (changes, held) = (&self.changes[at], &self.files[at]);
        let (pages, end) = match subject(self.dataset) {
            Subject::Messages => (&changes.message_pages, state.messages()),
            Subject::Conversations => (&changes.conversation_pages, u64::from(state.conversations())),
        };
        let end = end.div_ceil(super::changes::PAGE);
        // Every page, where everything may have changed.
        let all: BTreeSet<u64>;
        let pages = if changes.everything {
            all = (0..end).collect();
            &all
        } else {
            pages
        };
        let (newest_ms, retention_ms) = (state.newest_timestamp_ms(), plan_retention(state));
        let of_messages = subject(self.dataset) == Subject::Messages;
        let is_changed = |file: &DataFile| {
            let expired = file.oldest_ms != u64::MAX && newest_ms.saturating_sub(file.oldest_ms) > retention_ms;
            let named = of_messages
                && !changes.conversations.is_empty()
                && file.conversations.as_ref().is_none_or(|known| !known.is_disjoint(&changes.conversations));
            changes.everything || expired || named
        };
        let mut files = Vec::new();
        let mut from = 0;
        let mut rewrites = ranges::plan(held, &is_changed, pages, plan.file_bytes, writer.now_ms);
        rewrites.sort_by_key(|rewrite| rewrite.pages.start);
        for rewrite in rewrites {
            files.extend_from_slice(&held[from..rewrite.replaces.start]);
            from = rewrite.replaces.end;
            let replaced = &held[rewrite.replaces.clone()];
            let (own, written) = writer.write(&rewrite, replaced)?;
            let kept: BTreeSet<String> = own.iter().map(DataFile::name).collect();
            removed.extend(replaced.iter().map(DataFile::name).filter(|name| !kept.contains(name)));
            files.extend(own);
            added.extend(written);
        }
        files.extend_from_slice(&held[from..]);
        Ok(files)
    }

    /// Removes old versions that are due; returns their number.
    pub(super) fn keep(&mut self, plan: &Plan<'_>) -> Result<u64, Error> {
        self.keeper.run(&mut self.delta, plan)
    }
}

fn plan_retention(state: &Fold) -> u64 {
    state.limits().retention_ms
}

fn mark(partition: u32, held: &Partition) -> Mark {
    let state = &held.folded.state;
    Mark {
        partition,
        next_offset: held.next_offset,
        first_offset: held.first_offset,
        messages: state.messages(),
        conversations: state.conversations(),
        erasures: state.erased_people(),
    }
}

fn foreign(shown: &str) -> Error {
    Error::Refused(format!(
        "{shown} is a table that `receipts export --follow` did not make, or that another program has changed: name a new --out"
    ))
}
