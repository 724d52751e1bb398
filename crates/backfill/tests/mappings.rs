//! The ready mappings of docs/mappings: a small dump of each system's exact shape, with invented
//! people, is imported and folded, and the receipts are those that its own screens would show.

#![allow(clippy::unwrap_used, reason = "a test: what cannot go on has failed")]

mod common;

use common::plan;
use receipts_analytics::{Scratch, UpTo, span};
use receipts_backfill::{ImportReport, Input, Mapping, Plan, Source, Untimed, import};
use receipts_fold::Limits;
use receipts_fold::view::MemberFilter;
use receipts_log::embedded::EmbeddedLog;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

/// What a dump becomes: by message its counts (audience, read, hidden, unread) and readers with
/// times, and by reader the mark.
struct Imported {
    report: ImportReport,
    receipts: BTreeMap<String, (Value, Vec<(String, u64)>)>,
    marks: BTreeMap<String, u64>,
    rejects: String,
}

/// Imports the files of a ready mapping from `files` (name, text), as `--map` does.
fn imported(name: &str, untimed: Untimed, files: &[(&str, &str)], marks_of: &[(&str, &str)]) -> Imported {
    let dir = tempfile::tempdir().unwrap();
    for (file, text) in files {
        fs::write(dir.path().join(file), text).unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/mappings").join(name);
    let mapping = Mapping::parse(&path, &fs::read_to_string(&path).unwrap()).unwrap();
    let source = |input| {
        let paths: Vec<PathBuf> = mapping.files(input).iter().map(|path| dir.path().join(path)).collect();
        (!paths.is_empty()).then(|| Source::new(input, &paths, None).unwrap())
    };
    let sources = Input::ALL.into_iter().filter_map(source).collect();
    let plan = Plan { mapping: Some(mapping), untimed, ..plan(dir.path(), sources) };
    let log = EmbeddedLog::open(&dir.path().join("log"), NonZeroU32::new(1)).unwrap();
    let report = import(&log, &plan, &()).unwrap();
    let scratch = Scratch { limits: Limits::default(), memory_bytes: 8 << 20, snapshots: None };
    let folded = scratch.fold(&log, &span(&log, 0, UpTo::End).unwrap(), &()).unwrap();
    assert!(folded.report.dead_letters.is_empty(), "{:?}", folded.report);
    let mut receipts = BTreeMap::new();
    for number in 0..folded.state.messages() {
        let receipt = serde_json::to_value(folded.state.receipt_of(number).unwrap().unwrap()).unwrap();
        let counts = if receipt["status"] == "ok" {
            json!([receipt["audience_count"], receipt["read_count"], receipt["hidden_count"], receipt["unread_count"]])
        } else {
            receipt["status"].clone()
        };
        let members = folded.state.members_of(number, MemberFilter::Read, 0, usize::MAX).unwrap();
        let mut readers: Vec<(String, u64)> = members
            .map(|list| list.members.into_iter().map(|m| (m.user_id, m.read_at_ms.unwrap_or(0))).collect())
            .unwrap_or_default();
        readers.sort();
        let id =
            format!("{}/{}", receipt["conversation_id"].as_str().unwrap(), receipt["message_id"].as_str().unwrap());
        receipts.insert(id, (counts, readers));
    }
    let marks = marks_of
        .iter()
        .filter_map(|(conversation, user)| {
            let mark = folded.state.read_mark("default", conversation, user).unwrap()?;
            Some((format!("{conversation}/{user}"), mark.up_to_sent_at_ms))
        })
        .collect();
    let rejects = fs::read_to_string(&plan.rejects).unwrap_or_default();
    Imported { report, receipts, marks, rejects }
}

fn readers(all: &[(&str, u64)]) -> Vec<(String, u64)> {
    all.iter().map(|(user, at)| ((*user).to_owned(), *at)).collect()
}

#[test]
fn rocketchat_subscriptions_give_members_and_marks() {
    let subscription = |id: &str, user: &str, ls: &str| {
        format!(
            "{{\"_id\":\"{id}\",\"open\":true,\"alert\":false,\"unread\":0,\"userMentions\":0,\"groupMentions\":0,\"ts\":{{\"$date\":\"2026-11-20T10:00:00.000Z\"}},\"rid\":\"GENERAL\",\"name\":\"general\",\"t\":\"c\",\"u\":{{\"_id\":\"{user}\",\"username\":\"{user}\"}},\"_updatedAt\":{{\"$date\":\"2026-11-20T12:10:00.000Z\"}}{ls}}}\n"
        )
    };
    let seen = ",\"ls\":{\"$date\":\"2026-11-20T12:30:00.000Z\"},\"lr\":{\"$date\":\"2026-11-20T12:00:00.000Z\"}";
    let subscriptions =
        subscription("s1", "ann", seen) + &subscription("s2", "bob", seen) + &subscription("s3", "cid", "");
    let message = |id: &str, at: &str, more: &str| {
        format!(
            "{{\"_id\":\"{id}\",\"rid\":\"GENERAL\",\"msg\":\"hi\",\"ts\":{{\"$date\":\"2026-11-20T{at}Z\"}},\"u\":{{\"_id\":\"ann\",\"username\":\"ann\"}},\"unread\":true,\"_updatedAt\":{{\"$date\":\"2026-11-20T12:00:00.000Z\"}}{more}}}\n"
        )
    };
    let messages = message("m0", "11:00:00.000", ",\"t\":\"uj\"")
        + &message("m1", "12:00:00.000", "")
        + &message("m2", "12:05:00.000", ",\"tmid\":\"m1\"")
        + &message("m3", "13:00:00.000", "");
    let reads = "{\"_id\":\"m1bob\",\"roomId\":\"GENERAL\",\"messageId\":\"m1\",\"userId\":\"bob\",\"ts\":{\"$date\":\"2026-11-20T12:05:00.000Z\"}}\n\
                 {\"_id\":\"r1\",\"roomId\":\"GENERAL\",\"messageId\":\"m3\",\"u\":{\"_id\":\"cid\"},\"ts\":{\"$date\":\"2026-11-20T13:05:00.000Z\"}}\n";
    let files = [
        ("rocketchat_subscription.ndjson", subscriptions.as_str()),
        ("rocketchat_message.ndjson", &messages),
        ("rocketchat_message_read_receipt.ndjson", reads),
    ];
    let done = imported("rocketchat.toml", Untimed::Unread, &files, &[("GENERAL", "bob"), ("GENERAL", "cid")]);
    assert!(done.report.counts.rejected.is_empty(), "{}", done.rejects);
    let left_out = &done.report.counts.left_out;
    assert_eq!((left_out[&Input::Messages], left_out[&Input::Marks]), (2, 1), "a system message, a thread's, no ls");
    assert_eq!(done.receipts.len(), 2);
    assert_eq!(done.receipts["GENERAL/m1"], (json!([2, 1, 0, 1]), readers(&[("bob", 1_795_176_300_000)])));
    assert_eq!(done.receipts["GENERAL/m3"], (json!([2, 1, 0, 1]), readers(&[("cid", 1_795_179_900_000)])));
    assert_eq!(done.marks, BTreeMap::from([("GENERAL/bob".to_owned(), 1_795_177_800_000)]));
}

#[test]
fn mattermost_marks_read_what_was_viewed() {
    let files = [
        (
            "members.csv",
            "channelid,userid,at,role,type\n\
             chan1,ann,1795168000000,member,O\n\
             chan1,bob,1795168000000,member,O\n\
             chan1,cid,1795168000000,member,O\n\
             chan1,cid,1795176500000,left,O\n",
        ),
        (
            "posts.csv",
            "id,createat,deleteat,userid,channelid,rootid,originalid,type\n\
             p0,1795168000001,0,ann,chan1,\"\",\"\",system_join_channel\n\
             p1,1795176000000,0,ann,chan1,\"\",\"\",\"\"\n\
             p2,1795176400000,0,bob,chan1,p1,\"\",\"\"\n\
             p3,1795176600000,0,ann,chan1,\"\",\"\",\"\"\n\
             p4,1795176700000,1795176800000,ann,chan1,\"\",\"\",\"\"\n",
        ),
        (
            "channelmembers.csv",
            "channelid,userid,lastviewedat\nchan1,ann,1795176700000\nchan1,bob,1795176300000\nchan1,eve,0\n",
        ),
    ];
    let done = imported("mattermost.toml", Untimed::Unread, &files, &[("chan1", "bob"), ("chan1", "eve")]);
    assert!(done.report.counts.rejected.is_empty(), "{}", done.rejects);
    assert_eq!(done.receipts.keys().collect::<Vec<_>>(), ["chan1/p1", "chan1/p3", "chan1/p4"]);
    assert_eq!(
        done.receipts["chan1/p1"],
        (json!([2, 1, 0, 0]), readers(&[("bob", 1_795_176_300_000)])),
        "cid has left"
    );
    assert_eq!(done.receipts["chan1/p3"], (json!([1, 0, 0, 1]), Vec::new()));
    assert_eq!(done.receipts["chan1/p4"].0, json!("recalled"));
    assert_eq!(done.marks, BTreeMap::from([("chan1/bob".to_owned(), 1_795_176_300_000)]));
}

#[test]
fn synapse_receipts_become_marks() {
    let files = [
        (
            "room_memberships.csv",
            "room_id,user_id,membership,origin_server_ts\n\
             !r:ex.org,@ann:ex.org,join,1795168000000\n\
             !r:ex.org,@bob:ex.org,join,1795168000001\n\
             !r:ex.org,@cid:ex.org,invite,1795168000002\n\
             !r:ex.org,@dan:ex.org,join,1795168000003\n",
        ),
        (
            "events.csv",
            "event_id,room_id,sender,type,origin_server_ts,redaction,thread_id\n\
             $e1,!r:ex.org,@ann:ex.org,m.room.message,1795176000000,,\n\
             $e2,!r:ex.org,@ann:ex.org,m.room.encrypted,1795176100000,,\n\
             $e3,!r:ex.org,@ann:ex.org,m.room.message,1795176200000,,$e1\n\
             $e4,!r:ex.org,@ann:ex.org,m.room.message,1795176300000,$x,\n",
        ),
        (
            "receipts_linearized.csv",
            "room_id,receipt_type,user_id,event_id,thread_id,data,origin_server_ts\n\
             !r:ex.org,m.read,@bob:ex.org,$e1,main,\"{\"\"ts\"\":1795176050000}\",1795176000000\n\
             !r:ex.org,m.read,@bob:ex.org,$e3,$e1,\"{\"\"ts\"\":1795176250000}\",1795176200000\n\
             !r:ex.org,m.read.private,@dan:ex.org,$e2,,\"{\"\"ts\"\":1795176150000}\",1795176100000\n",
        ),
    ];
    let done = imported("synapse.toml", Untimed::Unread, &files, &[("!r:ex.org", "@bob:ex.org")]);
    assert_eq!(done.report.counts.rejected, BTreeMap::from([(Input::Marks, 1)]), "the receipt of a thread");
    assert!(done.rejects.contains("events have no threads"), "{}", done.rejects);
    assert_eq!(done.receipts.keys().collect::<Vec<_>>(), ["!r:ex.org/$e1", "!r:ex.org/$e2", "!r:ex.org/$e4"]);
    let read = readers(&[("@bob:ex.org", 1_795_176_050_000)]);
    assert_eq!(done.receipts["!r:ex.org/$e1"], (json!([2, 1, 1, 0]), read));
    assert_eq!(done.receipts["!r:ex.org/$e2"], (json!([2, 0, 1, 1]), Vec::new()));
    assert_eq!(done.receipts["!r:ex.org/$e4"].0, json!("recalled"));
    assert_eq!(done.marks, BTreeMap::from([("!r:ex.org/@bob:ex.org".to_owned(), 1_795_176_000_000)]));
}

#[test]
fn zulip_flags_are_reads_of_both_directions() {
    let files = [
        (
            "zerver_subscription.csv",
            "recipient_id,user_profile_id,active,type\n21,7,t,2\n21,8,t,2\n21,9,f,2\n5,7,t,1\n",
        ),
        (
            "zerver_message.csv",
            "id,recipient_id,sender_id,date_sent,type,type_id,recipients\n\
             101,21,7,2026-11-20 12:00:00.123456+00,2,3,\"[7, 8, 10]\"\n\
             102,6,10,2026-11-20 12:01:00+00,1,8,\"[8, 10]\"\n\
             103,5,8,2026-11-20 12:02:00+00,1,10,\"[10, 8]\"\n",
        ),
        (
            "zerver_usermessage.csv",
            "message_id,user_profile_id,flags,recipient_id,sender_id,type,type_id\n\
             101,7,1,21,7,2,3\n101,8,1,21,7,2,3\n101,10,8192,21,7,2,3\n\
             102,10,1,6,10,1,8\n102,8,9,6,10,1,8\n103,10,0,5,8,1,10\n103,8,1,5,8,1,10\n101,11,1025,21,7,2,3\n",
        ),
    ];
    let done = imported("zulip.toml", Untimed::Read, &files, &[]);
    assert!(done.report.counts.rejected.is_empty(), "{}", done.rejects);
    assert_eq!(done.report.counts.left_out[&Input::Reads], 6, "unread, their senders' own, and added later");
    let counts: BTreeMap<&str, &Value> = done.receipts.iter().map(|(id, (counts, _))| (id.as_str(), counts)).collect();
    let wanted =
        [("21/101", json!([2, 1, 0, 1])), ("dm-8-10/102", json!([1, 1, 0, 0])), ("dm-8-10/103", json!([1, 0, 0, 1]))];
    assert_eq!(counts, wanted.iter().map(|(id, counts)| (*id, counts)).collect());
    let untimed = imported("zulip.toml", Untimed::Unread, &files, &[]);
    assert!(untimed.receipts.values().all(|(counts, _)| counts[1] == 0), "a flag has no time");
}

#[test]
fn nextcloud_marks_go_up_to_a_comment() {
    let files = [
        ("talk_members.csv", "room_id,actor_id,type\n4,ann,2\n4,bob,2\n4,cid,2\n"),
        (
            "talk_comments.csv",
            "id,object_id,actor_id,verb,creation_timestamp\n\
             11,4,ann,system,2026-11-20 11:59:00\n\
             12,4,ann,comment,2026-11-20 12:00:00\n\
             13,4,ann,comment_deleted,2026-11-20 12:01:00\n\
             14,4,ann,voice-message,2026-11-20 12:02:00\n",
        ),
        (
            "talk_marks.csv",
            "room_id,actor_id,read_privacy,creation_timestamp\n4,bob,0,2026-11-20 12:00:00\n4,cid,1,2026-11-20 12:02:00\n",
        ),
    ];
    let done = imported("nextcloud.toml", Untimed::Unread, &files, &[("4", "bob"), ("4", "cid")]);
    assert!(done.report.counts.rejected.is_empty(), "{}", done.rejects);
    assert_eq!(done.receipts["4/12"], (json!([2, 1, 1, 0]), readers(&[("bob", 1_795_176_000_000)])));
    assert_eq!(done.receipts["4/13"].0, json!("recalled"));
    assert_eq!(done.receipts["4/14"], (json!([2, 0, 1, 1]), Vec::new()));
    assert_eq!((done.receipts.len(), done.marks), (3, BTreeMap::from([("4/bob".to_owned(), 1_795_176_000_000)])));
}

#[test]
fn discourse_memberships_give_members_and_marks() {
    let files = [
        (
            "chat_members.csv",
            "user_id,chat_channel_id,created_at,chatable_type\n\
             1,9,2026-11-20 10:00:00.5,Category\n2,9,2026-11-20 10:00:01,Category\n3,9,2026-11-20 12:00:30,Category\n",
        ),
        (
            "chat_messages.csv",
            "id,chat_channel_id,user_id,created_at,deleted_at,thread_id\n\
             21,9,1,2026-11-20 12:00:00,,\n22,9,1,2026-11-20 12:00:20,,7\n23,9,1,2026-11-20 12:01:00.25,,\n",
        ),
        ("chat_marks.csv", "user_id,chat_channel_id,created_at\n2,9,2026-11-20 12:00:00\n3,9,2026-11-20 12:01:00.25\n"),
    ];
    let done = imported("discourse.toml", Untimed::Unread, &files, &[("9", "2")]);
    assert!(done.report.counts.rejected.is_empty(), "{}", done.rejects);
    assert_eq!(done.receipts.len(), 2, "a thread's message is left out");
    assert_eq!(done.receipts["9/21"], (json!([1, 1, 0, 0]), readers(&[("2", 1_795_176_000_000)])), "3 came later");
    assert_eq!(done.receipts["9/23"], (json!([2, 1, 0, 1]), readers(&[("3", 1_795_176_060_250)])));
}

/// A row may hold several rows of ours, and an interrupted import resumes between them.
#[test]
fn one_row_gives_several_rows() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("seen.ndjson");
    let rows = "{\"chat\":\"c\",\"id\":\"m1\",\"seen\":[{\"u\":\"bob\",\"at\":1795176000},{\"u\":\"cid\",\"at\":1795176001}]}\n\
                {\"chat\":\"c\",\"id\":\"m2\",\"seen\":[]}\n\
                {\"chat\":\"c\",\"id\":\"m3\",\"seen\":[{\"u\":\"bob\",\"at\":\"soon\"},{\"u\":\"cid\",\"at\":1795176002}]}\n";
    fs::write(&path, rows).unwrap();
    let text = "[reads]\nrows = '{chat, id} + .seen[]'\nconversation_id = \"chat\"\nmessage_id = \"id\"\nuser_id = \"u\"\n\
                read_at_ms = { column = \"at\", unit = \"s\" }\n";
    let sources = vec![Source::new(Input::Reads, &[path], None).unwrap()];
    let mapping = Mapping::parse(Path::new("m.toml"), text).unwrap();
    let plan = Plan { mapping: Some(mapping), ..plan(dir.path(), sources) };
    let log = EmbeddedLog::open(&dir.path().join("log"), NonZeroU32::new(1)).unwrap();
    let done = import(&log, &plan, &()).unwrap();
    assert_eq!((done.counts.rows[&Input::Reads], done.counts.rejected[&Input::Reads], done.written), (3, 1, 3));
    let rejects = fs::read_to_string(&plan.rejects).unwrap();
    assert!(rejects.contains("\"row\":3,\"column\":\"read_at_ms\",\"reason\":\"read_at_ms is soon"), "{rejects}");
}
