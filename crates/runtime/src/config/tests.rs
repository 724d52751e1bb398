//! Tests the promises of the configuration to its users.

use super::*;
use std::ffi::OsString;
use std::io::Write;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn flag(key: &str, value: &str) -> Override {
    Override { key: key.to_owned(), value: value.to_owned(), flag: key.replace(['.', '_'], "-") }
}

fn toml(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().prefix("receipts").suffix(".toml").tempfile().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

/// The mistakes of a file, without its path.
fn mistakes_of(text: &str) -> Vec<String> {
    let file = toml(text);
    let mistakes = load(Some(file.path()), [], &[]).expect_err("mistakes");
    let path = file.path().display().to_string();
    mistakes.as_slice().iter().map(|mistake| mistake.to_string().replace(&path, "F")).collect()
}

#[test]
fn defaults_need_no_configuration() {
    let settings = load(None, [], &[]).expect("defaults are no mistake");
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.http.body_bytes_max, 1 << 20);
    assert_eq!((settings.log.partitions, settings.log.events_topic.as_str()), (12, "receipts.events"));
    assert_eq!((settings.kafka.bootstrap, settings.http.rate_per_s), (None, None));
    assert_eq!(settings.projector.retention_ms, 30 * 24 * 3_600_000);
}

#[test]
fn flags_win_over_environment_and_environment_over_file() {
    let file = toml("drain_ms = 1\n[log]\npartitions = 1\nevents_topic = \"e\"\n");
    let env = env(&[("RECEIPTS_DRAIN_MS", "2"), ("RECEIPTS_LOG__PARTITIONS", "2")]);
    let settings = load(Some(file.path()), env, &[flag("log.partitions", "3")]).expect("no mistake");
    assert_eq!(settings.log.partitions, 3);
    assert_eq!(settings.drain_ms, 2);
    assert_eq!(settings.log.events_topic, "e");
}

#[test]
fn all_mistakes_are_reported_with_origin_and_allowed_values() {
    let file = toml("[http]\nlistn = \"127.0.0.1:1\"\n\n[log]\npartitions = \"four\"\n");
    let env = env(&[("RECEIPTS_PROJECTOR__UPDATES", "perhaps"), ("RECEIPTS_QUERY__POL_MS", "5")]);
    let mistakes = load(Some(file.path()), env, &[flag("kafka.bootstrap", "nowhere")]).expect_err("five mistakes");
    let path = file.path().display();
    let wanted = format!(
        "5 configuration mistakes:
  file {path} line 2, key http.listn: unknown key; did you mean http.listen?
  environment variable RECEIPTS_QUERY__POL_MS: unknown key; did you mean RECEIPTS_QUERY__POLL_MS?
  file {path} line 5, key log.partitions: \"four\" is not allowed; allowed: a whole number from 1 to 10000
  flag --kafka-bootstrap: \"nowhere\" is not allowed; allowed: HOST:PORT, several separated by commas
  environment variable RECEIPTS_PROJECTOR__UPDATES: \"perhaps\" is not allowed; allowed: true, false"
    );
    assert_eq!(mistakes.to_string(), wanted);
}

#[test]
fn an_unknown_key_is_a_mistake_in_any_source() {
    assert_eq!(
        mistakes_of("[http]\ncolour = 1"),
        ["file F line 2, key http.colour: unknown key; docs/configuration.md lists all"]
    );
    assert_eq!(
        mistakes_of("listen = \"[::1]:1\""),
        ["file F line 1, key listen: unknown key; did you mean http.listen?"]
    );
    assert_eq!(mistakes_of("http = 5"), ["file F line 1, key http: unknown key; docs/configuration.md lists all"]);
}

#[test]
fn a_missing_or_malformed_file_is_a_mistake() {
    let mistakes = mistakes_of("[http]\nlisten = \n");
    assert!(mistakes[0].starts_with("file F line 2: not valid TOML: "), "{mistakes:?}");
    let missing = load(Some("/nowhere/receipts.toml".as_ref()), [], &[]).expect_err("no file");
    assert!(missing.to_string().contains("file /nowhere/receipts.toml: cannot be read: "), "{missing}");
}

#[test]
fn wrong_types_and_values_out_of_range_are_mistakes() {
    for (text, given) in [
        ("[log]\npartitions = 0", "0"),
        ("[log]\npartitions = -1", "-1"),
        ("[log]\npartitions = 99999999999999999999", "an integer beyond 64 bits"),
        ("[log]\npartitions = 1.5", "1.5"),
        ("[log]\npartitions = true", "true"),
        ("[log]\nevents_topic = \"a b\"", "\"a b\""),
        ("[http]\nlisten = \"example.org:80\"", "\"example.org:80\""),
        ("[query]\nprojectors = [1]", "a list whose items are not all texts"),
        ("[query]\nprojectors = [\"a:1\", \"b\"]", "[\"a:1\", \"b\"]"),
        ("[telemetry]\nlog_filter = \"a=loud\"", "\"a=loud\""),
        ("[telemetry]\nlog_format = \"xml\"", "\"xml\""),
        ("[telemetry]\notlp_endpoint = \"http://key@host\"", "\"http://key@host\""),
        ("[telemetry]\ntrace_ratio = 1.01", "1.01"),
        ("[telemetry]\ntrace_ratio = nan", "nan"),
        ("[telemetry]\ntrace_ratio = 2", "2"),
        ("data_dir = \"\"", "\"\""),
    ] {
        let mistakes = mistakes_of(text);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].contains(&format!(": {given} is not allowed; allowed: ")), "{mistakes:?}");
    }
}

/// The algorithms with public keys.
const PUBLIC: [Algorithm; 5] =
    [Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa];

#[test]
fn tokens_permit_any_address_and_need_an_issuer() {
    let listen = flag("http.listen", "0.0.0.0:80");
    let keys = [flag("auth.jwks_file", "keys.json"), flag("auth.issuer", "i"), flag("auth.audience", "a")];
    let settings = load(None, [], &[&[listen.clone()][..], &keys].concat()).expect("no mistake");
    assert_eq!(settings.auth.algorithms, PUBLIC);
    assert_eq!(settings.warnings(), Vec::<String>::new());
    let refused = load(None, [], &[listen]).expect_err("a stranger").to_string();
    assert!(refused.contains("flag --http-listen") && refused.contains("--auth-jwks-file"), "{refused}");
    let mistakes = |flags: &[Override]| load(None, [], flags).expect_err("mistakes").to_string();
    assert!(mistakes(&[flag("auth.secret_file", "s")]).contains("auth.issuer: must be set together with"));
    for issuer in ["i", "https://", "ftp://id.example", "https://id.example/?a"] {
        let said = mistakes(&[flag("auth.issuer", issuer)]);
        assert!(said.contains("--auth-issuer: without keys it must be the URL"), "{said}");
    }
    let other = mistakes(&[&keys[..], &[flag("auth.algorithms", "HS256")]].concat());
    assert!(other.contains("--auth-algorithms") && other.contains("auth.secret_file"), "{other}");
    assert!(mistakes(&[&keys[..], &[flag("auth.algorithms", "none")]].concat()).contains("HS256, RS256"));
    let renamed = load(None, [], &[&keys[..], &[flag("auth.algorithms", "Ed25519")]].concat()).expect("no mistake");
    assert_eq!(renamed.auth.algorithms, [Algorithm::EdDsa]);
}

#[test]
fn issuer_alone_names_its_keys() {
    let issuer = "https://id.example/realms/r";
    let settings =
        load(None, [], &[flag("auth.issuer", issuer), flag("http.listen", "0.0.0.0:80")]).expect("no mistake");
    assert_eq!((settings.auth.described_issuer(), settings.auth.is_configured()), (Some(issuer), true));
    assert_eq!((settings.auth.algorithms.as_slice(), settings.auth.audience.as_str()), (&PUBLIC[..], "receipts"));
    for other in ["auth.jwks_file", "auth.jwks_url", "auth.secret_file"] {
        let settings = load(None, [], &[flag("auth.issuer", issuer), flag(other, "https://k")]).expect("no mistake");
        assert_eq!(settings.auth.described_issuer(), None, "{other}");
    }
    for (issuer, warnings) in [(issuer, 0), ("http://127.0.0.1:1", 0), ("http://keycloak:8080/realms/r", 1)] {
        let settings = load(None, [], &[flag("auth.issuer", issuer)]).expect("a URL");
        assert_eq!(settings.warnings().len(), warnings, "{issuer}");
    }
}

#[test]
fn names_of_roles_stand_for_scopes() {
    let file = toml(
        "[auth]\nscope_claims = [\"roles\"]\n[auth.scope_map]\n\"chat-admin\" = \"receipts:members\"\n\
         \"a.b c\" = [\"receipts:own\", \"receipts:erase\"]",
    );
    let more = [flag("auth.scope_map", "w=receipts:write receipts:members,x=receipts:policy")];
    let auth = load(Some(file.path()), [], &more).expect("no mistake").auth;
    assert_eq!(auth.scope_claims, ["roles"]);
    let wanted = [
        ("a.b c", vec![Scope::Own, Scope::Erase]),
        ("chat-admin", vec![Scope::Members]),
        ("w", vec![Scope::Write, Scope::Members]),
        ("x", vec![Scope::Policy]),
    ];
    assert_eq!(auth.scope_map, wanted.map(|(name, scopes)| (name.to_owned(), scopes)).into());
    for (map, given) in [("a=admin", "\"admin\""), ("a=", "\"\""), ("a=receipts:own receipts:x", "receipts:x")] {
        let said = load(None, [], &[flag("auth.scope_map", map)]).expect_err(map).to_string();
        assert!(said.contains(given) && said.contains("receipts:own, receipts:members"), "{said}");
    }
}

#[test]
fn keys_come_from_one_valid_url_or_one_file() {
    let beside = [flag("auth.issuer", "i"), flag("auth.audience", "a")];
    let with = |more: &[Override]| load(None, [], &[&beside[..], more].concat());
    let url = "https://id.example:8443/keys?v=1";
    let settings = with(&[flag("auth.jwks_url", url), flag("http.listen", "0.0.0.0:80")]).expect("no mistake");
    assert_eq!((settings.auth.jwks_url.as_deref(), settings.auth.jwks_timeout_ms), (Some(url), 5_000));
    assert_eq!(settings.auth.algorithms, PUBLIC);
    for (url, warnings) in [
        (url, 0),
        ("http://127.0.0.1:1/k", 0),
        ("http://[::1]/k", 0),
        ("http://localhost/k", 0),
        ("http://keycloak:8080/k", 1),
    ] {
        let settings = with(&[flag("auth.jwks_url", url)]).expect("a URL");
        assert_eq!(settings.warnings().len(), warnings, "{url}");
    }
    for url in [
        "id.example/keys",
        "ftp://id.example",
        "https://",
        "https:///keys",
        "https://u:p@id.example",
        "https://id.example/#k",
        "https://id.example:x/",
        "https://[::1/",
        "https://id example/",
    ] {
        let mistakes = with(&[flag("auth.jwks_url", url)]).expect_err(url).to_string();
        assert!(mistakes.contains("--auth-jwks-url") && mistakes.contains("https://HOST/PATH"), "{mistakes}");
    }
    let both = with(&[flag("auth.jwks_url", url), flag("auth.jwks_file", "k")]).expect_err("both").to_string();
    assert!(both.contains("--auth-jwks-url: must not be set together with auth.jwks_file"), "{both}");
}

#[test]
fn rules_of_a_tenant_complete_those_for_all() {
    let file = toml(
        "[access]\nread = \"scope\"\n[access.tenants.acme]\nunread = \"nobody\"\n[access.tenants.\"b.example\"]\nread = \"sender\"\n",
    );
    let env = env(&[("RECEIPTS_ACCESS__TENANTS__ACME__COUNTS", "sender"), ("RECEIPTS_ACCESS__DEPARTED", "nobody")]);
    let flags = [flag("access.tenants", "acme.unread=scope"), flag("access.tenants", "Zoë.counts=nobody")];
    let Access { all, tenants } = load(Some(file.path()), env, &flags).expect("no mistake").access;
    let wanted = AccessRules {
        counts: AccessRule::SenderAndScope,
        read: AccessRule::Scope,
        unread: AccessRule::SenderAndScope,
        departed: AccessRule::Nobody,
    };
    assert_eq!(all, wanted);
    let tenants: Vec<_> = tenants.iter().map(|(tenant, rules)| (tenant.as_str(), *rules)).collect();
    let wanted = [
        ("Zoë", AccessRules { counts: AccessRule::Nobody, ..wanted }),
        ("acme", AccessRules { counts: AccessRule::Sender, unread: AccessRule::Scope, ..wanted }),
        ("b.example", AccessRules { read: AccessRule::Sender, ..wanted }),
    ];
    assert_eq!(tenants, wanted, "the flag wins over the file");
}

#[test]
fn all_mistakes_in_tenant_rules_are_reported() {
    let mistakes = mistakes_of(
        "[access.tenants]\nacme = \"nobody\"\n[access.tenants.\"a/b\"]\nread = \"sender\"\n[access.tenants.b]\nunred = \"scope\"\nread = \"all\"\ncounts = 1\n",
    );
    assert_eq!(mistakes.len(), 5, "{mistakes:?}");
    let has = |line: u32, parts: &[&str]| {
        let of_line = format!("file F line {line}, key access.tenants.");
        mistakes.iter().any(|said| said.starts_with(&of_line) && parts.iter().all(|part| said.contains(part)))
    };
    assert!(has(2, &["\"acme\" is not allowed", "TENANT.counts, TENANT.read, TENANT.unread, TENANT.departed"]));
    assert!(has(4, &["\"a/b.read\" is not allowed", "no slash"]));
    assert!(has(6, &["\"b.unred\" is not allowed", "TENANT.unread"]));
    assert!(has(7, &["\"all\" is not allowed for b.read", "sender_and_scope, sender, scope, nobody"]));
    assert!(has(8, &["1 is not allowed for b.counts"]));
    let flag = load(None, [], &[flag("access.tenants", "acme")]).expect_err("no value").to_string();
    assert!(flag.contains("--access-tenants: not allowed; allowed: NAME=VALUE"), "{flag}");
}

#[test]
fn without_authentication_only_loopback_is_listened_at() {
    for address in ["0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080"] {
        let mistakes = load(None, [], &[flag("http.listen", address)]).expect_err("not loopback");
        let text = mistakes.to_string();
        assert!(text.contains(&format!("flag --http-listen: {address} is no loopback address")), "{text}");
        let permitted = [flag("http.listen", address), flag("http.insecure_listen", "true")];
        let settings = load(None, [], &permitted).expect("permitted by name");
        assert_eq!(settings.warnings().len(), 1);
    }
    for address in ["127.0.0.1:0", "127.1.2.3:80", "[::1]:80", "localhost:80"] {
        let settings = load(None, [], &[flag("http.listen", address)]).expect("loopback");
        assert!(settings.warnings().is_empty());
    }
}

#[test]
fn topics_must_differ() {
    let mistakes = load(None, env(&[("RECEIPTS_LOG__UPDATES_TOPIC", "receipts.events")]), &[]).expect_err("the same");
    assert!(
        mistakes.to_string().contains("RECEIPTS_LOG__UPDATES_TOPIC: \"receipts.events\" is already another"),
        "{mistakes}"
    );
}

#[test]
fn kafka_properties_take_any_name_and_hide_values() {
    let file = toml("[kafka.properties]\n\"security.protocol\" = \"SASL_SSL\"\nsocket.timeout.ms = 5000\n");
    let env = env(&[("RECEIPTS_KAFKA__PROPERTIES__SASL__PASSWORD", "s3cret")]);
    let flags = [flag("kafka.properties", "client.id=a=b"), flag("kafka.properties", "linger.ms=5")];
    let kafka = load(Some(file.path()), env, &flags).expect("no mistake").kafka;
    let properties: Vec<_> = kafka.properties.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let wanted = [
        "client.id=a=b",
        "linger.ms=5",
        "sasl.password=s3cret",
        "security.protocol=SASL_SSL",
        "socket.timeout.ms=5000",
    ];
    assert_eq!(properties, wanted);
    assert!(!format!("{kafka:?}").contains("s3cret"));
    let mistakes = load(None, [], &[flag("kafka.properties", "s3cret")]).expect_err("no name");
    assert!(
        mistakes.to_string().contains("--kafka-properties") && !mistakes.to_string().contains("s3cret"),
        "{mistakes}"
    );
}

#[test]
fn several_properties_are_separated_by_commas() {
    let properties = |sources: (&[(&str, &str)], &[Override])| {
        let kafka = load(None, env(sources.0), sources.1).expect("no mistake").kafka;
        kafka.properties.0.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
    };
    let text = r"debug=broker\,topic, client.id=a\b,linger.ms=5,x=";
    let wanted = [r"client.id=a\b", "debug=broker,topic", "linger.ms=5", "x="];
    assert_eq!(properties((&[("RECEIPTS_KAFKA__PROPERTIES", text)], &[])), wanted);
    assert_eq!(properties((&[], &[flag("kafka.properties", text)])), wanted);
    let whole = [("RECEIPTS_KAFKA__PROPERTIES__DEBUG", "broker,topic"), ("RECEIPTS_KAFKA__PROPERTIES", "a=1")];
    assert_eq!(properties((&whole, &[])), ["a=1", "debug=broker,topic"]);
    let tenants = env(&[("RECEIPTS_ACCESS__TENANTS", "Acme.unread=nobody,b.read=sender")]);
    assert_eq!(load(None, tenants, &[]).expect("no mistake").access.tenants.len(), 2);
    let mistakes =
        load(None, env(&[("RECEIPTS_KAFKA__PROPERTIES", "a=1,s3cret")]), &[]).expect_err("no name").to_string();
    assert!(mistakes.contains("RECEIPTS_KAFKA__PROPERTIES: ") && mistakes.contains(r"written \,"), "{mistakes}");
    assert!(!mistakes.contains("s3cret"), "{mistakes}");
}

#[test]
fn properties_come_from_files_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.to_str().expect("UTF-8").to_owned()
    };
    let many = write("kafka.properties", "# ours\nsecurity.protocol = SASL_SSL\n\nlinger.ms=1\nsasl.password=a=b\n");
    let password = write("password", "s3cret\n");
    let variables =
        [("RECEIPTS_KAFKA__PROPERTIES_FILE", &*many), ("RECEIPTS_KAFKA__PROPERTY_FILES__SASL__PASSWORD", &password)];
    let kafka = load(None, env(&variables), &[flag("kafka.properties", "linger.ms=5")]).expect("no mistake").kafka;
    let properties: Vec<_> = kafka.properties.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(properties, ["linger.ms=5", "sasl.password=s3cret", "security.protocol=SASL_SSL"]);
    assert_eq!(kafka.property_files["sasl.password"], std::path::PathBuf::from(&password));
    let only = load(None, [], &[flag("kafka.properties_file", &many)]).expect("no mistake").kafka;
    assert_eq!(only.properties.0["sasl.password"], "a=b");

    let wrong = write("wrong", "linger.ms=1\ns3cret\nlinger.ms=2\n");
    let flags = [
        flag("kafka.properties_file", &wrong),
        flag("kafka.property_files", "sasl.password=/nowhere/password"),
        flag("kafka.properties", "sasl.password=s3cret"),
    ];
    let mistakes = load(None, [], &flags).expect_err("four mistakes");
    let said = mistakes.to_string();
    assert_eq!(mistakes.as_slice().len(), 4, "{said}");
    for part in [
        &format!("file {wrong} line 2: not allowed"),
        &format!("file {wrong} line 3: linger.ms stands twice"),
        "flag --kafka-property-files: /nowhere/password cannot be read",
        "flag --kafka-property-files: must not be set together with kafka.properties.sasl.password",
    ] {
        assert!(said.contains(part) && !said.contains("s3cret"), "{part} is not in {said}");
    }
}

#[test]
fn no_mistake_proposes_the_same_word() {
    for key in ["kafka.properties", "kafka.property_files", "access.tenants"] {
        let (section, name) = key.split_once('.').expect("a section");
        let mistakes = mistakes_of(&format!("[{section}]\n{name} = \"a=b\""));
        assert_eq!(
            mistakes,
            [format!("file F line 2, key {key}: not allowed; allowed: a section [{key}] of names and values")]
        );
    }
}

#[test]
fn variables_of_kubernetes_services_are_no_settings() {
    let services = [
        ("RECEIPTS_SERVICE_HOST", "10.96.7.1"),
        ("RECEIPTS_PORT", "tcp://10.96.7.1:8080"),
        ("RECEIPTS_PORT_8080_TCP", "tcp://10.96.7.1:8080"),
        ("RECEIPTS_QUERY_SERVICE_PORT_HTTP", "80"),
        ("RECEIPTS_QUERY_PORT", "tcp://10.96.7.2:80"),
    ];
    let settings = load(None, env(&services), &[]).expect("no mistake");
    assert_eq!(settings.foreign_variables.len(), services.len());
    let misspelled =
        [("RECEIPTS_HTTP_LISTEN", "127.0.0.1:1"), ("RECEIPTS_HTTP__PORT", "80"), ("RECEIPTS_PORT", "8080")];
    let mistakes = load(None, env(&[&services[..1], &misspelled].concat()), &[]).expect_err("three mistakes");
    assert_eq!(mistakes.as_slice().len(), 3, "{mistakes}");
    assert!(mistakes.to_string().contains("RECEIPTS_HTTP_LISTEN: unknown key; did you mean RECEIPTS_HTTP__LISTEN?"));
}

#[test]
fn web_pages_and_hosts_are_listed_by_rule() {
    let list = |key: &str, value: &str| load(None, [], &[flag(key, value)]);
    let http = list("http.allowed_origins", "https://a.example,http://b:81").expect("origins").http;
    assert_eq!(http.allowed_origins, ["https://a.example", "http://b:81"]);
    assert_eq!(list("http.allowed_hosts", "receipts.internal,*").expect("hosts").http.allowed_hosts.len(), 2);
    for (key, value) in [
        ("http.allowed_origins", "a.example"),
        ("http.allowed_origins", "https://a.example/"),
        ("http.allowed_origins", "null"),
        ("http.allowed_hosts", "a:80"),
        ("http.allowed_hosts", "http://a"),
        ("http.allowed_hosts", ""),
    ] {
        assert!(list(key, value).is_err(), "{key} {value}");
    }
}

#[test]
fn name_of_the_binary_is_no_setting() {
    let settings = load(None, env(&[("RECEIPTS_BIN", "/usr/bin/receipts"), ("RECEIPTS_LOG", "warn")]), &[]);
    let settings = settings.expect("no mistake");
    assert_eq!(settings.origin("telemetry.log_filter"), Some(&Origin::Env("RECEIPTS_LOG".into())));
    assert_eq!(settings.origin("data_dir"), None);
}

#[test]
fn the_full_name_of_the_log_filter_wins() {
    let short = ("RECEIPTS_LOG", "debug");
    let filter = |pairs: &[_]| load(None, env(pairs), &[]).expect("no mistake").telemetry.log_filter;
    assert_eq!(filter(&[short]), "debug");
    assert_eq!(filter(&[("RECEIPTS_TELEMETRY__LOG_FILTER", "warn"), short]), "warn");
    let mistakes = load(None, env(&[("RECEIPTS_LOG", "a=loud")]), &[]).expect_err("no filter");
    assert!(
        mistakes.to_string().contains("environment variable RECEIPTS_LOG: \"a=loud\" is not allowed"),
        "{mistakes}"
    );
}

#[test]
fn the_full_name_of_the_collector_wins() {
    let theirs = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318");
    let telemetry = |pairs: &[_]| load(None, env(pairs), &[]).expect("no mistake").telemetry;
    assert_eq!(telemetry(&[theirs]).otlp_endpoint.as_deref(), Some("http://a:4318"));
    let ours = ("RECEIPTS_TELEMETRY__OTLP_ENDPOINT", "https://b/otlp");
    assert_eq!(telemetry(&[ours, theirs]).otlp_endpoint.as_deref(), Some("https://b/otlp"));
    assert_eq!(telemetry(&[("RECEIPTS_TELEMETRY__TRACE_RATIO", "0.25")]).trace_ratio, 0.25);
}

#[test]
fn foreign_empty_and_test_variables_are_ignored() {
    let pairs = [
        ("RECEIPTS_TEST_KAFKA", "off"),
        ("RECEIPTS_CONFIG", "x.toml"),
        ("PATH", "/bin"),
        ("RECEIPTS_KAFKA__BOOTSTRAP", ""),
    ];
    assert_eq!(load(None, env(&pairs), &[]).expect("no mistake").kafka.bootstrap, None);
}

fn command() -> clap::Command {
    let first = [Named::usual("http.listen"), Named::by("query.projectors", "projectors")];
    with_flags(clap::Command::new("receipts").subcommand(clap::Command::new("serve")), &first)
}

#[test]
fn every_key_is_a_flag_anywhere() {
    command().debug_assert();
    let arguments = [
        "receipts",
        "--log-partitions",
        "8",
        "serve",
        "--projectors",
        "a:1,b:2",
        "--kafka-properties",
        "x=1",
        "--kafka-properties",
        "y=2",
        "--http-insecure-listen",
        "--http-listen",
        "0.0.0.0:80",
        "--projector-updates=off",
    ];
    let matches = command().try_get_matches_from(arguments).expect("known flags");
    let settings = load(None, [], &overrides(&matches)).expect("no mistake");
    assert_eq!((settings.log.partitions, settings.query.projectors.len()), (8, 2));
    assert_eq!((settings.kafka.properties.0.len(), settings.projector.updates), (2, false));
    assert!(settings.http.insecure_listen);
}

#[test]
fn switches_take_a_value_in_any_spelling() {
    let load = |line: &str| {
        let arguments = joined(format!("receipts {line}").split(' ').map(Into::into));
        let matches = command().try_get_matches_from(arguments).map_err(|error| error.to_string())?;
        let settings = load(None, [], &overrides(&matches)).map_err(|mistakes| mistakes.to_string())?;
        Ok::<_, String>((settings.projector.updates, settings.http.insecure_listen))
    };
    assert_eq!(load("serve"), Ok((true, false)));
    for line in ["serve --projector-updates false", "--projector-updates=false serve", "--projector-updates off serve"]
    {
        assert_eq!(load(line), Ok((false, false)), "{line}");
    }
    for line in [
        "--http-insecure-listen serve",
        "serve --http-insecure-listen --drain-ms 1",
        "serve --http-insecure-listen true",
    ] {
        assert_eq!(load(line), Ok((true, true)), "{line}");
    }
    assert!(load("serve --projector-updates=perhaps").is_err_and(|said| said.contains("allowed: true, false")));
    assert!(load("serve --projector-updates perhaps").is_err());
    let behind: Vec<OsString> =
        ["x", "--projector-standby", "--", "--projector-updates", "false"].map(Into::into).into();
    assert_eq!(joined(behind.clone()), behind);
}

#[test]
fn a_renamed_flag_keeps_its_usual_name() {
    for name in ["--projectors", "--query-projectors"] {
        let matches = command().try_get_matches_from(["receipts", "serve", name, "a:1"]).expect("known");
        assert_eq!(load(None, [], &overrides(&matches)).expect("no mistake").query.projectors, ["a:1"]);
    }
}

#[test]
fn the_last_of_a_repeated_flag_wins() {
    let matches = command().try_get_matches_from(["receipts", "--drain-ms", "1", "--drain-ms", "2"]).expect("known");
    assert_eq!(load(None, [], &overrides(&matches)).expect("no mistake").drain_ms, 2);
}

#[test]
fn a_flag_or_else_a_variable_names_the_file() {
    let env = env(&[(FILE_ENV, "env.toml")]);
    let by = |arguments: &[&str]| file(&command().try_get_matches_from(arguments).expect("known"), &env);
    assert_eq!(by(&["receipts", "serve", "--config", "flag.toml"]), Some("flag.toml".into()));
    assert_eq!(by(&["receipts", "serve"]), Some("env.toml".into()));
}

#[test]
fn short_help_shows_first_settings_long_help_all() {
    let short = command().render_help().to_string();
    assert!(short.contains("--http-listen") && short.contains("--projectors"), "{short}");
    assert!(!short.contains("--projector-memory-bytes"), "{short}");
    let long = command().render_long_help().to_string();
    assert!(long.contains("--projector-memory-bytes") && long.contains("RECEIPTS_PROJECTOR__MEMORY_BYTES"), "{long}");
}

#[test]
fn docs_hold_the_reference_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    let wanted = reference_markdown();
    if std::env::var_os("RECEIPTS_TEST_BLESS").is_some() {
        std::fs::write(&path, &wanted).expect("docs/ is writable");
    }
    let found = std::fs::read_to_string(&path).expect("docs/configuration.md");
    assert!(
        found == wanted,
        "docs/configuration.md is not up to date: RECEIPTS_TEST_BLESS=1 cargo test -p receipts-runtime"
    );
}

#[test]
fn committed_schema_is_that_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/config/v1.schema.json");
    let wanted = schema();
    if std::env::var_os("RECEIPTS_TEST_BLESS").is_some() {
        let text = serde_json::to_string_pretty(&wanted).expect("JSON");
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("schemas/ is writable");
        std::fs::write(&path, format!("{text}\n")).expect("schemas/ is writable");
    }
    let found = std::fs::read(&path).expect("schemas/config/v1.schema.json");
    let found: serde_json::Value = serde_json::from_slice(&found).expect("JSON");
    assert!(
        found == wanted,
        "schemas/config/v1.schema.json is not up to date: RECEIPTS_TEST_BLESS=1 cargo test -p receipts-runtime"
    );
}

/// What an editor says of a file: the paths of its mistakes.
fn marked(text: &str) -> Vec<String> {
    let value: serde_json::Value = toml::from_str(text).expect("TOML");
    let validator = jsonschema::validator_for(&schema()).expect("a schema");
    validator.iter_errors(&value).map(|error| error.instance_path().to_string()).collect()
}

/// Files that are right, in all forms that values take.
const RIGHT: [&str; 7] = [
    "",
    "data_dir = \"/var/lib/receipts\"\nhttp.listen = \"localhost:0\"\nsecret_files_strict = true\n",
    "[http]\nlisten = \"[::1]:80\"\nallowed_origins = [\"https://a.example:81\", \"*\"]\nallowed_hosts = \"b\"\n",
    "[kafka]\nbootstrap = \"a:1, b:2\"\n[kafka.properties]\nsecurity.protocol = \"SSL\"\n\"linger.ms\" = 5\ndebug = true\n",
    "[access.tenants]\nacme.read = \"scope\"\n\"b.example\".counts = \"nobody\"\nc.d.unread = \"sender\"\n",
    "[auth]\nissuer = \"https://id.example\"\nalgorithms = [\"EdDSA\", \"ES384\"]\n[auth.scope_map]\n\
     chat-admin = \"receipts:members  receipts:write\"\na.b = [\"receipts:own\"]\n",
    "[projector]\nunwrap = \"confluent\"\nretention_ms = 1\n[telemetry]\nlog_filter = \"info,receipts_log=debug\"\n",
];

#[test]
fn right_files_have_no_marks_in_an_editor() {
    for text in RIGHT {
        load(Some(toml(text).path()), [], &[]).unwrap_or_else(|mistakes| panic!("{text}: {mistakes}"));
        assert_eq!(marked(text), [""; 0], "{text}");
    }
    let all: Vec<String> = load(None, [], &[]).expect("no mistake").in_force.iter().map(InForce::toml).collect();
    assert_eq!(marked(&all.join("\n")), [""; 0], "the defaults");
}

#[test]
fn an_editor_marks_misspelt_keys_and_values() {
    for (text, path) in [
        ("data_dirr = \"x\"", ""),
        ("[htpp]\nlisten = \"a\"", ""),
        ("[http]\nlisten_at = \"127.0.0.1:1\"", "/http"),
        ("[http]\nlisten = \"here\"", "/http/listen"),
        ("[log]\npartitions = 0", "/log/partitions"),
        ("[log]\npartitions = \"4\"", "/log/partitions"),
        ("[projector]\nunwrap = \"avro\"", "/projector/unwrap"),
        ("[projector]\nupdates = \"yes\"", "/projector/updates"),
        ("[query]\nprojectors = [\"a\"]", "/query/projectors"),
        ("[access.tenants.acme]\nread = \"all\"", "/access/tenants/acme/read"),
        ("[access.tenants.acme]\nunred = \"scope\"", "/access/tenants/acme/unred"),
        ("[auth.scope_map]\nadmin = \"receipts:reed\"", "/auth/scope_map/admin"),
        ("[kafka.properties]\ndebug = 1.5", "/kafka/properties/debug"),
    ] {
        assert!(load(Some(self::toml(text).path()), [], &[]).is_err(), "{text}");
        assert_eq!(marked(text), [path], "{text}");
    }
}

#[test]
fn settings_in_force_name_their_origin() {
    let file = toml("[http]\nlisten = \"127.0.0.1:9\"\n\n[kafka.properties]\nsecurity.protocol = \"SSL\"\n");
    let folder = tempfile::tempdir().expect("a folder");
    let (many, password) = (folder.path().join("many"), folder.path().join("password"));
    std::fs::write(&many, "# ours\nssl.key.password=hush\nlinger.ms=7\n").expect("written");
    std::fs::write(&password, "s3cret\n").expect("written");
    let pairs = [
        ("RECEIPTS_KAFKA__PROPERTIES_FILE", many.to_str().expect("UTF-8")),
        ("RECEIPTS_KAFKA__PROPERTY_FILES__SASL__PASSWORD", password.to_str().expect("UTF-8")),
        ("RECEIPTS_LOG", "debug"),
    ];
    let flags =
        [flag("kafka.properties", "linger.ms=5"), flag("log.partitions", "12"), flag("snapshot.url", "s3://u:p@b")];
    let settings = load(Some(file.path()), env(&pairs), &flags).expect("no mistake");
    let of = |key: &str| {
        let mut found = settings.in_force.iter().filter(|setting| setting.key == key);
        let setting = found.next().unwrap_or_else(|| panic!("{key}"));
        assert!(found.next().is_none(), "{key} stands twice");
        (
            setting.toml(),
            setting.origin.to_string().replace(&file.path().display().to_string(), "F"),
            setting.is_default,
        )
    };
    for (key, line, origin, is_default) in [
        ("http.listen", "http.listen = \"127.0.0.1:9\"", "file F line 2", false),
        ("http.insecure_listen", "http.insecure_listen = false", "default", true),
        ("kafka.bootstrap", "# kafka.bootstrap is not set", "default", true),
        ("access.tenants", "# access.tenants is not set", "default", true),
        ("log.partitions", "log.partitions = 12", "flag --log-partitions", true),
        ("telemetry.log_filter", "telemetry.log_filter = \"debug\"", "environment variable RECEIPTS_LOG", false),
        ("snapshot.url", "snapshot.url = \"s3://(secret)@b\"", "flag --snapshot-url", false),
        ("kafka.properties.linger.ms", "kafka.properties.\"linger.ms\" = \"5\"", "flag --kafka-properties", false),
        (
            "kafka.properties.security.protocol",
            "kafka.properties.\"security.protocol\" = \"SSL\"",
            "file F line 5",
            false,
        ),
    ] {
        assert_eq!(of(key), (line.to_owned(), origin.to_owned(), is_default), "{key}");
    }
    let hidden = of("kafka.properties.ssl.key.password");
    assert_eq!(hidden.0, "# kafka.properties.\"ssl.key.password\" = (secret)");
    assert!(hidden.1.ends_with("many line 2"), "{hidden:?}");
    assert!(of("kafka.properties.sasl.password").0.ends_with("(secret)"));
    let all = format!("{:?}", settings.in_force);
    assert!(!all.contains("hush") && !all.contains("s3cret"), "{all}");
}
