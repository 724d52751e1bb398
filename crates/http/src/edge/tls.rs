//! TLS of a listener: one certificate and its key from two files, which are read again when they
//! change.
//!
//! It must not stop serving because of a bad file: the pair before it stays.

use metrics::Gauge;
use parking_lot::{Mutex, RwLock};
use receipts_metrics::catalogue;
use receipts_metrics::log_lines::LogLimit;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_rustls::TlsAcceptor;

/// How often the files are read. Reading them follows links, so replaced links count as a change.
const POLL: Duration = Duration::from_secs(2);
/// Protocols that the listener offers, the preferred one first.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// Why a pair of files cannot be used; the text names the setting and the file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BadPair(String);

/// The TLS of a listener. Cheap to clone; the clones share the pair.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    certificate_file: PathBuf,
    key_file: PathBuf,
    served: RwLock<Arc<ServerConfig>>,
    /// The bytes of the files at the last look: of the served pair, or of one that is refused.
    seen: Mutex<Seen>,
    is_refused: Gauge,
}

struct Seen {
    files: Files,
    is_bad: bool,
    log: LogLimit,
}

/// The bytes of both files, or why one cannot be read.
type Files = Result<(Vec<u8>, Vec<u8>), String>;

impl Tls {
    /// Reads both files: PEM, the certificate first and then those that lead to its root, and its
    /// unencrypted key.
    ///
    /// # Errors
    /// If a file cannot be read, holds something else, or they do not belong together.
    pub fn open(certificate_file: &Path, key_file: &Path) -> Result<Self, BadPair> {
        let (certificate_file, key_file) = (certificate_file.to_owned(), key_file.to_owned());
        let files = read(&certificate_file, &key_file);
        let served = configure(&files, &certificate_file, &key_file).map_err(BadPair)?;
        let is_refused = catalogue::TLS_PAIR_REFUSED.get();
        is_refused.set(0.0);
        let seen = Mutex::new(Seen { files, is_bad: false, log: LogLimit::default() });
        Ok(Self(Arc::new(Inner { certificate_file, key_file, served: RwLock::new(served), seen, is_refused })))
    }

    /// Returns what accepts a connection with the pair of the moment.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.served.read()))
    }

    /// Reads the files every 2 s, and serves a changed pair to new connections. Never returns;
    /// spawn it.
    pub async fn keep_fresh(self) {
        loop {
            tokio::time::sleep(POLL).await;
            let tls = self.clone();
            // A file on a network may take its time.
            if let Err(error) = tokio::task::spawn_blocking(move || tls.look()).await {
                tracing::error!(%error, "the files of TLS were not read: a bug");
            }
        }
    }

    /// Reads the files once. A pair that cannot be used is refused when a second look finds the
    /// same: at the first one it may be half written, or only one of its files replaced.
    pub fn look(&self) {
        let Inner { certificate_file, key_file, served, seen, is_refused } = &*self.0;
        let files = read(certificate_file, key_file);
        let mut seen = seen.lock();
        let is_changed = files != seen.files;
        if !is_changed && !seen.is_bad {
            return;
        }
        match configure(&files, certificate_file, key_file) {
            Ok(config) => {
                *served.write() = config;
                seen.is_bad = false;
                is_refused.set(0.0);
                tracing::info!(file = %certificate_file.display(), "a changed certificate is served from now on");
            }
            Err(problem) => {
                seen.is_bad = true;
                if !is_changed {
                    is_refused.set(1.0);
                    if seen.log.count(Instant::now()).is_some() {
                        tracing::warn!(problem, "the files of TLS cannot be used; the former certificate stays");
                    }
                }
            }
        }
        seen.files = files;
    }
}

fn read(certificate_file: &Path, key_file: &Path) -> Files {
    let read = |key: &str, file: &Path| {
        std::fs::read(file).map_err(|error| format!("{key}: {} cannot be read: {error}", file.display()))
    };
    Ok((read("http.tls_certificate_file", certificate_file)?, read("http.tls_key_file", key_file)?))
}

/// Makes the configuration of TLS from the bytes of both files; the error says what is wrong.
fn configure(files: &Files, certificate_file: &Path, key_file: &Path) -> Result<Arc<ServerConfig>, String> {
    let (certificates, key) = files.as_ref().map_err(Clone::clone)?;
    let bad_certificate = |why: String| format!("http.tls_certificate_file: {} {why}", certificate_file.display());
    let bad_key = |why: String| format!("http.tls_key_file: {} {why}", key_file.display());
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificates)
        .collect::<Result<_, _>>()
        .map_err(|error| bad_certificate(format!("is not PEM: {error}")))?;
    if chain.is_empty() {
        return Err(bad_certificate("holds no certificate in PEM form".to_owned()));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            bad_key("holds no private key in PEM form; an encrypted one cannot be used".to_owned())
        }
        error => bad_key(format!("is not PEM: {error}")),
    })?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key);
    let mut config = config.map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            bad_key(format!("is not the key of the certificate in {}", certificate_file.display()))
        }
        rustls::Error::InvalidCertificate(why) => bad_certificate(format!("holds an invalid certificate: {why}")),
        error => bad_key(format!("cannot be used: {error}")),
    })?;
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}
