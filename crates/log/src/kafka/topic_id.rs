//! Asks the cluster for the ids of topics (KIP-516), since a topic that was made anew has another
//! id, and for what this user may do with them (KIP-430).
//!
//! A home of `unsafe`, because rdkafka does not wrap librdkafka's `rd_kafka_DescribeTopics`.
//! It must not do more than this one request, and never creates a topic.
#![expect(unsafe_code, reason = "rdkafka has no wrapper of DescribeTopics")]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::client::Client;
use rdkafka::types::RDKafkaRespErr;
use std::ffi::CString;
use std::ptr::NonNull;
use std::time::Duration;

/// What the cluster says about a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Described {
    /// It exists. Its id is in the form that `kafka-topics.sh --describe` prints; brokers older
    /// than Kafka 2.8 tell none.
    Present(Option<String>),
    /// There is no such topic, or this user may not know of it.
    Missing,
    /// The cluster does not tell now.
    Unknown,
}

/// What the cluster lets this user do with a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Access {
    /// The topic itself.
    pub(super) described: Described,
    /// True if the user may not know of the topic.
    pub(super) is_denied: bool,
    /// The operations that the user may use, by the names in [`OPERATIONS`]; empty if the cluster
    /// does not tell, as those older than Kafka 2.3.
    pub(super) operations: Vec<&'static str>,
}

/// The operations on topics that a part of the service may need, by Kafka's names.
const OPERATIONS: [(sys::rd_kafka_AclOperation_t, &str); 5] = [
    (sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_READ, "Read"),
    (sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_WRITE, "Write"),
    (sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_CREATE, "Create"),
    (sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DESCRIBE, "Describe"),
    (sys::rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_DESCRIBE_CONFIGS, "DescribeConfigs"),
];

/// An object of librdkafka that this module owns, with the function that frees it.
struct Owned<T> {
    object: NonNull<T>,
    free: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    fn new(object: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        NonNull::new(object).map(|object| Self { object, free })
    }

    fn get(&self) -> *mut T {
        self.object.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `object` came from librdkafka's constructor for which `free` is the documented
        // destructor, nobody else owns it, and this runs once.
        unsafe { (self.free)(self.get()) }
    }
}

/// Describes topics, in the order of `names`, which must differ. Returns `None` if the cluster does
/// not answer within `timeout`.
pub(super) fn describe<C: ClientContext>(
    client: &Client<C>,
    names: &[&str],
    timeout: Duration,
) -> Option<Vec<Described>> {
    ask(client, names, timeout, false, read)
}

/// As [`describe`], and asks what this user may do with each topic.
pub(super) fn access<C: ClientContext>(client: &Client<C>, names: &[&str], timeout: Duration) -> Option<Vec<Access>> {
    ask(client, names, timeout, true, read_access)
}

fn ask<C: ClientContext, T>(
    client: &Client<C>,
    names: &[&str],
    timeout: Duration,
    with_operations: bool,
    read: impl Fn(*const sys::rd_kafka_TopicDescription_t) -> T,
) -> Option<Vec<T>> {
    let names: Vec<CString> = names.iter().map(|name| CString::new(*name).ok()).collect::<Option<_>>()?;
    let mut pointers: Vec<_> = names.iter().map(|name| name.as_ptr()).collect();
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the pointers are `names.len()` strings that end with NUL and live until the end of
    // this function; librdkafka copies them.
    let topics = unsafe { sys::rd_kafka_TopicCollection_of_topic_names(pointers.as_mut_ptr(), pointers.len()) };
    let topics = Owned::new(topics, sys::rd_kafka_TopicCollection_destroy)?;
    // SAFETY: `client` keeps its handle alive for the length of this call. The queue is freed
    // before this function returns, so it does not outlive the handle.
    let queue = unsafe { sys::rd_kafka_queue_new(client.native_ptr()) };
    let queue = Owned::new(queue, sys::rd_kafka_queue_destroy)?;
    // SAFETY: as for the queue.
    let options = unsafe {
        sys::rd_kafka_AdminOptions_new(client.native_ptr(), sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS)
    };
    let options = Owned::new(options, sys::rd_kafka_AdminOptions_destroy)?;
    // SAFETY: the options are alive, and a text of length 0 is never written.
    let set = unsafe {
        sys::rd_kafka_AdminOptions_set_request_timeout(options.get(), timeout_ms.max(1), std::ptr::null_mut(), 0)
    };
    if set != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
        return None;
    }
    if with_operations {
        // SAFETY: the options are alive. The function returns null, or an error that is freed here.
        let error = unsafe { sys::rd_kafka_AdminOptions_set_include_authorized_operations(options.get(), 1) };
        if Owned::new(error, sys::rd_kafka_error_destroy).is_some() {
            return None;
        }
    }
    // SAFETY: all four objects are alive. librdkafka copies topics and options, and puts its one
    // answer into the queue. An answer that comes after the queue is destroyed is dropped by it.
    let event = unsafe {
        sys::rd_kafka_DescribeTopics(client.native_ptr(), topics.get(), options.get(), queue.get());
        sys::rd_kafka_queue_poll(queue.get(), timeout_ms.saturating_add(100))
    };
    let event = Owned::new(event, sys::rd_kafka_event_destroy)?;
    let mut count = 0;
    // SAFETY: the event is alive. The function returns null for an event of another type, and the
    // next one takes an array of `count` pointers out of the event, which outlives its use here.
    let described = unsafe {
        if sys::rd_kafka_event_error(event.get()) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return None;
        }
        let result = NonNull::new(sys::rd_kafka_event_DescribeTopics_result(event.get()).cast_mut())?;
        let array = sys::rd_kafka_DescribeTopics_result_topics(result.as_ptr(), &raw mut count);
        if array.is_null() || count != names.len() {
            return None;
        }
        std::slice::from_raw_parts(array, count)
    };
    Some(described.iter().map(|topic| read(*topic)).collect())
}

/// Reads one description. `topic` is null, or one of an event that is alive.
fn read(topic: *const sys::rd_kafka_TopicDescription_t) -> Described {
    use RDKafkaRespErr as Code;
    if topic.is_null() {
        return Described::Unknown;
    }
    // SAFETY: the description is alive, and so are its error and its id, which are parts of it. A
    // null error has the code of no error.
    let (code, high, low) = unsafe {
        let code = sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(topic));
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        (code, sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id))
    };
    match code {
        Code::RD_KAFKA_RESP_ERR_NO_ERROR => Described::Present(text(high, low)),
        Code::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART | Code::RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC => Described::Missing,
        _ => Described::Unknown,
    }
}

/// Reads one description with its operations. `topic` is as in [`read`].
fn read_access(topic: *const sys::rd_kafka_TopicDescription_t) -> Access {
    let described = read(topic);
    if topic.is_null() {
        return Access { described, is_denied: false, operations: Vec::new() };
    }
    let mut count = 0;
    // SAFETY: the description is alive, and so are its error and its array of `count` operations,
    // which is read before the description's event ends. Null stands for no operations.
    let (code, operations) = unsafe {
        let code = sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(topic));
        let array = sys::rd_kafka_TopicDescription_authorized_operations(topic, &raw mut count);
        (code, if array.is_null() { &[][..] } else { std::slice::from_raw_parts(array, count) })
    };
    let named = OPERATIONS.iter().filter(|(operation, _)| operations.contains(operation));
    Access {
        described,
        is_denied: code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED,
        operations: named.map(|(_, name)| *name).collect(),
    }
}

/// Returns an id as Kafka's tools print it; `None` for the id of zeros, which stands for none.
fn text(high: i64, low: i64) -> Option<String> {
    let bytes = (u128::from(high.cast_unsigned()) << 64 | u128::from(low.cast_unsigned())).to_be_bytes();
    (bytes != [0; 16]).then(|| URL_SAFE_NO_PAD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_read_as_kafkas_tools_print_them() {
        assert_eq!(text(0, 0), None);
        assert_eq!(text(0, 1).as_deref(), Some("AAAAAAAAAAAAAAAAAAAAAQ"), "the id of Kafka's own metadata topic");
        assert_eq!(text(-1, -1).as_deref(), Some("_____________________w"));
    }
}
