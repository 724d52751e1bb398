//! The statistics in their printed form: `schemas/stats/v1.schema.json` is the JSON form. Only adds
//! up numbers.

use receipts_event::Kind;
use receipts_fold::view::Counts;
use serde::Serialize;

/// All statistics. Shares are percentages from 0 to 100, absent if the whole is zero.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// The newest record's timestamp, Unix milliseconds. Ages of messages are measured from it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest_timestamp_ms: Option<u64>,
    /// Only messages whose record has at least this timestamp were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<u64>,
    /// Only this tenant's messages were counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Messages by the status of their receipts.
    pub messages: Messages,
    /// Sums over the audiences of all messages with the status `ok`.
    pub readers: Readers,
    /// The same sums and the time to read, by size of the audience.
    pub by_audience: Vec<Audience>,
    /// Time from send to read, over all messages.
    pub time_to_read: TimeToRead,
    /// Messages by the time of their send; absent without messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeline: Option<Timeline>,
    /// Messages by tenant.
    pub by_tenant: Groups,
    /// Messages by group type. Direct conversations are together under the name `direct`, as no
    /// policy divides them.
    pub by_group_type: Groups,
    /// The times after the send for which [`TimeToRead::read_within_percent`] has shares,
    /// milliseconds.
    pub read_within_ms: Vec<u64>,
    /// Sums over audiences 24 hours after the send, for messages that are at least that old.
    pub after_24_hours: After24Hours,
    /// Reads by hour of the day, UTC: 24 entries.
    pub by_hour: Vec<Hour>,
    /// Reads by weekday and hour of the day, UTC: 7 entries, Monday first.
    pub by_weekday: Vec<Weekday>,
    /// The conversations with the most members at the end, largest first.
    pub largest_conversations: Vec<Conversation>,
    /// The conversations with the most sends and counted reads together, hottest first.
    pub hottest_conversations: Vec<Conversation>,
    /// The messages with the most readers, most read first.
    pub most_read_messages: Vec<Message>,
    /// The messages with the most members who have not read, at most one per conversation, most
    /// unread first.
    pub most_unread_messages: Vec<Message>,
}

/// Messages by the time of their send.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timeline {
    /// The earliest send, Unix milliseconds.
    pub first_sent_at_ms: u64,
    /// The latest send, Unix milliseconds.
    pub newest_sent_at_ms: u64,
    /// The length of a period, milliseconds: a minute, an hour, a day, a week, 4 or 52 weeks, or
    /// more. Weeks begin on Monday, UTC.
    pub period_ms: u64,
    /// The periods that have messages, oldest first.
    pub periods: Vec<Period>,
}

/// The messages sent within one period.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Period {
    /// The beginning of the period, Unix milliseconds.
    pub from_ms: u64,
    /// Messages of any status.
    pub messages: u64,
    /// Sums of the receipt counts.
    #[serde(flatten)]
    pub readers: Readers,
}

/// Sums by name: the largest names, and the others together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Groups {
    /// The names with the most messages, largest first.
    pub largest: Vec<Group>,
    /// The number of further names. An upper bound beyond 10,000 names.
    pub others: u64,
    /// Messages of the further names.
    pub others_messages: u64,
    /// Sums of the further names' receipt counts.
    pub others_readers: Readers,
}

/// The messages of one tenant or group type.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    /// The tenant or group type.
    pub name: String,
    /// Messages of any status.
    pub messages: u64,
    /// Sums of the receipt counts.
    #[serde(flatten)]
    pub readers: Readers,
}

/// Reads within the hours of one weekday.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Weekday {
    /// 1 is Monday, 7 is Sunday, as in ISO 8601.
    pub weekday: u8,
    /// Reads with a time, by hour of the day, UTC: 24 entries.
    pub reads: Vec<u64>,
}

/// Messages by the status of their receipts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Messages {
    /// All messages.
    pub total: u64,
    /// Messages with an audience and counts.
    pub ok: u64,
    /// Messages whose sender did not ask for a receipt.
    pub not_requested: u64,
    /// Messages whose group type did not support receipts.
    pub unsupported: u64,
    /// Recalled messages.
    pub recalled: u64,
}

/// Sums of receipt counts over messages. `read + unread + hidden + departed = audience`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Readers {
    /// People who must read.
    pub audience_count: u64,
    /// People who have read openly.
    pub read_count: u64,
    /// Members who have not read.
    pub unread_count: u64,
    /// People who have read hidden. They appear in this count only, as in every receipt.
    pub hidden_count: u64,
    /// People who left without reading.
    pub departed_count: u64,
    /// The read rate: `read_count` of `audience_count`, percent.
    pub read_percent: Share,
}

/// A percentage; `None` if the whole is zero.
pub type Share = Option<f64>;

/// Messages with audiences of similar size.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Audience {
    /// The size range as text: `2-10`.
    pub audience: String,
    /// The smallest audience counted here.
    pub audience_min: u32,
    /// The largest; absent for the unbounded last class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience_max: Option<u32>,
    /// The number of messages.
    pub messages: u64,
    /// Sums of the receipt counts.
    #[serde(flatten)]
    pub readers: Readers,
    /// Time from send to read.
    pub time_to_read: TimeToRead,
}

/// Time from a send to a read, over reads with a time. Hidden readers and erased people have none.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TimeToRead {
    /// The number of reads with a time.
    pub reads: u64,
    /// The median, milliseconds. All quantiles are within 0.1 % of the exact value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<u64>,
    /// The 90th percentile, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p90_ms: Option<u64>,
    /// The 99th percentile, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<u64>,
    /// The share of the audience that had read openly at each time of [`Stats::read_within_ms`],
    /// percent.
    pub read_within_percent: Vec<f64>,
}

/// Sums over audiences 24 hours after the send.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct After24Hours {
    /// Messages sent at least 24 hours before their partition's newest record.
    pub messages: u64,
    /// The number of these that some member has still not read.
    pub messages_unread_by_somebody: u64,
    /// The audiences of these messages, added up.
    pub audience_count: u64,
    /// People who read openly within 24 hours.
    pub read_within_count: u64,
    /// People who read openly later than that.
    pub read_later_count: u64,
    /// People who read openly without a known time: they were erased, or read times are not kept.
    pub read_untimed_count: u64,
    /// Members who have still not read.
    pub unread_count: u64,
    /// People who read hidden, at any time.
    pub hidden_count: u64,
    /// People who left without reading.
    pub departed_count: u64,
    /// Unread after 24 hours: `read_later_count` plus `unread_count`, as a share of
    /// `audience_count`, percent.
    pub unread_percent: Share,
}

/// Reads within one hour of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Hour {
    /// 0 to 23, UTC.
    pub hour: u8,
    /// Reads with a time.
    pub reads: u64,
    /// Distinct readers in this hour: exact for few readers, else an estimate within about 2 %.
    pub readers: u64,
}

/// A conversation in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Conversation {
    /// Its tenant.
    pub tenant: String,
    /// Its id.
    pub conversation_id: String,
    /// Direct conversation or group.
    pub kind: Kind,
    /// The group type, which policies refer to.
    pub group_type: String,
    /// Members on its roster at the end, without observers.
    pub members: u32,
    /// Messages that were counted.
    pub messages: u64,
    /// Open reads of those messages.
    pub reads: u64,
}

/// A message in a list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Message {
    /// Its tenant.
    pub tenant: String,
    /// Its conversation.
    pub conversation_id: String,
    /// Its id.
    pub message_id: String,
    /// The conversation's group type at the end.
    pub group_type: String,
    /// When it was sent, Unix milliseconds.
    pub sent_at_ms: u64,
    /// People who must read it.
    pub audience_count: u32,
    /// People who have read it openly.
    pub read_count: u32,
    /// Members who have not read it.
    pub unread_count: u32,
    /// `read_count` as a share of `audience_count`, percent.
    pub read_percent: Share,
}

/// Returns `part` as a percentage of `whole`, rounded to hundredths; `None` if `whole` is 0.
pub(super) fn of(part: u64, whole: u64) -> Share {
    (whole > 0).then(|| percent(part, whole))
}

fn percent(part: u64, whole: u64) -> f64 {
    (part as f64 * 10_000.0 / whole as f64).round() / 100.0
}

impl Readers {
    /// Adds a message's counts and updates the read rate.
    pub(super) fn add(&mut self, counts: &Counts) {
        self.audience_count += u64::from(counts.audience_count);
        self.read_count += u64::from(counts.read_count);
        self.unread_count += u64::from(counts.unread_count);
        self.hidden_count += u64::from(counts.hidden_count);
        self.departed_count += u64::from(counts.departed_count);
        self.read_percent = of(self.read_count, self.audience_count);
    }

    /// Adds the sums of other messages.
    pub(super) fn join(&mut self, others: &Readers) {
        self.audience_count += others.audience_count;
        self.read_count += others.read_count;
        self.unread_count += others.unread_count;
        self.hidden_count += others.hidden_count;
        self.departed_count += others.departed_count;
        self.read_percent = of(self.read_count, self.audience_count);
    }
}

impl After24Hours {
    /// Adds a message that is old enough: its counts, and its reads with a time within 24 hours and
    /// later.
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
    /// Returns, for each number of readers in `read`, its share of the audience.
    pub(super) fn shares(read: impl Iterator<Item = u64>, audience: u64) -> Vec<f64> {
        read.map(|read| percent(read, audience.max(1))).collect()
    }
}
