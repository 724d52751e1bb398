//! The calls of librdkafka that rdkafka does not offer: giving a token to a client of any kind,
//! flushing without a pause, and learning which check a broker's certificate fails.
//!
//! rdkafka hands on librdkafka's request for a token only where a client is polled, never for
//! administration, and without SASL extensions. So every client is registered here, and gets each
//! new token from the keeper.
//!
//! This is the only file with `unsafe`. It knows neither settings nor token endpoints.
#![expect(unsafe_code, reason = "rdkafka has no safe form of these calls")]

use parking_lot::Mutex;
use rdkafka::admin::AdminClient;
use rdkafka::bindings::{
    rd_kafka_conf_res_t, rd_kafka_conf_set_ssl_cert_verify_cb, rd_kafka_flush, rd_kafka_oauthbearer_set_token,
    rd_kafka_resp_err_t, rd_kafka_type_t,
};
use rdkafka::client::Client;
use rdkafka::consumer::base_consumer::BaseConsumer;
use rdkafka::consumer::{Consumer, ConsumerContext};
use rdkafka::producer::{Producer, ProducerContext, ThreadedProducer};
use rdkafka::types::RDKafka;
use rdkafka::{ClientConfig, ClientContext};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{Duration, Instant};

/// A token in the form that librdkafka takes.
pub(super) struct NativeToken {
    value: CString,
    principal: CString,
    /// Names and values, alternating.
    extensions: Vec<CString>,
    expires_at_ms: i64,
}

impl NativeToken {
    /// `None` if a text holds a zero byte, which no token does.
    pub(super) fn new(
        value: &str,
        principal: &str,
        extensions: &[(String, String)],
        expires_at_ms: i64,
    ) -> Option<Self> {
        let pairs = extensions.iter().flat_map(|(name, value)| [name, value]);
        Some(Self {
            value: CString::new(value).ok()?,
            principal: CString::new(principal).ok()?,
            extensions: pairs.map(|text| CString::new(text.as_str()).ok()).collect::<Option<_>>()?,
            expires_at_ms,
        })
    }
}

/// The clients of a log that are alive, and the token that they have.
#[derive(Default)]
pub(super) struct Clients(Mutex<Registry>);

#[derive(Default)]
struct Registry {
    next_id: u64,
    handles: BTreeMap<u64, Handle>,
    token: Option<NativeToken>,
}

/// Points to a client of librdkafka that is alive.
struct Handle(*mut RDKafka);

// SAFETY: librdkafka's clients may be used by any thread at any time (rdkafka.h, "Thread safety").
unsafe impl Send for Handle {}

impl Handle {
    /// # Errors
    /// librdkafka's sentence, if it refuses the token.
    fn set(&self, token: &NativeToken) -> Result<(), String> {
        let mut extensions: Vec<*const c_char> = token.extensions.iter().map(|text| text.as_ptr()).collect();
        let mut error: [c_char; 512] = [0; 512];
        // SAFETY: the client is alive, because `Registered` removes its handle under the registry's
        // lock, which the caller holds, before it destroys the client. All texts end with a zero
        // byte, and they and both arrays outlive the call; librdkafka copies what it keeps.
        let code = unsafe {
            rd_kafka_oauthbearer_set_token(
                self.0,
                token.value.as_ptr(),
                token.expires_at_ms,
                token.principal.as_ptr(),
                extensions.as_mut_ptr(),
                extensions.len(),
                error.as_mut_ptr(),
                error.len(),
            )
        };
        if code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Ok(());
        }
        // SAFETY: librdkafka ends the text within the buffer, which begins as zeros.
        let text = unsafe { CStr::from_ptr(error.as_ptr()) };
        Err(text.to_string_lossy().into_owned())
    }
}

impl Clients {
    /// Gives a token to all clients, and to those that are made later.
    ///
    /// # Errors
    /// librdkafka's sentence, if it refuses the token.
    pub(super) fn set_token(&self, token: NativeToken) -> Result<(), String> {
        let mut registry = self.0.lock();
        let given = registry.handles.values().try_for_each(|handle| handle.set(&token));
        registry.token = Some(token);
        given
    }
}

/// A client that gets tokens for as long as it lives. It gives out no exclusive reference, so the
/// client cannot be exchanged.
pub(super) struct Registered<C> {
    // Fields are dropped in this order: the registration ends before the client does.
    _registration: Registration,
    client: C,
}

impl<C: Native> Registered<C> {
    pub(super) fn new(client: C, clients: &Arc<Clients>) -> Self {
        let mut registry = clients.0.lock();
        let (id, handle) = (registry.next_id, Handle(client.native()));
        registry.next_id += 1;
        if let Some(Err(error)) = registry.token.as_ref().map(|token| handle.set(token)) {
            tracing::warn!(error, "librdkafka refuses the token");
        }
        registry.handles.insert(id, handle);
        drop(registry);
        Self { _registration: Registration { clients: Arc::clone(clients), id }, client }
    }
}

impl<C> Deref for Registered<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.client
    }
}

impl<C: ProducerContext + 'static> Registered<ThreadedProducer<C>> {
    /// Has all queued records sent now, without `linger.ms`, and returns once all are acknowledged
    /// or the time is over; tells whether they are. rdkafka's `flush` polls for events between two
    /// short calls, and records linger meanwhile.
    pub(super) fn flush_for(&self, timeout: Duration) -> bool {
        let timeout_ms = c_int::try_from(timeout.as_micros().div_ceil(1_000)).unwrap_or(c_int::MAX);
        // SAFETY: the producer lives as long as `self`, and any thread may call it. It reports
        // deliveries as events, so this call runs no callback.
        let code = unsafe { rd_kafka_flush(self.client.native(), timeout_ms) };
        code == rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
    }
}

struct Registration {
    clients: Arc<Clients>,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.clients.0.lock().handles.remove(&self.id);
    }
}

/// The kinds of clients.
pub(super) trait Native {
    /// Returns the client of librdkafka, which lives as long as `self`.
    fn native(&self) -> *mut RDKafka;
}

impl<C: ClientContext> Native for AdminClient<C> {
    fn native(&self) -> *mut RDKafka {
        self.inner().native_ptr()
    }
}

impl<C: ConsumerContext> Native for BaseConsumer<C> {
    fn native(&self) -> *mut RDKafka {
        self.client().native_ptr()
    }
}

impl<C: ProducerContext + 'static> Native for ThreadedProducer<C> {
    fn native(&self) -> *mut RDKafka {
        self.client().native_ptr()
    }
}

/// Notes what a broker's certificate is like.
#[derive(Default)]
struct Verifier {
    /// The first check that it fails, as a number of OpenSSL; 0 until then.
    failed: AtomicI32,
    /// True once a broker has shown one.
    is_shown: AtomicBool,
}

impl ClientContext for Verifier {
    fn log(&self, _level: rdkafka::config::RDKafkaLogLevel, _facility: &str, _message: &str) {}

    fn error(&self, _error: rdkafka::error::KafkaError, _reason: &str) {}
}

/// librdkafka calls it on a broker's thread for each certificate of a chain.
unsafe extern "C" fn verify(
    _client: *mut RDKafka,
    _broker: *const c_char,
    _broker_id: i32,
    x509_error: *mut c_int,
    _depth: c_int,
    _certificate: *const c_char,
    _certificate_bytes: usize,
    _error: *mut c_char,
    _error_bytes: usize,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: librdkafka passes a pointer to OpenSSL's result, and the opaque of the configuration,
    // which `Client::new` sets to its context. The client keeps that until its threads have ended.
    let (code, verifier) = unsafe { (*x509_error, &*opaque.cast::<Verifier>()) };
    verifier.is_shown.store(true, Ordering::Release);
    if code != 0 {
        _ = verifier.failed.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }
    c_int::from(code == 0)
}

/// Connects once more to learn which check of OpenSSL the brokers' certificate fails; `None` if it
/// fails none in time. Sends nothing but the handshake.
pub(super) fn failed_certificate_check(config: &ClientConfig, timeout: Duration) -> Option<i32> {
    let failed = |verifier: &Verifier| Some(verifier.failed.load(Ordering::Acquire)).filter(|code| *code != 0);
    shake_hands(config, timeout, failed)
}

/// Tells whether a broker shows a certificate if it is asked by TLS. Sends no credentials.
pub(super) fn shows_certificate(config: &ClientConfig, timeout: Duration) -> bool {
    let mut config = config.clone();
    config.set("security.protocol", "SSL");
    shake_hands(&config, timeout, |verifier| verifier.is_shown.load(Ordering::Acquire).then_some(())).is_some()
}

/// Connects by TLS until `find` has found something, or for `timeout`.
fn shake_hands<T>(config: &ClientConfig, timeout: Duration, find: impl Fn(&Verifier) -> Option<T>) -> Option<T> {
    let native = config.create_native_config().ok()?;
    // SAFETY: the configuration is alive, and the callback has the signature that librdkafka asks
    // for and lives as long as the program.
    let set = unsafe { rd_kafka_conf_set_ssl_cert_verify_cb(native.ptr(), Some(verify)) };
    if set != rd_kafka_conf_res_t::RD_KAFKA_CONF_OK {
        return None;
    }
    let client = Client::new(config, native, rd_kafka_type_t::RD_KAFKA_PRODUCER, Verifier::default()).ok()?;
    let deadline = Instant::now() + timeout;
    while Instant::now() < deadline {
        _ = client.fetch_metadata(None, Duration::from_millis(500));
        if let Some(found) = find(client.context()) {
            return Some(found);
        }
    }
    None
}
