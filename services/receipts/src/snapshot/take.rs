//! `receipts snapshot take`: of a stopped data directory here, of a running service by asking it.

use super::{Progress, Which};
use anyhow::{Context as _, anyhow};
use receipts_assembly::{DataDir, InUse, LogIdentity, fold_limits};
use receipts_cluster::{SNAPSHOTS_PATH, SnapshotPhase, SnapshotReply, SnapshotRequest, SnapshotStatus};
use receipts_runtime::clock::unix_ms;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::output::Output;
use receipts_snapshots::{Snapshots, Taken};
use receipts_store::snapshot::{Taking, Told};
use receipts_store::{SledSettings, SledStore};
use std::time::Duration;

/// How often a running service is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Takes a snapshot of every partition.
///
/// # Errors
/// Where there is no state, no destination, or a partition's snapshot failed.
pub(super) fn run(settings: &Settings, which: &Which, progress: &Progress, json: bool) -> Result<(), Failure> {
    if !DataDir::store_in(&settings.data_dir).is_dir() {
        return Err(anyhow!("there is no state in {}: check --data-dir", settings.data_dir.display()).into());
    }
    match DataDir::open(&settings.data_dir) {
        Ok(data) => here(settings, &data, which, progress, json),
        Err(error) => match error.downcast::<InUse>() {
            Ok(InUse { url: Some(url), .. }) => there(settings, &url, which, progress, json),
            Ok(in_use) => Err(in_use.into()),
            Err(error) => Err(error.into()),
        },
    }
}

fn here(settings: &Settings, data: &DataDir, which: &Which, progress: &Progress, json: bool) -> Result<(), Failure> {
    let destination = super::destination(settings)?.stopped_by(progress.stop().clone());
    let no_state = || anyhow!("there is no state in {}: check --data-dir", data.store().display());
    let log = data.bound_log()?.ok_or_else(no_state)?;
    let snapshots = Snapshots::new(destination, log.name());
    let store = SledStore::open_whole(&data.store(), SledSettings { cache_bytes: 64 << 20, sync: true })?;
    let partition_count = match &log {
        LogIdentity::Kafka { partitions, .. } => *partitions,
        LogIdentity::Embedded { .. } => receipts_assembly::embedded_partitions(data)?,
    };
    let mut output = Output::stdout(json);
    for partition in (0..partition_count).filter(|partition| which.includes(*partition)) {
        let backend = store.partition(partition)?;
        let told = Told {
            log: snapshots.log().to_owned(),
            partition,
            partition_count,
            limits: fold_limits(settings),
            taken_ms: unix_ms(),
            program: concat!("receipts ", env!("CARGO_PKG_VERSION")).to_owned(),
        };
        let Some(taking) = Taking::begin(&backend.image_source(), told)? else { continue };
        progress.begin("taking", 0);
        let taken = snapshots.take(taking, &data.spool(), progress)?;
        progress.end();
        output.write(&taken, |to| {
            let Taken { next_offset, bytes, place, .. } = &taken;
            writeln!(to, "partition {partition} at offset {next_offset}: {bytes} bytes in {place}")
        })?;
    }
    Ok(())
}

fn there(settings: &Settings, url: &str, which: &Which, progress: &Progress, json: bool) -> Result<(), Failure> {
    let secret = receipts_assembly::operator_secret_of_holder(settings)?;
    let call = Call { url: format!("{url}{SNAPSHOTS_PATH}"), credential: secret.credential() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tracing::info!(url, "the data directory is served: asking that process for the snapshots");
    let begun = runtime.block_on(call.ask(&SnapshotRequest { partitions: which.partitions.clone() }))?;
    if begun.requested.is_empty() {
        return Err(
            anyhow!("the process at {url} owns none of these partitions just now: ask the one that does").into()
        );
    }
    let before = |partition| begun.statuses.iter().find(|s| s.partition == partition).map_or(0, |s| s.attempts);
    progress.begin("taking", 0);
    let states = loop {
        std::thread::sleep(ASK_EVERY);
        if progress.stop().is_cancelled() {
            return Err(anyhow!("stopped waiting; the service goes on with what was asked").into());
        }
        let reply = runtime.block_on(call.look())?;
        let asked: Vec<SnapshotStatus> =
            reply.statuses.into_iter().filter(|state| begun.requested.contains(&state.partition)).collect();
        progress.reached(asked.iter().map(|state| state.bytes).sum());
        let is_done = |s: &SnapshotStatus| s.attempts > before(s.partition) && s.phase == SnapshotPhase::Idle;
        if asked.iter().all(is_done) {
            break asked;
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
            (None, None) => writeln!(to, "partition {}: nothing was ever checkpointed", state.partition),
        })?;
        failed.extend(state.failure.as_ref().map(|_| state.partition));
    }
    if failed.is_empty() { Ok(()) } else { Err(anyhow!("no snapshot of partitions {failed:?} was taken").into()) }
}

struct Call {
    url: String,
    credential: String,
}

impl Call {
    async fn ask(&self, ask: &SnapshotRequest) -> anyhow::Result<SnapshotReply> {
        self.send(reqwest::Client::new().post(&self.url).json(ask)).await
    }

    async fn look(&self) -> anyhow::Result<SnapshotReply> {
        self.send(reqwest::Client::new().get(&self.url)).await
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<SnapshotReply> {
        let request = request.bearer_auth(&self.credential).timeout(Duration::from_secs(10));
        let response = request.send().await.with_context(|| format!("{} does not answer", self.url))?;
        let status = response.status();
        if status == reqwest::StatusCode::UNAUTHORIZED {
            return Err(anyhow!(
                "{} does not know the secret: give its query.secret_file, or read the data directory as its user",
                self.url
            ));
        }
        if !status.is_success() {
            return Err(anyhow!("{} says {status}: {}", self.url, response.text().await.unwrap_or_default()));
        }
        response.json().await.with_context(|| format!("{} gives another answer than is known", self.url))
    }
}
