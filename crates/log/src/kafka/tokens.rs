//! Keeps the clients of a log supplied with tokens of SASL OAUTHBEARER: fetches the first one
//! before anything connects, and each next one well before the last expires.
//!
//! It fetches nothing itself: the [`TokenSource`] does. It logs a failure once by its cause.

use super::brokers::Brokers;
use super::connect_error::ConnectError;
use super::native::NativeToken;
use super::settings::KafkaSettings;
use crate::token::{Token, TokenError, TokenRequest, TokenSource};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// A token is renewed after this share of its life. librdkafka itself would ask after 0.8, and
/// brokers may end a session with its token.
const RENEW_AFTER: f64 = 0.6;
/// The shortest time between two tokens, and the first pause after a failure.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause after failures.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How often the keeper looks whether its log is still open.
const LOOK: Duration = Duration::from_millis(500);

/// How a log gets its tokens.
#[derive(Clone)]
pub(super) struct Oidc {
    pub(super) request: TokenRequest,
    /// SASL extensions, sent with each token.
    pub(super) extensions: Vec<(String, String)>,
}

struct Keeper {
    source: Arc<dyn TokenSource>,
    oidc: Oidc,
}

/// Fetches the first token, and starts a thread that renews it for as long as any client of the log
/// lives. Does nothing if the settings name no token endpoint.
///
/// # Errors
/// If there is no token within `connect_timeout`, or the endpoint refuses the client.
pub(super) fn start(settings: &KafkaSettings, brokers: &Arc<Brokers>) -> Result<(), ConnectError> {
    let Some(oidc) = settings.oidc()? else { return Ok(()) };
    let Some(source) = settings.tokens.clone() else {
        return Err(ConnectError::Settings("this program has no source of tokens for SASL OAUTHBEARER".into()));
    };
    let keeper = Keeper { source, oidc };
    let deadline = Instant::now() + settings.connect_timeout;
    let mut pause = PAUSE_MIN;
    let valid = loop {
        match keeper.renew(brokers) {
            Ok(valid) => break valid,
            Err(TokenError::Unreachable(_)) if Instant::now() + pause < deadline => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
            Err(error) => return Err(ConnectError::Token(error.to_string())),
        }
    };
    let weak = Arc::downgrade(brokers);
    std::thread::Builder::new()
        .name("log-tokens".into())
        .spawn(move || keeper.keep(&weak, valid))
        .map(drop)
        .map_err(|error| ConnectError::Token(format!("the thread that renews tokens cannot be started: {error}")))
}

impl Keeper {
    /// Fetches a token and gives it to all clients; returns how long it is valid.
    fn renew(&self, brokers: &Brokers) -> Result<Duration, TokenError> {
        let Token { value, valid, expires_at_ms } = self.source.fetch(&self.oidc.request)?;
        let url = &self.oidc.request.url;
        let refused = |why: &str| TokenError::Refused(format!("the token of {url} cannot be used: {why}"));
        let principal = &self.oidc.request.client_id;
        let token = NativeToken::new(&value, principal, &self.oidc.extensions, expires_at_ms)
            .ok_or_else(|| refused("it holds a zero byte"))?;
        brokers.clients().set_token(token).map_err(|why| refused(&why))?;
        Ok(valid)
    }

    fn keep(&self, brokers: &Weak<Brokers>, mut valid: Duration) {
        let mut failures = 0;
        loop {
            let pause = match failures {
                0 => valid.mul_f64(RENEW_AFTER).max(PAUSE_MIN),
                _ => (PAUSE_MIN * 2_u32.pow((failures - 1).min(5))).min(PAUSE_MAX),
            };
            let due = Instant::now() + pause;
            while Instant::now() < due {
                std::thread::sleep(LOOK.min(due.saturating_duration_since(Instant::now())));
                if brokers.strong_count() == 0 {
                    return;
                }
            }
            let Some(brokers) = brokers.upgrade() else { return };
            match self.renew(&brokers) {
                Ok(new) => {
                    (valid, failures) = (new, 0);
                    brokers.note_token(None);
                }
                Err(error) => {
                    failures += 1;
                    brokers.note_token(Some(error.to_string()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;
    use std::collections::BTreeMap;

    /// Answers in the order of a list, and then with tokens of a second.
    #[derive(Debug, Default)]
    struct Script {
        errors: Mutex<Vec<TokenError>>,
        asked: Mutex<u32>,
    }

    impl TokenSource for Script {
        fn fetch(&self, _request: &TokenRequest) -> Result<Token, TokenError> {
            *self.asked.lock() += 1;
            match self.errors.lock().pop() {
                Some(error) => Err(error),
                None => Ok(Token { value: "t".into(), valid: Duration::from_secs(1), expires_at_ms: i64::MAX / 2_000 }),
            }
        }
    }

    fn settings(source: &Arc<Script>) -> KafkaSettings {
        let properties = [
            ("security.protocol", "SASL_SSL"),
            ("sasl.mechanisms", "OAUTHBEARER"),
            ("sasl.oauthbearer.method", "oidc"),
            ("sasl.oauthbearer.token.endpoint.url", "http://127.0.0.1:1/token"),
            ("sasl.oauthbearer.client.id", "receipts"),
            ("sasl.oauthbearer.client.secret", "s3cret"),
        ];
        let properties: BTreeMap<_, _> = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let tokens: Arc<dyn TokenSource> = source.clone();
        KafkaSettings { properties: properties.into(), tokens: Some(tokens), ..KafkaSettings::default() }
    }

    fn until(what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    #[test]
    fn tokens_are_renewed_until_the_log_closes() {
        let source = Arc::new(Script::default());
        source.errors.lock().push(TokenError::Unreachable("just now".into()));
        let brokers = Arc::<Brokers>::default();
        start(&settings(&source), &brokers).unwrap();
        assert!(*source.asked.lock() >= 2, "an endpoint that is not there yet is asked again");
        source.errors.lock().push(TokenError::Refused("the secret has changed".into()));
        until("a failure is told", || brokers.failing().is_some_and(|said| said.contains("the secret has changed")));
        until("a success ends it", || brokers.failing().is_none());
        drop(brokers);
        until("the keeper ends with its log", || Arc::strong_count(&source) == 1);
    }

    #[test]
    fn refused_client_ends_the_start_at_once() {
        let source = Arc::new(Script::default());
        source.errors.lock().push(TokenError::Refused("no such client".into()));
        let error = start(&settings(&source), &Arc::default()).unwrap_err();
        assert!(matches!(&error, ConnectError::Token(_)) && error.to_string().contains("no such client"), "{error}");
        assert_eq!(*source.asked.lock(), 1);
    }
}
