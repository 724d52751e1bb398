//! One suite for every log: what the ports promise, held against the embedded log and against a real Kafka.
//!
//! The cases know no implementation; what only one of them can do is in its own module. Kafka is started by the suite
//! itself; where that fails, its tests fail, unless `RECEIPTS_TEST_KAFKA=off`.

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
    a_record_without_a_time_gets_that_of_its_append
    a_value_of_1_mib_round_trips
    a_poll_hands_over_at_most_what_was_asked_for
    a_poll_of_an_idle_log_returns_after_its_timeout
    a_poll_returns_with_the_first_record_and_does_not_wait_for_more
    the_end_of_every_partition_is_told_and_told_again_after_each_catch_up
    a_reader_starts_where_the_assignment_says
    a_flush_returns_once_everything_is_acknowledged
    a_flush_tells_once_of_a_failure_since_the_last
    ten_thousand_appends_in_flight_are_acknowledged_in_order
    an_entry_for_a_partition_that_is_not_there_was_certainly_not_written
    an_entry_that_is_too_large_was_certainly_not_written
    the_topics_are_kept_apart
    an_offset_is_found_by_time
    a_scan_hands_over_a_stretch_in_slices_and_ends_where_it_is_told
    dropping_a_reader_revokes_what_it_holds
    a_refused_partition_stops_the_reader
    who_takes_a_partition_over_may_look_at_its_records
    a_start_beyond_the_end_stops_the_reader
    a_start_that_was_trimmed_stops_the_reader
    a_trimmed_log_begins_at_its_first_offset
    a_tail_begins_where_it_is_told_and_hears_what_is_appended
    a_tail_below_the_first_offset_stops
}
