//! The identity of an event log, and the binding of the store to it: a store is never folded on
//! from another log. Keeps INV-SAME-LOG. Opens no log.

use super::DataDir;
use super::files::{make_folder, random, read_if_exists, write_whole};
use anyhow::{Context as _, Result, anyhow};
use receipts_log::kafka::{changed_count, made_anew};
use receipts_projection::Projector;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::Path;

/// The file in a store's folder that names the log that it was folded from.
const FILE: &str = "log.json";

/// The fields that distinguish an event log from every other one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "log", rename_all = "snake_case")]
pub enum LogIdentity {
    /// The embedded log with this id.
    Embedded {
        /// Random, made with the log.
        id: String,
    },
    /// A Kafka topic. The projector also compares offsets and a record.
    Kafka {
        /// The topic's name.
        events_topic: String,
        /// Its number of partitions, which decides the partition of every conversation.
        partitions: u32,
        /// Its cluster's id; absent if the cluster reports none, and in stores from before it
        /// was recorded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cluster_id: Option<String>,
        /// Its id (KIP-516), which a topic that is made anew does not have; absent as the
        /// cluster's.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        topic_id: Option<String>,
    },
}

impl LogIdentity {
    /// Returns the name by which snapshots know the log. Names are compared as a whole, and those
    /// of earlier releases have no topic's id. A restored state proves by its last record that it
    /// belongs to this topic.
    pub fn name(&self) -> String {
        let mut named = self.clone();
        if let Self::Kafka { topic_id, .. } = &mut named {
            *topic_id = None;
        }
        serde_json::to_string(&named).expect("plain JSON")
    }

    /// Reads the identity from a name that [`LogIdentity::name`] wrote.
    ///
    /// # Errors
    /// If the text is no such name.
    pub fn from_name(name: &str) -> Result<Self> {
        serde_json::from_str(name).with_context(|| format!("{name} names no log"))
    }

    /// Returns whether both may be the same log. An id that one of them lacks decides nothing.
    pub(super) fn may_be(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Kafka { events_topic, partitions, cluster_id, topic_id },
                Self::Kafka {
                    events_topic: other_topic,
                    partitions: other_partitions,
                    cluster_id: other_cluster,
                    topic_id: other_id,
                },
            ) => {
                (events_topic, partitions) == (other_topic, other_partitions)
                    && may_equal(cluster_id.as_deref(), other_cluster.as_deref())
                    && may_equal(topic_id.as_deref(), other_id.as_deref())
            }
            _ => self == other,
        }
    }

    /// Returns whether `now` has an id that this identity lacks.
    fn lacks_an_id_of(&self, now: &Self) -> bool {
        let (Self::Kafka { cluster_id, topic_id, .. }, Self::Kafka { cluster_id: cluster, topic_id: topic, .. }) =
            (self, now)
        else {
            return false;
        };
        cluster_id.is_none() && cluster.is_some() || topic_id.is_none() && topic.is_some()
    }

    /// Returns this identity with the ids of `now`, where it has any.
    fn with_ids_of(&self, now: &Self) -> Self {
        let mut with = now.clone();
        if let (Self::Kafka { cluster_id, topic_id, .. }, Self::Kafka { cluster_id: cluster, topic_id: topic, .. }) =
            (self, &mut with)
        {
            *cluster = cluster.take().or_else(|| cluster_id.clone());
            *topic = topic.take().or_else(|| topic_id.clone());
        }
        with
    }

    /// Says what to do if both are the same topic of one cluster, which has got another number of
    /// partitions, or was made anew.
    pub(super) fn changed(&self, now: &Self) -> Option<String> {
        let Self::Kafka { events_topic, partitions, cluster_id, topic_id } = self else { return None };
        let Self::Kafka { partitions: now_partitions, topic_id: now_id, .. } = now else { return None };
        let as_now = |topic_id: &Option<String>| Self::Kafka {
            events_topic: events_topic.clone(),
            partitions: *now_partitions,
            cluster_id: cluster_id.clone(),
            topic_id: topic_id.clone(),
        };
        if partitions != now_partitions && as_now(topic_id).may_be(now) {
            return Some(changed_count(events_topic, *partitions, *now_partitions));
        }
        as_now(&None).may_be(now).then(|| {
            let shown = |id: &Option<String>| id.clone().unwrap_or_default();
            made_anew(events_topic, &shown(topic_id), &shown(now_id))
        })
    }

    /// Writes the identity into a store's folder.
    pub(super) fn write_to(&self, store: &Path) -> Result<()> {
        write_whole(&store.join(FILE), &serde_json::to_vec(self)?)
    }
}

/// Reads the log that a store was folded from; `None` if there is no store.
pub(super) fn bound_log_of(store: &Path) -> Result<Option<LogIdentity>> {
    let path = store.join(FILE);
    let bound = read_if_exists(&path)?.map(|bytes| serde_json::from_slice(&bytes)).transpose();
    bound.with_context(|| {
        format!("{} is damaged; remove {} to fold the log from its beginning", path.display(), store.display())
    })
}

/// Says that a store was not folded from a log.
pub(super) fn other_log(store: &Path, bound: &LogIdentity, log: impl fmt::Display) -> String {
    let folder = store.display();
    format!(
        "the store in {folder} was folded from {bound}, and the log is {log}: choose another --data-dir for this log, or \
         remove {folder} to fold the log from its beginning"
    )
}

fn may_equal(one: Option<&str>, other: Option<&str>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one == other)
}

impl fmt::Display for LogIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { id } => write!(f, "the embedded log {id}"),
            Self::Kafka { events_topic, partitions, cluster_id, .. } => {
                write!(f, "the Kafka topic {events_topic} with {partitions} partitions")?;
                cluster_id.iter().try_for_each(|id| write!(f, " of the cluster {id}"))
            }
        }
    }
}

impl DataDir {
    /// Returns the identity of the embedded log in this directory; makes its id together with the
    /// log.
    ///
    /// # Errors
    /// If the id cannot be read or made.
    pub fn embedded_log(&self) -> Result<LogIdentity> {
        let folder = self.log();
        make_folder(&folder)?;
        let path = folder.join("id");
        let id = match read_if_exists(&path)? {
            Some(id) => String::from_utf8(id).with_context(|| format!("{} is damaged", path.display()))?,
            None => {
                let id = receipts_event::hex(&random::<16>()?);
                write_whole(&path, format!("{id}\n").as_bytes())?;
                id
            }
        };
        Ok(LogIdentity::Embedded { id: id.trim().to_owned() })
    }

    /// Returns the log that the store was folded from; `None` if there is no store.
    ///
    /// # Errors
    /// If the store's note of it cannot be read.
    pub fn bound_log(&self) -> Result<Option<LogIdentity>> {
        bound_log_of(&self.store())
    }

    /// Returns the log of the store that the next [`DataDir::adopt_rebuilt`] leaves in use.
    ///
    /// # Errors
    /// As [`DataDir::bound_log`].
    pub(crate) fn next_bound_log(&self) -> Result<Option<LogIdentity>> {
        // A rebuilt store is checked when it is in use.
        if self.has_rebuilt() { Ok(None) } else { self.bound_log() }
    }

    /// Refuses a log that the store was not folded from.
    pub(crate) fn other_log(&self, bound: &LogIdentity, log: impl fmt::Display) -> anyhow::Error {
        anyhow!(other_log(&self.store(), bound, log))
    }

    /// Forgets the log of a store that has folded nothing: its process may have been refused on
    /// that log. Returns false if the store has folded something, and stays bound.
    ///
    /// # Errors
    /// If the store cannot be opened or changed.
    pub(crate) fn unbind_empty_store(&self) -> Result<bool> {
        let store = self.store();
        if Projector::has_state(&store)? {
            return Ok(false);
        }
        let path = store.join(FILE);
        std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        tracing::info!(store = %store.display(), "the store was made for another log and has folded nothing of it");
        Ok(true)
    }

    /// Binds the store to a log the first time, and checks it against that log from then on. A
    /// store that has folded nothing may be bound to another topic or embedded log.
    ///
    /// # Errors
    /// If the store is bound to another log.
    pub fn bind_store(&self, log: &LogIdentity) -> Result<()> {
        let folder = self.store();
        make_folder(&folder)?;
        match &self.bound_log()? {
            None => log.write_to(&folder),
            Some(bound) if !bound.may_be(log) => match bound.changed(log) {
                Some(sentence) => Err(anyhow!(sentence)),
                None if self.unbind_empty_store()? => log.write_to(&folder),
                None => Err(self.other_log(bound, log)),
            },
            Some(bound) if bound.lacks_an_id_of(log) => bound.with_ids_of(log).write_to(&folder),
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::opened;
    use super::*;
    use std::fs;

    /// Lets the store hold a checkpoint that is not applied yet.
    fn fold_into(data: &DataDir) {
        fs::create_dir_all(data.store().join("sled")).expect("made");
        fs::write(data.store().join("p0.1.journal"), "").expect("written");
    }

    #[test]
    fn store_that_folded_nothing_follows_another_log() {
        let (_folder, data) = opened();
        data.bind_store(&kafka(4, Some("c1"))).expect("the first");
        data.bind_store(&kafka(8, Some("c1"))).expect_err("the same topic, grown");
        data.bind_store(&kafka(8, Some("c2"))).expect("nothing is folded");
        assert_eq!(data.bound_log().expect("read"), Some(kafka(8, Some("c2"))));
        fold_into(&data);
        data.bind_store(&kafka(4, Some("c1"))).expect_err("something is folded");
    }

    #[test]
    fn a_store_is_never_folded_on_from_another_log() {
        let (_folder, data) = opened();
        fold_into(&data);
        let log = data.embedded_log().expect("an id");
        assert_eq!(data.embedded_log().expect("the same"), log);
        data.bind_store(&log).expect("the first");
        data.bind_store(&log).expect("the same");
        fs::remove_file(data.log().join("id")).expect("removed with the log");
        let topic = |partitions| kafka(partitions, Some("c1"));
        for other in [data.embedded_log().expect("a new id"), topic(4)] {
            let sentence = data.bind_store(&other).expect_err("another log").to_string();
            assert!(sentence.contains(&log.to_string()) && sentence.contains(&other.to_string()), "{sentence}");
        }
    }

    fn kafka(partitions: u32, cluster_id: Option<&str>) -> LogIdentity {
        LogIdentity::Kafka {
            events_topic: "receipts.events".into(),
            partitions,
            cluster_id: cluster_id.map(Into::into),
            topic_id: None,
        }
    }

    fn with_id(log: &LogIdentity, id: &str) -> LogIdentity {
        let mut log = log.clone();
        let LogIdentity::Kafka { topic_id, .. } = &mut log else { panic!("{log}") };
        *topic_id = Some(id.into());
        log
    }

    /// INV-SAME-LOG
    #[test]
    fn topic_made_anew_is_refused_by_its_id() {
        let (_folder, data) = opened();
        fold_into(&data);
        let plain = kafka(4, Some("c1"));
        data.bind_store(&plain).expect("a store from before topic ids were recorded");
        data.bind_store(&with_id(&plain, "t1")).expect("recorded from now on");
        data.bind_store(&plain).expect("a broker that tells no id");
        data.bind_store(&with_id(&plain, "t1")).expect("the same");
        let sentence = data.bind_store(&with_id(&plain, "t2")).expect_err("made anew").to_string();
        assert!(sentence.contains("its id was t1 and is t2") && sentence.contains("--data-dir"), "{sentence}");
        let sentence = data.bind_store(&with_id(&kafka(4, Some("c2")), "t2")).expect_err("elsewhere").to_string();
        assert!(sentence.contains("of the cluster c2") && !sentence.contains("made anew"), "{sentence}");
        let sentence = data.bind_store(&with_id(&kafka(8, Some("c1")), "t1")).expect_err("grown").to_string();
        assert!(sentence.contains("(4 before, 8 now)"), "{sentence}");
        assert_eq!(with_id(&plain, "t1").name(), plain.name(), "snapshots of earlier releases are found");
    }

    #[test]
    fn another_cluster_or_partition_count_is_refused() {
        let (_folder, data) = opened();
        fold_into(&data);
        data.bind_store(&kafka(4, None)).expect("a store from before clusters were recorded");
        data.bind_store(&kafka(4, Some("c1"))).expect("recorded from now on");
        data.bind_store(&kafka(4, None)).expect("a cluster that reports no id");
        data.bind_store(&kafka(4, Some("c1"))).expect("the same");
        let sentence = data.bind_store(&kafka(4, Some("c2"))).expect_err("another cluster").to_string();
        assert!(sentence.contains("of the cluster c1") && sentence.contains("of the cluster c2"), "{sentence}");
        let sentence = data.bind_store(&kafka(8, Some("c1"))).expect_err("another count").to_string();
        assert!(sentence.contains("(4 before, 8 now)") && sentence.contains("copy all records"), "{sentence}");
    }
}
