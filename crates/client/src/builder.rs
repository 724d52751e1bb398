//! The settings of a client: URL, credentials, timeouts and retries. It sends no request.

use crate::client::Client;
use crate::error::{BoxError, Error};
use crate::transport::{Credential, Transport, chain};
use futures_util::FutureExt as _;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(30);
/// Three heartbeats at the service's default interval, and a little.
const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(15);
const RETRIES: u32 = 3;

type Customize = Box<dyn Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send>;

/// Builds a [`Client`].
#[must_use = "build() returns the client"]
pub struct Builder {
    base_url: String,
    credential: Option<Credential>,
    tenant: Option<String>,
    caller: Option<String>,
    wait: Option<Duration>,
    timeout: Duration,
    heartbeat_timeout: Duration,
    retries: u32,
    customize: Option<Customize>,
}

impl Builder {
    pub(crate) fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            credential: None,
            tenant: None,
            caller: None,
            wait: None,
            timeout: TIMEOUT,
            heartbeat_timeout: HEARTBEAT_TIMEOUT,
            retries: RETRIES,
            customize: None,
        }
    }

    /// Sets a bearer token for the lifetime of the client. It determines tenant, person and scopes.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.credential = Some(Credential::Token(token.into()));
        self
    }

    /// Sets a function that returns a bearer token. It is called before every request, so it should
    /// cache the token and renew it in time.
    ///
    /// ```
    /// # async fn current_token() -> Result<String, std::io::Error> { Ok("eyJ…".to_owned()) }
    /// let client = receipts_client::Client::builder("https://receipts.example.com").token_from(current_token).build()?;
    /// # Ok::<(), receipts_client::Error>(())
    /// ```
    pub fn token_from<F, E>(mut self, source: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<String, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let source = move || {
            let token = source();
            async move { token.await.map_err(Into::into) }.boxed()
        };
        self.credential = Some(Credential::Source(Box::new(source)));
        self
    }

    /// Sets the tenant. Only for a service that trusts its network and has no tokens configured.
    pub fn tenant(mut self, tenant: impl Into<String>) -> Self {
        self.tenant = Some(tenant.into());
        self
    }

    /// Sets the calling person. Only for a service that trusts its network. Without it, the caller
    /// is a service with all scopes.
    pub fn caller(mut self, caller: impl Into<String>) -> Self {
        self.caller = Some(caller.into());
        self
    }

    /// Sets how long a read may wait for the client's position, in whole milliseconds, at most 30
    /// s. Default: the service's default of 1 s.
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    /// Sets the time limit of one attempt, in addition to the wait of a read. 30 s by default.
    /// Streams have no such limit.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets how long a stream may be silent before its connection counts as dead. 15 s by default:
    /// more than three of the service's heartbeats (`http.heartbeat_ms`).
    pub const fn heartbeat_timeout(mut self, timeout: Duration) -> Self {
        self.heartbeat_timeout = timeout;
        self
    }

    /// Sets how often a repeatable request is retried. 3 by default.
    pub const fn retries(mut self, retries: u32) -> Self {
        self.retries = retries;
        self
    }

    /// Customizes the HTTP client: proxies, certificates, addresses. `customize` is called twice,
    /// the second time for streams.
    pub fn http(
        mut self,
        customize: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder + Send + 'static,
    ) -> Self {
        self.customize = Some(Box::new(customize));
        self
    }

    /// Returns the client. Sends no request.
    ///
    /// # Errors
    /// [`Error::Usage`] if the base URL is invalid, or a tenant or caller is set together with a
    /// token.
    pub fn build(self) -> Result<Client, Error> {
        let base = self.base_url.trim_end_matches('/').to_owned();
        match reqwest::Url::parse(&base) {
            Ok(url)
                if matches!(url.scheme(), "http" | "https") && url.query().is_none() && url.fragment().is_none() => {}
            Ok(_) => {
                return Err(Error::Usage(format!(
                    "the base URL must be http or https without a query or fragment: {base}"
                )));
            }
            Err(error) => return Err(Error::Usage(format!("the base URL {base:?} is invalid: {error}"))),
        }
        let credential = match self.credential {
            Some(_) if self.tenant.is_some() || self.caller.is_some() => {
                return Err(Error::Usage("tenant and caller come from the token: set either, not both".to_owned()));
            }
            Some(credential) => credential,
            None => Credential::Headers { tenant: self.tenant, caller: self.caller },
        };
        let customized = |builder: reqwest::ClientBuilder| {
            let builder = builder.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true);
            match &self.customize {
                Some(customize) => customize(builder).build(),
                None => builder.build(),
            }
        };
        let failed =
            |error: reqwest::Error| Error::Usage(format!("the HTTP client cannot be built: {}", chain(&error)));
        Ok(Client::new(Arc::new(Transport {
            base,
            http: customized(reqwest::Client::builder()).map_err(failed)?,
            streams: customized(reqwest::Client::builder().read_timeout(self.heartbeat_timeout)).map_err(failed)?,
            credential,
            wait: self.wait,
            timeout: self.timeout,
            retries: self.retries,
            positions: Mutex::default(),
            stale_s: Mutex::default(),
        })))
    }
}

impl fmt::Debug for Builder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder").field("base_url", &self.base_url).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_settings_are_refused_at_build_time() {
        for base in ["receipts.example.com", "ftp://host", "http://host/?a=b", ""] {
            assert!(matches!(Builder::new(base).build(), Err(Error::Usage(_))), "{base}");
        }
        let both = Builder::new("http://host").token("t").caller("bob").build();
        assert!(matches!(both, Err(Error::Usage(why)) if why.contains("not both")));
        assert!(Builder::new("http://host:8080/receipts/").build().is_ok());
    }
}
