//! Writes one control event into every partition of an existing log, and prints the locations.
//!
//! Must not know what the event means, and must not report "nothing was written" if a copy may be.
//! INV-COPIES.

use anyhow::{Context as _, anyhow};
use clap::Args;
use receipts_assembly::{ACKNOWLEDGE_TIMEOUT, InUse};
use receipts_event::{Body, Event, TENANT_DEFAULT, copies, decode};
use receipts_http::AUDIT_TARGET;
use receipts_log::{AppendError, Entry, Location, PendingAppend, Topic, Writer, outcome};
use receipts_query::{LogTag, Positions};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use serde::Serialize;
use std::time::Duration;
use tokio::time::Instant;

/// The tenant argument of a control event.
#[derive(Args)]
pub(crate) struct Tenant {
    /// Tenant for which the command holds; other tenants do not change.
    #[arg(long, value_name = "TENANT", default_value = TENANT_DEFAULT)]
    pub(crate) tenant: String,
}

/// The result as JSON.
#[derive(Serialize)]
struct Report<'a> {
    log: &'a str,
    event: &'a Event<'a>,
    written: Vec<PartitionOffset>,
    /// A token: a read with it in `Receipts-Min-Position` sees the event.
    position: String,
}

/// The location of one copy.
#[derive(Serialize)]
struct PartitionOffset {
    partition: u32,
    offset: u64,
}

/// Checks an event by the rules of the log's readers, and names problems by arguments. `arguments`
/// maps the beginning of a field's JSON Pointer to its argument.
///
/// # Errors
/// A usage failure that lists every problem.
pub(crate) fn check(event: &Event<'_>, arguments: &[(&str, &str)]) -> Result<(), Failure> {
    let Err(rejection) = decode(&event.to_json()) else { return Ok(()) };
    let problems = rejection.problems.iter().map(|problem| {
        let all = arguments.iter().chain(&[("/tenant", "--tenant")]);
        let argument = all.into_iter().find(|(field, _)| problem.pointer.starts_with(field));
        format!("{} {}", argument.map_or(problem.pointer.as_str(), |(_, argument)| argument), problem.detail)
    });
    Err(Failure::usage(problems.collect::<Vec<_>>().join("; ")))
}

/// Writes a copy of the event into every partition and prints the locations, for people below
/// `headline`.
///
/// # Errors
/// If there is no log, another process has it, or a partition has not acknowledged its copy; the
/// last with the outcome of each partition.
pub(crate) fn write(settings: &Settings, event: &Event<'_>, headline: &str, json: bool) -> Result<(), Failure> {
    let opened =
        receipts_assembly::open_existing_log(settings).map_err(|failure| elsewhere(failure, settings, event))?;
    let outcomes = append(&*opened.log.writer(), opened.log.partition_count(), event, ACKNOWLEDGE_TIMEOUT)?;
    audit(event, &outcomes);
    let written = all_written(&outcomes)?;
    let positions: Positions = written.iter().map(|copy| (copy.partition, copy.offset + 1)).collect();
    let log = opened.log.tag(Topic::Events).map(LogTag);
    let report = Report { log: &opened.name, event, written, position: positions.token(log).to_string() };
    let printed = Output::stdout(json).write(&report, |to| {
        writeln!(to, "{headline}")?;
        write!(
            to,
            "written into all {} partitions of {}:",
            report.written.len(),
            receipts_assembly::log_location(settings)
        )?;
        for PartitionOffset { partition, offset } in &report.written {
            write!(to, " {partition}@{offset}")?;
        }
        writeln!(to, " (partition@offset)\nposition {}", report.position)
    });
    Ok(printed.context("the event is in every partition, but the result cannot be printed")?)
}

/// Writes the audit line of the command, which has the fields of those of requests. It names the
/// user of the operating system, and not the person whom the event is about.
fn audit(event: &Event<'_>, outcomes: &[Result<Location, AppendError>]) {
    let written = outcomes.iter().flatten().map(|location| format!("{}@{}", location.partition, location.offset));
    let positions = written.collect::<Vec<_>>().join(" ");
    let is_certain = |outcome: &Result<Location, AppendError>| {
        outcome.as_ref().err().is_some_and(|error| !error.may_have_happened())
    };
    let outcome = if outcomes.iter().all(Result::is_ok) {
        "written"
    } else if outcomes.iter().all(is_certain) {
        "not written"
    } else {
        "open"
    };
    let act = if matches!(event.body, Body::UserErased(_)) { "erasure" } else { "policy" };
    let (tenant, uid) = (&*event.tenant, receipts_runtime::uid());
    tracing::info!(target: AUDIT_TARGET, act, outcome, tenant, uid, positions, "a command wrote a control event");
}

/// Appends all copies and waits for every outcome; returns them in the order of the partitions.
fn append(
    writer: &dyn Writer,
    partition_count: u32,
    event: &Event<'_>,
    timeout: Duration,
) -> std::io::Result<Vec<Result<Location, AppendError>>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (key, value) = (event.key(), event.to_json());
    let entries = copies(&value, partition_count);
    let appended: Vec<PendingAppend> =
        entries.map(|(partition, copy)| writer.append(Entry::event(key.clone(), copy, Some(partition)))).collect();
    Ok(runtime.block_on(async {
        let deadline = Instant::now() + timeout;
        let mut outcomes = Vec::with_capacity(appended.len());
        for appended in appended {
            outcomes.push(outcome(appended, deadline).await);
        }
        outcomes
    }))
}

/// Returns the locations of all copies.
///
/// # Errors
/// If a copy was not acknowledged, with the partitions that have, may have or lack theirs.
fn all_written(outcomes: &[Result<Location, AppendError>]) -> anyhow::Result<Vec<PartitionOffset>> {
    let (mut written, mut open, mut missing, mut cause) = (Vec::new(), Vec::new(), Vec::new(), None);
    for (partition, outcome) in (0..).zip(outcomes) {
        let error = match outcome {
            Ok(location) => {
                written.push(PartitionOffset { partition, offset: location.offset });
                continue;
            }
            Err(error) => error,
        };
        let list = if error.may_have_happened() { &mut open } else { &mut missing };
        list.push(partition.to_string());
        cause = cause.or(Some(error.cause()));
    }
    let Some(cause) = cause else { return Ok(written) };
    if written.is_empty() && open.is_empty() {
        return Err(anyhow!(
            "nothing was written into any partition ({cause}): remove the cause and run the command again"
        ));
    }
    let written: Vec<String> = written.iter().map(|written| written.partition.to_string()).collect();
    let parts = [("acknowledged by", written), ("open in", open), ("not written into", missing)];
    let parts = parts.iter().filter(|(_, partitions)| !partitions.is_empty());
    let parts: Vec<String> =
        parts.map(|(what, partitions)| format!("{what} partitions {}", partitions.join(", "))).collect();
    Err(anyhow!(
        "not every partition has acknowledged the event ({cause}): {}. Until all have, answers of partitions may differ. \
         Run the same command again; a second copy of the event changes nothing",
        parts.join("; ")
    ))
}

/// If the failure is that another process has the log, adds the request that posts the event to it.
fn elsewhere(failure: Failure, settings: &Settings, event: &Event<'_>) -> Failure {
    let error = match failure {
        Failure::Failed(error) => error,
        usage @ Failure::Usage(_) => return usage,
    };
    let Some(InUse { path, holder, url }) = error.downcast_ref::<InUse>() else { return Failure::Failed(error) };
    let path = path.display();
    let (advice, url) = match url {
        Some(url) => ("post the event to that process, which", url.clone()),
        None => (
            "wait until that process has ended; or, if it is `receipts serve`, post the event to it, which",
            format!("http://{}", settings.http.listen),
        ),
    };
    let curl = curl(&url, event, settings.auth.is_configured());
    anyhow!(
        "nothing was written, because the data directory {path} is in use by {holder}: {advice} writes it into every \
         partition:\n  {curl}"
    )
    .into()
}

/// Returns the shell command that posts an event. `by_token`: the service takes the tenant from a
/// token.
fn curl(url: &str, event: &Event<'_>, by_token: bool) -> String {
    let caller = match &*event.tenant {
        _ if by_token => " -H \"Authorization: Bearer $TOKEN\"".to_owned(),
        TENANT_DEFAULT => String::new(),
        tenant => format!(" -H {}", quoted(&format!("Receipts-Tenant: {tenant}"))),
    };
    let json = String::from_utf8_lossy(&event.to_json()).into_owned();
    format!("curl -sS '{url}/v1/events' -H 'Content-Type: application/json'{caller} -d {}", quoted(&json))
}

/// Quotes a text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_event::UserErased;
    use std::sync::Mutex;

    fn erased(user_id: &str, tenant: &str) -> Event<'static> {
        let body = Body::UserErased(UserErased { user_id: user_id.to_owned().into(), partition: None });
        Event { tenant: tenant.to_owned().into(), event_id: None, body }
    }

    /// A log that acknowledges partition 0, leaves the outcome of 1 open, refuses 2, never answers
    /// 3, and drops 4.
    #[derive(Default)]
    struct UnreliableLog {
        taken: Mutex<Vec<Entry>>,
        kept: Mutex<Vec<tokio::sync::oneshot::Sender<Result<Location, AppendError>>>>,
    }

    impl Writer for UnreliableLog {
        fn append(&self, entry: Entry) -> PendingAppend {
            let (told, appended) = tokio::sync::oneshot::channel();
            let partition = entry.partition.expect("a copy names its partition");
            self.taken.lock().expect("unpoisoned").push(entry);
            match partition {
                0 => _ = told.send(Ok(Location { partition, offset: 7 })),
                1 => _ = told.send(Err(AppendError::Unknown("cut off".into()))),
                2 => _ = told.send(Err(AppendError::NotWritten("too long".into()))),
                3 => self.kept.lock().expect("unpoisoned").push(told),
                _ => drop(told),
            }
            appended
        }

        fn flush(&self, _: Duration) -> Result<(), AppendError> {
            Ok(())
        }
    }

    /// INV-COPIES, INV-ACK
    #[test]
    fn every_partition_gets_a_copy_and_an_honest_outcome() {
        let log = UnreliableLog::default();
        let event = erased("bob", "acme");
        let outcomes = append(&log, 5, &event, Duration::from_millis(50)).expect("asked");
        assert_eq!(outcomes[0], Ok(Location { partition: 0, offset: 7 }));
        assert_eq!(outcomes[2], Err(AppendError::NotWritten("too long".to_owned())));
        assert!([1, 3, 4].iter().all(|at| matches!(outcomes[*at], Err(AppendError::Unknown(_)))), "{outcomes:?}");
        for (partition, entry) in (0..).zip(log.taken.lock().expect("unpoisoned").iter()) {
            assert_eq!((entry.partition, entry.key.as_deref()), (Some(partition), Some(&b"acme/"[..])));
            let value = entry.value.as_deref().expect("a value");
            assert_eq!(decode(value).expect("an event").partition(), Some(partition));
        }
        let sentence = all_written(&outcomes).err().expect("not all").to_string();
        for part in
            ["acknowledged by partitions 0;", "open in partitions 1, 3, 4;", "not written into partitions 2.", "again"]
        {
            assert!(sentence.contains(part), "{part} is not in {sentence}");
        }
    }

    #[test]
    fn nothing_was_written_only_if_all_partitions_refused() {
        let refused = || Err(AppendError::NotWritten("no space".to_owned()));
        let sentence =
            |outcomes: &[Result<Location, AppendError>]| all_written(outcomes).err().expect("not all").to_string();
        assert!(sentence(&[refused(), refused()]).starts_with("nothing was written into any partition (no space)"));
        assert!(!sentence(&[refused(), Err(AppendError::Unknown("late".to_owned()))]).contains("nothing was written"));
        assert_eq!(all_written(&[Ok(Location { partition: 0, offset: 3 })]).expect("all").len(), 1);
    }

    #[test]
    fn a_shell_passes_the_event_unchanged() {
        let event = erased("o'neil $(x) \"é\"", "ac'me");
        // printf instead of curl, one word per line.
        let script = curl("http://h:1", &event, false).replacen("curl", "printf '%s\\n'", 1);
        let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
        let words = String::from_utf8(output.stdout).expect("UTF-8");
        let words: Vec<&str> = words.lines().collect();
        assert_eq!(words[1], "http://h:1/v1/events");
        assert_eq!(words[5], "Receipts-Tenant: ac'me");
        assert_eq!(decode(words[7].as_bytes()), Ok(event));
    }

    #[test]
    fn an_invalid_event_is_refused_by_argument_names() {
        let long = "x".repeat(129);
        for (user, tenant, parts) in [
            ("", "t", &["USER must not be empty"][..]),
            (&long, "t", &["USER "]),
            ("u", "", &["--tenant must not be empty"]),
            ("", "a/b", &["USER ", "--tenant must not contain a slash"]),
        ] {
            let failure = check(&erased(user, tenant), &[("/user_id", "USER")]).expect_err("refused");
            assert_eq!(failure.code(), 2);
            assert!(parts.iter().all(|part| failure.message().contains(part)), "{}", failure.message());
        }
        check(&erased("u", "t"), &[]).expect("an event");
    }
}
