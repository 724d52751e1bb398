//! Who holds which partitions, as the projectors said last. Asks nobody.

use crate::peer::Held;
use receipts_query::Positions;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What each projector said last, by the address that it was found under.
#[derive(Default)]
pub(crate) struct Table {
    peers: BTreeMap<SocketAddr, Peer>,
}

struct Peer {
    url: String,
    held: Held,
    /// Did not answer a question since.
    suspect: bool,
}

impl Table {
    /// Takes what a projector says; `None` where it does not answer.
    pub(crate) fn heard(&mut self, address: SocketAddr, held: Option<Held>) {
        match held {
            Some(held) => {
                let url = match &held.advertise {
                    Some(advertise) => format!("http://{advertise}"),
                    None => format!("http://{address}"),
                };
                self.peers.insert(address, Peer { url, held, suspect: false });
            }
            None => _ = self.peers.remove(&address),
        }
    }

    /// Forgets projectors whose address is none any more.
    pub(crate) fn retain(&mut self, addresses: &BTreeSet<SocketAddr>) {
        self.peers.retain(|address, _| addresses.contains(address));
    }

    /// A projector left a question open: others are asked before it until it says what it holds.
    pub(crate) fn suspect(&mut self, url: &str) {
        self.peers.values_mut().filter(|peer| peer.url == url).for_each(|peer| peer.suspect = true);
    }

    /// Whom to ask about a partition, best first: who answered last, owners before standbys, and the one that is furthest.
    pub(crate) fn candidates(&self, partition: u32) -> Vec<String> {
        let mut of: Vec<&Peer> = self.peers.values().filter(|peer| peer.held.partitions.contains(&partition)).collect();
        of.sort_by_key(|peer| (peer.suspect, peer.held.standby, Reverse(peer.held.positions.next_offset(partition))));
        of.into_iter().map(|peer| peer.url.clone()).collect()
    }

    /// The furthest that any projector is.
    pub(crate) fn positions(&self) -> Positions {
        let mut positions = Positions::new();
        self.peers.values().for_each(|peer| positions.merge(&peer.held.positions));
        positions
    }

    /// How many partitions somebody answers for.
    pub(crate) fn answered(&self) -> u32 {
        let of = self.peers.values().filter(|peer| !peer.suspect).flat_map(|peer| &peer.held.partitions);
        of.collect::<BTreeSet<_>>().len() as u32
    }

    /// The partition counts of the log that the projectors know; one, unless they fold different logs.
    pub(crate) fn partition_counts(&self) -> BTreeSet<u32> {
        self.peers.values().map(|peer| peer.held.partition_count).collect()
    }

    /// The smallest of the projectors' keys of cursors.
    pub(crate) fn cursor_key(&self) -> Option<String> {
        self.peers.values().filter_map(|peer| peer.held.cursor_key.clone()).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(standby: bool, partitions: &[u32], next_offset: u64) -> Held {
        Held {
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
    fn owners_come_before_standbys_the_furthest_first_and_suspects_last() {
        let mut table = Table::default();
        table.heard(at(1), Some(held(true, &[0, 1], 90)));
        table.heard(at(2), Some(held(false, &[0], 50)));
        table.heard(at(3), Some(held(true, &[0], 95)));
        assert_eq!(table.candidates(0), [url(2), url(3), url(1)]);
        assert_eq!(table.candidates(1), [url(1)]);
        assert!(table.candidates(2).is_empty());
        table.suspect(&url(2));
        assert_eq!(table.candidates(0), [url(3), url(1), url(2)]);
        table.heard(at(2), Some(held(false, &[0], 96)));
        assert_eq!(table.candidates(0), [url(2), url(3), url(1)]);
        table.heard(at(3), None);
        table.retain(&BTreeSet::from([at(1)]));
        assert_eq!(table.candidates(0), [url(1)]);
        assert_eq!((table.answered(), table.positions().next_offset(0)), (2, 90));
    }

    #[test]
    fn a_projector_is_asked_where_it_wants_to_be_asked() {
        let mut table = Table::default();
        table.heard(at(1), Some(Held { advertise: Some("projector-0:8081".into()), ..held(false, &[0], 1) }));
        assert_eq!(table.candidates(0), ["http://projector-0:8081"]);
    }
}
