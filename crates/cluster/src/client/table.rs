//! Knows the partitions of each projector from the state that it reported last. Sends nothing.

use crate::protocol::PeerState;
use receipts_query::Positions;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// The last reported state of each projector, by its address.
#[derive(Default)]
pub(crate) struct Table {
    peers: BTreeMap<SocketAddr, Peer>,
}

struct Peer {
    url: String,
    state: PeerState,
    /// True once it has left a request without a reply since then.
    suspect: bool,
}

impl Table {
    /// Records the state that a projector reports; `None` if it does not answer.
    pub(crate) fn record(&mut self, address: SocketAddr, state: Option<PeerState>) {
        match state {
            Some(state) => {
                let url = match &state.advertise {
                    Some(advertise) => format!("http://{advertise}"),
                    None => format!("http://{address}"),
                };
                self.peers.insert(address, Peer { url, state, suspect: false });
            }
            None => _ = self.peers.remove(&address),
        }
    }

    /// Removes projectors at any other address.
    pub(crate) fn retain(&mut self, addresses: &BTreeSet<SocketAddr>) {
        self.peers.retain(|address, _| addresses.contains(address));
    }

    /// Notes that a projector left a request without a reply: others are asked before it until it
    /// reports its state.
    pub(crate) fn suspect(&mut self, url: &str) {
        self.peers.values_mut().filter(|peer| peer.url == url).for_each(|peer| peer.suspect = true);
    }

    /// Returns the URLs of a partition's holders, best first: those that reply before suspects,
    /// then owners before standbys, then by how far each has folded.
    pub(crate) fn candidates(&self, partition: u32) -> Vec<String> {
        let mut holders: Vec<&Peer> =
            self.peers.values().filter(|peer| peer.state.partitions.contains(&partition)).collect();
        holders.sort_by_key(|peer| {
            (peer.suspect, peer.state.standby, Reverse(peer.state.positions.next_offset(partition)))
        });
        holders.into_iter().map(|peer| peer.url.clone()).collect()
    }

    /// Returns the furthest position of any projector, per partition.
    pub(crate) fn positions(&self) -> Positions {
        let mut positions = Positions::new();
        self.peers.values().for_each(|peer| positions.merge(&peer.state.positions));
        positions
    }

    /// Returns how many partitions have a projector that answers for them.
    pub(crate) fn answered(&self) -> u32 {
        let answered = self.peers.values().filter(|peer| !peer.suspect).flat_map(|peer| &peer.state.partitions);
        answered.collect::<BTreeSet<_>>().len() as u32
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
            advertise: None,
            partition_count: 4,
            standby,
            positions: partitions.iter().map(|&partition| (partition, next_offset)).collect(),
            partitions: partitions.to_vec(),
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
    fn owners_come_first_and_suspects_last() {
        let mut table = Table::default();
        table.record(at(1), Some(state(true, &[0, 1], 90)));
        table.record(at(2), Some(state(false, &[0], 50)));
        table.record(at(3), Some(state(true, &[0], 95)));
        assert_eq!(table.candidates(0), [url(2), url(3), url(1)]);
        assert_eq!(table.candidates(1), [url(1)]);
        assert!(table.candidates(2).is_empty());
        table.suspect(&url(2));
        assert_eq!(table.candidates(0), [url(3), url(1), url(2)]);
        table.record(at(2), Some(state(false, &[0], 96)));
        assert_eq!(table.candidates(0), [url(2), url(3), url(1)]);
        table.record(at(3), None);
        table.retain(&BTreeSet::from([at(1)]));
        assert_eq!(table.candidates(0), [url(1)]);
        assert_eq!((table.answered(), table.positions().next_offset(0)), (2, 90));
    }

    #[test]
    fn edges_use_the_advertised_address() {
        let mut table = Table::default();
        table.record(at(1), Some(PeerState { advertise: Some("projector-0:8081".into()), ..state(false, &[0], 1) }));
        assert_eq!(table.candidates(0), ["http://projector-0:8081"]);
    }
}
