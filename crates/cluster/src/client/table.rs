//! Knows the partitions of each projector from the state that it reported last. Sends nothing.

use crate::protocol::PeerState;
use receipts_metrics::log_lines::ranges;
use receipts_query::{LogTag, Positions};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// The last reported state of each projector, by its address.
#[derive(Default)]
pub(crate) struct Table {
    peers: BTreeMap<SocketAddr, Peer>,
    /// The partition count of the edge, once it is known.
    partition_count: Option<u32>,
    /// The projectors of other counts.
    others: BTreeSet<SocketAddr>,
}

struct Peer {
    url: String,
    state: PeerState,
    /// True once it has left a request without a reply since then.
    suspect: bool,
}

impl Peer {
    /// Returns for how many seconds the log has been silent for a partition, if it is.
    fn stale_seconds(&self, partition: u32) -> Option<u64> {
        self.state.stale.iter().find(|(stale, _)| *stale == partition).map(|(_, seconds)| *seconds)
    }
}

impl Table {
    /// Records the state that a projector reports, or why it does not answer. A projector of
    /// another partition count than the edge's is as one that does not answer: it folds another
    /// topic. Says once when a projector or its partitions come or go.
    pub(crate) fn record(&mut self, address: SocketAddr, state: Result<PeerState, String>) {
        let listed = |state: &PeerState| ranges(state.partitions.iter().copied());
        let known = self.peers.get(&address).map(|peer| listed(&peer.state));
        match state {
            Ok(state) if self.partition_count.is_some_and(|count| count != state.partition_count) => {
                if self.peers.remove(&address).is_some() || self.others.insert(address) {
                    let (held, wanted) = (state.partition_count, self.partition_count);
                    tracing::error!(
                        %address,
                        held,
                        wanted,
                        "a projector folds a topic of another partition count; it is not asked: restart this edge if the \
                         service has moved to a new topic"
                    );
                }
            }
            Ok(state) => {
                self.others.remove(&address);
                let (partitions, standby) = (listed(&state), state.standby);
                match &known {
                    None => tracing::info!(%address, partitions, standby, "a projector answers"),
                    Some(before) if *before != partitions => {
                        tracing::info!(%address, partitions, before, standby, "a projector answers for other partitions");
                    }
                    Some(_) => {}
                }
                let url = match &state.advertise {
                    Some(advertise) => format!("http://{advertise}"),
                    None => format!("http://{address}"),
                };
                self.peers.insert(address, Peer { url, state, suspect: false });
            }
            Err(cause) => {
                if self.peers.remove(&address).is_some() {
                    tracing::warn!(%address, partitions = known, cause, "a projector does not answer any more");
                }
            }
        }
    }

    /// Removes projectors at any other address.
    pub(crate) fn retain(&mut self, addresses: &BTreeSet<SocketAddr>) {
        self.peers.retain(|address, _| {
            let is_kept = addresses.contains(address);
            if !is_kept {
                tracing::info!(%address, "a projector is gone from its name");
            }
            is_kept
        });
    }

    /// Returns the number of projectors that answer.
    pub(crate) fn count(&self) -> usize {
        self.peers.len()
    }

    /// Notes that a projector left a request without a reply: others are asked before it until it
    /// reports its state.
    pub(crate) fn suspect(&mut self, url: &str) {
        self.peers.values_mut().filter(|peer| peer.url == url).for_each(|peer| peer.suspect = true);
    }

    /// Sets the partition count of the edge, which never changes.
    pub(crate) fn set_partition_count(&mut self, count: u32) {
        self.partition_count = Some(count);
    }

    /// Returns the URLs of a partition's holders, best first: those that reply before suspects,
    /// then those that hear from the log before stale ones, then owners before standbys, then by
    /// how far each has folded.
    pub(crate) fn candidates(&self, partition: u32) -> Vec<String> {
        let mut holders: Vec<&Peer> =
            self.peers.values().filter(|peer| peer.state.partitions.contains(&partition)).collect();
        holders.sort_by_key(|peer| {
            let is_stale = peer.stale_seconds(partition).is_some();
            (peer.suspect, is_stale, peer.state.standby, Reverse(peer.state.positions.next_offset(partition)))
        });
        holders.into_iter().map(|peer| peer.url.clone()).collect()
    }

    /// Returns the furthest position of any projector, per partition.
    pub(crate) fn positions(&self) -> Positions {
        let mut positions = Positions::new();
        self.peers.values().for_each(|peer| positions.merge(&peer.state.positions));
        positions
    }

    /// Returns the log of the positions, if a projector reports it and no other one reports
    /// another: an edge must not refuse a token of a log that some projector folds.
    pub(crate) fn log(&self) -> Option<LogTag> {
        let mut logs = self.peers.values().filter_map(|peer| peer.state.log);
        let first = logs.next()?;
        logs.all(|log| log == first).then_some(first)
    }

    /// Returns the partitions that a projector answers for, each with the seconds since its best
    /// holder heard from the log, if that is silent.
    pub(crate) fn answered(&self) -> BTreeMap<u32, Option<u64>> {
        let mut answered = BTreeMap::new();
        for peer in self.peers.values().filter(|peer| !peer.suspect) {
            for &partition in &peer.state.partitions {
                let stale = peer.stale_seconds(partition);
                answered
                    .entry(partition)
                    .and_modify(|best: &mut Option<u64>| *best = stale.min(*best))
                    .or_insert(stale);
            }
        }
        answered
    }

    /// Returns for how many seconds a partition without a holder has been stale at its owner, who
    /// therefore does not answer.
    pub(crate) fn too_stale(&self, partition: u32) -> Option<u64> {
        self.peers.values().filter_map(|peer| peer.stale_seconds(partition)).min()
    }

    /// Returns the partition counts that the projectors report: one, unless they fold different
    /// logs.
    pub(crate) fn partition_counts(&self) -> BTreeSet<u32> {
        self.peers.values().map(|peer| peer.state.partition_count).collect()
    }

    /// Returns the smallest of the projectors' cursor keys.
    pub(crate) fn cursor_key(&self) -> Option<String> {
        self.peers.values().filter_map(|peer| peer.state.cursor_key.clone()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(standby: bool, partitions: &[u32], next_offset: u64) -> PeerState {
        PeerState {
            log: None,
            advertise: None,
            partition_count: 4,
            standby,
            positions: partitions.iter().map(|&partition| (partition, next_offset)).collect(),
            partitions: partitions.to_vec(),
            stale: Vec::new(),
            cursor_key: None,
        }
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn url(port: u16) -> String {
        format!("http://127.0.0.1:{port}")
    }

    #[test]
    fn log_is_known_while_projectors_agree() {
        let (mut table, state) = (Table::default(), |log| PeerState { log, ..state(false, &[0], 1) });
        table.record(at(1), Ok(state(None)));
        assert_eq!(table.log(), None);
        table.record(at(2), Ok(state(Some(LogTag(7)))));
        assert_eq!(table.log(), Some(LogTag(7)), "an older release does not report it");
        table.record(at(3), Ok(state(Some(LogTag(8)))));
        assert_eq!(table.log(), None, "the service moves to another topic");
    }

    #[test]
    fn owners_come_first_and_suspects_last() {
        let mut table = Table::default();
        table.record(at(1), Ok(state(true, &[0, 1], 90)));
        table.record(at(2), Ok(state(false, &[0], 50)));
        table.record(at(3), Ok(state(true, &[0], 95)));
        assert_eq!(table.candidates(0), [url(2), url(3), url(1)]);
        assert_eq!(table.candidates(1), [url(1)]);
        assert!(table.candidates(2).is_empty());
        table.suspect(&url(2));
        assert_eq!(table.candidates(0), [url(3), url(1), url(2)]);
        table.record(at(2), Ok(state(false, &[0], 96)));
        assert_eq!(table.candidates(0), [url(2), url(3), url(1)]);
        table.record(at(3), Err("gone".to_owned()));
        table.retain(&BTreeSet::from([at(1)]));
        assert_eq!(table.candidates(0), [url(1)]);
        assert_eq!((table.answered().len(), table.positions().next_offset(0)), (2, 90));
    }

    #[test]
    fn stale_holders_come_last_and_are_better_than_none() {
        let stale = |seconds, state: PeerState| PeerState { stale: vec![(0, seconds)], ..state };
        let mut table = Table::default();
        table.record(at(1), Ok(stale(9, state(false, &[0, 1], 90))));
        assert_eq!(table.candidates(0), [url(1)]);
        assert_eq!(table.answered(), BTreeMap::from([(0, Some(9)), (1, None)]));
        table.record(at(2), Ok(state(true, &[0], 50)));
        assert_eq!(table.candidates(0), [url(2), url(1)], "a standby that hears from the log");
        assert_eq!(table.answered()[&0], None);
        table.record(at(2), Ok(stale(4, state(true, &[0], 95))));
        assert_eq!(table.candidates(0), [url(1), url(2)], "of two stale ones, the owner");
        table.record(at(1), Ok(stale(9, state(false, &[], 90))));
        table.record(at(2), Err("refused".to_owned()));
        assert_eq!((table.candidates(0).len(), table.too_stale(0), table.too_stale(1)), (0, Some(9), None));
    }

    #[test]
    fn projectors_of_another_partition_count_are_not_asked() {
        let mut table = Table::default();
        table.record(at(1), Ok(state(false, &[0], 90)));
        table.set_partition_count(4);
        for _ in 0..2 {
            table.record(at(1), Ok(PeerState { partition_count: 16, ..state(false, &[0], 90) }));
            assert!(table.candidates(0).is_empty());
        }
        table.record(at(1), Ok(state(false, &[0], 90)));
        assert_eq!(table.candidates(0), [url(1)]);
    }

    #[test]
    fn edges_use_the_advertised_address() {
        let mut table = Table::default();
        table.record(at(1), Ok(PeerState { advertise: Some("projector-0:8081".into()), ..state(false, &[0], 1) }));
        assert_eq!(table.candidates(0), ["http://projector-0:8081"]);
    }
}
