//! INV-STATS: the statistics follow from the answers of the contract's oracle, and name no person.

use crate::common::{LoggedHistory, PARTITIONS, oracle_of, scratch};
use receipts_analytics::stats::page::page;
use receipts_analytics::stats::{Plan, Readers, Stats, stats};
use receipts_analytics::{Scratch, Span, UpTo, span};
use receipts_event::Body;
use receipts_fold::view::{MemberFilter, Status};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

const DAY_MS: u64 = 86_400_000;

fn plan(tenant: Option<&str>) -> Plan {
    Plan { since_ms: 0, tenant: tenant.map(str::to_owned), top: 5 }
}

fn counted(history: &LoggedHistory, plan: &Plan) -> (Vec<receipts_analytics::FoldReport>, Stats) {
    let spans: Vec<Span> = (0..PARTITIONS).map(|partition| span(&history.log, partition, UpTo::End).unwrap()).collect();
    stats(&history.log, &spans, &scratch(), plan, &()).unwrap()
}

/// The answers of all partitions' oracles for a tenant, added up naively.
#[derive(Default)]
struct Sums {
    messages: BTreeMap<&'static str, u64>,
    counts: [u64; 5],
    took_ms: BTreeMap<usize, Vec<u64>>,
    hours: BTreeMap<u64, (u64, BTreeSet<(String, String)>)>,
    after: [u64; 7],
    most_read: Vec<(u32, [String; 3])>,
    traffic: BTreeMap<[String; 2], [u64; 2]>,
    week: BTreeMap<(u64, u64), u64>,
    /// Per message: when it was sent, and its tenant; 1, audience, read, unread.
    messages_sums: Vec<(u64, String, [u64; 4])>,
    unread: BTreeMap<[String; 2], u32>,
}

fn sums(history: &LoggedHistory, only: Option<&str>) -> Sums {
    let mut sums = Sums::default();
    for partition in 0..PARTITIONS {
        let records = &history.records[partition as usize];
        let oracle = oracle_of(records);
        let newest = records.iter().map(|(at, _)| at.timestamp_ms).max().unwrap();
        for (tenant, conversation, message) in &history.questions(partition).messages {
            if only.is_some_and(|only| only != tenant) {
                continue;
            }
            let receipt = oracle.receipt(tenant, conversation, message);
            let name = match receipt.status {
                Status::Ok => "ok",
                Status::NotRequested => "not_requested",
                Status::Unsupported => "unsupported",
                Status::Recalled => "recalled",
                Status::NotFound | Status::Forbidden | Status::Ambiguous => continue,
            };
            *sums.messages.entry(name).or_default() += 1;
            let traffic = sums.traffic.entry([tenant.clone(), conversation.clone()]).or_default();
            traffic[0] += 1;
            let of = receipt.counts.map_or([0; 3], |c| [c.audience_count, c.read_count, c.unread_count].map(u64::from));
            let all = [1, of[0], of[1], of[2]];
            sums.messages_sums.push((receipt.sent_at_ms.unwrap(), tenant.clone(), all));
            let Some(c) = receipt.counts else { continue };
            let unread = sums.unread.entry([tenant.clone(), conversation.clone()]).or_default();
            *unread = c.unread_count.max(*unread);
            traffic[1] += u64::from(c.read_count);
            let all = [c.audience_count, c.read_count, c.unread_count, c.hidden_count, c.departed_count];
            sums.counts.iter_mut().zip(all).for_each(|(sum, count)| *sum += u64::from(count));
            if c.read_count > 0 {
                sums.most_read.push((c.read_count, [tenant.clone(), conversation.clone(), message.clone()]));
            }
            let sent_at = receipt.sent_at_ms.unwrap();
            let class = [1, 10, 100, 1_000].iter().filter(|max| c.audience_count > **max).count();
            let (mut within, mut later) = (0, 0);
            for reader in oracle.members(tenant, conversation, message, MemberFilter::Read).unwrap() {
                let at = reader.read_at_ms.unwrap();
                sums.took_ms.entry(class).or_default().push(at - sent_at);
                let hour = sums.hours.entry(at / 3_600_000 % 24).or_default();
                hour.0 += 1;
                // 1970-01-01 was a Thursday.
                *sums.week.entry(((at / DAY_MS + 3) % 7 + 1, at / 3_600_000 % 24)).or_default() += 1;
                hour.1.insert((tenant.clone(), reader.user_id));
                *(if at - sent_at <= DAY_MS { &mut within } else { &mut later }) += 1;
            }
            if sent_at + DAY_MS <= newest {
                let untimed = u64::from(c.read_count) - within - later;
                let [audience, _, unread, hidden, departed] = all.map(u64::from);
                let of = [1, audience, within, later, untimed, unread, hidden + departed];
                sums.after.iter_mut().zip(of).for_each(|(sum, count)| *sum += count);
            }
        }
    }
    sums
}

/// Compares the sums by period, tenant, group type and weekday, and the largest unread.
fn assert_parts_are(stats: &Stats, sums: &Sums, when: &str) {
    let of =
        |messages: u64, readers: &Readers| [messages, readers.audience_count, readers.read_count, readers.unread_count];
    let add = |to: &mut [u64; 4], row: &[u64; 4]| to.iter_mut().zip(row).for_each(|(sum, count)| *sum += count);
    let all = of(stats.messages.total, &stats.readers);

    let timeline = stats.timeline.as_ref().expect("messages");
    let mut periods = BTreeMap::<u64, [u64; 4]>::new();
    let mut tenants = BTreeMap::<&str, [u64; 4]>::new();
    for (sent_at, tenant, row) in &sums.messages_sums {
        let after = timeline.periods.iter().filter(|period| period.from_ms <= *sent_at);
        let period = after.map(|period| period.from_ms).max().expect("a period that holds the send");
        assert!(sent_at - period < timeline.period_ms, "{when}");
        add(periods.entry(period).or_default(), row);
        add(tenants.entry(tenant).or_default(), row);
    }
    let sent: Vec<u64> = sums.messages_sums.iter().map(|(sent_at, ..)| *sent_at).collect();
    let ends = (timeline.first_sent_at_ms, timeline.newest_sent_at_ms);
    assert_eq!(Some(ends), sent.iter().min().copied().zip(sent.iter().max().copied()), "{when}");
    let found = timeline.periods.iter().map(|period| (period.from_ms, of(period.messages, &period.readers)));
    assert_eq!(found.collect::<Vec<_>>(), periods.into_iter().collect::<Vec<_>>(), "{when}");

    let found = stats.by_tenant.largest.iter().map(|row| (row.name.as_str(), of(row.messages, &row.readers)));
    assert_eq!(found.collect::<BTreeMap<_, _>>(), tenants, "{when}");
    assert_eq!((stats.by_tenant.others, stats.by_tenant.others_messages), (0, 0), "{when}");
    assert!(stats.by_tenant.largest.is_sorted_by(|a, b| a.messages >= b.messages), "{when}");
    let mut sum = of(stats.by_group_type.others_messages, &stats.by_group_type.others_readers);
    stats.by_group_type.largest.iter().for_each(|row| add(&mut sum, &of(row.messages, &row.readers)));
    assert_eq!(sum, all, "{when}: every message has one group type");

    for day in &stats.by_weekday {
        let wanted = (0..24).map(|hour| sums.week.get(&(day.weekday.into(), hour)).copied().unwrap_or(0));
        assert_eq!(day.reads, wanted.collect::<Vec<_>>(), "{when}: weekday {}", day.weekday);
    }
    let mut unread: Vec<_> =
        sums.unread.iter().filter(|(_, count)| **count > 0).map(|(name, count)| (*count, name.clone())).collect();
    unread.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let found = stats.most_unread_messages.iter();
    let found = found.map(|m| (m.unread_count, [m.tenant.clone(), m.conversation_id.clone()]));
    assert_eq!(found.collect::<Vec<_>>(), unread[..unread.len().min(5)], "{when}");
}

fn assert_figures_are(stats: &Stats, sums: &Sums, when: &str) {
    let m = &stats.messages;
    let of = |name: &str| sums.messages.get(name).copied().unwrap_or(0);
    assert_eq!(
        [m.ok, m.not_requested, m.unsupported, m.recalled],
        ["ok", "not_requested", "unsupported", "recalled"].map(of),
        "{when}"
    );
    assert_eq!(m.total, sums.messages.values().sum::<u64>(), "{when}");
    let r = &stats.readers;
    assert_eq!(
        [r.audience_count, r.read_count, r.unread_count, r.hidden_count, r.departed_count],
        sums.counts,
        "{when}"
    );
    let after = &stats.after_24_hours;
    let found = [
        after.messages,
        after.audience_count,
        after.read_within_count,
        after.read_later_count,
        after.read_untimed_count,
        after.unread_count,
        after.hidden_count + after.departed_count,
    ];
    assert_eq!(found, sums.after, "{when}");

    let mut classes: Vec<_> = sums.took_ms.values().cloned().collect();
    let with_reads = stats.by_audience.iter().filter(|class| class.time_to_read.reads > 0);
    for (class, took) in with_reads.zip(&mut classes) {
        took.sort_unstable();
        assert_eq!(class.time_to_read.reads, took.len() as u64, "{when}: {}", class.audience);
        for (found, quantile) in [(class.time_to_read.p50_ms, 0.5), (class.time_to_read.p99_ms, 0.99)] {
            let exact = took[((took.len() as f64 * quantile).ceil() as usize).clamp(1, took.len()) - 1];
            let found = found.unwrap();
            assert!(
                found.abs_diff(exact) <= exact / 500 + 1,
                "{when}: {} {quantile}: {found}, not {exact}",
                class.audience
            );
        }
        let by_the_end = class.time_to_read.read_within_percent.last().copied().unwrap();
        let in_a_week = took.iter().filter(|ms| **ms <= 7 * DAY_MS).count() as f64;
        let wanted = in_a_week * 100.0 / class.readers.audience_count as f64;
        assert!((by_the_end - wanted).abs() < 0.5, "{when}: {by_the_end} {wanted}");
    }
    assert_eq!(stats.by_audience.iter().filter(|class| class.time_to_read.reads > 0).count(), classes.len(), "{when}");
    for hour in &stats.by_hour {
        let (reads, readers) = sums.hours.get(&hour.hour.into()).cloned().unwrap_or_default();
        assert_eq!((hour.reads, hour.readers), (reads, readers.len() as u64), "{when}: few, so the estimate is exact");
    }
    let mut most_read = sums.most_read.clone();
    most_read.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let found = stats.most_read_messages.iter();
    let found = found.map(|m| (m.read_count, [m.tenant.clone(), m.conversation_id.clone(), m.message_id.clone()]));
    assert_eq!(found.collect::<Vec<_>>(), most_read[..most_read.len().min(5)], "{when}");
    let mut hottest: Vec<_> =
        sums.traffic.iter().map(|(name, [messages, reads])| (messages + reads, name.clone())).collect();
    hottest.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let found = stats.hottest_conversations.iter();
    let found = found.map(|c| (c.messages + c.reads, [c.tenant.clone(), c.conversation_id.clone()]));
    assert_eq!(found.collect::<Vec<_>>(), hottest[..hottest.len().min(5)], "{when}");
    assert!(stats.largest_conversations.is_sorted_by(|a, b| a.members >= b.members), "{when}");
}

/// INV-STATS: of wild histories, for all tenants and for each one, with any memory.
#[test]
fn statistics_equal_the_sums_of_the_oracles_answers() {
    for seed in 0..6 {
        let history = LoggedHistory::new(seed);
        let tenants: BTreeSet<String> =
            (0..PARTITIONS).flat_map(|p| history.questions(p).messages).map(|(tenant, ..)| tenant).collect();
        for only in std::iter::once(None).chain(tenants.iter().map(|tenant| Some(tenant.as_str()))) {
            let (_, stats) = counted(&history, &plan(only));
            let sums = sums(&history, only);
            assert_figures_are(&stats, &sums, &format!("seed {seed}, {only:?}"));
            assert_parts_are(&stats, &sums, &format!("seed {seed}, {only:?}"));
        }
        let spans: Vec<Span> = (0..PARTITIONS).map(|p| span(&history.log, p, UpTo::End).unwrap()).collect();
        let tight = Scratch { memory_bytes: 16 << 10, ..scratch() };
        let (_, with_little) = stats(&history.log, &spans, &tight, &plan(None), &()).unwrap();
        assert_eq!(with_little, counted(&history, &plan(None)).1);
    }
}

/// INV-STATS: only sends whose records are recent enough.
#[test]
fn since_leaves_out_what_was_sent_before() {
    let history = LoggedHistory::new(2);
    let middle = history.records[0][history.records[0].len() / 2].0.timestamp_ms;
    let (_, stats) = counted(&history, &Plan { since_ms: middle, ..plan(None) });
    let mut younger = 0;
    for partition in 0..PARTITIONS {
        let mut sent = BTreeSet::new();
        for (at, event) in &history.records[partition as usize] {
            if let Some(Body::MessageSent(e)) = event.as_ref().map(|event| &event.body)
                && sent.insert((
                    event.as_ref().unwrap().tenant.clone(),
                    e.conversation_id.clone(),
                    e.message_id.clone(),
                ))
                && at.timestamp_ms >= middle
            {
                younger += 1;
            }
        }
    }
    // A send without a roster is a dead letter, so there may be fewer; all others are counted.
    assert!(stats.messages.total > 10 && stats.messages.total <= younger, "{} of {younger}", stats.messages.total);
    assert!(stats.messages.total < counted(&history, &plan(None)).1.messages.total);
}

/// INV-STATS, INV-ERASED, INV-HIDDEN: neither the statistics nor the page contain a user's id.
#[test]
fn nobody_is_named() {
    for seed in 0..4 {
        let history = LoggedHistory::new(seed);
        let (partitions, stats) = counted(&history, &Plan { top: 1_000, ..plan(None) });
        let json = serde_json::to_string(&stats).unwrap();
        let html = page(&stats, &partitions, "a log").unwrap();
        let mut people = BTreeSet::new();
        for (_, event) in history.records.iter().flatten() {
            let Some(event) = event else { continue };
            match &event.body {
                Body::MembersChanged(e) => people.extend(e.joined.iter().chain(&e.left).map(|id| id.to_string())),
                Body::MessageRead(e) => _ = people.insert(e.reader_id.to_string()),
                Body::MessageSent(e) => _ = people.insert(e.sender_id.to_string()),
                _ => {}
            }
        }
        assert!(people.len() > 5);
        for id in &people {
            assert!(!json.contains(&format!("\"{id}\"")) && !html.contains(&format!(">{id}<")), "{id}");
        }
    }
}

/// INV-STATS: texts of the log cannot become markup, and the page loads nothing.
#[test]
fn the_page_escapes_texts_and_loads_nothing() {
    let history = LoggedHistory::new(1);
    let (partitions, mut stats) = counted(&history, &plan(None));
    let evil = "<script src=\"http://evil\">&'";
    stats.tenant = Some(evil.to_owned());
    stats.most_unread_messages.iter_mut().for_each(|m| m.message_id = evil.to_owned());
    stats.by_tenant.largest.iter_mut().for_each(|row| row.name = evil.to_owned());
    stats.largest_conversations.iter_mut().for_each(|c| c.conversation_id = evil.to_owned());
    stats.hottest_conversations.iter_mut().for_each(|c| c.group_type = evil.to_owned());
    let html = page(&stats, &partitions, evil).unwrap();
    assert!(!html.contains("<script") && !html.contains("\"http"), "{html}");
    assert!(html.matches("&#60;script").count() >= 4, "it is shown, escaped");
    for part in ["@import", "url(", "href=", "src=\"", "NaN", "inf"] {
        assert!(!html.contains(part), "{part}");
    }
    let empty = counted(&history, &plan(Some("nobody's"))).1;
    assert!(page(&empty, &[], "").unwrap().contains("No messages"));
}

/// INV-STATS: the JSON has exactly the properties of the schema.
#[test]
fn the_schema_is_what_is_printed() {
    let schema: Value = serde_json::from_str(include_str!("../../../../schemas/stats/v1.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let history = LoggedHistory::new(3);
    for plan in [plan(None), plan(Some("nobody's")), Plan { since_ms: 1_700_000_000_000, top: 0, tenant: None }] {
        let (partitions, stats) = counted(&history, &plan);
        let mut report = serde_json::to_value(&stats).unwrap();
        report["log"] = json!("embedded");
        report["partitions"] = serde_json::to_value(&partitions).unwrap();
        let errors: Vec<String> =
            validator.iter_errors(&report).map(|error| format!("{error} at {}", error.instance_path())).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        report["messages"]["more"] = json!(1);
        assert!(!validator.is_valid(&report), "a field that the schema does not have");
    }
}
