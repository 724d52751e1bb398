//! What the binaries say of themselves: versions, help, settings, completions and manual pages.

use receipts_tests::process::{Service, errors, run, run_in};
use serde_json::{Value, json};
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

const BINARIES: [&str; 4] = ["receipts", "receipts-ingest", "receipts-projector", "receipts-query"];

fn printed(name: &str, arguments: &[&str]) -> String {
    let output = run(name, arguments);
    assert_eq!(output.status.code(), Some(0), "{name} {arguments:?}: {}", errors(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn every_binary_names_commit_and_formats() {
    for name in BINARIES {
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(printed(name, &["-V"]), format!("{name} {version}\n"));
        let long = printed(name, &["--version"]);
        let field = |field: &str| {
            let line = long.lines().find_map(|line| line.strip_prefix(field));
            line.unwrap_or_else(|| panic!("{field}: {long}")).trim().to_owned()
        };
        let commit = field("commit");
        assert!(commit == "unknown" || commit.len() >= 7, "{long}");
        assert!(field("librdkafka").starts_with('2'), "{long}");
        assert!(field("formats").contains("store and snapshots 2"), "{long}");
    }
}

#[test]
fn help_shows_own_arguments_then_used_settings() {
    let help = printed("receipts", &["tail", "--help"]);
    let order =
        ["--follow", "--kafka-bootstrap", "Examples:", "Exit codes:", "Settings that this command does not use"];
    let places: Vec<_> = order.iter().map(|part| help.find(part).unwrap_or_else(|| panic!("{part}: {help}"))).collect();
    assert!(places.is_sorted(), "{help}");
    assert!(!help.contains("--http-listen"), "{help}");
    for (name, shown, hidden) in [
        ("receipts-ingest", "--http-listen", "--snapshot-url"),
        ("receipts-projector", "--listen", "--http-listen"),
        ("receipts-query", "--projectors", "--data-dir"),
    ] {
        let help = printed(name, &["--help"]);
        assert!(help.contains(shown) && help.contains("Exit codes:"), "{name}: {help}");
        assert!(!help.contains(hidden), "{name}: {help}");
    }
    assert!(!printed("receipts", &["--help"]).contains("--http-listen"));
}

#[test]
fn a_start_is_one_line_with_changed_settings() {
    let folder = tempfile::tempdir().expect("a folder");
    let properties = ["--kafka-properties", "sasl.password=hush", "--projector-update-window-ms", "7"];
    let service = Service::serve(folder.path(), &properties);
    let said = service.errors();
    let starts: Vec<&str> = said.lines().filter(|line| line.contains("receipts starts")).collect();
    assert_eq!(starts.len(), 1, "{said}");
    for part in
        ["version=\"0.1.0\"", "commit=", "projector.update_window_ms=7", "kafka.properties.sasl.password=(secret)"]
    {
        assert!(starts[0].contains(part), "{part}: {said}");
    }
    assert!(!starts[0].contains("drain_ms") && !said.contains("hush"), "{said}");
    assert_eq!(service.terminate(), Some(0));
}

#[test]
fn config_check_names_all_mistakes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("receipts.toml");
    fs::write(&file, "[http]\nlistn = \"127.0.0.1:1\"\n[log]\npartitions = 0\n").expect("written");
    let file = file.to_str().expect("UTF-8");
    let wrong = run_in(&[("RECEIPTS_FOO", "1")], "receipts", &["config", "check", "--json", "--config", file]);
    assert_eq!(wrong.status.code(), Some(2), "{}", errors(&wrong));
    let said: Value = serde_json::from_slice(&wrong.stdout).expect("JSON");
    let keys: Vec<&Value> =
        said["mistakes"].as_array().expect("a list").iter().map(|mistake| &mistake["key"]).collect();
    assert_eq!(keys, [&json!("http.listn"), &json!("foo"), &json!("log.partitions")], "{said}");
    assert!(errors(&wrong).contains("line 2, key http.listn: unknown key; did you mean http.listen?"));
    for (flag, part) in [
        (["--kafka-properties", "sasl.pasword=x"], "sasl.pasword"),
        (["--query-secret-file", "/nowhere/secret"], "query.secret_file"),
    ] {
        let wrong = run("receipts", &[&["config", "check"], &flag[..]].concat());
        assert_eq!(wrong.status.code(), Some(2), "{}", errors(&wrong));
        assert!(errors(&wrong).contains(part), "{}", errors(&wrong));
    }
    assert!(printed("receipts", &["config", "check", "--drain-ms", "1"]).contains("1 settings are set"));
}

#[test]
fn printed_settings_are_a_file_without_secrets() {
    let folder = tempfile::tempdir().expect("a folder");
    let environment = [
        ("RECEIPTS_KAFKA__PROPERTIES__SASL__PASSWORD", "hush"),
        ("RECEIPTS_HTTP__ALLOWED_HOSTS", "a.example,b.example"),
    ];
    let flags = ["config", "print", "--access-tenants", "b.example.read=scope"];
    let output = run_in(&environment, "receipts", &flags);
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let lines: Vec<String> = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for line in [
        "http.allowed_hosts = [\"a.example\",\"b.example\"] # environment variable RECEIPTS_HTTP__ALLOWED_HOSTS",
        "access.tenants.\"b.example\".read = \"scope\" # flag --access-tenants",
        "log.partitions = 12 # default",
        "# kafka.bootstrap is not set",
    ] {
        assert!(lines.iter().any(|own| own == line), "{line}: {text}");
    }
    assert!(text.contains("# kafka.properties.\"sasl.password\" = (secret)") && !text.contains("hush"), "{text}");
    let file = folder.path().join("printed.toml");
    fs::write(&file, &text).expect("written");
    printed("receipts", &["config", "check", "--config", file.to_str().expect("UTF-8")]);
    let changed = printed("receipts", &["config", "print", "--changed", "--json", "--drain-ms", "1"]);
    let changed: Value = serde_json::from_str(&changed).expect("one object");
    let origin = json!({"kind": "flag", "name": "--drain-ms"});
    assert_eq!(changed, json!({"key": "drain_ms", "value": 1, "secret": false, "origin": origin}));
}

#[test]
fn schema_of_the_file_is_printed() {
    let committed = fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../schemas/config/v1.schema.json")).expect("a file");
    let committed: Value = serde_json::from_slice(&committed).expect("JSON");
    for arguments in [&["config", "schema"][..], &["config", "schema", "--json"]] {
        let printed: Value = serde_json::from_str(&printed("receipts", arguments)).expect("JSON");
        assert_eq!(printed, committed);
    }
}

#[test]
fn five_shells_complete_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        // A wrong setting does not matter.
        let output = run_in(&[("RECEIPTS_FOO", "1")], "receipts", &["completions", shell]);
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        let script = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(script.contains("dead-letters") && script.contains("kafka-bootstrap"), "{shell}");
        if shell == "bash" {
            let ask =
                "\nCOMP_WORDS=(receipts tail ev); COMP_CWORD=2\n_receipts receipts ev tail\necho \"${COMPREPLY[*]}\"\n";
            assert_eq!(by_bash(&format!("{script}{ask}")), "events\n");
        }
    }
}

fn by_bash(script: &str) -> String {
    let mut bash =
        Command::new("bash").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("bash runs: install it");
    bash.stdin.take().expect("piped").write_all(script.as_bytes()).expect("bash reads");
    let output = bash.wait_with_output().expect("it ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("man1");
    let said = printed("receipts", &["man", dir.to_str().expect("UTF-8"), "--json"]);
    let said: Value = serde_json::from_str(&said).expect("JSON");
    let pages: Vec<&str> = said["pages"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    for page in ["receipts.1", "receipts-serve.1", "receipts-tail.1", "receipts-dead-letters-replay.1"] {
        assert!(pages.contains(&page), "{page}: {pages:?}");
    }
    let tail = fs::read_to_string(dir.join("receipts-tail.1")).expect("a page");
    assert!(tail.contains("Exit codes:") && !tail.contains("http\\-listen"), "{tail}");
}
