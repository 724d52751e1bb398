//! One suite for every log: the promises of the ports, checked on the embedded log, on the same in
//! memory, and on a real Kafka.
//!
//! The cases know no implementation; features of one log alone are in a module of their own. The
//! suite starts Kafka by itself. If that fails, its tests fail, unless `RECEIPTS_TEST_KAFKA=off`.

#![allow(clippy::unwrap_used, reason = "a test's helpers fail as the test does")]

mod cases;
mod embedded_only;
mod kafka_only;
mod support;

macro_rules! suite {
    ($($case:ident)*) => {
        mod embedded {
            $(#[test] fn $case() { crate::cases::$case(&crate::support::Fixture::embedded()); })*
        }
        mod in_memory {
            $(#[test] fn $case() { crate::cases::$case(&crate::support::Fixture::in_memory()); })*
        }
        mod kafka {
            $(#[test] fn $case() {
                if let Some(fixture) = crate::support::Fixture::kafka() { crate::cases::$case(&fixture); }
            })*
        }
    };
}

suite! {
    a_key_goes_to_its_murmur2_partition
    order_is_kept_within_a_partition
    headers_timestamps_and_nulls_round_trip
    a_record_without_a_time_gets_its_append_time
    a_value_of_1_mib_round_trips
    a_poll_returns_at_most_the_requested_records
    a_poll_of_an_idle_log_returns_after_its_timeout
    a_poll_does_not_wait_after_its_first_record
    each_catch_up_reports_the_end_of_a_partition
    a_reader_starts_at_the_offset_of_the_assignment
    a_flush_returns_once_everything_is_acknowledged
    a_flush_reports_a_failure_once
    concurrent_appends_are_acknowledged_in_order
    an_entry_for_an_unknown_partition_is_not_written
    an_entry_that_is_too_large_is_not_written
    the_topics_are_kept_apart
    an_offset_is_found_by_time
    a_scan_returns_a_range_in_slices
    dropping_a_reader_revokes_its_partitions
    a_refused_partition_stops_the_reader
    an_assignment_may_look_at_records
    a_start_beyond_the_end_stops_the_reader
    a_start_that_was_trimmed_stops_the_reader
    a_trimmed_log_begins_at_its_first_offset
    a_tail_begins_at_its_start_and_follows_appends
    a_tail_below_the_first_offset_stops
}
