//! Many projectors behind query edges, on a real Kafka. Every acknowledged event is answered while
//! processes start, stop, die and hang.
//!
//! `RECEIPTS_TEST_SECONDS` sets how long members die and hang; the test prints its figures.

use receipts_log::testing::{Broker, unique};
use receipts_testkit::property::{Replay, number, scaled};
use receipts_testkit::random::Random;
use receipts_tests::process::{Answer, Service, errors, request, run};
use receipts_tests::{eventually, receipt_path, rounded};
use serde_json::{Value, json};
use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const SENT_AT_MS: u64 = 1_780_000_000_000;
/// The shortest session that the broker allows: how long a dead or hanging member keeps its
/// partitions.
const SESSION_MS: u64 = 6_000;

/// A service of many processes on topics of its own.
struct Cluster {
    flags: Vec<String>,
    folder: tempfile::TempDir,
    ports: Vec<u16>,
}

impl Cluster {
    /// A cluster with addresses for this many projectors; none runs yet.
    fn new(broker: &Broker, name: &str, projectors: usize) -> Self {
        let name = unique(name);
        let mut flags = vec!["--kafka-bootstrap".to_owned(), broker.bootstrap()];
        for topic in ["events", "updates", "dead-letters"] {
            flags.extend([format!("--log-{topic}-topic"), format!("{name}.{topic}")]);
        }
        flags.extend(["--projector-group".to_owned(), name]);
        flags.extend(["--kafka-properties".to_owned(), format!("session.timeout.ms={SESSION_MS}")]);
        flags.extend(["--kafka-properties".to_owned(), "heartbeat.interval.ms=500".to_owned()]);
        // These ports were free a moment ago: a projector keeps its address across restarts.
        let held: Vec<_> = (0..projectors).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let ports = held.iter().map(|listener| listener.local_addr().expect("bound").port()).collect();
        Self { flags, folder: tempfile::tempdir().expect("a folder"), ports }
    }

    fn start(&self, name: &str, own: &[&str]) -> Service {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        Service::start(name, &[own, &flags].concat())
    }

    fn ingest(&self) -> Service {
        self.start("receipts-ingest", &["--http-listen", "127.0.0.1:0"])
    }

    fn projector(&self, place: usize, more: &[&str]) -> Service {
        let listen = format!("127.0.0.1:{}", self.ports[place]);
        let data = self.folder.path().join(place.to_string());
        let data = data.to_str().expect("UTF-8");
        let own = ["--listen", &listen, "--data-dir", data, "--projector-checkpoint-interval-ms", "1000"];
        self.start("receipts-projector", &[&own, more].concat())
    }

    /// Starts an edge with access to the log, which then has streams.
    fn query_with_streams(&self, more: &[&str]) -> Service {
        let flags: Vec<&str> = self.flags.iter().map(String::as_str).collect();
        self.query(&[more, &flags].concat())
    }

    fn query(&self, more: &[&str]) -> Service {
        let projectors: Vec<_> = self.ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
        let projectors = projectors.join(",");
        let own = ["--http-listen", "127.0.0.1:0", "--projectors", &projectors, "--query-poll-ms", "100"];
        Service::start("receipts-query", &[&own, more].concat())
    }
}

fn joined(conversation: &str, members: &[&str]) -> Value {
    json!({"type": "members.changed", "conversation_id": conversation, "joined": members})
}

fn sent(conversation: &str, message: &str) -> Value {
    json!({"type": "message.sent", "conversation_id": conversation, "message_id": message, "sender_id": "alice",
           "sent_at_ms": SENT_AT_MS, "need_read_receipt": true})
}

fn read(conversation: &str, message: &str, reader: &str) -> Value {
    json!({"type": "message.read", "conversation_id": conversation, "reader_id": reader, "message_ids": [message]})
}

#[test]
fn edge_and_projector_refuse_missing_settings() {
    for (name, says) in [("receipts-query", "--projectors"), ("receipts-projector", "--kafka-bootstrap")] {
        let output = run(name, &[]);
        let said = errors(&output);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
        assert!(said.contains(says), "{said}");
    }
}

/// The questions that an edge has been answered by projectors.
fn questions(edge: &Service) -> u64 {
    let metrics = edge.get("/metrics");
    let lines = metrics.body.as_str().expect("text").lines();
    let mut counts = lines.filter_map(|line| line.strip_prefix("receipts_peer_questions_total{outcome=\"answered\"} "));
    counts.next().map_or(0, |count| count.parse().expect("a number"))
}

/// INV-POSITION, INV-PAGING, INV-CURSOR: a caller may continue at another edge.
#[test]
fn edges_answer_for_all_partitions_and_check_the_secret() {
    let Some(broker) = Broker::shared() else { return };
    let cluster = Cluster::new(broker, "edges", 2);
    let secret = cluster.folder.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef\n").expect("written");
    let shared = ["--query-secret-file", secret.to_str().expect("UTF-8")];
    let ingest = cluster.ingest();
    let conversations: Vec<String> = (0..12).map(|n| format!("g{n}")).collect();
    let people: Vec<String> = (0..25).map(|n| format!("u{n:02}")).collect();
    let mut members: Vec<&str> = people.iter().map(String::as_str).collect();
    members.push("alice");
    let mut events = Vec::new();
    for (number, conversation) in conversations.iter().enumerate() {
        events.push(joined(conversation, &members));
        events.push(sent(conversation, &format!("m{number}")));
        events.push(read(conversation, &format!("m{number}"), "u07"));
    }
    let mark =
        json!({"type": "conversation.read", "conversation_id": "g3", "reader_id": "u09", "up_to_message_id": "m3"});
    events.push(mark);
    let token = ingest.write(&json!(events));

    // The first projector catches up alone; the second takes over its share.
    let first = cluster.projector(0, &shared);
    let second = cluster.projector(1, &shared);
    let edges = [cluster.query(&shared), cluster.query_with_streams(&shared)];
    let ids: Vec<String> = (0..12).map(|n| format!("m{n}")).chain(["nowhere".to_owned()]).collect();
    for edge in &edges {
        let body = json!({ "message_ids": ids }).to_string();
        let headers =
            [("Content-Type", "application/json"), ("Receipts-Min-Position", &token), ("Receipts-Wait-Ms", "30000")];
        let found = edge.request("POST", "/v1/receipts/query", &headers, &body);
        assert_eq!(found.status, 200, "{}", found.body);
        let counts: Vec<&Value> =
            found.body["receipts"].as_array().expect("receipts").iter().map(|receipt| &receipt["read_count"]).collect();
        let expected: Vec<Value> = (0..12).map(|n| json!(if n == 3 { 2 } else { 1 })).chain([Value::Null]).collect();
        assert_eq!(counts, expected.iter().collect::<Vec<_>>());
        let mark = edge.get_after("/v1/conversations/g3/read-marks/u09", &token);
        assert_eq!(mark.body["up_to_message_id"], "m3", "{}", mark.body);
        assert_eq!(edge.get("/v1/conversations/g3/messages/none/receipt").status, 404);
    }
    // One walk, with each page from another edge.
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    for edge in edges.iter().cycle() {
        let page = edge.get(&format!("/v1/conversations/g5/messages/m5/members?filter=unread&limit=7{cursor}"));
        assert_eq!(page.status, 200, "{}", page.body);
        let rows = page.body["members"].as_array().expect("members");
        seen.extend(rows.iter().map(|row| row["user_id"].as_str().expect("an id").to_owned()));
        match page.body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    let unread: Vec<String> = people.iter().filter(|id| *id != "u07").cloned().collect();
    assert_eq!(seen, unread);
    // A stream at an edge brings the projectors' updates from any position. An edge without a log
    // says that it has none.
    let mut stream = edges[1].listen(&format!("conversation_id=g5&since={token}"), &[]);
    _ = ingest.write(&read("g5", "m5", "u11"));
    while stream.next_update().expect("the update").update["newly_read"][0]["user_id"] != "u11" {}
    let refused = edges[0].get("/v1/updates?conversation_id=g5");
    assert_eq!(refused.status, 404);
    assert!(
        refused.body["detail"].as_str().is_some_and(|detail| detail.contains("--kafka-bootstrap")),
        "{}",
        refused.body
    );
    drop(stream);
    // A caller without the secret gets no answer.
    assert_eq!(first.get("/internal/v1/state").status, 401);
    assert_eq!(second.request("POST", "/internal/v1/ask", &[("Authorization", "Bearer 00")], "{}").status, 401);
    assert_eq!(second.get("/livez").status, 200);
    // A read that waits for its position is one question to a projector.
    let before = questions(&edges[0]);
    const READS: u64 = 20;
    for number in 0..READS {
        let token = ingest.write(&read("g4", "m4", &people[number as usize % people.len()]));
        let answer = edges[0].get_after(&receipt_path("g4", "m4"), &token);
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    let asked = eventually("all questions are counted", || questions(&edges[0]) - before, |asked| *asked >= READS);
    assert_eq!(asked, READS);
    // A rounded token waits for the ends of all partitions, which the projectors ask for.
    for (number, edge) in (2..6).zip(edges.iter().cycle()) {
        let token = ingest.write(&read("g6", "m6", &people[number + 10]));
        let answer = edge.get_after(&receipt_path("g6", "m6"), &rounded(&token, 12, 20));
        assert_eq!((answer.status, &answer.body["read_count"]), (200, &json!(number)), "{}", answer.body);
    }
    // Ids in bodies.
    let marks = edges[0].post("/v1/read-marks/query", &json!({"conversation_id": "g3", "user_ids": ["u09", "u01"]}));
    let marks = &marks.body["read_marks"];
    assert_eq!((&marks[0]["up_to_message_id"], &marks[1]), (&json!("m3"), &Value::Null), "{marks}");
    let list = json!({"conversation_id": "g5", "message_id": "m5", "filter": "read"});
    let list = edges[0].post("/v1/members/list", &list);
    assert_eq!(list.body["members"].as_array().map(Vec::len), Some(2), "{}", list.body);
    // One projector stops in order; the other takes over its partitions from the log.
    assert_eq!(first.terminate(), Some(0));
    for edge in edges {
        let answer = edge.get_after(&receipt_path("g3", "m3"), &token);
        assert_eq!((answer.status, &answer.body["read_count"]), (200, &json!(2)), "{}", answer.body);
        // The log names the projector that went, and the partitions of the other one.
        let (gone, stays) = (cluster.ports[0], cluster.ports[1]);
        for (sentence, port, partitions) in [
            ("a projector does not answer any more", gone, ""),
            ("a projector answers for other partitions", stays, "0-11"),
        ] {
            let address = format!("address=127.0.0.1:{port} ");
            let is_told = |said: &String| {
                said.lines().any(|line| [sentence, &address, partitions].iter().all(|part| line.contains(part)))
            };
            eventually(sentence, || edge.errors(), is_told);
        }
        assert_eq!(edge.terminate(), Some(0));
    }
    assert_eq!((second.terminate(), ingest.terminate()), (Some(0), Some(0)));
}

/// The experiences of the readers and writers of the long test.
#[derive(Default)]
struct Met {
    written: AtomicU64,
    asked: AtomicU64,
    unavailable: AtomicU64,
    longest_gap_ms: AtomicU64,
}

/// Writes a conversation of its own and reads after each write, so the test knows each count.
fn converse(
    number: usize,
    ingest: &Service,
    edges: &Mutex<Vec<String>>,
    stop: &AtomicBool,
    met: &Met,
) -> Vec<(String, u64)> {
    const READERS: usize = 20;
    let conversation = format!("c{number}");
    let people: Vec<String> = (0..READERS).map(|n| format!("u{n}")).collect();
    let mut members: Vec<&str> = people.iter().map(String::as_str).collect();
    members.push("alice");
    let mut random = Random::new(number as u64);
    _ = ingest.write(&json!(joined(&conversation, &members)));
    let mut done = Vec::new();
    let mut last_answer = Instant::now();
    for turn in 0.. {
        let message = format!("m{turn}");
        _ = ingest.write(&sent(&conversation, &message));
        let mut count = 0;
        for reader in people.iter().take(1 + random.below(READERS as u64) as usize) {
            let token = ingest.write(&read(&conversation, &message, reader));
            count += 1;
            met.written.fetch_add(1, Ordering::Relaxed);
            let address = {
                let edges = edges.lock().expect("whole");
                edges[random.below(edges.len() as u64) as usize].clone()
            };
            let answer = ask(&address, &receipt_path(&conversation, &message), &token);
            met.asked.fetch_add(1, Ordering::Relaxed);
            match answer {
                Some(answer) if answer.status == 200 => {
                    // No other thread writes here: an older answer has fewer reads, a wrong one
                    // another number.
                    assert_eq!(answer.body["read_count"], json!(count), "{conversation} {message}: {}", answer.body);
                    let gap = last_answer.elapsed().as_millis() as u64;
                    met.longest_gap_ms.fetch_max(gap, Ordering::Relaxed);
                    last_answer = Instant::now();
                }
                Some(answer) => {
                    assert_eq!(answer.status, 503, "{conversation} {message}: {}", answer.body);
                    met.unavailable.fetch_add(1, Ordering::Relaxed);
                }
                // The edge was killed meanwhile.
                None => {}
            }
            if stop.load(Ordering::Relaxed) {
                break;
            }
        }
        done.push((message, count));
        if stop.load(Ordering::Relaxed) {
            return done;
        }
    }
    done
}

/// Sends one question to an edge that may be killed; a partial answer counts as none.
fn ask(address: &str, path: &str, token: &str) -> Option<Answer> {
    let headers = [("Receipts-Min-Position", token), ("Receipts-Wait-Ms", "1000")];
    request(address, "GET", path, &headers, "").ok().filter(|answer| answer.body.is_object())
}

/// Starts, stops, kills and hangs processes under constant reads and writes.
fn trouble(duration: Duration, seed: u64) {
    let Some(broker) = Broker::shared() else { return };
    let cluster = Cluster::new(broker, "trouble", 5);
    let ingest = cluster.ingest();
    // Projectors 0 to 2 share the partitions, 3 and 4 are standbys.
    let more = |place: usize| -> &[&str] { if place < 3 { &[] } else { &["--standby"] } };
    let mut running: Vec<Option<Service>> = std::thread::scope(|scope| {
        let starting: Vec<_> = (0..5)
            .map(|place| (place, &cluster))
            .map(|(place, c)| scope.spawn(move || c.projector(place, more(place))))
            .collect();
        starting.into_iter().map(|started| Some(started.join().expect("started"))).collect()
    });
    let mut edges = vec![cluster.query(&[]), cluster.query(&[])];
    let addresses = Mutex::new(edges.iter().map(|edge| edge.address.clone()).collect::<Vec<_>>());
    let (stop, met) = (AtomicBool::new(false), Met::default());
    let mut random = Random::new(seed);
    let (mut kills, mut hangs, mut goes, mut edge_kills) = (0, 0, 0, 0);
    let begun = Instant::now();
    let done: Vec<Vec<(String, u64)>> = std::thread::scope(|scope| {
        let talks: Vec<_> = (0..6)
            .map(|number| (number, &ingest, &addresses, &stop, &met))
            .map(|(number, ingest, addresses, stop, met)| {
                scope.spawn(move || converse(number, ingest, addresses, stop, met))
            })
            .collect();
        while begun.elapsed() < duration {
            // One member at a time: with one standby per partition, that is what the service must
            // survive.
            let place = random.below(5) as usize;
            match random.below(4) {
                0 => {
                    running[place].take().expect("runs").kill();
                    kills += 1;
                    std::thread::sleep(Duration::from_millis(random.below(4_000)));
                    running[place] = Some(cluster.projector(place, more(place)));
                }
                1 => {
                    let projector = running[place].as_ref().expect("runs");
                    projector.signal("STOP");
                    std::thread::sleep(Duration::from_millis(SESSION_MS + 2_000));
                    projector.signal("CONT");
                    hangs += 1;
                }
                2 => {
                    assert_eq!(running[place].take().expect("runs").terminate(), Some(0));
                    goes += 1;
                    running[place] = Some(cluster.projector(place, more(place)));
                }
                _ => {
                    let at = random.below(2) as usize;
                    edges.remove(at).kill();
                    edge_kills += 1;
                    addresses.lock().expect("whole").remove(at);
                    edges.push(cluster.query(&[]));
                    addresses.lock().expect("whole").push(edges[1].address.clone());
                }
            }
            std::thread::sleep(Duration::from_millis(random.below(3_000)));
        }
        stop.store(true, Ordering::Relaxed);
        talks.into_iter().map(|talk| talk.join().expect("no answer was wrong")).collect()
    });
    // Both edges answer every acknowledged event.
    let deadline = Instant::now() + Duration::from_secs(60);
    for edge in &edges {
        while edge.get("/readyz").status != 200 {
            assert!(Instant::now() < deadline, "every partition has an owner again");
            std::thread::sleep(Duration::from_millis(50));
        }
        for (number, messages) in done.iter().enumerate() {
            for (message, count) in messages {
                let answer = edge.get(&receipt_path(&format!("c{number}"), message));
                assert_eq!(answer.body["read_count"], json!(count), "c{number} {message}: {}", answer.body);
            }
        }
    }
    let (asked, unavailable) = (met.asked.load(Ordering::Relaxed), met.unavailable.load(Ordering::Relaxed));
    eprintln!(
        "{:.0} s: {kills} kills, {hangs} hangs, {goes} ends in order, {edge_kills} edges killed; {} reads written, {asked} \
         questions with a token, {unavailable} answered 503 ({:.2} %), longest gap between two answers of one reader {} ms",
        begun.elapsed().as_secs_f64(),
        met.written.load(Ordering::Relaxed),
        100.0 * unavailable as f64 / asked.max(1) as f64,
        met.longest_gap_ms.load(Ordering::Relaxed)
    );
    assert!(asked > 100 && unavailable * 10 < asked, "most questions are answered");
}

/// INV-POSITION, INV-ACK, INV-HANDOVER: no answer is older than its token, no count is wrong, and
/// no acknowledged receipt is missing.
#[test]
fn members_that_die_and_hang_cost_no_receipt() {
    let seconds = number("RECEIPTS_TEST_SECONDS", scaled(20, 600));
    let _replay = Replay::with(&format!("RECEIPTS_TEST_SECONDS={seconds}"));
    trouble(Duration::from_secs(seconds), 5);
}
