//! The judge: says which answers and updates are right, by the naive oracle, from the records in
//! the log. It runs one oracle per partition and gives it each record with its real offset and
//! timestamp. Must not ask the service itself.

use super::http::Answer;
use super::questions::Question;
use receipts_event::{Body, Event, decode, partition_of};
use receipts_fold::view::{Receipt, Status};
use receipts_log::{Inspect, OwnedRecord, Topic};
use receipts_testkit::compare::Questions;
use receipts_testkit::{At, Limits, Oracle, OracleEffect};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// (tenant, conversation, message)
type Message = (String, String, String);

/// The source of a dead letter and its reason: (partition, offset, reason).
type Dead = (u32, u64, String);

/// The state that the log folds to, up to the last record read.
pub struct Judge {
    oracles: Vec<Oracle>,
    next_offset: Vec<u64>,
    asks: Questions,
    dead: BTreeSet<Dead>,
    /// The states that the last update of a message may show: the one after the last event that
    /// changed the message itself, and the one after each later leave.
    updates: BTreeMap<Message, Vec<Value>>,
}

impl Judge {
    /// A judge that has read no record.
    #[must_use]
    pub fn new(limits: &Limits, partitions: u32) -> Self {
        Self {
            oracles: (0..partitions).map(|_| Oracle::new(limits.clone())).collect(),
            next_offset: vec![0; partitions as usize],
            asks: Questions::default(),
            dead: BTreeSet::new(),
            updates: BTreeMap::new(),
        }
    }

    /// Reads the log on to its end and calls `found` with each event.
    ///
    /// # Panics
    /// If the log cannot be read or holds anything but events.
    pub fn read(&mut self, log: &dyn Inspect, mut found: impl FnMut(u32, &Event<'_>)) {
        for partition in 0..self.oracles.len() as u32 {
            let from = self.next_offset[partition as usize];
            for record in log.read(Topic::Events, partition, from, usize::MAX).expect("the log can be read") {
                self.next_offset[partition as usize] = record.offset + 1;
                let event = decode(record.value.as_deref().expect("a value")).expect("only events were written");
                found(partition, &event);
                self.fold(partition, &record, &event);
            }
        }
    }

    fn fold(&mut self, partition: u32, record: &OwnedRecord, event: &Event<'_>) {
        let at = At { partition, offset: record.offset, timestamp_ms: record.timestamp_ms };
        let oracle = &mut self.oracles[partition as usize];
        let effects = oracle.apply(at, event);
        let asks = Questions::of([event]);
        self.asks.messages.extend(asks.messages);
        self.asks.people.extend(asks.people);
        let mut changed = BTreeSet::new();
        for effect in effects {
            match effect {
                OracleEffect::DeadLetter { offset, reason, .. } => {
                    self.dead.insert((partition, offset, reason.to_owned()));
                }
                OracleEffect::Changed { tenant, conversation_id, message_id, .. } => {
                    changed.insert((tenant, conversation_id, message_id));
                }
                OracleEffect::MarkMoved { .. } => {}
            }
        }
        let oracle = &self.oracles[partition as usize];
        let state = |(tenant, conversation, id): &Message| json!(oracle.receipt(tenant, conversation, id));
        for message in changed {
            let states = vec![state(&message)];
            self.updates.insert(message, states);
        }
        // A leave changes receipts and publishes nothing; an update on its way may say it or not.
        let whole_tenant = matches!(event.body, Body::UserErased(_));
        if !whole_tenant && !matches!(event.body, Body::MembersChanged(_)) {
            return;
        }
        let partitions = self.oracles.len() as u32;
        for (message, states) in &mut self.updates {
            let (tenant, conversation, _) = message;
            let affected = *tenant == event.tenant && (whole_tenant || event.conversation_id() == Some(conversation));
            if affected && partition_of(&receipts_event::key(tenant, conversation), partitions) == partition {
                states.push(state(message));
            }
        }
    }

    /// All questions about the history in the log.
    #[must_use]
    pub fn questions(&self) -> Vec<Question> {
        Question::all(&self.asks)
    }

    fn oracle(&self, tenant: &str, conversation: &str) -> &Oracle {
        let key = receipts_event::key(tenant, conversation);
        &self.oracles[partition_of(&key, self.oracles.len() as u32) as usize]
    }

    /// Compares an answer with the oracle's.
    ///
    /// # Panics
    /// If they differ.
    pub fn check(&self, question: &Question, answers: &[Answer]) {
        let Some(first) = answers.first() else { panic!("{question:?}: no answer") };
        let bodies: Vec<Value> =
            answers.iter().map(|answer| serde_json::from_str(&answer.body).expect("JSON")).collect();
        let differs = |wanted: &Value| format!("INV-PREFIX: {question:?}\nmust be {wanted}\nand is  {first:?}");
        match question {
            Question::Receipts { tenant, conversation, ids } => {
                let found = bodies[0]["receipts"].as_array().expect("receipts");
                assert_eq!((first.status, found.len()), (200, ids.len()), "{question:?}");
                for (id, found) in ids.iter().zip(found) {
                    let wanted = match conversation {
                        Some(conversation) => vec![self.oracle(tenant, conversation).receipt(tenant, conversation, id)],
                        None => self.find(tenant, id),
                    };
                    assert!(
                        wanted.iter().any(|wanted| json!(wanted) == *found),
                        "{id} must be {wanted:?}: {}",
                        differs(&json!(id))
                    );
                }
            }
            Question::Receipt { tenant, conversation, message } => {
                let wanted = self.oracle(tenant, conversation).receipt(tenant, conversation, message);
                let (status, found) =
                    if wanted.status == Status::NotFound { (404, &bodies[0]["receipt"]) } else { (200, &bodies[0]) };
                assert!(first.status == status && *found == json!(wanted), "{}", differs(&json!(wanted)));
            }
            Question::Members { tenant, conversation, message, filter, .. } => {
                let oracle = self.oracle(tenant, conversation);
                match oracle.members(tenant, conversation, message, *filter) {
                    Err(status) => {
                        let wanted = if status == Status::NotFound { 404 } else { 409 };
                        assert_eq!(first.status, wanted, "{}", differs(&json!(status)));
                    }
                    Ok(wanted) => {
                        let receipt = json!(oracle.receipt(tenant, conversation, message));
                        let mut found = Vec::new();
                        for (answer, body) in answers.iter().zip(&bodies) {
                            assert!(answer.status == 200 && body["receipt"] == receipt, "{}", differs(&receipt));
                            found.extend(body["members"].as_array().expect("members").iter().cloned());
                        }
                        let by_id = |list: &mut Vec<Value>| list.sort_by_key(|member| member["user_id"].to_string());
                        let mut wanted: Vec<Value> = wanted.iter().map(|member| json!(member)).collect();
                        by_id(&mut wanted);
                        by_id(&mut found);
                        assert_eq!(found, wanted, "INV-PREFIX, INV-PAGING: {question:?}");
                    }
                }
            }
            Question::Mark { tenant, conversation, user } => {
                match self.oracle(tenant, conversation).read_mark(tenant, conversation, user) {
                    Some(wanted) => {
                        assert!(first.status == 200 && bodies[0] == json!(wanted), "{}", differs(&json!(wanted)));
                    }
                    None => assert_eq!(first.status, 404, "{}", differs(&Value::Null)),
                }
            }
        }
    }

    /// The right answers for an id whose conversation is not named: of several messages with the
    /// newest `sent_at_ms`, any.
    fn find(&self, tenant: &str, id: &str) -> Vec<Receipt> {
        let found: Vec<Receipt> = self.oracles.iter().map(|oracle| oracle.find(tenant, id)).collect();
        // A live copy goes before a recalled one of any time.
        let rank = |receipt: &Receipt| (receipt.status != Status::Recalled, receipt.sent_at_ms);
        let is_found = |receipt: &&Receipt| receipt.status != Status::NotFound;
        let Some(best) = found.iter().filter(is_found).map(rank).max() else { return found };
        found.into_iter().filter(|receipt| receipt.status != Status::NotFound && rank(receipt) == best).collect()
    }

    /// Compares the updates and dead letters in the log with the oracle's, after the process has
    /// ended in order.
    ///
    /// # Panics
    /// If the last update of a message does not show its state (INV-UPDATE-LAST), or the dead
    /// letters are not those of the oracle, byte for byte (INV-DEADLETTER).
    pub fn check_published(&self, log: &dyn Inspect) {
        let mut last = BTreeMap::<Message, Value>::new();
        let mut dead = BTreeSet::<Dead>::new();
        for partition in 0..self.oracles.len() as u32 {
            for record in log.read(Topic::Updates, partition, 0, usize::MAX).expect("readable") {
                let mut update: Value = serde_json::from_slice(&record.value.expect("a value")).expect("JSON");
                let field = |name: &str| update[name].as_str().unwrap_or_default().to_owned();
                if field("type") == "receipt.updated" {
                    let message = (field("tenant"), field("conversation_id"), field("message_id"));
                    let update = update.as_object_mut().expect("an object");
                    update.retain(|name, _| !["type", "newly_read", "newly_read_truncated"].contains(&name.as_str()));
                    last.insert(message, Value::Object(std::mem::take(update)));
                }
            }
            for record in log.read(Topic::DeadLetters, partition, 0, usize::MAX).expect("readable") {
                let header = |name: &str| {
                    let found =
                        record.headers.iter().find(|(held, _)| held == name).and_then(|(_, value)| value.clone());
                    String::from_utf8(found.unwrap_or_else(|| panic!("no header {name}")).to_vec()).expect("UTF-8")
                };
                let number = |name: &str| header(name).parse::<u64>().expect("a number");
                let (from, offset) = (number("dead-letter-partition") as u32, number("dead-letter-offset"));
                let source = &log.read(Topic::Events, from, offset, 1).expect("readable")[0];
                assert_eq!(
                    (&source.key, &source.value, source.offset),
                    (&record.key, &record.value, offset),
                    "untouched"
                );
                dead.insert((from, offset, header("dead-letter-reason")));
            }
        }
        assert_eq!(dead, self.dead, "INV-DEADLETTER");
        for (message, states) in &self.updates {
            let update =
                last.get(message).unwrap_or_else(|| panic!("INV-UPDATE-LAST: {message:?} was never published"));
            assert!(
                states.contains(update),
                "INV-UPDATE-LAST: {message:?} must be one of {states:#?} and is {update:#}"
            );
        }
    }
}
