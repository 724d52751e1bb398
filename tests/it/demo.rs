//! Tests that `receipts demo` ends well and shows the service's answers. Does not test its figures,
//! which are the machine's.

use receipts_tests::process::{Service, errors, run};
use serde_json::Value;

/// Returns the receipts that a demo shows, with their texts.
fn receipts(lines: &[Value]) -> Vec<(&str, &Value)> {
    lines.iter().filter_map(|line| Some((line["text"].as_str()?, line.get("receipt")?))).collect()
}

fn text<'j>(json: &'j Value, field: &str) -> &'j str {
    json[field].as_str().unwrap_or_else(|| panic!("no {field} in {json}"))
}

fn count(json: &Value, field: &str) -> u64 {
    json[field].as_u64().unwrap_or_else(|| panic!("no {field} in {json}"))
}

#[test]
fn what_the_demo_shows_is_what_the_service_answers() {
    let mut demo = Service::start("receipts", &["demo", "--stay", "--http-listen", "127.0.0.1:0", "--seed", "11"]);
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line: &Value| line.get("commands").is_none()) {
        lines.push(demo.next_line().expect("the demo goes on until it has shown its commands"));
    }
    let receipts = receipts(&lines);
    assert!(receipts.len() >= 10, "{receipts:?}");
    for (_, shown) in &receipts {
        let (conversation_id, message_id) = (text(shown, "conversation_id"), text(shown, "message_id"));
        let answer = demo.get(&format!("/v1/conversations/{conversation_id}/messages/{message_id}/receipt"));
        assert_eq!((answer.status, &answer.body), (200, *shown));
    }
    // The page and the whole list are as long as the receipt says.
    let lists: Vec<&Value> = lines.iter().filter_map(|line| line.get("list")).collect();
    assert_eq!(lists.len(), 9, "three lists of three messages");
    for list in lists {
        let (filter, message_id) = (text(list, "filter"), text(list, "message_id"));
        let path = format!("/v1/conversations/g-everyone/messages/{message_id}/members?filter={filter}");
        let first = demo.get(&path).body;
        assert_eq!((&first["members"], &first["receipt"]), (&list["members"], &list["receipt"]));
        if message_id == "town-hall-3" {
            let mut members = 0;
            let mut page = demo.get(&format!("{path}&limit=1000")).body;
            loop {
                members += page["members"].as_array().expect("a list").len() as u64;
                let Some(cursor) = page["next_cursor"].as_str() else { break };
                page = demo.get(&format!("{path}&limit=1000&cursor={cursor}")).body;
            }
            assert_eq!(members, count(&list["receipt"], &format!("{filter}_count")));
        }
    }
    let commands = &lines.last().expect("lines")["commands"];
    for command in commands.as_array().expect("a list") {
        let command = command.as_str().expect("a command");
        assert!(command.starts_with("curl ") && command.contains(&demo.address), "{command}");
    }
    // The chat goes on: an announcement fills, and the page that shows it is there.
    let pages = lines.last().expect("lines")["pages"].as_array().expect("a list");
    assert!(pages[1].as_str().is_some_and(|page| page.contains(&demo.address) && page.ends_with("town-hall-live-1")));
    assert_eq!(demo.get("/").status, 200);
    let read = || {
        let answer = demo.get("/v1/conversations/g-everyone/messages/town-hall-live-1/receipt").body;
        answer["read_count"].as_u64().unwrap_or_default()
    };
    let begun = std::time::Instant::now();
    let first = read();
    while read() <= first {
        assert!(begun.elapsed() < receipts_tests::TIMEOUT, "nobody reads the announcement: {first}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(demo.terminate(), Some(0));
}

#[test]
fn demo_ends_by_itself_and_its_counts_close() {
    let output = run("receipts", &["demo", "--json", "--seed", "3"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .expect("UTF-8")
        .lines()
        .map(|line| serde_json::from_str(line).expect("a JSON line"))
        .collect();
    let receipts = receipts(&lines);
    for (_, receipt) in receipts.iter().filter(|(_, receipt)| receipt["status"] == "ok") {
        let parts = ["read_count", "unread_count", "hidden_count", "departed_count"].map(|field| count(receipt, field));
        assert_eq!(parts.iter().sum::<u64>(), count(receipt, "audience_count"), "{receipt}");
    }
    let of = |message_id: &str| {
        let found = receipts.iter().find(|(_, receipt)| receipt["message_id"] == message_id);
        found.unwrap_or_else(|| panic!("{message_id} is not shown")).1
    };
    // The same for every seed: two of five have read, one has left.
    let lunch = of("lunch-1");
    let counts = ["audience_count", "read_count", "unread_count", "departed_count"].map(|field| count(lunch, field));
    assert_eq!(counts, [5, 2, 2, 1]);
    // A second device, a hidden reader, an observer and a late joiner.
    let release = of("release-1");
    let counts = ["audience_count", "read_count", "unread_count", "hidden_count"].map(|field| count(release, field));
    assert_eq!(counts, [3, 1, 1, 1]);
    assert_eq!(count(of("town-hall-1"), "audience_count"), 99_999);
    for (message_id, status) in [("lunch-2", "not_requested"), ("party-1", "recalled"), ("news-1", "unsupported")] {
        assert_eq!(text(of(message_id), "status"), status, "{message_id}");
    }
    let figures = lines.iter().find_map(|line| line.get("figures")).expect("figures");
    assert!(count(figures, "events") > 200_000 && count(figures, "folded_per_s") > 0, "{figures}");
    let disk = lines.iter().find_map(|line| line.get("disk")).expect("what is on the disk");
    assert!(count(disk, "store_bytes") > 0 && count(disk, "log_bytes") > 0, "{disk}");
}

#[test]
fn people_are_shown_sentences() {
    let output = run("receipts", &["demo"]);
    assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
    let shown = String::from_utf8(output.stdout).expect("UTF-8");
    for part in [
        "receipts ready http=http://127.0.0.1:",
        "read by 2 of 5 · 2 unread · 1 left",
        "Who of 100,000 has read “Town hall at 3 pm”",
        "events a second",
        "of store on disk",
        "curl -s 'http://127.0.0.1:8080/v1/conversations/g-lunch/messages/lunch-1/receipt'",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    // Commands are lines of their own, to be copied; the rest fits a terminal.
    let wide = shown.lines().filter(|line| line.chars().count() > 80 && !line.contains("curl"));
    assert_eq!(wide.collect::<Vec<_>>(), [] as [&str; 0]);
}

#[test]
fn second_chat_in_a_log_has_its_own_tenant() {
    let data = tempfile::tempdir().expect("a folder");
    let data_dir = data.path().to_str().expect("UTF-8");
    let lunch = |seed: &str| {
        let output = run("receipts", &["demo", "--json", "--data-dir", data_dir, "--seed", seed]);
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        let shown = String::from_utf8(output.stdout).expect("UTF-8");
        let lines: Vec<Value> = shown.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
        let receipts = receipts(&lines);
        let lunch = receipts.iter().find(|(text, _)| *text == "Lunch?").expect("shown").1;
        (text(lunch, "tenant").to_owned(), count(lunch, "read_count"), count(lunch, "departed_count"))
    };
    assert_eq!(lunch("1"), ("default".to_owned(), 2, 1));
    let (tenant, read, departed) = lunch("2");
    assert!(tenant.starts_with("demo-"), "{tenant}");
    assert_eq!((read, departed), (2, 1));
}
