//! Every metric, by the part that writes it. `docs/metrics.md` is made from this file.

use crate::{Counter, Entry, Gauge, Histogram, Kind, Section};

/// The upper bounds of the histograms, seconds: from a store read to a slow export.
pub const BUCKETS_SECONDS: [f64; 14] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Declares the metrics and lists them. A line is a constant, its kind, its name, its labels and
/// its help, which is the constant's documentation too.
macro_rules! catalogue {
    ($($title:literal, $binaries:literal {
        $($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*
    })*) => {
        $($(
            #[doc = $help]
            pub const $constant: $kind<{ <[&str]>::len(&[$($label),*]) }> = $kind::new($name, [$($label),*]);
        )*)*

        /// All metrics.
        pub const SECTIONS: &[Section] = &[$(Section {
            title: $title,
            binaries: $binaries,
            entries: &[$(Entry { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help }),*],
        }),*];
    };
}

catalogue! {
    "The process", "all" {
        BUILD: Gauge "receipts_build_info" ["service", "version"] "1, with the name and the version of the running binary";
        SPANS_LOST: Counter "receipts_trace_spans_lost_total" [] "Spans that could not be sent to the collector of traces; absent without one";
    }
    "The log", "all that open it" {
        LOG_REACHABLE: Gauge "receipts_log_reachable" [] "1 while the log answers, 0 while it does not";
        LOG_PARTITIONS: Gauge "receipts_log_partitions" [] "Partitions of the event topic";
    }
    "Appends", "receipts serve, receipts-ingest" {
        INGEST_EVENTS: Counter "receipts_ingest_events_total" [] "Events that the log has acknowledged to callers over HTTP";
        INGEST_FAILURES: Counter "receipts_ingest_failures_total" ["outcome"] "Requests whose events the log did not acknowledge, by outcome: not_written, unknown or too_large";
        APPEND_SECONDS: Histogram "receipts_append_seconds" [] "Time from the first append of a request to the log's acknowledgement of its last";
    }
    "The fold", "receipts serve, receipts-projector" {
        PARTITIONS: Gauge "receipts_partitions" ["role"] "Partitions whose state this process folds, by role: owner or standby";
        LAG_RECORDS: Gauge "receipts_lag_records" ["partition"] "Offsets between the end of the log, as last asked for, and the state";
        LAG_SECONDS: Gauge "receipts_lag_seconds" ["partition"] "Age of the newest folded record while others wait behind it, 0 at the end of the log";
        APPLIED_OFFSET: Gauge "receipts_applied_offset" ["partition"] "The next offset to fold";
        END_OFFSET: Gauge "receipts_end_offset" ["partition"] "The end of the log, as last asked for";
        RECORDS: Counter "receipts_records_total" ["partition"] "Records folded: events and dead letters";
        MESSAGES: Counter "receipts_messages_total" ["partition"] "Messages folded, with or without an audience";
        READS: Counter "receipts_reads_total" ["partition"] "Reads that counted: the first of an audience member for a message";
        IGNORED: Counter "receipts_reads_ignored_total" ["partition", "reason"] "Reads that changed nothing, by reason: repeated, outside_audience or expired";
        PARKED: Counter "receipts_parked_total" ["partition"] "Records, or ids of them, that were parked until their message comes";
        PARKED_BYTES: Gauge "receipts_parked_bytes" ["partition"] "Size of what is parked now";
        ERASED_PEOPLE: Gauge "receipts_erased_people" ["partition"] "People who were erased and are remembered as such";
        POLICY_TYPES: Gauge "receipts_policy_types" ["partition"] "Group types that a policy names";
        FOLD_SECONDS: Histogram "receipts_fold_seconds" [] "Time in which a thread folded the records of one poll that had any";
        ASSIGNED: Counter "receipts_partitions_assigned_total" [] "Partitions that the group has given to this process, those that came back included";
        REVOKED: Counter "receipts_partitions_revoked_total" [] "Partitions that the group has taken from this process";
        FUTURE_RECORDS: Counter "receipts_records_from_the_future_total" [] "Records whose timestamp is ahead of this process's clock";
        HELD: Gauge "receipts_partition_held_by_transaction" ["partition"] "1 while an open transaction of some producer has held the partition up for 10 s or longer";
        POSITION_WAITS: Counter "receipts_position_waits_total" ["outcome"] "Reads that waited for a position, by outcome: in_time, behind (503) or beyond_end (503)";
    }
    "Updates and dead letters", "receipts serve, receipts-projector" {
        UPDATES: Counter "receipts_updates_total" [] "Updates published";
        UPDATE_DELAY_SECONDS: Histogram "receipts_update_delay_seconds" [] "Time from the fold of a change to the publication of its update: of each publication the longest";
        DEAD_LETTERS: Counter "receipts_dead_letters_total" ["reason"] "Records that were not folded, by the reason in their dead letter";
        DEAD_LETTERS_UNSENT: Gauge "receipts_dead_letters_unsent" [] "Dead letters that the log has not acknowledged yet";
        OUTBOX_REPEATED: Counter "receipts_outbox_repeated_total" [] "Updates and dead letters that the log refused, and that were sent again";
    }
    "Checkpoints and memory", "receipts serve, receipts-projector" {
        MEMORY_BYTES: Gauge "receipts_memory_bytes" ["partition"] "Memory of the state's pages";
        PAGE_HITS: Counter "receipts_page_hits_total" ["partition"] "Lookups of the fold that found their page in memory";
        PAGE_LOADS: Counter "receipts_page_loads_total" ["partition"] "Lookups of the fold that read their page from the store";
        STORE_BYTES: Gauge "receipts_store_bytes" [] "Size of the store on disk";
        STORE_DAMAGED: Counter "receipts_store_damaged_total" [] "Damages found in the store";
        CHECKPOINT_SECONDS: Histogram "receipts_checkpoint_seconds" [] "Time that one partition's checkpoint took";
        CHECKPOINT_BYTES: Counter "receipts_checkpoint_bytes_total" [] "Size of the checkpoints written";
        CHECKPOINT_AGE_SECONDS: Gauge "receipts_checkpoint_age_seconds" [] "Age of the oldest change that no checkpoint holds, 0 if there is none";
        CHECKPOINTS_PUT_OFF: Counter "receipts_checkpoints_put_off_total" [] "Checkpoints that waited because the log had not acknowledged updates or dead letters";
    }
    "Snapshots", "receipts serve, receipts-projector" {
        SNAPSHOTS: Counter "receipts_snapshots_total" [] "Snapshots taken";
        SNAPSHOT_FAILURES: Counter "receipts_snapshot_failures_total" [] "Snapshots that could not be taken";
        SNAPSHOTS_RESTORED: Counter "receipts_snapshots_restored_total" [] "Partitions that began from a snapshot";
        SNAPSHOT_SECONDS: Histogram "receipts_snapshot_seconds" [] "Time to read and upload a snapshot";
        RESTORE_SECONDS: Histogram "receipts_restore_seconds" [] "Time to download and load a snapshot";
        SNAPSHOT_BYTES: Gauge "receipts_snapshot_bytes" ["partition"] "Size of the newest snapshot that this process took";
        SNAPSHOT_AGE_SECONDS: Gauge "receipts_snapshot_age_seconds" ["partition"] "Time since the newest snapshot was equal to the state; without one, since this process owns the partition";
    }
    "HTTP", "all" {
        HTTP_REQUESTS: Counter "receipts_http_requests_total" ["route", "method", "status"] "Requests answered, by the route's template";
        HTTP_SECONDS: Histogram "receipts_http_request_duration_seconds" ["route", "method"] "Time to answer a request; of a stream, to its head";
        BUDGET_USED: Gauge "receipts_budget_used" ["budget"] "The part of a budget that is held now";
        BUDGET_LIMIT: Gauge "receipts_budget_limit" ["budget"] "The amount that may be held of a budget at once";
        BUDGET_REFUSED: Counter "receipts_budget_refused_total" ["budget", "share"] "Refusals, by the share that was used up";
        TLS_PAIR_REFUSED: Gauge "receipts_tls_pair_refused" [] "1 while the files of TLS hold a pair that cannot be used, and the one before it is served";
        TOKENS_REFUSED: Counter "receipts_tokens_refused_total" ["reason"] "Refused tokens, by the check that failed";
        TOKEN_KEYS: Counter "receipts_token_keys_total" ["outcome"] "Fetches of the keys that verify tokens, by outcome";
    }
    "Streams", "receipts serve, receipts-query" {
        STREAMS: Gauge "receipts_streams" [] "Open streams of updates";
        STREAMS_CUT: Counter "receipts_streams_cut_total" [] "Streams that ended because their reader was too slow";
    }
    "Edges", "receipts-query" {
        PEERS: Gauge "receipts_peers" ["state"] "Projectors in the edge's list, by state: answering or silent";
        PARTITIONS_ANSWERED: Gauge "receipts_partitions_answered" [] "Partitions that some projector answers for";
        PEER_QUESTIONS: Counter "receipts_peer_questions_total" ["outcome"] "Questions to projectors, by outcome: answered, unavailable or no_reply";
    }
}
