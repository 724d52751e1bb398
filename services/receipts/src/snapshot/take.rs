//! `receipts snapshot take`: takes snapshots of a stopped data directory, or asks the running
//! service to take them.

use super::{Progress, Which};
use anyhow::{Context as _, anyhow};
use receipts_assembly::{DataDir, InUse, LogIdentity, fold_limits};
use receipts_cluster::{SNAPSHOTS_PATH, SnapshotPhase, SnapshotReply, SnapshotRequest, SnapshotStatus};
use receipts_runtime::clock::unix_ms;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use receipts_snapshots::{SnapshotReport, Snapshots};
use receipts_store::snapshot::{PendingSnapshot, Provenance};
use receipts_store::{SledSettings, SledStore};
use std::time::Duration;

/// How often the status of a running service is read.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);

/// Takes a snapshot of every partition.
///
/// # Errors
/// If there is no state, no destination, or a partition's snapshot failed.
pub(super) fn run(settings: &Settings, which: &Which, progress: &Progress, json: bool) -> Result<(), Failure> {
    if !DataDir::store_in(&settings.data_dir).is_dir() {
        return Err(anyhow!("there is no state in {}: check --data-dir", settings.data_dir.display()).into());
    }
    match DataDir::open(&settings.data_dir) {
        Ok(data) => take_here(settings, &data, which, progress, json),
        Err(error) => match error.downcast::<InUse>() {
            Ok(InUse { url: Some(url), .. }) => ask_service(settings, &url, which, progress, json),
            Ok(in_use) => Err(in_use.into()),
            Err(error) => Err(error.into()),
        },
    }
}

fn take_here(
    settings: &Settings,
    data: &DataDir,
    which: &Which,
    progress: &Progress,
    json: bool,
) -> Result<(), Failure> {
    let destination = super::destination(settings)?.stopped_by(progress.stop().clone());
    let no_state = || anyhow!("there is no state in {}: check --data-dir", data.store().display());
    let log = data.bound_log()?.ok_or_else(no_state)?;
    let snapshots = Snapshots::new(destination, log.name());
    let store = SledStore::open_strict(&data.store(), SledSettings { cache_bytes: 64 << 20, sync: true })?;
    let partition_count = match &log {
        LogIdentity::Kafka { partitions, .. } => *partitions,
        LogIdentity::Embedded { .. } => receipts_assembly::embedded_partitions(data)?,
    };
    let mut output = Output::stdout(json);
    for partition in (0..partition_count).filter(|partition| which.includes(*partition)) {
        let backend = store.partition(partition)?;
        let told = Provenance {
            log: snapshots.log().to_owned(),
            partition,
            partition_count,
            limits: fold_limits(settings),
            taken_ms: unix_ms(),
            program: concat!("receipts ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let Some(taking) = PendingSnapshot::begin(&backend.snapshot_source(), told)? else { continue };
        progress.begin("taking", 0);
        let taken = snapshots.take(taking, &data.spool(), progress)?;
        progress.end();
        output.write(&taken, |to| {
            let SnapshotReport { next_offset, bytes, location, .. } = &taken;
            writeln!(to, "partition {partition} at offset {next_offset}: {bytes} bytes in {location}")
        })?;
    }
    Ok(())
}

fn ask_service(settings: &Settings, url: &str, which: &Which, progress: &Progress, json: bool) -> Result<(), Failure> {
    if url.starts_with("https://") {
        return Err(anyhow!(
            "the process that uses the data directory speaks TLS at {url}, which no certificate names: set \
             http.admin_listen there, so that it has a listener for operators without TLS"
        )
        .into());
    }
    let secret = receipts_assembly::operator_secret_of_holder(settings)?;
    let call = Call { url: format!("{url}{SNAPSHOTS_PATH}"), credential: secret.credential() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tracing::info!(url, "a process uses the data directory: asking it to take the snapshots");
    let begun = runtime.block_on(call.request(&SnapshotRequest { partitions: which.partitions.clone() }))?;
    if begun.requested.is_empty() {
        return Err(
            anyhow!("the process at {url} owns none of these partitions now: ask the process that owns them").into()
        );
    }
    let before = |partition| begun.statuses.iter().find(|s| s.partition == partition).map_or(0, |s| s.attempts);
    progress.begin("taking", 0);
    let states = loop {
        std::thread::sleep(STATUS_INTERVAL);
        if progress.stop().is_cancelled() {
            return Err(anyhow!("stopped waiting; the service continues to take the requested snapshots").into());
        }
        let reply = runtime.block_on(call.status())?;
        let requested: Vec<SnapshotStatus> =
            reply.statuses.into_iter().filter(|state| begun.requested.contains(&state.partition)).collect();
        progress.reached(requested.iter().map(|state| state.bytes).sum());
        let is_done = |s: &SnapshotStatus| s.attempts > before(s.partition) && s.phase == SnapshotPhase::Idle;
        if requested.iter().all(is_done) {
            break requested;
        }
    };
    progress.end();
    let mut output = Output::stdout(json);
    let mut failed = Vec::new();
    for state in &states {
        output.write(state, |to| match (&state.failure, &state.newest) {
            (Some(failure), _) => writeln!(to, "partition {}: {failure}", state.partition),
            (None, Some(newest)) => writeln!(
                to,
                "partition {} at offset {}: {} bytes in {}",
                state.partition, newest.next_offset, newest.bytes, newest.location
            ),
            (None, None) => writeln!(to, "partition {}: it has no checkpoint yet", state.partition),
        })?;
        failed.extend(state.failure.as_ref().map(|_| state.partition));
    }
    // A partition that another process owns by now has no status here.
    failed.extend(begun.requested.iter().filter(|number| states.iter().all(|state| state.partition != **number)));
    if failed.is_empty() { Ok(()) } else { Err(anyhow!("no snapshot of partitions {failed:?} was taken").into()) }
}

/// The call to the process that uses the data directory.
struct Call {
    url: String,
    credential: String,
}

impl Call {
    async fn request(&self, request: &SnapshotRequest) -> anyhow::Result<SnapshotReply> {
        self.send(reqwest::Client::new().post(&self.url).json(request)).await
    }

    async fn status(&self) -> anyhow::Result<SnapshotReply> {
        self.send(reqwest::Client::new().get(&self.url)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<SnapshotReply> {
        let request = request.bearer_auth(&self.credential).timeout(Duration::from_secs(10));
        let response = request.send().await.with_context(|| format!("{} does not answer", self.url))?;
        let status = response.status();
        if status == reqwest::StatusCode::UNAUTHORIZED {
            return Err(anyhow!(
                "{} refuses the secret: use its query.secret_file, or run this command as the user of its data directory",
                self.url
            ));
        }
        if !status.is_success() {
            return Err(anyhow!("{} answers {status}: {}", self.url, response.text().await.unwrap_or_default()));
        }
        response.json().await.with_context(|| format!("{} answers in an unknown format", self.url))
    }
}
