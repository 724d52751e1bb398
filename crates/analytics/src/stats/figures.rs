//! The figures, as they are printed: `schemas/stats/v1.schema.json` is their form for machines. Counts nothing but sums.

use receipts_event::Kind;
use receipts_fold::view::Counts;
use serde::Serialize;

/// Everything that is told. Shares are percent of 0 to 100, absent where there is nothing to take a share of.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// The newest record's timestamp, Unix milliseconds: the clock by which messages are old.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_timestamp_ms: Option<u64>,
    /// Only messages whose record is at least as young were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Only this tenant's were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Messages by what their receipts say.
    pub messages: Messages,
    /// What became of the audiences of all messages whose status is `ok`.
    pub readers: Readers,
    /// The same, and how long reading took, by how many must read.
    pub by_audience: Vec<Audience>,
    /// The times after the send at which [`TimeToRead::read_within_percent`] stands, milliseconds.
    pub read_within_ms: Vec<u64>,
    /// What had become of audiences 24 hours after the send, of messages that are as old.
    pub after_24_hours: After24Hours,
    /// Reads by hour of the day, UTC: 24 of them.
    pub by_hour: Vec<Hour>,
    /// Conversations with the most members now, largest first.
    pub largest_conversations: Vec<Conversation>,
    /// Conversations with the most sends and counted reads together, hottest first.
    pub hottest_conversations: Vec<Conversation>,
    /// Messages that the most have read, most read first.
    pub most_read_messages: Vec<Message>,
}

/// Messages by what their receipts say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Messages {
    /// All.
    pub total: u64,
    /// With an audience, and counts.
    pub ok: u64,
    /// The sender did not ask.
    pub not_requested: u64,
    /// The group type did not support receipts.
    pub unsupported: u64,
    /// Recalled.
    pub recalled: u64,
}

/// Sums of receipts' counts: persons a message. `read + unread + hidden + departed = audience`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Readers {
    /// Who must read.
    pub audience_count: u64,
    /// Who has, openly.
    pub read_count: u64,
    /// Who has not, and is still there.
    pub unread_count: u64,
    /// Who has, hidden: a count as in every receipt, in no other figure.
    pub hidden_count: u64,
    /// Who has not, and left.
    pub departed_count: u64,
    /// The read rate: `read_count` of `audience_count`, percent.
    pub read_percent: Share,
}

/// Percent, if there is something to take a share of.
pub type Share = Option<f64>;

/// Messages with audiences of similar size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Audience {
    /// For people: `2-10`.
    pub audience: String,
    /// The smallest audience counted here.
    pub audience_min: u32,
    /// The largest; absent where there is no bound.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience_max: Option<u32>,
    /// Messages.
    pub messages: u64,
    /// Sums of their counts.
    #[serde(flatten)]
    pub readers: Readers,
    /// How long reading took.
    pub time_to_read: TimeToRead,
}

/// From a send to a read, over reads that are told with a time: none of hidden readers and of people who were erased.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TimeToRead {
    /// Reads with a time.
    pub reads: u64,
    /// Half of them took at most so long, milliseconds; all quantiles to within 0.1 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<u64>,
    /// Nine of ten.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p90_ms: Option<u64>,
    /// Ninety-nine of a hundred.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<u64>,
    /// How many of the audience had read openly at each of [`Stats::read_within_ms`], percent.
    pub read_within_percent: Vec<f64>,
}

/// Persons a message, 24 hours after its send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct After24Hours {
    /// Messages that were sent at least 24 hours before their partition's newest record.
    pub messages: u64,
    /// Of these, how many somebody has not read to this day.
    pub messages_unread_by_somebody: u64,
    /// Who had to read them.
    pub audience_count: u64,
    /// Read openly within 24 hours.
    pub read_within_count: u64,
    /// Read openly later than that.
    pub read_later_count: u64,
    /// Read openly at a time that is not told: the person was erased, or read times are not kept.
    pub read_untimed_count: u64,
    /// Not read to this day, and still there.
    pub unread_count: u64,
    /// Read hidden, at whatever time.
    pub hidden_count: u64,
    /// Not read, and left.
    pub departed_count: u64,
    /// Unread after 24 hours: `read_later_count` and `unread_count` of `audience_count`, percent.
    pub unread_percent: Share,
}

/// Reads of one hour of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Hour {
    /// 0 to 23, UTC.
    pub hour: u8,
    /// Reads that are told with a time.
    pub reads: u64,
    /// Different people who read then: an estimate to within some 2 %, exact while there are few.
    pub readers: u64,
}

/// A conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conversation {
    /// Whose.
    pub tenant: String,
    /// Its id.
    pub conversation_id: String,
    /// Direct chat or group.
    pub kind: Kind,
    /// The type that policies speak of.
    pub group_type: String,
    /// Members on its roster now, observers not counted.
    pub members: u32,
    /// Messages counted.
    pub messages: u64,
    /// Open reads of them.
    pub reads: u64,
}

/// A message.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    /// Whose.
    pub tenant: String,
    /// Its conversation.
    pub conversation_id: String,
    /// Its id.
    pub message_id: String,
    /// Of the conversation, now.
    pub group_type: String,
    /// Unix milliseconds.
    pub sent_at_ms: u64,
    /// Who must read it.
    pub audience_count: u32,
    /// Who has, openly.
    pub read_count: u32,
    /// `read_count` of `audience_count`.
    pub read_percent: Share,
}

/// Percent of 0 to 100, in hundredths.
pub(super) fn of(part: u64, whole: u64) -> Share {
    (whole > 0).then(|| percent(part, whole))
}

fn percent(part: u64, whole: u64) -> f64 {
    (part as f64 * 10_000.0 / whole as f64).round() / 100.0
}

impl Readers {
    /// Adds a message's counts.
    pub(super) fn add(&mut self, counts: &Counts) {
        self.audience_count += u64::from(counts.audience_count);
        self.read_count += u64::from(counts.read_count);
        self.unread_count += u64::from(counts.unread_count);
        self.hidden_count += u64::from(counts.hidden_count);
        self.departed_count += u64::from(counts.departed_count);
        self.read_percent = of(self.read_count, self.audience_count);
    }
}

impl After24Hours {
    /// Adds a message that is old enough: its counts, and how many reads had a time within 24 hours and later.
    pub(super) fn add(&mut self, counts: &Counts, within: u64, later: u64) {
        self.messages += 1;
        self.messages_unread_by_somebody += u64::from(counts.unread_count > 0);
        self.audience_count += u64::from(counts.audience_count);
        self.read_within_count += within;
        self.read_later_count += later;
        self.read_untimed_count += u64::from(counts.read_count).saturating_sub(within + later);
        self.unread_count += u64::from(counts.unread_count);
        self.hidden_count += u64::from(counts.hidden_count);
        self.departed_count += u64::from(counts.departed_count);
        self.unread_percent = of(self.read_later_count + self.unread_count, self.audience_count);
    }
}

impl TimeToRead {
    /// Shares of an audience, by how many of it had read at each time.
    pub(super) fn shares(read: impl Iterator<Item = u64>, audience: u64) -> Vec<f64> {
        read.map(|read| percent(read, audience.max(1))).collect()
    }
}
