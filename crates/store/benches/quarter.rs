//! Folds a quarter of a year of record time into the real store. Measures sizes: the freed space of
//! expired messages, a large roster with churn, and a read time. The bench `fold` measures speed.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a program that measures and prints")]

use receipts_event::{Body, ConversationConfigured, Event, Kind, MembersChanged, MessageRead, MessageSent};
use receipts_fold::effects::Effects;
use receipts_fold::pages::{Messages, Store, Table, TableId};
use receipts_fold::{Limits, RawRecord, RecordMetadata, State};
use receipts_store::{Backend, Paged, SledBackend, SledSettings, SledStore, trim};
use receipts_testkit::bench::{disk_bytes, number, status_bytes};
use receipts_testkit::workload::{EPOCH_MS, Params, Scratch, Workload};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{IsTerminal as _, Write as _};
use std::time::Instant;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const HELP: &str = "\
Folds a quarter of a year into the store and prints what it takes, each few simulated days.

cargo bench -p receipts-store --bench quarter -- [OPTIONS]

  --days N            simulated days (90)
  --retention N       retention, days (30)
  --messages N        messages a day in ordinary conversations, of the design notes' workload (20000)
  --crowd N           members of the one large group (100000)
  --churn N           of ten thousand of its members, how many leave a day, and as many newcomers join (50: 1 % change)
  --crowd-messages N  messages a day in it (3)
  --crowd-readers N   how many of it read a day's messages (10000)
  --checkpoint N      events between checkpoints (50000)
  --memory-mb N       memory for pages and sled's cache (256)
  --every N           days between lines (5)
  --seed N            of the workload (1)";

type Fold = State<Paged<SledBackend>>;
const DAY_MS: u64 = 86_400_000;
const TENANT: &str = "default";
const CROWD: &str = "crowd";

/// The figures of one day.
#[derive(Debug, Clone, Default)]
struct Row {
    day: u64,
    /// Messages in present pages, with expired ones until their page is removed as a whole.
    messages: u64,
    reads: u64,
    /// Encoded bytes by table code.
    tables: BTreeMap<u8, u64>,
    /// The crowd's people, their index, and its departures, bytes.
    roster: u64,
    disk: u64,
    rss: u64,
}

impl Row {
    fn encoded(&self) -> u64 {
        self.tables.values().sum()
    }

    fn table(&self, table: TableId) -> u64 {
        self.tables.get(&(table as u8)).copied().unwrap_or(0)
    }

    /// Returns the bytes of messages with their reads.
    fn of_messages(&self) -> u64 {
        self.table(TableId::Messages) + self.table(TableId::Chunks)
    }
}

fn main() {
    if std::env::args().any(|a| a == "--help" || a == "-h") {
        println!("{HELP}");
        return;
    }
    let (days, retention) = (number("days", 90), number("retention", 30));
    let steady = (retention + 5).min(days);
    println!("read times kept, {days} days, retention {retention} days:");
    let kept = Quarter::new(true, days).run(days);
    println!("\nread times not kept, {steady} days:");
    let not_kept = Quarter::new(false, days).run(steady);

    let at = |rows: &[Row], day: u64| rows.iter().find(|r| r.day >= day).cloned().unwrap_or_default();
    let (first, then, last) = (at(&kept, 0), at(&kept, steady), at(&kept, days));
    println!("\nday {} by day {}:", last.day, then.day);
    let ratio = |what: &str, of: fn(&Row) -> u64| {
        println!("  {what:<26} {:.2} ({} to {})", of(&last) as f64 / of(&then) as f64, mb(of(&then)), mb(of(&last)));
    };
    ratio("disk", |r| r.disk);
    ratio("encoded", Row::encoded);
    ratio("messages and their reads", Row::of_messages);
    println!("by table, encoded, day {} and day {}:", then.day, last.day);
    for (table, name) in TABLES {
        println!("  {name:<26} {:>10} {:>10}", mb(then.table(table)), mb(last.table(table)));
    }
    let bits = |row: &Row| row.of_messages() as f64 / row.reads as f64;
    let off = at(&not_kept, steady);
    println!(
        "a reader, messages included: {:.2} B with read times, {:.2} B without: a read time takes {:.2} B",
        bits(&then),
        bits(&off),
        bits(&then) - bits(&off)
    );
    println!("the roster of the crowd: {} on day 0, {} on day {}", mb(first.roster), mb(last.roster), last.day);
}

const TABLES: [(TableId, &str); 12] = [
    (TableId::Names, "names"),
    (TableId::Conversations, "heads"),
    (TableId::People, "people"),
    (TableId::PeopleIndex, "index of people"),
    (TableId::ReadMarks, "read marks"),
    (TableId::Departures, "departures"),
    (TableId::Messages, "messages"),
    (TableId::Chunks, "reads of large groups"),
    (TableId::Index, "index of messages"),
    (TableId::BloomFilters, "filters"),
    (TableId::Parked, "parked"),
    (TableId::Meta, "counters"),
];

fn mb(bytes: u64) -> String {
    format!("{:.2} MB", bytes as f64 / 1e6)
}

/// The large group.
struct Crowd {
    members: Vec<u64>,
    next: u64,
    random: u64,
}

impl Crowd {
    /// Returns a number below `n`, by a linear congruential generator (Knuth's MMIX).
    fn below(&mut self, n: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % n.max(1)
    }
}

fn person(number: u64) -> Cow<'static, str> {
    // The ids are as long as those of people in other conversations.
    Cow::Owned(format!("u{:08}", 50_000_000 + number))
}

struct Quarter {
    fold: Fold,
    store: SledStore,
    dir: tempfile::TempDir,
    workload: Workload,
    crowd: Crowd,
    effects: Effects,
    offset: u64,
    since_checkpoint: u64,
    checkpoint_events: u64,
    limits: Limits,
}

impl Quarter {
    fn new(read_times: bool, days: u64) -> Self {
        let a_day = number("messages", 20_000);
        let workload = Workload::generate(&Params {
            messages: (a_day * days) as usize,
            messages_per_s: a_day as f64 / 86_400.0,
            seed: number("seed", 1),
            ..Params::default()
        });
        let memory_bytes = (number("memory-mb", 256) << 20) as usize;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let settings = SledSettings { cache_bytes: memory_bytes as u64 / 4, sync: false };
        let store = SledStore::open(dir.path(), settings).expect("a store");
        let pages = Paged::new(store.partition(0).expect("a partition"), 0, memory_bytes / 4 * 3);
        let limits = Limits { retention_ms: number("retention", 30) * DAY_MS, read_times, ..Limits::default() };
        let fold = State::open(pages, limits).expect("an empty state");
        let crowd =
            Crowd { members: (0..number("crowd", 100_000)).collect(), next: number("crowd", 100_000), random: 1 };
        let checkpoint_events = number("checkpoint", 50_000);
        let effects = Effects::default();
        Self { fold, store, dir, workload, crowd, effects, offset: 0, since_checkpoint: 0, checkpoint_events, limits }
    }

    fn run(mut self, days: u64) -> Vec<Row> {
        println!(
            "{:>4} {:>10} {:>12} {:>12} {:>12} {:>12} {:>11} {:>10}",
            "day", "messages", "reads", "encoded", "disk", "disk/enc.", "roster", "memory"
        );
        self.found_crowd();
        let started = Instant::now();
        let (mut rows, mut next, every) = (Vec::new(), 0, number("every", 5).max(1));
        let mut scratch = Scratch::default();
        for day in 0..=days {
            let end_ms = EPOCH_MS + day * DAY_MS;
            while next < self.workload.len() && self.workload.at(next).timestamp_ms <= end_ms {
                let timestamp_ms = self.workload.at(next).timestamp_ms;
                let event = self.workload.event(next, &mut scratch).into_owned();
                self.apply(timestamp_ms, &event);
                next += 1;
            }
            // Five days after the first expiry: the base of the comparison with later days and the
            // other run.
            if day % every == 0 || day == days || day == number("retention", 30) + 5 {
                self.checkpoint();
                rows.push(self.measure(day));
                print(rows.last().expect("just pushed"));
            }
            if day < days {
                self.crowd_day(end_ms);
            }
            bar(day, days, started);
        }
        clear_bar();
        let next_offset = self.fold.next_offset();
        drop(self.fold);
        drop(self.store);
        let closed = mb(disk_bytes(self.dir.path()));
        let started = Instant::now();
        let store = SledStore::open(self.dir.path(), SledSettings { cache_bytes: 64 << 20, sync: false });
        // Dropped after its partition, which keeps its queue open.
        let store = store.expect("the store again");
        let backend = store.partition(0).expect("a partition");
        let state = State::open(Paged::new(backend, 0, 64 << 20), self.limits).expect("the state again");
        assert_eq!(state.next_offset(), next_offset, "a checkpoint was the last that was done");
        println!("on disk once closed: {closed}; opened again in {:.2} s", started.elapsed().as_secs_f64());
        rows
    }

    fn apply(&mut self, timestamp_ms: u64, event: &Event<'_>) {
        let key = event.key();
        let at = RecordMetadata { partition: 0, offset: self.offset, timestamp_ms };
        let raw = RawRecord { key: Some(&key), value: b"", headers: &Vec::new };
        self.fold.apply(at, event, raw, &mut self.effects).expect("the fold goes on");
        self.offset += 1;
        self.since_checkpoint += 1;
        if self.offset.is_multiple_of(1_024) {
            self.effects.clear();
            trim(&mut self.fold);
        }
        if self.since_checkpoint >= self.checkpoint_events {
            self.checkpoint();
        }
    }

    fn in_crowd(&mut self, timestamp_ms: u64, body: Body<'static>) {
        self.apply(timestamp_ms, &Event { tenant: Cow::Borrowed(TENANT), event_id: None, body });
    }

    fn found_crowd(&mut self) {
        let configured =
            ConversationConfigured { conversation_id: Cow::Borrowed(CROWD), kind: Kind::Group, group_type: None };
        self.in_crowd(EPOCH_MS, Body::ConversationConfigured(configured));
        for joined in self.crowd.members.clone().chunks(10_000) {
            self.change(EPOCH_MS, joined.iter().map(|n| person(*n)).collect(), Vec::new());
        }
    }

    fn change(&mut self, timestamp_ms: u64, joined: Vec<Cow<'static, str>>, left: Vec<Cow<'static, str>>) {
        let conversation_id = Cow::Borrowed(CROWD);
        let changed = MembersChanged { conversation_id, joined, left, observers: Vec::new() };
        self.in_crowd(timestamp_ms, Body::MembersChanged(changed));
    }

    /// Folds a day of the crowd: first the churn, then messages, then reads of them.
    fn crowd_day(&mut self, from_ms: u64) {
        let churn = self.crowd.members.len() as u64 * number("churn", 50) / 10_000;
        let (mut left, mut joined) = (Vec::new(), Vec::new());
        for _ in 0..churn {
            let at = self.crowd.below(self.crowd.members.len() as u64) as usize;
            left.push(person(self.crowd.members[at]));
            self.crowd.members[at] = self.crowd.next;
            joined.push(person(self.crowd.next));
            self.crowd.next += 1;
        }
        for (left, joined) in left.chunks(5_000).zip(joined.chunks(5_000)) {
            self.change(from_ms, joined.to_vec(), left.to_vec());
        }
        let mut message_ids = Vec::new();
        for i in 0..number("crowd-messages", 3) {
            let sent_at_ms = from_ms + i * 60_000;
            let message_id: Cow<'static, str> = Cow::Owned((sent_at_ms << 20).to_string());
            message_ids.push(message_id.clone());
            let at = self.crowd.below(self.crowd.members.len() as u64) as usize;
            let sent = MessageSent {
                conversation_id: Cow::Borrowed(CROWD),
                message_id,
                sender_id: person(self.crowd.members[at]),
                sent_at_ms,
                need_read_receipt: true,
                recipients: None,
            };
            self.in_crowd(sent_at_ms, Body::MessageSent(sent));
        }
        for i in 0..number("crowd-readers", 10_000) * u64::from(!message_ids.is_empty()) {
            let at = self.crowd.below(self.crowd.members.len() as u64) as usize;
            let read = MessageRead {
                conversation_id: Cow::Borrowed(CROWD),
                reader_id: person(self.crowd.members[at]),
                message_ids: message_ids.clone(),
                read_at_ms: None,
                hidden: false,
            };
            // The reads spread over eight hours.
            self.in_crowd(from_ms + 600_000 + i * 28_800_000 / 10_000, Body::MessageRead(read));
        }
    }

    /// Makes a checkpoint like the projector.
    fn checkpoint(&mut self) {
        self.since_checkpoint = 0;
        self.fold.write_meta();
        let batch = self.fold.pages().batch(self.fold.next_offset());
        let number = self.fold.pages().backend().commit(batch).expect("a checkpoint");
        self.fold.pages_mut().mark_saved(number);
        trim(&mut self.fold);
    }

    fn measure(&self, day: u64) -> Row {
        let pages = self.fold.pages();
        let backend = pages.backend();
        backend.wait().expect("the store keeps up");
        let mut row = Row { day, ..Row::default() };
        let crowd =
            pages.conversation_number(format!("{TENANT}/{CROWD}").as_bytes()).expect("names").expect("the crowd");
        let crowd = u64::from(crowd).to_be_bytes();
        let of_roster = [TableId::People, TableId::PeopleIndex, TableId::Departures].map(|table| table as u8);
        for key in backend.keys(&[]).expect("keys") {
            let bytes = backend.get(&key).expect("values").map_or(0, |value| value.as_ref().len() as u64);
            *row.tables.entry(key[0]).or_default() += bytes;
            if of_roster.contains(&key[0]) && key.get(1..9) == Some(&crowd[..]) {
                row.roster += bytes;
            }
        }
        for key in Table::<Messages>::keys(pages).expect("keys") {
            let page = Table::<Messages>::read(pages, key).expect("a page").expect("a page");
            row.messages += page.len() as u64;
            row.reads += page.iter().map(|m| u64::from(m.read)).sum::<u64>();
        }
        row.disk = disk_bytes(self.dir.path());
        row.rss = status_bytes("VmRSS");
        row
    }
}

fn print(row: &Row) {
    clear_bar();
    println!(
        "{:>4} {:>10} {:>12} {:>12} {:>12} {:>12.2} {:>11} {:>10}",
        row.day,
        row.messages,
        row.reads,
        mb(row.encoded()),
        mb(row.disk),
        row.disk as f64 / row.encoded() as f64,
        mb(row.roster),
        format!("{} MB", row.rss >> 20)
    );
}

/// Shows progress on a terminal only.
fn bar(day: u64, days: u64, started: Instant) {
    if std::io::stderr().is_terminal() {
        let done = (day * 40 / days.max(1)) as usize;
        let seconds = started.elapsed().as_secs();
        eprint!("\r[{:<40}] day {day} of {days}, {seconds} s ", "#".repeat(done));
        _ = std::io::stderr().flush();
    }
}

fn clear_bar() {
    if std::io::stderr().is_terminal() {
        eprint!("\r{:<79}\r", "");
    }
}
