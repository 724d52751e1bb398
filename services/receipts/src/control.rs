//! Writes one control event into every partition of a log that is there, and says where it went. Does not know what the
//! event means, and never says that nothing happened where something may have.

use anyhow::{Context as _, anyhow};
use clap::Args;
use receipts_assembly::{ACKNOWLEDGE_TIMEOUT, InUse};
use receipts_event::{Event, TENANT_DEFAULT, copies, decode};
use receipts_log::{AppendError, Entry, PendingAppend, Writer};
use receipts_query::Positions;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use serde::Serialize;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Whose control event it is.
#[derive(Args)]
pub(crate) struct Tenant {
    /// The tenant that it holds for; others are not touched.
    #[arg(long, value_name = "TENANT", default_value = TENANT_DEFAULT)]
    pub(crate) tenant: String,
}

/// What became of one partition's copy.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// Acknowledged, at this offset.
    Written(u64),
    /// It may be there or may yet come, and why that is not known.
    Open(String),
    /// It certainly is not there, and why.
    NotWritten(String),
}

/// What a machine is told.
#[derive(Serialize)]
struct Report<'a> {
    log: &'a str,
    event: &'a Event<'a>,
    written: Vec<Place>,
    /// A token: a read with it in `Receipts-Min-Position` sees the event.
    position: String,
}

#[derive(Serialize)]
struct Place {
    partition: u32,
    offset: u64,
}

/// Refuses an event that the log's readers would, in the words of the command line: `arguments` says which argument
/// stands for which field, by the beginning of its JSON Pointer.
///
/// # Errors
/// Wrong usage, with every problem.
pub(crate) fn check(event: &Event<'_>, arguments: &[(&str, &str)]) -> Result<(), Failure> {
    let Err(rejection) = decode(&event.to_json()) else { return Ok(()) };
    let problems = rejection.problems.iter().map(|problem| {
        let all = arguments.iter().chain(&[("/tenant", "--tenant")]);
        let argument = all.into_iter().find(|(field, _)| problem.pointer.starts_with(field));
        format!("{} {}", argument.map_or(problem.pointer.as_str(), |(_, argument)| argument), problem.detail)
    });
    Err(Failure::usage(problems.collect::<Vec<_>>().join("; ")))
}

/// Writes a copy of the event into every partition and prints where they stand, for people below `headline`.
///
/// # Errors
/// Where there is no log, it is another process's, or a partition has not acknowledged its copy; then with what is known
/// of each.
pub(crate) fn write(settings: &Settings, event: &Event<'_>, headline: &str, json: bool) -> Result<(), Failure> {
    let opened =
        receipts_assembly::open_existing_log(settings).map_err(|failure| elsewhere(failure, settings, event))?;
    let outcomes = append(&*opened.log.writer(), opened.log.partition_count(), event, ACKNOWLEDGE_TIMEOUT)?;
    let written = all_written(&outcomes)?;
    let positions: Positions = written.iter().map(|place| (place.partition, place.offset + 1)).collect();
    let report = Report { log: &opened.name, event, written, position: positions.to_string() };
    let printed = Output::stdout(json).write(&report, |to| {
        writeln!(to, "{headline}")?;
        write!(
            to,
            "written into all {} partitions of {}:",
            report.written.len(),
            receipts_assembly::log_location(settings)
        )?;
        for Place { partition, offset } in &report.written {
            write!(to, " {partition}@{offset}")?;
        }
        writeln!(to, " (partition@offset)\nposition {}", report.position)
    });
    Ok(printed.context("the event is in every partition, but that cannot be printed")?)
}

/// Appends all copies and waits for every outcome, in the order of the partitions.
fn append(
    writer: &dyn Writer,
    partition_count: u32,
    event: &Event<'_>,
    timeout: Duration,
) -> std::io::Result<Vec<Outcome>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let (key, value) = (event.key(), event.to_json());
    let entries = copies(&value, partition_count);
    let appended: Vec<PendingAppend> =
        entries.map(|(partition, copy)| writer.append(Entry::event(key.clone(), copy, Some(partition)))).collect();
    Ok(runtime.block_on(async {
        let deadline = Instant::now() + timeout;
        let mut outcomes = Vec::with_capacity(appended.len());
        for appended in appended {
            outcomes.push(match timeout_at(deadline, appended).await {
                Ok(Ok(Ok(written))) => Outcome::Written(written.offset),
                Ok(Ok(Err(AppendError::NotWritten(cause) | AppendError::TooLarge(cause)))) => {
                    Outcome::NotWritten(cause)
                }
                Ok(Ok(Err(AppendError::Unknown(cause)))) => Outcome::Open(cause),
                Ok(Err(_)) => Outcome::Open("the log dropped the append".to_owned()),
                Err(_) => Outcome::Open("the log did not answer in time".to_owned()),
            });
        }
        outcomes
    }))
}

/// Where all copies stand, or a sentence about those that do and those that do not.
fn all_written(outcomes: &[Outcome]) -> anyhow::Result<Vec<Place>> {
    let (mut written, mut open, mut missing, mut cause) = (Vec::new(), Vec::new(), Vec::new(), None);
    for (partition, outcome) in (0..).zip(outcomes) {
        let (list, why) = match outcome {
            Outcome::Written(offset) => {
                written.push(Place { partition, offset: *offset });
                continue;
            }
            Outcome::Open(why) => (&mut open, why),
            Outcome::NotWritten(why) => (&mut missing, why),
        };
        list.push(partition.to_string());
        cause = cause.or(Some(why));
    }
    let Some(cause) = cause else { return Ok(written) };
    if written.is_empty() && open.is_empty() {
        return Err(anyhow!(
            "nothing was written into any partition ({cause}): put that right and run the command again"
        ));
    }
    let written: Vec<String> = written.iter().map(|place| place.partition.to_string()).collect();
    let parts = [("acknowledged by", written), ("open in", open), ("not written into", missing)];
    let parts = parts.iter().filter(|(_, partitions)| !partitions.is_empty());
    let parts: Vec<String> =
        parts.map(|(what, partitions)| format!("{what} partitions {}", partitions.join(", "))).collect();
    Err(anyhow!(
        "the event is not known to be in every partition ({cause}): {}. Until it is, partitions may differ in what they \
         answer. Run the same command again: where the event stands already, a second copy is harmless",
        parts.join("; ")
    ))
}

/// Where another process has the log, says how to give that one the event.
fn elsewhere(failure: Failure, settings: &Settings, event: &Event<'_>) -> Failure {
    let error = match failure {
        Failure::Failed(error) => error,
        usage @ Failure::Usage(_) => return usage,
    };
    let Some(InUse { path, holder, url }) = error.downcast_ref::<InUse>() else { return Failure::Failed(error) };
    let path = path.display();
    let (advice, url) = match url {
        Some(url) => ("post the event to that one, which", url.clone()),
        None => (
            "wait until that one has ended; or, if it is `receipts serve`, post the event to it, which",
            format!("http://{}", settings.http.listen),
        ),
    };
    let curl = curl(&url, event, settings.auth.is_configured());
    anyhow!(
        "nothing was written, for the data directory {path} is in use by {holder}: {advice} writes it into every \
         partition:\n  {curl}"
    )
    .into()
}

/// The line for a shell that posts an event; `by_token` to a service that takes the tenant from a token of its tenant's.
fn curl(url: &str, event: &Event<'_>, by_token: bool) -> String {
    let caller = match &*event.tenant {
        _ if by_token => " -H \"Authorization: Bearer $TOKEN\"".to_owned(),
        TENANT_DEFAULT => String::new(),
        tenant => format!(" -H {}", quoted(&format!("Receipts-Tenant: {tenant}"))),
    };
    let json = String::from_utf8_lossy(&event.to_json()).into_owned();
    format!("curl -sS '{url}/v1/events' -H 'Content-Type: application/json'{caller} -d {}", quoted(&json))
}

/// A text as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_event::{Body, UserErased};
    use receipts_log::Location;
    use std::sync::Mutex;

    fn erased(user_id: &str, tenant: &str) -> Event<'static> {
        let body = Body::UserErased(UserErased { user_id: user_id.to_owned().into(), partition: None });
        Event { tenant: tenant.to_owned().into(), event_id: None, body }
    }

    /// A log that answers partition 0 well, 1 with an open outcome, 2 with a refusal, 3 never, and drops 4.
    #[derive(Default)]
    struct Moody {
        taken: Mutex<Vec<Entry>>,
        kept: Mutex<Vec<tokio::sync::oneshot::Sender<Result<Location, AppendError>>>>,
    }

    impl Writer for Moody {
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
    fn every_partition_is_given_its_copy_and_no_outcome_is_called_better_than_it_is() {
        let log = Moody::default();
        let event = erased("bob", "acme");
        let outcomes = append(&log, 5, &event, Duration::from_millis(50)).expect("asked");
        assert_eq!(outcomes[0], Outcome::Written(7));
        assert_eq!(outcomes[2], Outcome::NotWritten("too long".to_owned()));
        assert!([1, 3, 4].iter().all(|at| matches!(outcomes[*at], Outcome::Open(_))), "{outcomes:?}");
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
    fn only_where_every_partition_refused_is_it_said_that_nothing_was_written() {
        let refused = || Outcome::NotWritten("no space".to_owned());
        let sentence = |outcomes: &[Outcome]| all_written(outcomes).err().expect("not all").to_string();
        assert!(sentence(&[refused(), refused()]).starts_with("nothing was written into any partition (no space)"));
        assert!(!sentence(&[refused(), Outcome::Open("late".to_owned())]).contains("nothing was written"));
        assert_eq!(all_written(&[Outcome::Written(3)]).expect("all").len(), 1);
    }

    #[test]
    fn a_shell_hands_over_the_event_as_it_is() {
        let event = erased("o'neil $(x) \"é\"", "ac'me");
        // echo in the place of curl, one word a line.
        let script = curl("http://h:1", &event, false).replacen("curl", "printf '%s\\n'", 1);
        let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
        let words = String::from_utf8(output.stdout).expect("UTF-8");
        let words: Vec<&str> = words.lines().collect();
        assert_eq!(words[1], "http://h:1/v1/events");
        assert_eq!(words[5], "Receipts-Tenant: ac'me");
        assert_eq!(decode(words[7].as_bytes()), Ok(event));
    }

    #[test]
    fn what_readers_would_refuse_is_refused_by_the_names_of_the_arguments() {
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
