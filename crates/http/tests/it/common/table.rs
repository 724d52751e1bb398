//! Answers from a table that each test fills.

use async_trait::async_trait;
use receipts_cluster::Owner;
use receipts_fold::view::{Counts, FoundReceipt, Member, MemberFilter, Members, ReadMark, Receipt, Status};
use receipts_query::{Answer, Answers, Conversation, Positions, Readiness, Unavailable};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::watch;

/// How the table answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    Failing,
    /// One partition has no owner.
    Ownerless(u32),
    Silent,
    Panicking,
}

/// The answers about one message.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) receipt: Receipt,
    pub(crate) members: HashMap<MemberFilter, Vec<Member>>,
}

type Key = (String, String, String);

pub(crate) struct Table {
    partition_count: u32,
    rows: Mutex<BTreeMap<Key, Row>>,
    marks: Mutex<HashMap<Key, ReadMark>>,
    rosters: Mutex<HashSet<Key>>,
    /// Erased people of the tenant `default`.
    pub(crate) erased: Mutex<HashSet<String>>,
    positions: watch::Sender<Positions>,
    pub(crate) mood: Mutex<Mood>,
    pub(crate) readiness: Mutex<Readiness>,
    /// For how many seconds the log is silent.
    pub(crate) stale_s: Mutex<Option<u64>>,
}

fn key(tenant: &str, conversation_id: &str, id: &str) -> Key {
    (tenant.to_owned(), conversation_id.to_owned(), id.to_owned())
}

/// Returns the receipt of a missing message.
pub(crate) fn not_found(tenant: &str, conversation_id: Option<&str>, message_id: &str) -> Receipt {
    Receipt {
        tenant: tenant.to_owned(),
        conversation_id: conversation_id.map(str::to_owned),
        message_id: message_id.to_owned(),
        status: Status::NotFound,
        kind: None,
        sender_id: None,
        sent_at_ms: None,
        counts: None,
        last_read_at_ms: None,
        user_id: None,
        read_at_ms: None,
        version: None,
    }
}

impl Table {
    pub(crate) fn new(partition_count: u32) -> Self {
        let positions: Positions = (0..partition_count).map(|partition| (partition, 10)).collect();
        Self {
            partition_count,
            rows: Mutex::default(),
            marks: Mutex::default(),
            rosters: Mutex::default(),
            erased: Mutex::default(),
            positions: watch::Sender::new(positions),
            mood: Mutex::new(Mood::Well),
            readiness: Mutex::new(Readiness {
                caught_up: true,
                partitions: partition_count,
                partitions_caught_up: partition_count,
                lag_records: Some(0),
                ..Readiness::default()
            }),
            stale_s: Mutex::default(),
        }
    }

    /// Adds a message of the tenant `default`. Only status `ok` gets counts.
    pub(crate) fn put(
        &self,
        conversation_id: &str,
        message_id: &str,
        sender_id: &str,
        sent_at_ms: u64,
        status: Status,
    ) {
        let counts = Counts {
            audience_count: 5,
            read_count: 2,
            unread_count: 2,
            hidden_count: 0,
            departed_count: 1,
            all_read: false,
        };
        let receipt = Receipt {
            status,
            kind: Some(receipts_event::Kind::Group),
            sender_id: Some(sender_id.to_owned()),
            sent_at_ms: Some(sent_at_ms),
            counts: (status == Status::Ok).then_some(counts),
            last_read_at_ms: (status == Status::Ok).then_some(sent_at_ms + 4),
            version: Some(1234),
            ..not_found("default", Some(conversation_id), message_id)
        };
        let row = Row { receipt, members: HashMap::new() };
        self.rows.lock().unwrap().insert(key("default", conversation_id, message_id), row);
    }

    pub(crate) fn put_members(
        &self,
        conversation_id: &str,
        message_id: &str,
        filter: MemberFilter,
        members: Vec<Member>,
    ) {
        let mut rows = self.rows.lock().unwrap();
        rows.get_mut(&key("default", conversation_id, message_id)).unwrap().members.insert(filter, members);
    }

    pub(crate) fn put_mark(&self, conversation_id: &str, mark: ReadMark) {
        self.marks.lock().unwrap().insert(key("default", conversation_id, &mark.reader_id), mark);
    }

    pub(crate) fn join(&self, conversation_id: &str, user_id: &str) {
        self.rosters.lock().unwrap().insert(key("default", conversation_id, user_id));
    }

    pub(crate) fn fold_up_to(&self, partition: u32, next_offset: u64) {
        self.positions.send_modify(|positions| positions.raise(partition, next_offset));
    }

    fn newest(&self, tenant: &str, message_ids: &[String], is_meant: impl Fn(&Row) -> bool) -> Vec<Receipt> {
        let rows = self.rows.lock().unwrap();
        let newest = |id: &String| {
            let of_this_id = rows.iter().filter(|((of, _, message_id), _)| of == tenant && message_id == id);
            let best = of_this_id.filter(|(_, row)| is_meant(row)).max_by_key(|(_, row)| row.receipt.sent_at_ms);
            best.map_or_else(|| not_found(tenant, None, id), |(_, row)| row.receipt.clone())
        };
        message_ids.iter().map(newest).collect()
    }

    async fn mood(&self) -> Result<(), Unavailable> {
        let mood = *self.mood.lock().unwrap();
        match mood {
            Mood::Well | Mood::Ownerless(_) => Ok(()),
            Mood::Failing => Err(Unavailable::Failed("the disk at 10.0.0.7 failed".to_owned())),
            Mood::Silent => std::future::pending().await,
            Mood::Panicking => panic!("the table was told to"),
        }
    }

    fn at<T>(&self, conversation: Conversation<'_>, value: T) -> Answer<T> {
        let next_offset = self.positions.borrow().next_offset(conversation.partition);
        Answer {
            value,
            positions: Positions::applied(conversation.partition, next_offset),
            stale_s: *self.stale_s.lock().unwrap(),
        }
    }

    fn receipt(&self, conversation: Conversation<'_>, message_id: &str) -> Receipt {
        let Conversation { tenant, conversation_id, .. } = conversation;
        let rows = self.rows.lock().unwrap();
        let row = rows.get(&key(tenant, conversation_id, message_id));
        row.map_or_else(|| not_found(tenant, Some(conversation_id), message_id), |row| row.receipt.clone())
    }
}

#[async_trait]
impl Answers for Table {
    fn partition_count(&self) -> u32 {
        self.partition_count
    }

    fn positions(&self) -> Positions {
        self.positions.borrow().clone()
    }

    fn ready(&self) -> Readiness {
        self.readiness.lock().unwrap().clone()
    }

    async fn wait(&self, min: &Positions, timeout: Duration) -> Result<(), Unavailable> {
        let mut positions = self.positions.subscribe();
        let covered = tokio::time::timeout(timeout, positions.wait_for(|now| now.covers(min))).await;
        covered.map(|_| ()).map_err(|_| Unavailable::Behind)
    }

    async fn ends(&self, most: &Positions) -> Result<Positions, Unavailable> {
        let ends = self.positions();
        Ok(most.iter().map(|(partition, most)| (partition, most.min(ends.next_offset(partition)))).collect())
    }

    async fn receipts(
        &self,
        conversation: Conversation<'_>,
        sender_id: Option<&str>,
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable> {
        self.mood().await?;
        let answer = |id: &String| {
            let receipt = self.receipt(conversation, id);
            if sender_id.is_none() || receipt.sender_id.as_deref() == sender_id {
                return receipt;
            }
            not_found(conversation.tenant, Some(conversation.conversation_id), id)
        };
        Ok(self.at(conversation, message_ids.iter().map(answer).collect()))
    }

    async fn find(
        &self,
        tenant: &str,
        sender_id: Option<&str>,
        message_ids: &[String],
    ) -> Result<Answer<Vec<Receipt>>, Unavailable> {
        self.mood().await?;
        let is_searched = |row: &Row| sender_id.is_none() || row.receipt.sender_id.as_deref() == sender_id;
        let value = self.newest(tenant, message_ids, is_searched);
        Ok(Answer { value, positions: self.positions(), stale_s: *self.stale_s.lock().unwrap() })
    }

    async fn members(
        &self,
        conversation: Conversation<'_>,
        message_id: &str,
        filter: MemberFilter,
        from_slot: u32,
        limit: usize,
    ) -> Result<Answer<Members>, Unavailable> {
        self.mood().await?;
        let receipt = self.receipt(conversation, message_id);
        let rows = self.rows.lock().unwrap();
        let row = rows.get(&key(conversation.tenant, conversation.conversation_id, message_id));
        let all = row.and_then(|row| row.members.get(&filter)).map_or(&[][..], Vec::as_slice);
        let all = if receipt.status == Status::Ok { all } else { &[] };
        let from = (from_slot as usize).min(all.len());
        let to = (from + limit).min(all.len());
        let next_slot = (to < all.len()).then_some(to as u32);
        Ok(self.at(conversation, Members { members: all[from..to].to_vec(), next_slot, receipt }))
    }

    async fn read_mark(
        &self,
        conversation: Conversation<'_>,
        user_id: &str,
    ) -> Result<Answer<Option<ReadMark>>, Unavailable> {
        self.mood().await?;
        let marks = self.marks.lock().unwrap();
        let mark = marks.get(&key(conversation.tenant, conversation.conversation_id, user_id)).cloned();
        Ok(self.at(conversation, mark))
    }

    async fn read_marks(
        &self,
        conversation: Conversation<'_>,
        user_ids: &[String],
    ) -> Result<Answer<Vec<Option<ReadMark>>>, Unavailable> {
        self.mood().await?;
        let Conversation { tenant, conversation_id, .. } = conversation;
        let marks = self.marks.lock().unwrap();
        let marks = user_ids.iter().map(|id| marks.get(&key(tenant, conversation_id, id)).cloned());
        Ok(self.at(conversation, marks.collect()))
    }

    async fn is_member(&self, conversation: Conversation<'_>, user_id: &str) -> Result<Answer<bool>, Unavailable> {
        self.mood().await?;
        let rosters = self.rosters.lock().unwrap();
        let is_member = rosters.contains(&key(conversation.tenant, conversation.conversation_id, user_id));
        Ok(self.at(conversation, is_member))
    }

    async fn are_erased(
        &self,
        tenant: &str,
        partition: u32,
        user_ids: &[String],
    ) -> Result<Answer<Vec<bool>>, Unavailable> {
        self.mood().await?;
        if *self.mood.lock().unwrap() == Mood::Ownerless(partition) {
            return Err(Unavailable::NoOwner { partition });
        }
        let erased = self.erased.lock().unwrap();
        let is_erased = |id: &String| tenant == "default" && erased.contains(id);
        let conversation = Conversation { partition, tenant, conversation_id: "" };
        Ok(self.at(conversation, user_ids.iter().map(is_erased).collect()))
    }
}

/// As a projector of all partitions.
#[async_trait]
impl Owner for Table {
    fn owned_partitions(&self) -> Vec<u32> {
        (0..self.partition_count).collect()
    }

    fn stale_seconds(&self) -> Vec<(u32, u64)> {
        Vec::new()
    }

    fn find_in(
        &self,
        _partitions: &[u32],
        tenant: &str,
        _sender_id: Option<&str>,
        message_ids: &[String],
        _candidates_max: u32,
    ) -> Result<Answer<Vec<FoundReceipt>>, Unavailable> {
        let found = self.newest(tenant, message_ids, |_| true).into_iter();
        let found = found.map(|receipt| FoundReceipt { receipt, candidates: 1 }).collect();
        Ok(Answer::fresh(found, self.positions()))
    }
}
