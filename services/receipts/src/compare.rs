//! `receipts compare`: holds a running service beside another system's tables, over HTTP like any
//! client. `receipts_backfill::compare` sorts the tables and tells the differences apart.

use crate::analysis::{self, Progress, Unit, time};
use crate::backfill::failure;
use crate::tables::Tables;

use anyhow::{Context as _, anyhow};
use clap::Args;
use receipts_backfill::compare::{
    Difference, DifferenceKind, Key, Marks, Ours, Reads, Tables as Sorted, compare, difference, needs_unread,
};
use receipts_backfill::{Plan, bytes};
use receipts_client::{Client, Filter, Receipt, Status};
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::{Output, printable};
use receipts_snapshots::ProgressMonitor as _;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::task::JoinSet;

pub(crate) const EXAMPLES: &str = "Examples:
  receipts compare --url http://127.0.0.1:8080 --reads reads.csv
  receipts compare --url http://127.0.0.1:8080 --map docs/mappings/rocketchat.toml --out differences.ndjson
  receipts compare --url https://receipts.example.com --token-file token --reads r.parquet --tolerance-ms 1000 --json
  receipts compare --url http://127.0.0.1:8080 --messages m.csv --marks marks.csv --until 2026-11-30T00:00:00Z";

/// Messages per query of receipts.
const BATCH: usize = 100;
/// Messages whose lists are asked for at the same time.
const AT_ONCE: usize = 16;
/// Examples of each kind of difference.
const SHOWN: usize = 3;
const PAGE: u32 = 1_000;

/// Arguments of `receipts compare`.
#[derive(Args)]
pub(crate) struct Compare {
    /// Base URL of the running service.
    #[arg(long, value_name = "URL")]
    url: String,
    #[command(flatten)]
    tables: Tables,
    /// File that holds a bearer token with the scope receipts:members. It decides the tenant.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Person who asks, for a service without tokens; a service with all scopes if not given.
    #[arg(long, value_name = "USER", conflicts_with = "token_file")]
    caller: Option<String>,
    /// Read times that are at most so far apart count as equal, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    tolerance_ms: u64,
    /// Leaves out the service's reads after a time, which the tables cannot have: RFC 3339 or Unix
    /// milliseconds.
    #[arg(long, value_name = "TIME", value_parser = time)]
    until: Option<u64>,
    /// File for all differences, as NDJSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// The result as JSON.
#[derive(Serialize)]
struct Report {
    url: String,
    messages: u64,
    reads: u64,
    marks: u64,
    /// All differences.
    differences: u64,
    by_kind: BTreeMap<DifferenceKind, Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    out: Option<PathBuf>,
}

/// The differences of one kind.
#[derive(Default, Serialize)]
struct Kind {
    count: u64,
    /// The first three.
    examples: Vec<Difference>,
}

/// The differences found so far.
#[derive(Default)]
struct Found {
    by_kind: BTreeMap<DifferenceKind, Kind>,
    file: Option<BufWriter<File>>,
}

impl Found {
    fn push(&mut self, difference: Difference) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            serde_json::to_writer(&mut *file, &difference)?;
            file.write_all(b"\n")?;
        }
        let held = self.by_kind.entry(difference.kind).or_default();
        held.count += 1;
        if held.examples.len() < SHOWN {
            held.examples.push(difference);
        }
        Ok(())
    }
}

/// The running service, asked as each tenant.
struct Service {
    clients: BTreeMap<String, Client>,
    tolerance_ms: u64,
    until_ms: u64,
}

/// Compares.
///
/// # Errors
/// Wrong usage; if a table cannot be read, the service does not answer, or there are differences.
pub(crate) fn run(settings: Settings, asked: Compare, json: bool) -> Result<(), Failure> {
    let Compare { url, tables, token_file, caller, tolerance_ms, until, out } = asked;
    let token = token_file.map(|path| {
        let token = std::fs::read_to_string(&path);
        token.map_err(|error| Failure::usage(format!("--token-file {}: cannot be read: {error}", path.display())))
    });
    let token = token.transpose()?;
    let plan = tables.plan(String::new())?;
    analysis::run(settings, move |_, progress| {
        let mut found = Found::default();
        if let Some(path) = &out {
            let file = File::create(path).with_context(|| format!("writing {}", path.display()))?;
            found.file = Some(BufWriter::new(file));
        }
        let sorted = Arc::new(sorted(&plan, progress, &mut found)?);
        let clients = sorted.tenants.iter().map(|tenant| {
            let builder = Client::builder(&url);
            let builder = match (&token, &caller) {
                (Some(_), _) if sorted.tenants.len() > 1 => {
                    let tenants =
                        sorted.tenants.iter().map(|tenant| format!("{tenant:?}")).collect::<Vec<_>>().join(", ");
                    return Err(Failure::usage(format!(
                        "the tables name the tenants {tenants}, but a token is of one: compare each tenant by itself"
                    )));
                }
                (Some(token), _) => builder.token(token.trim()),
                (None, Some(caller)) => builder.tenant(tenant).caller(caller),
                (None, None) => builder.tenant(tenant),
            };
            let client = builder.build().map_err(|error| Failure::usage(format!("--url: {error}")))?;
            Ok((tenant.clone(), client))
        });
        let clients = clients.collect::<Result<_, _>>()?;
        let service = Arc::new(Service { clients, tolerance_ms, until_ms: until.unwrap_or(u64::MAX) });
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let marks = sorted.marks.values().map(|marks| marks.len() as u64).sum();
        progress.begin_with(Unit::Rows, sorted.rows + marks);
        let compared = runtime.block_on(compare_all(&service, &sorted, progress, &mut found));
        progress.clear();
        let (messages, reads) = compared?;
        if let Some(file) = &mut found.file {
            file.flush().context("writing the differences")?;
        }
        let differences = found.by_kind.values().map(|kind| kind.count).sum();
        let report = Report { url, messages, reads, marks, differences, by_kind: found.by_kind, out };
        Output::stdout(json).write(&report, |to| write_report(to, &report))?;
        match differences {
            0 => Ok(()),
            differences => Err(anyhow!("the service and the tables have {differences} differences").into()),
        }
    })
}

/// Reads and sorts the tables.
fn sorted(plan: &Plan, progress: &mut Progress, found: &mut Found) -> Result<Sorted, Failure> {
    progress.begin_with(Unit::Bytes, bytes(plan));
    let read = Sorted::read(plan, progress, &mut |difference| {
        found
            .push(difference)
            .map_err(|source| receipts_backfill::Error::Io { doing: "writing the differences".to_owned(), source })
    });
    progress.clear();
    read.map_err(failure)
}

/// Compares all marks, then the messages of one sorted file after another. Returns the numbers of
/// messages and reads.
async fn compare_all(
    service: &Arc<Service>,
    sorted: &Arc<Sorted>,
    progress: &Progress,
    found: &mut Found,
) -> Result<(u64, u64), Failure> {
    let mut marks = sorted.marks.clone();
    for (key, marks) in &mut marks {
        for difference in service.marks(key, marks).await? {
            found.push(difference).context("writing the differences")?;
        }
        progress.advanced(marks.len() as u64);
        stop_if_asked(progress)?;
    }
    let marks = Arc::new(marks);
    let (mut messages_count, mut reads_count) = (0, 0);
    for number in 0..sorted.buckets() {
        let (conversations, rows) = sorted.bucket(number).map_err(failure)?;
        for (key, messages) in conversations {
            let messages: Vec<(String, Reads)> = messages.into_iter().collect();
            for batch in messages.chunks(BATCH) {
                messages_count += batch.len() as u64;
                reads_count += batch.iter().map(|(_, reads)| reads.len() as u64).sum::<u64>();
                let ids: Vec<&String> = batch.iter().map(|(id, _)| id).collect();
                let receipts = service.client(&key)?.receipts(Some(&key.1), &ids).await.map_err(asking)?;
                let mut asked = JoinSet::new();
                for ((id, reads), receipt) in batch.iter().zip(receipts) {
                    while asked.len() >= AT_ONCE {
                        take(&mut asked, found).await?;
                    }
                    let (service, key, id, reads) = (Arc::clone(service), key.clone(), id.clone(), reads.clone());
                    let marks = Arc::clone(&marks);
                    asked.spawn(async move { service.message(&key, &id, &reads, marks.get(&key), &receipt).await });
                }
                while !asked.is_empty() {
                    take(&mut asked, found).await?;
                }
                stop_if_asked(progress)?;
            }
        }
        progress.advanced(rows);
    }
    Ok((messages_count, reads_count))
}

fn stop_if_asked(progress: &Progress) -> Result<(), Failure> {
    if progress.is_stopped() { Err(failure(receipts_backfill::Error::Stopped)) } else { Ok(()) }
}

async fn take(asked: &mut JoinSet<Result<Vec<Difference>, Failure>>, found: &mut Found) -> Result<(), Failure> {
    let Some(differences) = asked.join_next().await else { return Ok(()) };
    for difference in differences.context("a comparison panicked")?? {
        found.push(difference).context("writing the differences")?;
    }
    Ok(())
}

fn asking(error: receipts_client::Error) -> Failure {
    anyhow::Error::from(error).context("asking the service").into()
}

impl Service {
    fn client(&self, (tenant, _): &Key) -> Result<&Client, Failure> {
        self.clients.get(tenant).ok_or_else(|| anyhow!("no client for tenant {tenant}").into())
    }

    /// Compares one message with its receipt and lists.
    async fn message(
        &self,
        key: &Key,
        id: &str,
        reads: &Reads,
        marks: Option<&Marks>,
        receipt: &Receipt,
    ) -> Result<Vec<Difference>, Failure> {
        let message = |kind, detail| Difference { message_id: Some(id.to_owned()), detail, ..difference(kind, key) };
        let Some(counts) = receipt.counts else {
            return Ok(match receipt.status {
                Status::NotFound => vec![message(DifferenceKind::MissingMessage, None)],
                status => {
                    let status = serde_json::to_value(status).context("a status")?;
                    vec![message(DifferenceKind::NoReceipt, status.as_str().map(str::to_owned))]
                }
            });
        };
        let read = if counts.read_count == 0 {
            BTreeMap::new()
        } else {
            let mut read = BTreeMap::new();
            self.list(key, id, Filter::Read, &mut |user, at| _ = read.insert(user, at)).await?;
            read
        };
        let mut unread = None;
        if needs_unread(reads, marks, &read) {
            let mut people = BTreeSet::new();
            for filter in [Filter::Unread, Filter::Departed] {
                self.list(key, id, filter, &mut |user, _| _ = people.insert(user)).await?;
            }
            unread = Some(people);
        }
        let sent_at_ms = receipt.sent_at_ms.unwrap_or(0);
        let ours = Ours { sent_at_ms, read, unread, hidden_count: counts.hidden_count };
        Ok(compare(key, id, reads, marks, &ours, (self.tolerance_ms, self.until_ms)))
    }

    async fn list(
        &self,
        key: &Key,
        id: &str,
        filter: Filter,
        each: &mut (dyn FnMut(String, Option<u64>) + Send),
    ) -> Result<(), Failure> {
        let mut cursor: Option<String> = None;
        loop {
            let page = self.client(key)?.members_page(&key.1, id, filter, PAGE, cursor.as_deref()).await;
            let page = page.map_err(asking)?;
            page.members.into_iter().for_each(|member| each(member.user_id, member.read_at_ms));
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(());
            }
        }
    }

    /// Compares the marks of a conversation. A mark that names a message gets the message's send
    /// time from the service, so that it can be held beside messages.
    async fn marks(&self, key: &Key, marks: &mut Marks) -> Result<Vec<Difference>, Failure> {
        let client = self.client(key)?;
        let mut found = Vec::new();
        for (user, their) in marks {
            if let Some(id) = &their.up_to_message_id {
                let receipts = client.receipts(Some(&key.1), &[id]).await.map_err(asking)?;
                their.up_to_sent_at_ms = receipts.first().and_then(|receipt| receipt.sent_at_ms);
            }
            if their.hidden {
                continue;
            }
            let ours = client.read_mark(&key.1, user).await.map_err(asking)?.map(|mark| mark.up_to_sent_at_ms);
            let kind = match (ours, their.up_to_sent_at_ms) {
                (None, _) => DifferenceKind::MissingMark,
                (Some(ours), Some(theirs)) if ours < theirs => DifferenceKind::MarkBehind,
                (Some(ours), Some(theirs)) if ours > theirs => DifferenceKind::MarkAhead,
                _ => continue,
            };
            let (user_id, theirs_ms) = (Some(user.clone()), their.up_to_sent_at_ms);
            let detail = their.up_to_message_id.as_ref().map(|id| format!("up to message {id}"));
            found.push(Difference { user_id, theirs_ms, ours_ms: ours, detail, ..difference(kind, key) });
        }
        Ok(found)
    }
}

fn write_report(to: &mut dyn Write, report: &Report) -> io::Result<()> {
    let Report { messages, reads, marks, differences, .. } = report;
    writeln!(to, "compared {messages} messages, {reads} reads, {marks} marks: {differences} differences")?;
    for (kind, held) in &report.by_kind {
        writeln!(to, "{kind}: {}", held.count)?;
        for example in &held.examples {
            let parts = [
                (!example.conversation_id.is_empty()).then(|| format!("conversation {}", example.conversation_id)),
                example.message_id.as_ref().map(|id| format!("message {id}")),
                example.user_id.as_ref().map(|id| format!("reader {id}")),
                example.theirs_ms.map(|at| format!("theirs {at}")),
                example.ours_ms.map(|at| format!("ours {at}")),
                example.detail.clone(),
            ];
            let text = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
            writeln!(to, "  {}", printable(&text))?;
        }
    }
    report.out.iter().try_for_each(|out| writeln!(to, "all differences: {}", out.display()))
}
