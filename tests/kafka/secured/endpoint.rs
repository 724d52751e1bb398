//! A token endpoint of the tests' own, over TLS: client credentials in, signed tokens out.
//!
//! It serves one request per connection, and keeps nothing but counts.

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use rcgen::{KeyPair, PKCS_ED25519, PublicKeyData as _, SigningKey as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::json;
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

pub(super) const CLIENT: &str = "receipts-client";
pub(super) const SECRET: &str = "t0ken-s3cret";
/// The issuer of every token.
pub(super) const ISSUER: &str = "https://id.example";
/// The user of every token, as the broker names it.
pub(super) const SUBJECT: &str = "token-user";

struct State {
    key: Arc<KeyPair>,
    /// How long tokens are valid, s; 0 refuses every client.
    life_s: AtomicU64,
    given: AtomicUsize,
    refused: AtomicUsize,
}

/// See the file's description. It lives as long as the program.
pub(super) struct Endpoint {
    port: u16,
    state: Arc<State>,
}

impl Endpoint {
    /// Serves at a free port, with a certificate and its key. It signs tokens with the key of
    /// another endpoint, or with a new one.
    pub(super) fn start(certificate: &Path, key: &Path, like: Option<&Endpoint>) -> Self {
        let chain = vec![CertificateDer::from_pem_file(certificate).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_file(key).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
        let config = config.with_safe_default_protocol_versions().expect("versions").with_no_client_auth();
        let config = Arc::new(config.with_single_cert(chain, key).expect("a certificate"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = Arc::new(State {
            key: match like {
                Some(other) => Arc::clone(&other.state.key),
                None => Arc::new(KeyPair::generate_for(&PKCS_ED25519).expect("a key")),
            },
            life_s: AtomicU64::new(300),
            given: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
                let _a_client_may_end_early = shared.answer(StreamOwned::new(connection, stream));
            }
        });
        Self { port, state }
    }

    pub(super) fn url(&self) -> String {
        format!("https://localhost:{}/token", self.port)
    }

    /// The public key, for the broker.
    pub(super) fn jwks(&self) -> String {
        let x = BASE64_URL_SAFE_NO_PAD.encode(self.state.key.der_bytes());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "use": "sig", "alg": "EdDSA", "x": x}]})
            .to_string()
    }

    /// Sets how long tokens are valid, s; 0 refuses every client.
    pub(super) fn set_life(&self, life_s: u64) {
        self.state.life_s.store(life_s, Ordering::SeqCst);
    }

    /// The number of tokens given, and of clients refused.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.state.given.load(Ordering::SeqCst), self.state.refused.load(Ordering::SeqCst))
    }
}

impl State {
    fn answer(&self, stream: StreamOwned<ServerConnection, TcpStream>) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        let (mut authorization, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim().split_once(':').map(|(name, value)| (name.to_lowercase(), value.trim())) {
                Some((name, value)) if name == "authorization" => authorization = value.to_owned(),
                Some((name, value)) if name == "content-length" => length = value.parse().unwrap_or(0),
                None if line.trim().is_empty() => break,
                _ => {}
            }
        }
        let mut form = vec![0; length];
        stream.read_exact(&mut form)?;
        let wanted = format!("Basic {}", BASE64_STANDARD.encode(format!("{CLIENT}:{SECRET}")));
        let life_s = self.life_s.load(Ordering::SeqCst);
        let is_right = authorization == wanted && form.starts_with(b"grant_type=client_credentials");
        let (status, body) = if is_right && life_s > 0 {
            self.given.fetch_add(1, Ordering::SeqCst);
            ("200 OK", json!({"access_token": self.token(life_s), "token_type": "Bearer", "expires_in": life_s}))
        } else {
            self.refused.fetch_add(1, Ordering::SeqCst);
            ("401 Unauthorized", json!({"error": "invalid_client", "error_description": "no such client"}))
        };
        let body = body.to_string();
        let stream = stream.get_mut();
        write!(stream, "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n")?;
        write!(stream, "content-length: {}\r\n\r\n{body}", body.len())?;
        stream.flush()?;
        stream.conn.send_close_notify();
        stream.flush()
    }

    fn token(&self, life_s: u64) -> String {
        #[expect(clippy::disallowed_methods, reason = "tokens expire by the clock of the broker")]
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let claims = json!({"iss": ISSUER, "sub": SUBJECT, "aud": "kafka", "iat": now_s, "exp": now_s + life_s, "scope": "kafka"});
        let encode = |json: String| BASE64_URL_SAFE_NO_PAD.encode(json);
        let head = encode(json!({"alg": "EdDSA", "typ": "JWT", "kid": "k"}).to_string());
        let signed = format!("{head}.{}", encode(claims.to_string()));
        let signature = self.key.sign(signed.as_bytes()).expect("signed");
        format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}
