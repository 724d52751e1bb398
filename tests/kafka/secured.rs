//! A secured Kafka: every way to authenticate, every part under the least rights that
//! `receipts topics acl` prints, and the sentences about what is wrong.

mod acls;
mod authority;
mod endpoint;

use super::end_to_end::{read, sent};
use acls::{Acl, grant, parsed};
use authority::{KEY_PASSWORD, PASSWORD, Secured, secured};
use endpoint::{SECRET, SUBJECT};
use receipts_log::testing::unique;
use receipts_tests::kafka::produce;
use receipts_tests::process::{Service, errors, run};
use receipts_tests::{eventually, receipt_path};
use serde_json::{Value, json};
use std::time::Duration;

/// The topics and the group of one test.
struct Names {
    base: String,
}

impl Names {
    fn new(name: &str) -> Self {
        Self { base: unique(name) }
    }

    fn flags(&self) -> Vec<String> {
        let base = &self.base;
        let flags = [
            ("--log-events-topic", format!("{base}.events")),
            ("--log-updates-topic", format!("{base}.updates")),
            ("--log-dead-letters-topic", format!("{base}.dead-letters")),
            ("--projector-group", base.clone()),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    /// Grants a user what `receipts topics acl` prints for a part, but for the rights that `lacks`
    /// chooses.
    fn grant(&self, secured: &Secured, user: &str, part: &str, lacks: impl Fn(&Acl) -> bool) {
        let flags = self.flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let principal = format!("User:{user}");
        let acl = ["topics", "acl", "--principal", &principal, "--part", part, "--kafka-bootstrap", "b:9092"];
        let printed = run("receipts", &[&acl[..], &flags].concat());
        assert_eq!(printed.status.code(), Some(0), "{}", errors(&printed));
        let printed = String::from_utf8(printed.stdout).expect("UTF-8");
        let commands: Vec<&str> = printed.lines().filter(|line| !line.starts_with('#')).collect();
        let as_json = run("receipts", &[&acl[..], &flags, &["--json"]].concat());
        let as_json: Value = serde_json::from_slice(&as_json.stdout).expect("JSON");
        let in_json: Vec<&str> = as_json["rights"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|right| right["command"].as_str().expect("a text"))
            .collect();
        assert_eq!(commands, in_json);
        let mut rights = Vec::new();
        for command in commands {
            let (of, parsed) = parsed(command);
            assert_eq!(of, principal);
            rights.extend(parsed);
        }
        let all = rights.len();
        rights.retain(|right| !lacks(right));
        assert!(user.starts_with("plain-") == (rights.len() < all), "{user} lacks nothing: {rights:?}");
        grant(&secured.at("127.0.0.1", 0), &principal, &rights);
    }
}

/// Flags of `kafka.properties`.
fn flags_of(bootstrap: &str, properties: &[(&'static str, String)]) -> Vec<String> {
    let mut flags = vec!["--kafka-bootstrap".to_owned(), bootstrap.to_owned()];
    for (name, value) in properties {
        flags.extend(["--kafka-properties".to_owned(), format!("{name}={value}")]);
    }
    flags
}

/// Starts a service, with these variables too.
fn start(environment: &[(&str, &str)], name: &str, own: &[&str], more: &[Vec<String>]) -> Service {
    let more: Vec<&str> = more.iter().flatten().map(String::as_str).collect();
    Service::start_in(environment, name, &[own, &more].concat())
}

fn without_secrets(said: &str) {
    for secret in [PASSWORD, SECRET, KEY_PASSWORD] {
        assert!(!said.contains(secret), "a secret stands in: {said}");
    }
}

/// INV-PRIVATE: each part authenticates in another way, with secrets from files, and has the least
/// rights. No log shows a secret, not even at the level debug.
#[test]
fn parts_work_with_the_least_rights_that_are_printed() {
    let Some(secured) = secured() else { return };
    let names = Names::new("least");
    for (user, part) in [("scram-a", "ingest"), ("tls-user", "projector"), ("scram-b", "query"), (SUBJECT, "operator")]
    {
        names.grant(secured, user, part, |_| false);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let debug = ("RECEIPTS_LOG", "debug,h2=info,hyper=info");

    let lines: String =
        secured.user("SCRAM-SHA-512", "scram-a").iter().map(|(name, value)| format!("{name} = {value}\n")).collect();
    let file = write("kafka.properties", &format!("# ingest\n{lines}"));
    let of_ingest = vec!["--kafka-bootstrap".to_owned(), secured.sasl(), "--kafka-properties-file".to_owned(), file];
    let ingest = start(&[debug], "receipts-ingest", &["--http-listen", "127.0.0.1:0"], &[names.flags(), of_ingest]);

    let mut of_projector = secured.trusting("SSL");
    of_projector.push(("ssl.certificate.location", secured.file("client.crt")));
    of_projector.push(("ssl.key.location", secured.file("client-encrypted.key")));
    let key_password = write("key-password", &format!("{KEY_PASSWORD}\n"));
    let data = folder.path().join("data").to_str().expect("UTF-8").to_owned();
    let projector = start(
        &[debug, ("RECEIPTS_KAFKA__PROPERTY_FILES__SSL__KEY__PASSWORD", &key_password)],
        "receipts-projector",
        &["--listen", "127.0.0.1:0", "--data-dir", &data],
        &[names.flags(), flags_of(&secured.tls(), &of_projector)],
    );

    let mut of_query = secured.user("SCRAM-SHA-256", "scram-b");
    of_query.retain(|(name, _)| *name != "sasl.password");
    let password = format!("sasl.password={}", write("password", PASSWORD));
    let query = start(
        &[debug],
        "receipts-query",
        &["--http-listen", "127.0.0.1:0", "--projectors", &projector.address, "--kafka-property-files", &password],
        &[names.flags(), flags_of(&secured.sasl(), &of_query)],
    );

    let mut updates = query.listen("sender_id=alice", &[("Receipts-Caller", "alice")]);
    let joined = json!({"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob"]});
    let token = ingest.write(&json!([joined, sent("g1", "m1", "alice"), read("g1", "m1", "bob")]));
    let answer = query.get_after(&receipt_path("g1", "m1"), &token);
    assert_eq!((answer.status, &answer.body["read_count"]), (200, &json!(1)), "{}", answer.body);
    let update = updates.next_update().expect("the stream follows the topic of updates").update;
    assert_eq!(update["message_id"], "m1", "{update}");

    let url = secured.endpoint.url();
    let of_operator = flags_of(&secured.sasl(), &secured.tokens(&url));
    let names_flags = names.flags();
    let policy =
        ["policy", "set", "*=on"].into_iter().chain(names_flags.iter().chain(&of_operator).map(String::as_str));
    let policy = run("receipts", &policy.collect::<Vec<_>>());
    assert_eq!(policy.status.code(), Some(0), "{}", errors(&policy));
    without_secrets(&errors(&policy));

    // The operator repairs dead letters: one group at least has a wrong partition.
    let lines: String = (0..8)
        .map(|number| {
            let joined =
                json!({"type": "members.changed", "conversation_id": format!("d{number}"), "joined": ["alice"]});
            format!("default/d{number}\t{joined}\n")
        })
        .collect();
    let events = format!("{}.events", names.base);
    let wrong = ["-K", "\t", "-X", "partitioner=consistent_random"];
    produce(&secured.at("127.0.0.1", 0), &events, &wrong, &lines, Duration::ZERO);
    let letters = |own: &[&str]| -> Value {
        let more = names_flags.iter().chain(&of_operator).map(String::as_str);
        let output = run("receipts", &["dead-letters"].iter().chain(own).copied().chain(more).collect::<Vec<_>>());
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(0), "{own:?}: {said}");
        assert!(!said.contains("uthorization") && !said.contains("kafka-acls"), "{own:?}: {said}");
        without_secrets(&said);
        serde_json::from_slice(&output.stdout).expect("one object")
    };
    let listed = || letters(&["list", "--json"]);
    let listed = eventually("the dead letters are listed", listed, |listed| listed["count"].as_u64() > Some(0));
    let at = |name: &str| listed["letters"][0][name].to_string();
    let location = format!("{}:{}", at("partition"), at("offset"));
    assert_eq!(letters(&["show", &location, "--json"])["reason"], "wrong-partition");
    let replayed = letters(&["replay", "--yes", "--json"]);
    assert!(replayed["written"].as_u64() > Some(0), "{replayed}");
    for service in [query, projector, ingest] {
        let said = service.errors();
        without_secrets(&said);
        assert!(!said.contains("will be ignored by this"), "each client gets its own properties: {said}");
        assert_eq!(service.terminate(), Some(0));
    }
}

/// A single right is missing each time; the command that grants it is told.
#[test]
fn missing_right_is_told_with_its_command() {
    let Some(secured) = secured() else { return };
    let names = Names::new("denied");
    names.grant(secured, "scram-a", "service", |_| false);
    let folder = tempfile::tempdir().expect("a folder");
    let data = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let all = flags_of(&secured.sasl(), &secured.user("SCRAM-SHA-512", "scram-a"));
    let service = start(
        &[],
        "receipts",
        &["serve", "--http-listen", "127.0.0.1:0", "--data-dir", &data("serve")],
        &[names.flags(), all],
    );
    let topic = |name: &str| format!("{}.{name}", names.base);
    let lacking = |user: &str, part: &str, operation: &str, of: &str| {
        names.grant(secured, user, part, |right| {
            // Every other operation implies this one.
            let implied = operation == "Describe" && right.2 == of;
            right.1 == "topic" && right.0 == "Create" || right.2 == of && right.0 == operation || implied
        });
        [names.flags(), flags_of(&secured.sasl(), &secured.user("PLAIN", user))]
    };
    let command =
        |user: &str, operation: &str, of: &str| format!("--allow-principal User:{user} --operation {operation} --{of}");

    // A projector ends, and so does a command.
    let p_data = data("projector");
    let projector = ["--listen", "127.0.0.1:0", "--data-dir", &p_data];
    let export = ["stats"];
    let (events, updates) = (topic("events"), topic("updates"));
    let ends = [
        (
            "plain-0",
            "projector",
            "Read",
            &names.base,
            "receipts-projector",
            &projector[..],
            format!("group {}", names.base),
        ),
        ("plain-1", "projector", "Read", &events, "receipts-projector", &projector, format!("topic {events}")),
        ("plain-2", "analyst", "Describe", &events, "receipts", &export, String::new()),
    ];
    for (user, part, operation, of, name, own, told) in ends {
        let more = lacking(user, part, operation, of);
        let more: Vec<&str> = more.iter().flatten().map(String::as_str).collect();
        let output = run(name, &[own, &more].concat());
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(1), "{user}: {said}");
        let last = said.lines().last().unwrap_or_default();
        if told.is_empty() {
            assert!(last.contains("this user may not describe it") && last.contains("receipts topics acl"), "{said}");
        } else {
            assert!(last.contains(&format!("--operation Read --{told}")), "{user}: {said}");
        }
    }
    // Ingest says so with the first event, and the projector with the first update.
    let more = lacking("plain-3", "ingest", "Write", &events);
    let ingest = start(&[], "receipts-ingest", &["--http-listen", "127.0.0.1:0"], &more);
    let joined = json!({"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob"]});
    assert_eq!(ingest.post("/v1/events", &joined).status, 503);
    let wanted = command("plain-3", "Write", &format!("topic {events}"));
    eventually("ingest must name the right", || ingest.errors(), |said| said.contains(&wanted));
    assert_eq!(ingest.terminate(), Some(0));

    let more = lacking("plain-4", "projector", "Write", &updates);
    let projector = start(&[], "receipts-projector", &["--listen", "127.0.0.1:0", "--data-dir", &data("p4")], &{
        let [names, flags] = more;
        // Another group, so that it has the partitions.
        [names, flags, vec!["--projector-group".to_owned(), names_of_other(secured, &topic("other"), "plain-4")]]
    });
    _ = service.write(&json!([joined, sent("g1", "m1", "alice"), read("g1", "m1", "bob")]));
    let wanted = command("plain-4", "Write", &format!("topic {updates}"));
    eventually("the projector must name the right", || projector.errors(), |said| said.contains(&wanted));
    projector.kill();
    assert_eq!(service.terminate(), Some(0));
}

/// Lets a user be a member of another group.
fn names_of_other(secured: &Secured, group: &str, user: &str) -> String {
    let right = ("Read".to_owned(), "group".to_owned(), group.to_owned());
    grant(&secured.at("127.0.0.1", 0), &format!("User:{user}"), &[right]);
    group.to_owned()
}

/// The cause of a failed start, and the setting that ends it.
#[test]
fn wrong_setting_is_told_apart_by_its_cause() {
    let Some(secured) = secured() else { return };
    let with = |properties: Vec<(&'static str, String)>, name: &'static str, value: &str| {
        let mut properties = properties;
        properties.retain(|(other, _)| *other != name);
        properties.push((name, value.to_owned()));
        properties
    };
    let user = |mechanism| secured.user(mechanism, "scram-a");
    let trusting = |protocol| secured.trusting(protocol);
    let url = secured.endpoint.url();
    let tokens = || secured.tokens(&url);
    let at = |offset| secured.at("localhost", offset);
    let plaintext = with(with(user("PLAIN"), "security.protocol", "SASL_PLAINTEXT"), "sasl.username", "plain-9");
    let cases: Vec<(String, Vec<_>, &[&str])> = vec![
        (
            at(3),
            with(user("SCRAM-SHA-512"), "ssl.ca.location", &secured.file("other-ca.pem")),
            &["CA that signed", "ssl.ca.location"],
        ),
        (secured.at("127.0.0.1", 3), user("SCRAM-SHA-512"), &["is for another host", "advertised.listeners"]),
        (at(4), trusting("SSL"), &["has expired"]),
        (at(2), trusting("SSL"), &["ssl.certificate.location and ssl.key.location"]),
        (at(0), trusting("SSL"), &["does not speak TLS", "security.protocol"]),
        (at(3), vec![], &["this port speaks TLS", "set security.protocol to SSL or SASL_SSL"]),
        (at(3), trusting("SSL"), &["may authenticate by SASL", "security.protocol=SASL_SSL", "sasl.mechanisms"]),
        (at(5), vec![], &["may authenticate by SASL", "security.protocol=SASL_PLAINTEXT"]),
        (at(3), with(user("SCRAM-SHA-512"), "sasl.password", "other"), &["refuses the credentials", "sasl.password"]),
        (at(3), with(user("PLAIN"), "sasl.username", "nobody"), &["refuses the credentials", "sasl.username"]),
        (at(5), with(plaintext.clone(), "sasl.mechanisms", "SCRAM-SHA-256"), &["sasl.mechanisms, but PLAIN"]),
        (at(0), plaintext, &["does not authenticate by SASL"]),
        (at(3), with(tokens(), "sasl.oauthbearer.client.secret", "other"), &["refuses the client", "client.secret"]),
        (
            at(3),
            with(tokens(), "https.ca.location", &secured.file("other-ca.pem")),
            &["certificate of the token endpoint", "https.ca.location"],
        ),
    ];
    let hosts = [("nowhere.invalid:9092", "its name cannot be resolved"), ("127.0.0.1:1", "refuses the connection")];
    std::thread::scope(|scope| {
        for (bootstrap, properties, parts) in &cases {
            scope.spawn(move || {
                let flags = flags_of(bootstrap, properties);
                let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
                let output = run("receipts", &[&["policy", "set", "*=on"], &flags[..]].concat());
                let said = errors(&output);
                assert_eq!(output.status.code(), Some(1), "{parts:?}: {said}");
                let last = said.lines().last().unwrap_or_default();
                assert!(parts.iter().all(|part| last.contains(part)), "{parts:?}: {said}");
                without_secrets(&said);
            });
        }
        for (bootstrap, part) in hosts {
            scope.spawn(move || {
                let output = run("receipts", &["policy", "set", "*=on", "--kafka-bootstrap", bootstrap]);
                let said = errors(&output);
                assert!(said.lines().last().unwrap_or_default().contains(part), "{part}: {said}");
            });
        }
    });
    // What needs no broker is told at once, and is a mistake of the configuration.
    for (name, value, part) in [
        ("ssl.truststore.location", "x", "ssl.ca.location"),
        ("security.protcol", "SSL", "did you mean security.protocol?"),
        ("sasl.jaas.config", PASSWORD, "sasl.username and sasl.password"),
        ("sasl.mechanisms", "AWS_MSK_IAM", "set security.protocol=SASL_SSL"),
    ] {
        let property = format!("{name}={value}");
        let output = run(
            "receipts",
            &["policy", "set", "*=on", "--kafka-bootstrap", "127.0.0.1:1", "--kafka-properties", &property],
        );
        let said = errors(&output);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(part), "{said}");
        without_secrets(&said);
    }
}

/// Every client outlives its tokens: the broker ends a connection whose token has expired. An
/// endpoint that refuses for a while is told once, and nothing fails while the last token lives.
#[test]
fn clients_outlive_their_tokens() {
    let Some(secured) = secured() else { return };
    let names = Names::new("tokens");
    names.grant(secured, SUBJECT, "service", |_| false);
    let endpoint = secured.another_endpoint();
    endpoint.set_life(5);
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().to_str().expect("UTF-8");
    let service = start(
        &[],
        "receipts",
        &["serve", "--http-listen", "127.0.0.1:0", "--data-dir", data],
        &[names.flags(), flags_of(&secured.sasl(), &secured.tokens(&endpoint.url()))],
    );
    _ = service.write(&json!([{"type": "members.changed", "conversation_id": "g1", "joined": ["alice", "bob"]}, sent("g1", "m1", "alice")]));
    let works = |number: usize| {
        let token = service.write(&read("g1", "m1", &format!("r{number}")));
        let answer = service.get_after(&receipt_path("g1", "m1"), &token);
        assert_eq!(answer.status, 200, "after {:?} tokens: {}", endpoint.counts(), answer.body);
    };
    // Three seconds each, so the first ones are long expired.
    let mut number = 0;
    while endpoint.counts().0 < 5 {
        works(number);
        number += 1;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    endpoint.set_life(0);
    eventually("the endpoint must refuse", || endpoint.counts().1, |refused| *refused >= 2);
    let told = |part: &str| service.errors().lines().filter(|line| line.contains(part)).count();
    assert_eq!(told("cannot be renewed"), 1, "{}", service.errors());
    endpoint.set_life(300);
    eventually("tokens must come again", || told("is renewed again"), |told| *told == 1);
    eventually("the service must be ready", || service.get("/readyz").status, |status| *status == 200);
    let said = service.errors();
    without_secrets(&said);
    assert_eq!(service.terminate(), Some(0), "{said}");
}
