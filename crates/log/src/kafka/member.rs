//! Leaves a consumer group in order: others get the partitions before the consumer closes.
//!
//! It decides nothing about partitions, and releases no state: the reader does that first.

use super::rebalance::RebalanceContext;
use rdkafka::bindings::{rd_kafka_mem_free, rd_kafka_memberid};
use rdkafka::consumer::Consumer;
use rdkafka::consumer::base_consumer::BaseConsumer;
use std::ffi::CStr;
use std::time::{Duration, Instant};

/// How long a stopping process waits until it has left. librdkafka leaves only after a rebalance
/// that has begun, and the other members learn of one by their next heartbeat, 3 s at most. The
/// state is released by then, so a longer wait would help only a group that waits for a dead
/// member.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one poll waits meanwhile.
const POLL_WAIT: Duration = Duration::from_millis(5);

/// Leaves the group for good, or gives up after [`LEAVE_TIMEOUT`].
///
/// A consumer with a static name that is only closed stays in its group until its session ends
/// (KIP-345). One that unsubscribes first leaves, as any other one does. `joins` tells that its
/// request to join may be on its way: it waits for the answer then, because the group would keep
/// the member otherwise.
///
/// All rebalances that come meanwhile must be answered by the context.
pub(super) fn leave(consumer: &BaseConsumer<RebalanceContext>, joins: bool) {
    let deadline = Instant::now() + LEAVE_TIMEOUT;
    let wait_until = |is_done: &dyn Fn() -> bool| {
        while !is_done() && Instant::now() < deadline {
            // No partition is ours any more, so no record is lost.
            drop(consumer.poll(POLL_WAIT));
        }
    };
    if joins {
        wait_until(&|| is_member(consumer));
    }
    consumer.unsubscribe();
    // The group postpones it until a rebalance is over.
    let is_unsubscribed = || consumer.subscription().is_ok_and(|topics| topics.count() == 0);
    wait_until(&|| is_unsubscribed() && !is_member(consumer));
    if is_member(consumer) {
        tracing::warn!("the consumer group does not let this process go; it waits for the end of its session");
    }
}

/// Tells whether the consumer has a member id. librdkafka drops the id when it sends its request to
/// leave, and a consumer that closes waits for the answer.
#[expect(unsafe_code, reason = "rdkafka 0.39 does not expose the member id")]
fn is_member(consumer: &BaseConsumer<RebalanceContext>) -> bool {
    let client = consumer.client().native_ptr();
    // SAFETY: `client` lives as long as the borrowed consumer. The function may be called on any
    // thread, and returns null or a string that ends with a NUL and belongs to the caller.
    let id = unsafe { rd_kafka_memberid(client) };
    if id.is_null() {
        return false;
    }
    // SAFETY: as above; nothing else uses the string, and it is not used after it is freed by the
    // library that allocated it.
    unsafe {
        let is_member = !CStr::from_ptr(id).is_empty();
        rd_kafka_mem_free(client, id.cast());
        is_member
    }
}
