//! The file descriptors of the process: raises its limit, and splits what it allows between
//! connections and the rest (ADR 0036, INV-DESCRIPTORS).
//!
//! Must not open or close any descriptor.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that store, log and Kafka keep of a small limit.
const KEPT_MIN: u64 = 128;
/// Store, log and Kafka keep one in this many of a large limit.
const KEPT_OF: u64 = 4;
/// The fewest connections that a service can work with.
const CONNECTIONS_MIN: u64 = 32;
/// The most connections that are taken without a setting.
const CONNECTIONS_DEFAULT_MAX: u64 = 20_000;

/// The descriptor limit does not allow what the process needs.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TooFewDescriptors {
    /// Not even the fewest connections are left.
    #[error(
        "the process may open {limit} files and sockets, and needs {needed}: raise the hard limit \
         (ulimit -Hn, LimitNOFILE=, --ulimit nofile=)"
    )]
    Limit {
        /// The descriptors that the process may open.
        limit: u64,
        /// The fewest with which it works.
        needed: u64,
    },
    /// The setting asks for more connections than are left.
    #[error(
        "http.connections_max is {wanted}, but of the {limit} files and sockets that the process may open, {left} are \
         left for connections: lower it, or raise the hard limit (ulimit -Hn, LimitNOFILE=, --ulimit nofile=)"
    )]
    Setting {
        /// The setting.
        wanted: u64,
        /// The descriptors that the process may open.
        limit: u64,
        /// The descriptors that are left for connections.
        left: u64,
    },
}

/// Raises the soft limit of open descriptors to the hard one, and returns what the process may open
/// from now on. Where the system refuses, the soft limit stays.
pub fn raise_limit() -> u64 {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current.unwrap_or(u64::MAX);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum.unwrap_or(u64::MAX),
        Err(error) => {
            tracing::warn!(%error, ?current, ?maximum, "the descriptor limit cannot be raised; the soft limit stays");
            current.unwrap_or(u64::MAX)
        }
    }
}

/// Returns how many connections callers may open, and logs the split in one line.
///
/// `limit` is what the process may open, and `wanted` is `http.connections_max`. `own` are
/// connections of listeners of their own. A process that `asks_peers` needs a descriptor more for
/// each connection: its answer may come over a connection to a peer.
///
/// # Errors
/// If the limit leaves too few.
pub fn connections(limit: u64, wanted: Option<u64>, own: u64, asks_peers: bool) -> Result<u64, TooFewDescriptors> {
    let each = if asks_peers { 2 } else { 1 };
    let kept = (limit / KEPT_OF).max(KEPT_MIN);
    let left = limit.saturating_sub(kept + own) / each;
    if left < CONNECTIONS_MIN {
        let needed = KEPT_MIN + own + CONNECTIONS_MIN * each;
        return Err(TooFewDescriptors::Limit { limit, needed });
    }
    let connections = match wanted {
        Some(wanted) if wanted > left => return Err(TooFewDescriptors::Setting { wanted, limit, left }),
        Some(wanted) => wanted,
        None => left.min(CONNECTIONS_DEFAULT_MAX),
    };
    tracing::info!(limit, kept, connections, "files and sockets that the process may open");
    Ok(connections)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// INV-DESCRIPTORS
    #[test]
    fn store_and_log_keep_descriptors_of_every_limit() {
        let of = |limit| connections(limit, None, 0, false);
        assert_eq!(of(256), Ok(128));
        assert_eq!(of(512), Ok(384));
        assert_eq!(of(1_024), Ok(768));
        assert_eq!(of(1 << 20), Ok(20_000));
        assert_eq!(of(u64::MAX), Ok(20_000));
        assert_eq!(of(160), Ok(32));
        assert_eq!(of(159), Err(TooFewDescriptors::Limit { limit: 159, needed: 160 }));
    }

    #[test]
    fn further_listeners_and_peers_take_their_part() {
        assert_eq!(connections(1_024, None, 64, false), Ok(704));
        assert_eq!(connections(1_024, None, 64, true), Ok(352));
        assert_eq!(connections(200, None, 64, false), Err(TooFewDescriptors::Limit { limit: 200, needed: 224 }));
    }

    #[test]
    fn setting_counts_where_it_fits() {
        assert_eq!(connections(1_024, Some(5), 0, false), Ok(5));
        assert_eq!(connections(1 << 20, Some(500_000), 0, false), Ok(500_000));
        let refused = connections(1_024, Some(769), 0, false).expect_err("more than there are");
        assert!(refused.to_string().contains("http.connections_max is 769"), "{refused}");
    }

    #[test]
    fn soft_limit_becomes_the_hard_one() {
        assert_eq!(Some(raise_limit()), getrlimit(Resource::Nofile).maximum.or(Some(u64::MAX)));
        assert_eq!(getrlimit(Resource::Nofile).current, getrlimit(Resource::Nofile).maximum);
    }
}
