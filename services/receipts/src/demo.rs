//! `receipts demo`: starts the service, feeds a generated chat into it, and shows its answers. Must
//! not show anything but answers and measurements of this run.

mod ask;
mod chat;
mod feed;
mod live;
mod random;
mod show;
mod story;

use crate::service::{AllInOne, Medium, NAME};
use anyhow::{Context as _, Result, anyhow};
use ask::Client;
use chat::{Featured, Story};
use feed::Fed;
use live::Live;
use receipts_assembly::Service as _;
use receipts_event::TENANT_DEFAULT;
use receipts_runtime::config::Settings;
use receipts_runtime::exit::Failure;
use receipts_runtime::metrics::Metrics;
use receipts_runtime::output::Output;
use receipts_runtime::{clock, shutdown};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The arguments of the demo, and the settings that the operator has set: for the others the demo
/// has its own defaults.
pub(crate) struct Plan {
    pub(crate) stay: bool,
    pub(crate) seed: u64,
    pub(crate) json: bool,
    pub(crate) listen_set: bool,
    pub(crate) data_dir_set: bool,
    pub(crate) filter_set: bool,
}

/// One run of the demo.
struct Run {
    plan: Plan,
    /// A warning about the address, if there is one.
    notice: Option<String>,
    /// The default address of a demo with --stay.
    stay_address: SocketAddr,
}

/// Runs the demo.
///
/// # Errors
/// As [`receipts_assembly::serve`], and if the service does not accept the chat or does not
/// answer.
pub(crate) fn run(mut settings: Settings, plan: Plan) -> Result<(), Failure> {
    // The configuration file may set these too; then the demo keeps them.
    if settings.auth.is_configured() {
        return Err(Failure::usage(
            "the demo sends no token: do not set auth.issuer, auth.secret_file or auth.jwks_file (--auth-issuer)",
        ));
    }
    // The demo asks itself by its address, which no certificate names.
    settings.http.tls = None;
    let defaults = receipts_runtime::config::load(None, [], &[])?;
    let stay_address = settings.http.listen;
    let mut notice = None;
    if !plan.listen_set && settings.http.listen == defaults.http.listen {
        if !plan.stay {
            settings.http.listen.set_port(0);
        } else if TcpListener::bind(settings.http.listen).is_err() {
            notice = Some(format!("{} is taken, so this demo listens at another port", settings.http.listen));
            settings.http.listen.set_port(0);
        }
    }
    let mut temporary = None;
    if !plan.data_dir_set && settings.data_dir == defaults.data_dir {
        let folder =
            tempfile::Builder::new().prefix("receipts-demo-").tempdir().context("cannot make a temporary directory")?;
        settings.data_dir = folder.path().to_owned();
        temporary = Some(folder);
    }
    if settings.kafka.bootstrap.is_some() && temporary.is_some() {
        // As a member of the default group it would take partitions from a running service.
        settings.projector.group = format!("{}-demo-{:x}", settings.projector.group, clock::unix_ms());
    }
    if !plan.filter_set && settings.telemetry.log_filter == defaults.telemetry.log_filter {
        settings.telemetry.log_filter = "warn".to_owned();
    }
    let run = Run { plan, notice, stay_address };
    let done =
        receipts_assembly::run(NAME, &settings, async |stop, metrics| perform(&settings, &run, &stop, metrics).await);
    // The service has closed the directory only now.
    drop(temporary);
    done
}

async fn perform(settings: &Settings, run: &Run, stop: &CancellationToken, metrics: Metrics) -> Result<(), Failure> {
    let Run { plan, notice, .. } = run;
    let mut output = Output::stdout(plan.json);
    if let Some(notice) = notice {
        show::heading(&mut output, notice)?;
    }
    let mut service = tokio::select! {
        started = AllInOne::start(settings, Medium::Settings, metrics) => started?,
        () = stop.cancelled() => return Ok(()),
    };
    let shown = tokio::select! {
        shown = feed_and_show(&mut service, run, &mut output) => shown.map(Some),
        () = stop.cancelled() => Ok(None),
    };
    if let Ok(Some(shown)) = &shown
        && plan.stay
    {
        let live = Live::new(shown.tenant.clone(), service.partitions().count(), plan.seed);
        let writer = service.writer();
        tokio::select! {
            () = service.ended() => {}
            () = stop.cancelled() => {}
            // The service is there to be asked, also without new events.
            lived = live.run(&*writer) => {
                if let Err(error) = lived {
                    tracing::warn!("the chat does not go on: {error:#}");
                }
                stop.cancelled().await;
            }
        }
    }
    stop.cancel();
    shutdown::drain(stop, Duration::from_millis(settings.drain_ms), service.stop()).await??;
    let shown = shown?;
    // The disk holds all pages only after the last checkpoint.
    let log_bytes = settings.kafka.bootstrap.is_none().then(|| disk_bytes(&settings.data_dir.join("log")));
    show::disk(&mut output, disk_bytes(&settings.data_dir.join("store")), log_bytes)?;
    if !plan.stay
        && let Some(shown) = shown
    {
        let url = format!("http://{}", run.stay_address);
        let commands = commands(&url, &shown.tenant, &shown.featured);
        show::commands(&mut output, "To continue, start `receipts demo --stay` and, while it runs:", &url, &commands)?;
    }
    Ok(())
}

/// The chat that the demo has shown.
struct Shown {
    tenant: String,
    featured: Vec<Featured>,
}

/// Waits for the service, feeds the chat, asks questions and shows the answers, and with --stay the
/// commands to continue with.
async fn feed_and_show(service: &mut AllInOne, run: &Run, output: &mut Output) -> Result<Shown, Failure> {
    tokio::select! {
        () = service.ready() => {}
        () = service.ended() => return Err(anyhow!("the service ended before it was ready").into()),
    }
    output.ready(NAME, &service.addresses())?;
    // Two chats of one tenant would mix, so in a log that holds events the chat gets its own
    // tenant.
    let now_ms = clock::unix_ms();
    let is_new = service.partitions().positions().is_empty();
    let tenant = if is_new { TENANT_DEFAULT.to_owned() } else { format!("demo-{now_ms:x}") };
    let (seed, partition_count) = (run.plan.seed, service.partitions().count());
    let story = {
        let tenant = tenant.clone();
        receipts_assembly::on_thread("demo-story", move || Ok(story::generate(&tenant, partition_count, seed, now_ms)))
            .await?
    };
    let Story { events, conversations, featured } = story;
    let fed = feed::feed(service, events).await?;
    tracing::debug!(events = fed.events, folded_ms = millis(fed.folded), "the chat is folded");
    let client = Client::new(service.url(), &tenant, &fed.positions)?;
    answers(output, &client, &featured).await?;
    show::figures(output, &figures(&fed, conversations))?;
    if run.plan.stay {
        let url = service.url();
        let commands = commands(&url, &tenant, &featured);
        show::commands(output, "To continue (Ctrl-C stops the demo):", &url, &commands)?;
    }
    Ok(Shown { tenant, featured })
}

async fn answers(output: &mut Output, client: &Client, featured: &[Featured]) -> Result<()> {
    // The first request opens the connection, which the measurement must not include.
    client.receipts(&featured[..1]).await?;
    show::receipts(output, featured, &client.receipts(featured).await?)?;
    let mark = client.read_mark(story::DIRECT_ID, story::DIRECT_READER).await?;
    show::read_mark(output, story::DIRECT_ID, &mark.value)?;
    for message in featured.iter().filter(|message| message.conversation_id == story::EVERYONE_ID) {
        show::heading(
            output,
            &format!("Who of {} has read “{}”", show::grouped(story::EVERYONE as u64), message.text),
        )?;
        for filter in ["read", "unread", "departed"] {
            show::list(output, message, filter, &client.members(message, filter).await?)?;
        }
    }
    Ok(())
}

fn figures(fed: &Fed, conversations: u64) -> show::Figures {
    let folded_per_s = fed.events as f64 / fed.folded.as_secs_f64();
    show::Figures {
        events: fed.events,
        conversations,
        written_ms: millis(fed.written),
        folded_ms: millis(fed.folded),
        folded_per_s: folded_per_s as u64,
    }
}

/// Returns the commands to continue with.
fn commands(url: &str, tenant: &str, featured: &[Featured]) -> Vec<String> {
    let header = if tenant == TENANT_DEFAULT { String::new() } else { format!(" -H 'Receipts-Tenant: {tenant}'") };
    let get = |path: String| format!("curl -s{header} '{url}{path}'");
    let mut commands = vec![format!("curl -sN{header} '{url}/v1/updates?conversation_id={}'", live::GROUP_ID)];
    if let Some(first) = featured.first() {
        commands.push(get(ask::receipt_path(first)));
        commands.push(get(ask::members_path(first, "unread")));
    }
    if let Some(large) = featured.iter().find(|message| message.conversation_id == story::EVERYONE_ID) {
        commands.push(get(ask::members_path(large, "unread") + "&limit=1000"));
    }
    commands.push(get(ask::read_mark_path(story::DIRECT_ID, story::DIRECT_READER)));
    commands.push(format!(
        "curl -s{header} '{url}/v1/events' -H 'Content-Type: application/json' \
         -d '{{\"type\":\"message.read\",\"conversation_id\":\"{}\",\"reader_id\":\"alice\",\"message_ids\":[\"keys-2\"]}}'",
        story::DIRECT_ID
    ));
    commands
}

/// Returns the disk space of the files below a folder, in bytes. A file that is removed meanwhile
/// counts as 0.
fn disk_bytes(folder: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => disk_bytes(&entry.path()),
        Ok(metadata) => metadata.blocks() * 512,
        Err(_) => 0,
    };
    entries.flatten().map(size).sum()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
