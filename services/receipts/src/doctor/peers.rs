//! Checks the projectors that a query edge asks, as the edge does, and compares clocks with them.

use super::finding::{Finding, Findings};
use super::{Examined, Part};
use receipts_assembly::shared_secret;
use receipts_cluster::{PeerState, STATE_PATH, Secret};
use receipts_runtime::clock::unix_ms;
use receipts_runtime::exit::told_once;
use reqwest::StatusCode;
use reqwest::header::DATE;
use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs as _};

const REACHABLE: &str = "peers.reachable";
const SECRET: &str = "peers.secret";
const PARTITIONS: &str = "peers.partitions";
const VERSION: &str = "peers.version";
const CLOCK: &str = "clock.peers";

pub(super) const CHECKS: [&str; 5] = [REACHABLE, SECRET, PARTITIONS, VERSION, CLOCK];

/// Clocks that differ by more than this are told: a token's times are judged with a minute of
/// tolerance by default.
const CLOCK_DIFFERS_MS: u64 = 10_000;

/// A projector that answered.
struct Peer {
    address: SocketAddr,
    status: StatusCode,
    state: Option<PeerState>,
    version: Option<String>,
    /// The difference of the clocks, beyond the time that the answer took, milliseconds.
    clock_ms: Option<u64>,
}

pub(super) fn run(examined: &Examined, findings: &mut Findings) {
    let settings = &examined.settings;
    let names = &settings.query.projectors;
    if names.is_empty() {
        match examined.part {
            Part::Query => findings.add(Finding::problem(
                REACHABLE,
                "a query edge without projectors answers nothing",
                "set query.projectors (--query-projectors HOST:PORT)",
            )),
            _ => findings.skip(&[REACHABLE], "query.projectors is not set"),
        }
        return findings.skip(&CHECKS[1..], "query.projectors is not set");
    }
    let secret = shared_secret(settings).ok().flatten();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return findings.skip(&CHECKS, &error.to_string()),
    };
    let (mut peers, mut silent) = (Vec::new(), Vec::new());
    for name in names {
        let addresses = match name.to_socket_addrs() {
            Ok(addresses) => addresses.collect::<BTreeSet<_>>(),
            Err(error) => {
                silent.push(format!("{name}: {error}"));
                continue;
            }
        };
        for address in addresses {
            match runtime.block_on(ask(examined, address, secret.as_ref())) {
                Ok(peer) => peers.push(peer),
                Err(error) => silent.push(format!("{name} at {address}: {error}")),
            }
        }
    }
    let silent = silent.into_iter().map(|why| {
        let remedy = "check that the projector runs and listens there (projector.listen), and query.projectors";
        Finding::problem(REACHABLE, why, remedy)
    });
    findings.add_all(REACHABLE, silent.collect(), format!("{} projectors answer", peers.len()));
    if peers.is_empty() {
        return findings.skip(&CHECKS[1..], "no projector answers");
    }
    let refused = peers.iter().filter(|peer| peer.status == StatusCode::UNAUTHORIZED).map(|peer| {
        Finding::problem(
            SECRET,
            format!("the projector at {} refuses the secret of this edge", peer.address),
            "give both the same query.secret_file; sha256sum FILE compares them",
        )
    });
    findings.add_all(SECRET, refused.collect(), "the projectors take this edge's secret");
    findings.add(partitions(&peers));
    let own = env!("CARGO_PKG_VERSION");
    let others = peers.iter().filter_map(|peer| {
        let version = peer.version.as_deref().filter(|version| *version != own)?;
        Some(Finding::warning(
            VERSION,
            format!("the projector at {} runs {version}, and this is {own}", peer.address),
            "update projectors before edges, and then this program",
        ))
    });
    findings.add_all(VERSION, others.collect(), format!("all run {own}, or do not tell"));
    let differing = peers.iter().filter_map(|peer| {
        let clock_ms = peer.clock_ms.filter(|ms| *ms > CLOCK_DIFFERS_MS)?;
        Some(Finding::warning(
            CLOCK,
            format!("the clock of {} differs by {} s from this one", peer.address, clock_ms / 1_000),
            "timedatectl status on both; turn on NTP (chronyd, systemd-timesyncd)",
        ))
    });
    findings.add_all(CLOCK, differing.collect(), "the clocks agree");
}

fn partitions(peers: &[Peer]) -> Finding {
    let states: Vec<&PeerState> = peers.iter().filter_map(|peer| peer.state.as_ref()).collect();
    let counts: BTreeSet<u32> = states.iter().map(|state| state.partition_count).collect();
    let held: BTreeSet<u32> = states.iter().flat_map(|state| state.partitions.iter().copied()).collect();
    match (counts.first().copied(), counts.len()) {
        (None, _) => Finding::skipped(PARTITIONS, "no projector tells its partitions"),
        (Some(count), 1) => {
            let lacking: Vec<u32> = (0..count).filter(|partition| !held.contains(partition)).collect();
            match lacking.is_empty() {
                true => Finding::ok(PARTITIONS, format!("each of {count} partitions has a projector that answers")),
                false => Finding::problem(
                    PARTITIONS,
                    format!("no named projector answers for the partitions {lacking:?} of {count}"),
                    "name all projectors in query.projectors, and wait until they have caught up",
                ),
            }
        }
        _ => Finding::problem(
            PARTITIONS,
            format!("the projectors fold logs of different partition counts: {counts:?}"),
            "name the projectors of one log in query.projectors",
        ),
    }
}

/// Asks for state and version.
async fn ask(examined: &Examined, address: SocketAddr, secret: Option<&Secret>) -> Result<Peer, String> {
    let each = examined.patience / 2;
    let client = reqwest::Client::builder().no_proxy().timeout(each).build().map_err(|error| error.to_string())?;
    let mut request = client.get(format!("http://{address}{STATE_PATH}"));
    if let Some(secret) = secret {
        request = request.bearer_auth(secret.credential());
    }
    let asked_ms = unix_ms();
    let told = |error: reqwest::Error| told_once(&error.without_url());
    let answer = request.send().await.map_err(told)?;
    let answered_ms = unix_ms();
    let date = answer.headers().get(DATE).and_then(|date| date.to_str().ok());
    let date_ms = date.and_then(|date| chrono::DateTime::parse_from_rfc2822(date).ok());
    let date_ms = date_ms.and_then(|date| u64::try_from(date.timestamp_millis()).ok());
    // The header has whole seconds.
    let clock_ms = date_ms.map(|date| asked_ms.saturating_sub(date + 1_000).max(date.saturating_sub(answered_ms)));
    let status = answer.status();
    let state = if status.is_success() { answer.json().await.ok() } else { None };
    let version = match client.get(format!("http://{address}/metrics")).send().await {
        Ok(answer) => answer.text().await.ok().and_then(|text| version_in(&text)),
        Err(_) => None,
    };
    Ok(Peer { address, status, state, version, clock_ms })
}

/// Returns the version in the metrics of a process.
fn version_in(metrics: &str) -> Option<String> {
    let line = metrics.lines().find(|line| line.starts_with("receipts_build_info{"))?;
    let (_, rest) = line.split_once("version=\"")?;
    rest.split_once('"').map(|(version, _)| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_stands_in_the_metrics() {
        let metrics = "# HELP x\nreceipts_build_info{service=\"receipts\",version=\"1.2.3\"} 1\n";
        assert_eq!(version_in(metrics).as_deref(), Some("1.2.3"));
        assert_eq!(version_in("other 1"), None);
    }
}
