//! Tickets: each lets a caller open one stream whose requests carry no credential, as those of a
//! browser's `EventSource`.
//!
//! No process keeps tickets, so any edge with the same key opens one that another has issued. It
//! must not decide what a caller may follow; the route does, each time the stream is opened.
//! Keeps INV-TICKET.

use crate::edge::caller::Caller;
use crate::edge::scopes::{Scope, Scopes};
use crate::problem::{Code, Problem};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use receipts_query::CursorKey;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// How long after its issue a ticket opens a stream, milliseconds; the contract's number.
const TICKET_OPENS_MS: u64 = 60_000;

/// The first byte of a ticket. The salt follows, then the sealed JSON of [`Sealed`].
const TICKET_VERSION: u8 = 1;
/// Bytes of the salt, from which each ticket has keys of its own.
const SALT_BYTES: usize = 16;
/// Bytes of the HMAC-SHA256 at the end of a stream's ids: 128 bits, the least that RFC 2104
/// (section 5) advises.
const MAC_BYTES: usize = 16;
/// Stands between an id and its MAC. No position token has it.
const BEFORE_MAC: char = '.';

/// Seals and opens tickets. Cheap to clone.
#[derive(Clone)]
pub struct Tickets {
    key: Arc<CursorKey>,
    now_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// What a ticket holds.
#[derive(Serialize, Deserialize)]
struct Sealed {
    tenant: String,
    user: Option<String>,
    service: Option<String>,
    scopes: Vec<String>,
    subject: Subject,
    /// Until when it opens a stream, Unix milliseconds.
    opens_until_ms: u64,
    /// When the credential expires for which it was issued, Unix milliseconds; `None` if that does
    /// not expire.
    ends_at_ms: Option<u64>,
}

/// What a ticket's stream follows: a parameter of the stream, such as `sender_id`, and its value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Subject {
    pub(crate) parameter: String,
    pub(crate) id: String,
}

/// An opened ticket, for the route of the stream. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Ticket(Arc<(Subject, hmac::Key)>);

impl Tickets {
    /// Returns what seals tickets with a key that is derived from the key of cursors, so that all
    /// edges that open one another's cursors open one another's tickets too. `now_ms` returns the
    /// time of day, Unix milliseconds.
    pub fn new(key: &CursorKey, now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { key: Arc::new(key.clone()), now_ms: Arc::new(now_ms) }
    }

    /// Returns a ticket for a stream of this caller, and until when it opens the stream, Unix
    /// milliseconds.
    ///
    /// # Errors
    /// A 500 if the system has no random bytes.
    pub(crate) fn issue(&self, caller: &Caller, subject: Subject) -> Result<(String, u64), Problem> {
        let now_ms = (self.now_ms)();
        let left = caller.expires.map(|expires| expires.saturating_duration_since(Instant::now()));
        let ends_at_ms = left.map(|left| now_ms.saturating_add(u64::try_from(left.as_millis()).unwrap_or(u64::MAX)));
        let opens_until_ms = (now_ms + TICKET_OPENS_MS).min(ends_at_ms.unwrap_or(u64::MAX));
        let scopes = Scope::ALL.into_iter().filter(|scope| caller.scopes.has(*scope));
        let sealed = Sealed {
            tenant: caller.tenant.clone(),
            user: caller.user.clone(),
            service: caller.service.clone(),
            scopes: scopes.map(|scope| scope.name().to_owned()).collect(),
            subject,
            opens_until_ms,
            ends_at_ms,
        };
        let ticket = self.seal(&sealed).map_err(|_| {
            tracing::error!("a ticket cannot be sealed: the system gives no random bytes");
            Problem::new(Code::Internal)
        })?;
        Ok((ticket, opens_until_ms))
    }

    /// Opens a ticket, for the request that sends it with this id to resume from. Returns the
    /// caller for whom it was issued.
    ///
    /// # Errors
    /// A 401 unless the ticket is ours, and in time to open a stream or to resume its own one.
    pub(crate) fn open(&self, ticket: &str, resumes_from: Option<&str>) -> Result<(Caller, Ticket), Problem> {
        // It does not say what is wrong, as refusals of tokens do not.
        let refused = || {
            let detail = "the ticket is not valid, or not any more: ask for another one, and open the stream at once";
            Problem::new(Code::Unauthenticated).detail(detail)
        };
        let (sealed, ids) = self.unseal(ticket).ok_or_else(refused)?;
        let ticket = Ticket(Arc::new((sealed.subject, ids)));
        let now_ms = (self.now_ms)();
        let resumes = resumes_from.is_some_and(|id| ticket.has_signed(id));
        let has_ended = sealed.ends_at_ms.is_some_and(|ends_at_ms| now_ms >= ends_at_ms);
        if has_ended || !resumes && now_ms >= sealed.opens_until_ms {
            return Err(refused());
        }
        let left = sealed.ends_at_ms.map(|ends_at_ms| Duration::from_millis(ends_at_ms - now_ms));
        let caller = Caller {
            tenant: sealed.tenant,
            user: sealed.user,
            service: sealed.service,
            scopes: sealed.scopes.iter().filter_map(|name| Scope::named(name)).fold(Scopes::NONE, Scopes::with),
            expires: left.map(|left| Instant::now() + left),
        };
        Ok((caller, ticket))
    }

    fn seal(&self, sealed: &Sealed) -> Result<String, Unspecified> {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt)?;
        let (seal, _) = self.keys(&salt)?;
        let mut json = serde_json::to_vec(sealed).map_err(|_| Unspecified)?;
        seal.seal_in_place_append_tag(nonce(), Aad::from([TICKET_VERSION]), &mut json)?;
        Ok(URL_SAFE_NO_PAD.encode([&[TICKET_VERSION], &salt[..], &json].concat()))
    }

    fn unseal(&self, ticket: &str) -> Option<(Sealed, hmac::Key)> {
        let mut bytes = URL_SAFE_NO_PAD.decode(ticket).ok()?;
        let (head, json) = bytes.split_at_mut_checked(1 + SALT_BYTES)?;
        let (&mut version, salt) = head.split_first_mut()?;
        if version != TICKET_VERSION {
            return None;
        }
        let (seal, ids) = self.keys(salt).ok()?;
        let json = seal.open_in_place(nonce(), Aad::from([TICKET_VERSION]), json).ok()?;
        Some((serde_json::from_slice(json).ok()?, ids))
    }

    /// Derives the keys of one ticket: one seals it, the other signs the ids of its stream.
    fn keys(&self, salt: &[u8]) -> Result<(LessSafeKey, hmac::Key), Unspecified> {
        let keys = Salt::new(HKDF_SHA256, salt).extract(self.key.bytes());
        let seal = UnboundKey::from(keys.expand(&[b"receipts ticket 1"], &AES_256_GCM)?);
        let ids = hmac::Key::from(keys.expand(&[b"receipts ticket id 1"], hmac::HMAC_SHA256)?);
        Ok((LessSafeKey::new(seal), ids))
    }
}

/// Returns the one nonce: the key of a ticket seals nothing else.
fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}

impl Ticket {
    /// What its stream follows.
    pub(crate) fn subject(&self) -> &Subject {
        &self.0.0
    }

    /// Returns an id of its stream with the MAC that lets the ticket resume from it.
    pub(crate) fn sign(&self, id: &str) -> String {
        let mac = hmac::sign(&self.0.1, id.as_bytes());
        format!("{id}{BEFORE_MAC}{}", URL_SAFE_NO_PAD.encode(&mac.as_ref()[..MAC_BYTES]))
    }

    /// Whether an id is of its stream.
    fn has_signed(&self, id: &str) -> bool {
        let signed = self.sign(without_mac(id));
        verify_slices_are_equal(signed.as_bytes(), id.as_bytes()).is_ok()
    }
}

/// Returns an id without the MAC of a ticket, if it has one.
pub(crate) fn without_mac(id: &str) -> &str {
    id.split_once(BEFORE_MAC).map_or(id, |(id, _)| id)
}

/// Hides the key.
impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    const START_MS: u64 = 1_780_000_000_000;

    struct Bench {
        tickets: Tickets,
        now_ms: Arc<AtomicU64>,
    }

    fn bench() -> Bench {
        let now_ms = Arc::new(AtomicU64::new(START_MS));
        let clock = Arc::clone(&now_ms);
        let tickets = Tickets::new(&CursorKey::new([7; 32]), move || clock.load(Ordering::Relaxed));
        Bench { tickets, now_ms }
    }

    impl Bench {
        fn issue(&self, caller: &Caller) -> String {
            self.tickets.issue(caller, subject()).expect("a ticket").0
        }

        fn opens(&self, ticket: &str, resumes_from: Option<&str>, after_ms: u64) -> bool {
            self.now_ms.store(START_MS + after_ms, Ordering::Relaxed);
            self.tickets.open(ticket, resumes_from).is_ok()
        }
    }

    fn subject() -> Subject {
        Subject { parameter: "sender_id".to_owned(), id: "alice".to_owned() }
    }

    fn caller(ends_in: Option<Duration>) -> Caller {
        let scopes = Scopes::NONE.with(Scope::Members).with(Scope::Policy);
        let [user, service] = [Some("alice".to_owned()), None];
        Caller { tenant: "acme".to_owned(), user, service, scopes, expires: ends_in.map(|left| Instant::now() + left) }
    }

    #[tokio::test(start_paused = true)]
    async fn ticket_names_the_caller_that_asked_for_it() {
        let bench = bench();
        for asked in [
            caller(None),
            caller(Some(Duration::from_secs(300))),
            Caller { user: None, service: Some("crm".to_owned()), ..caller(None) },
        ] {
            let (opened, ticket) = bench.tickets.open(&bench.issue(&asked), None).expect("opened");
            assert_eq!((&opened, ticket.subject()), (&asked, &subject()));
        }
    }

    /// INV-TICKET
    #[tokio::test(start_paused = true)]
    async fn ticket_opens_for_a_minute_and_resumes_longer() {
        let bench = bench();
        let (_, until_ms) = bench.tickets.issue(&caller(None), subject()).expect("a ticket");
        assert_eq!(until_ms, START_MS + 60_000);
        let (endless, ending) = (bench.issue(&caller(None)), bench.issue(&caller(Some(Duration::from_secs(300)))));
        for ticket in [&endless, &ending] {
            let (_, opened) = bench.tickets.open(ticket, None).expect("opened");
            let id = opened.sign("AgE");
            assert!(bench.opens(ticket, None, 59_999) && bench.opens(ticket, Some("AgE"), 59_999));
            for not_its_own in [None, Some("AgE"), Some("AgE."), Some(""), Some("AgF.AAAAAAAAAAAAAAAAAAAAAA")] {
                assert!(!bench.opens(ticket, not_its_own, 60_000), "{not_its_own:?}");
            }
            assert!(!bench.opens(ticket, Some(&id.replace("AgE", "AgF")), 60_000));
            assert!(bench.opens(ticket, Some(&id), 299_999));
            assert_eq!(bench.opens(ticket, Some(&id), 300_000), ticket == &endless);
            bench.now_ms.store(START_MS, Ordering::Relaxed);
        }
        let short = caller(Some(Duration::from_secs(5)));
        assert_eq!(bench.tickets.issue(&short, subject()).expect("a ticket").1, START_MS + 5_000);
    }

    /// INV-TICKET
    #[test]
    fn id_of_one_ticket_resumes_no_other() {
        let bench = bench();
        let (one, two) = (bench.issue(&caller(None)), bench.issue(&caller(None)));
        let (_, opened) = bench.tickets.open(&one, None).expect("opened");
        let id = opened.sign("AgE");
        assert_eq!((without_mac(&id), without_mac("AgE")), ("AgE", "AgE"));
        assert!(bench.opens(&one, Some(&id), 60_000) && !bench.opens(&two, Some(&id), 60_000));
    }

    /// INV-TICKET
    #[test]
    fn changed_or_foreign_ticket_is_refused() {
        let bench = bench();
        let ticket = bench.issue(&caller(None));
        assert!(bench.opens(&ticket, None, 0));
        for at in 0..ticket.len() {
            let mut changed = ticket.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).expect("ASCII");
            assert!(!bench.opens(&changed, None, 0), "{at}");
            assert!(!bench.opens(&ticket[..at], None, 0), "{at}");
        }
        let elsewhere = Tickets::new(&CursorKey::new([8; 32]), || START_MS);
        assert!(elsewhere.open(&ticket, None).is_err());
        // Sealed twice, the same content is another ticket.
        assert_ne!(ticket, bench.issue(&caller(None)));
        assert!(!ticket.contains("alice") && format!("{:?}", bench.tickets) == "Tickets(..)");
    }
}
