//! Watches what operators do to the topics: made anew, deleted, compacted, or given a shorter
//! retention or a smaller largest record.
//!
//! It changes no topic and reads no record. The thread of [`super::watch`] calls it.
//!
//! Keeps INV-SAME-LOG.

use super::context::QueryContext;
use super::native::Registered;
use super::settings::KafkaSettings;
use super::sizes::Sizes;
use super::topic_config::{TopicConfig, describe_configs};
use super::topic_id::{Described, describe};
use crate::contact::Contact;
use crate::port::{ReadError, Topic};
use parking_lot::Mutex;
use rdkafka::admin::AdminClient;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The time limit of a question.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Kafka is asked if it has answered within this time.
const HEARD: Duration = Duration::from_secs(2);
/// The pause between two questions about the configuration.
const CONFIG_INTERVAL: Duration = Duration::from_secs(10);
/// How often the topic must be missing before that is believed: a broker that has just started may
/// not know all topics.
const MISSING_SEEN: u32 = 3;

/// The ids by [`Topic::index`]; `None` for a topic that this process does not use, and on brokers
/// that tell none.
pub(super) type TopicIds = [Option<String>; Topic::ALL.len()];

/// The topics as they were at the start, and the questions about them.
pub(super) struct TopicWatch {
    settings: Arc<KafkaSettings>,
    admin: Registered<AdminClient<QueryContext>>,
    ids: TopicIds,
    /// True once something follows the topic of updates.
    follows_updates: AtomicBool,
    /// What [`TopicWatch::sizes`] returns.
    sizes: Arc<Sizes>,
    state: Mutex<State>,
}

struct State {
    config: TopicConfig,
    config_asked: Instant,
    missing_seen: u32,
    /// True once the log has the line about updates that were made anew.
    told_updates: bool,
}

impl TopicWatch {
    /// Begins with what the start has found.
    pub(super) fn new(
        settings: Arc<KafkaSettings>,
        admin: Registered<AdminClient<QueryContext>>,
        ids: TopicIds,
        config: TopicConfig,
    ) -> Self {
        let state = State { config, config_asked: Instant::now(), missing_seen: 0, told_updates: false };
        let watch = Self {
            settings,
            admin,
            ids,
            follows_updates: AtomicBool::new(false),
            sizes: Arc::default(),
            state: Mutex::new(state),
        };
        watch.read_configs();
        watch
    }

    /// Returns the id of a topic at the start.
    pub(super) fn id(&self, topic: Topic) -> Option<&str> {
        self.ids[topic.index()].as_deref()
    }

    /// Notes that something follows a topic, so that the process must not outlive it.
    pub(super) fn follow(&self, topic: Topic) {
        if topic == Topic::Updates {
            self.follows_updates.store(true, Ordering::Release);
        }
    }

    /// Returns the least number of replicas that must hold an event, if it is known.
    pub(super) fn min_insync(&self) -> Option<usize> {
        self.state.lock().config.min_insync
    }

    /// Returns the largest batches that the topics of this process take.
    pub(super) fn sizes(&self) -> Arc<Sizes> {
        Arc::clone(&self.sizes)
    }

    /// Compares the ids with those of the start. Returns false while the event topic is missing.
    /// While Kafka does not answer, another question finds that out.
    pub(super) fn check_ids(&self, contact: &Contact) -> bool {
        if contact.heard_at().elapsed() > HEARD {
            return true;
        }
        let (events, updates) = (&self.settings.events, &self.settings.updates);
        let mut names = vec![events.as_str()];
        names.extend(self.id(Topic::Updates).map(|_| updates.as_str()));
        let Some(described) = describe(self.admin.inner(), &names, TIMEOUT) else { return true };
        let mut state = self.state.lock();
        if described[0] == Described::Missing {
            state.missing_seen = state.missing_seen.saturating_add(1);
            if state.missing_seen == MISSING_SEEN {
                let id = self.id(Topic::Events);
                tracing::error!(topic = events, id, "the event topic does not exist any more");
            }
            return state.missing_seen < MISSING_SEEN;
        }
        state.missing_seen = 0;
        if let Some(sentence) = self.changed(Topic::Events, &described[0]) {
            contact.fail(sentence);
        }
        let Some(sentence) = described.get(1).and_then(|described| self.changed(Topic::Updates, described)) else {
            return true;
        };
        if self.follows_updates.load(Ordering::Acquire) {
            contact.fail(sentence);
        } else if !std::mem::replace(&mut state.told_updates, true) {
            tracing::warn!(topic = updates, "the topic of updates was made anew: the updates of the old one are lost");
        }
        true
    }

    /// Says that a topic has another id than at the start.
    fn changed(&self, topic: Topic, described: &Described) -> Option<String> {
        let (then, Described::Present(Some(now))) = (self.id(topic)?, described) else { return None };
        let name = self.settings.topic(topic);
        (then != now).then(|| match topic {
            Topic::Updates => updates_made_anew(name, then, now),
            _ => made_anew(name, then, now),
        })
    }

    /// Asks whether the event topic is still the one of the start: records that were read before
    /// this call are then records of that one. A cluster that does not answer decides nothing.
    ///
    /// # Errors
    /// [`ReadError::Stop`] if it was made anew.
    pub(super) fn confirm(&self, contact: &Contact) -> Result<(), ReadError> {
        if self.id(Topic::Events).is_none() {
            return Ok(());
        }
        let described = describe(self.admin.inner(), &[&self.settings.events], TIMEOUT);
        let changed = described.and_then(|described| self.changed(Topic::Events, described.first()?));
        changed.map_or(Ok(()), |sentence| {
            contact.fail(sentence.clone());
            Err(ReadError::Stop(sentence))
        })
    }

    /// Looks at the configuration, if that is due. Events that a compacted topic has lost are no
    /// error to any reader, so the process ends before it folds what is left.
    pub(super) fn check_config(&self, contact: &Contact) {
        if self.state.lock().config_asked.elapsed() < CONFIG_INTERVAL {
            return;
        }
        self.read_configs();
        if self.state.lock().config.is_compacted {
            contact.fail(super::connect_error::ConnectError::Compacted(self.settings.events.clone()).to_string());
        }
    }

    /// Reads the configurations, warns of what has changed, and notes them.
    fn read_configs(&self) {
        let configs = describe_configs(&self.settings, &self.admin, TIMEOUT);
        let mut state = self.state.lock();
        state.config_asked = Instant::now();
        let before = self.sizes.least();
        for (topic, config) in &configs {
            if let Some(bytes) = config.message_bytes {
                self.sizes.set(*topic, bytes);
            }
        }
        let least = self.sizes.least();
        for (topic, config) in configs {
            if before != least {
                config.warn_of_small_records(self.settings.topic(topic));
            }
            if topic == Topic::Events {
                config.warn(&self.settings, Some(&state.config));
                state.config = config;
            }
        }
    }
}

/// Says that the event topic was made anew, and what to do. All processes say the same, before and
/// after a restart.
pub fn made_anew(topic: &str, then: &str, now: &str) -> String {
    format!(
        "the topic {topic} was made anew (its id was {then} and is {now}), so its offsets stand for other records than \
         before: point --data-dir at an empty directory to fold the new topic from its beginning, or name the topic that \
         the data directory belongs to with --log-events-topic"
    )
}

/// Says that the event topic of a store is gone.
pub(super) fn was_deleted(topic: &str, then: &str) -> String {
    format!(
        "the topic {topic} (id {then}), which the data directory was folded from, does not exist any more, and a new one \
         would be another topic: name the topic that holds the events with --log-events-topic, and point --data-dir at \
         an empty directory to fold it from its beginning"
    )
}

/// Says that the topic of updates was made anew under a process that follows it.
fn updates_made_anew(topic: &str, then: &str, now: &str) -> String {
    format!(
        "the topic {topic} was made anew (its id was {then} and is {now}), so the streams of this process do not know \
         where they are: start it again; clients then get 410 for ids of the old topic, and open new streams"
    )
}
