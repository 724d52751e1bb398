//! `receipts support-bundle`: packs what a maintainer asks for into one archive. It holds no ids of
//! users, conversations or messages and no secrets, and it reads no record for anything but counts.

use crate::BUILD;
use crate::doctor::{self, Part};
use crate::topics;
use clap::Args;
use flate2::Compression;
use flate2::write::GzEncoder;
use receipts_assembly::{consumer_group, creating_kafka_settings, long_version};
use receipts_log::kafka::{KafkaSettings, Survey};
use receipts_runtime::clock::unix_ms;
use receipts_runtime::config::{SECRET, Settings};
use receipts_runtime::exit::{Failure, told_once};
use receipts_runtime::output::{Output, printable};
use receipts_runtime::{machine, telemetry};
use serde::Serialize;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) const EXAMPLES: &str = "Examples:
  receipts support-bundle --config receipts.toml
  receipts support-bundle --output /tmp/receipts.tar.gz --url http://127.0.0.1:9100 --data-dir /var/lib/receipts
  tar -tzf receipts-support.tar.gz";

/// The folder in the archive.
const FOLDER: &str = "receipts-support";
/// The largest answer of a service that is packed, bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

const README: &str = "What a maintainer of receipts asks for, made by `receipts support-bundle`.

version.txt          program, commit, librdkafka, formats
settings.json        settings in force, each with its origin; secrets are (secret)
doctor.json          the findings of `receipts doctor`
topics.json          `receipts topics describe`, or why it could not be made
metrics.txt          /metrics of the service
readyz.json          /readyz of the service
data-directory.json  bytes by entry of the data directory
system.json          operating system, processors, memory, disk

It holds no ids of users, conversations or messages, and no secrets. Look through it before you send it: names of hosts,
topics and folders are in it.
";

/// Arguments of `receipts support-bundle`.
#[derive(Args)]
pub(crate) struct SupportBundle {
    /// File of the archive; replaced if it exists
    #[arg(long, value_name = "FILE", default_value = "receipts-support.tar.gz")]
    output: PathBuf,
    /// URL at which the service answers operators: that of http.admin_listen, where it is set
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
    /// Part of the service that the doctor looks at
    #[arg(long, value_enum, default_value = "service")]
    part: Part,
    /// Time for each group of the doctor's checks and for each answer, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
}

/// The result as JSON.
#[derive(Serialize)]
struct Report {
    file: String,
    entries: Vec<&'static str>,
    bytes: u64,
}

/// Collects and packs.
///
/// # Errors
/// If the archive cannot be written. A part that cannot be collected is told in the archive.
pub(crate) fn run(settings: Settings, bundle: &SupportBundle, json: bool) -> Result<(), Failure> {
    telemetry::init(&receipts_runtime::config::Telemetry { log_filter: "error".into(), ..settings.telemetry.clone() })?;
    let timeout = Duration::from_secs(bundle.timeout);
    let pretty = |value: &Value| format!("{value:#}\n");
    let system = system(&settings.data_dir);
    let findings = doctor::examine(settings.clone(), bundle.part, timeout);
    let entries = [
        ("README.txt", README.to_owned()),
        ("version.txt", format!("{} {}\n", BUILD.name, long_version(&BUILD))),
        ("settings.json", pretty(&serde_json::to_value(&settings.in_force)?)),
        ("doctor.json", pretty(&serde_json::to_value(&findings)?)),
        ("topics.json", pretty(&topics(&settings, timeout))),
        ("metrics.txt", fetched(&bundle.url, "/metrics", timeout)),
        ("readyz.json", fetched(&bundle.url, "/readyz", timeout)),
        ("data-directory.json", pretty(&data_directory(&settings.data_dir))),
        ("system.json", pretty(&system)),
    ];
    let bytes = pack(&bundle.output, &entries)
        .map_err(|error| anyhow::Error::from(error).context(format!("cannot write {}", bundle.output.display())))?;
    let report = Report {
        file: bundle.output.display().to_string(),
        entries: entries.iter().map(|(name, _)| *name).collect(),
        bytes,
    };
    Ok(Output::stdout(json).write(&report, |to| {
        writeln!(to, "wrote {}: {} files, {bytes} bytes", printable(&report.file), report.entries.len())?;
        writeln!(to, "look through it before you send it: names of hosts, topics and folders are in it")
    })?)
}

/// Writes the archive, which only its owner may read; returns its length.
fn pack(output: &Path, entries: &[(&'static str, String)]) -> io::Result<u64> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Made with mode 0600, and in its place whole or not at all.
    let file = tempfile::NamedTempFile::new_in(folder)?;
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    for (name, text) in entries {
        let text = without_passwords(text);
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(unix_ms() / 1_000);
        archive.append_data(&mut header, format!("{FOLDER}/{name}"), text.as_bytes())?;
    }
    let file = archive.into_inner()?.finish()?;
    file.as_file().sync_all()?;
    let bytes = file.as_file().metadata()?.len();
    file.persist(output).map_err(|error| error.error)?;
    Ok(bytes)
}

/// Hides users and passwords in URLs, wherever they stand: sentences of other programs repeat URLs.
fn without_passwords(text: &str) -> String {
    let mut parts = text.split("://");
    let mut hidden = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| c.is_whitespace() || "/\"'?#<>,".contains(c)).unwrap_or(part.len());
        let (authority, rest) = part.split_at(end);
        hidden += "://";
        match authority.rsplit_once('@') {
            Some((_, host)) => hidden += &format!("{SECRET}@{host}"),
            None => hidden += authority,
        }
        hidden += rest;
    }
    hidden
}

fn topics(settings: &Settings, timeout: Duration) -> Value {
    let Some(bootstrap) = &settings.kafka.bootstrap else { return json!({"log": "embedded"}) };
    let kafka = KafkaSettings { connect_timeout: timeout / 3, ..creating_kafka_settings(settings, bootstrap) };
    let group = consumer_group(&settings.projector.group, settings.projector.standby);
    match Survey::connect(kafka) {
        Ok(survey) => json!(topics::describe::report(&survey, &group)),
        Err(error) => json!({"problem": error.to_string()}),
    }
}

/// Asks a service for a page; returns why it has none where it has none.
fn fetched(url: &str, path: &str, timeout: Duration) -> String {
    let asked = || -> anyhow::Result<String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let client = reqwest::Client::builder().no_proxy().timeout(timeout).build()?;
            let answer = client.get(format!("{}{path}", url.trim_end_matches('/'))).send().await?;
            let status = answer.status();
            let mut text = answer.text().await?;
            text.truncate(text.floor_char_boundary(ANSWER_BYTES_MAX));
            Ok(if status.is_success() { text } else { format!("status {status}\n{text}") })
        })
    };
    asked().unwrap_or_else(|error| format!("no answer: {}\n", told_once(error.as_ref())))
}

fn data_directory(path: &Path) -> Value {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let size = doctor::size_of_entry;
    let sizes = entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), json!(size(&entry))));
    json!({"path": path.display().to_string(), "bytes": sizes.collect::<serde_json::Map<_, _>>()})
}

fn system(data_dir: &Path) -> Value {
    let read = |path: &str| fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
    let release = read("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).map(|name| name.trim_matches('"'));
    let memory = machine::memory().map(|memory| json!({"bytes": memory.bytes, "bound": memory.bound}));
    let disk =
        machine::disk(data_dir).ok().map(|disk| json!({"free_bytes": disk.free_bytes, "bytes": disk.total_bytes}));
    json!({
        "at_ms": unix_ms(),
        "system": name,
        "kernel": read("/proc/sys/kernel/osrelease"),
        "architecture": std::env::consts::ARCH,
        "processors": std::thread::available_parallelism().ok().map(usize::from),
        "load": read("/proc/loadavg"),
        "memory": memory,
        "disk": disk,
        "container": Path::new("/.dockerenv").exists() || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_hidden() {
        for (text, wanted) in [
            ("no https://alice:hush@id.example/keys?a=1, sorry", "no https://(secret)@id.example/keys?a=1, sorry"),
            ("\"s3://key:se@cret@bucket\"", "\"s3://(secret)@bucket\""),
            ("http://127.0.0.1:8080 and user@host", "http://127.0.0.1:8080 and user@host"),
            ("plain", "plain"),
        ] {
            assert_eq!(without_passwords(text), wanted);
        }
    }
}
