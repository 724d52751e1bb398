//! Checks the settings that are allowed but dangerous, the files that they name, and the addresses.

use super::finding::{Finding, Findings};
use super::{Examined, Part};
use receipts_assembly::{DataDir, open_secret_files, shared_secret};
use receipts_http::Tls;
use std::net::{SocketAddr, TcpListener};

const EXPOSED: &str = "settings.exposed";
const SECRET_FILES: &str = "settings.secret_files";
const SECRET: &str = "settings.secret";
const TLS: &str = "settings.tls";
const LISTEN: &str = "settings.listen";

pub(super) const CHECKS: [&str; 5] = [EXPOSED, SECRET_FILES, SECRET, TLS, LISTEN];

pub(super) fn run(examined: &Examined, findings: &mut Findings) {
    let settings = &examined.settings;
    let exposed = settings.warnings().into_iter();
    let remedy = "set what the sentence names, or keep strangers out by a private network or a proxy";
    let exposed = exposed.map(|sentence| Finding::warning(EXPOSED, sentence, remedy)).collect();
    findings.add_all(EXPOSED, exposed, "no setting lets strangers in");

    let open = open_secret_files(settings).into_iter().map(|sentence| {
        let (sentence, command) = sentence.rsplit_once(": ").map_or((&*sentence, "chmod 600 FILE"), |both| both);
        match settings.secret_files_strict {
            true => Finding::problem(SECRET_FILES, sentence, command),
            false => Finding::warning(SECRET_FILES, sentence, command),
        }
    });
    findings.add_all(SECRET_FILES, open.collect(), "only their owners may read the files of secrets");

    findings.add(match shared_secret(settings) {
        Ok(None) => Finding::skipped(SECRET, "query.secret_file is not set"),
        Ok(Some(_)) => Finding::ok(SECRET, "the secret of projectors and query edges can be used"),
        Err(failure) => Finding::problem(
            SECRET,
            failure.detail(),
            "openssl rand -hex 32 > FILE; chmod 600 FILE; then give the same file to all projectors and query edges",
        ),
    });

    findings.add(match &settings.http.tls {
        None => Finding::skipped(TLS, "http.tls_certificate_file is not set"),
        Some(tls) => match Tls::open(&tls.certificate, &tls.key) {
            Ok(_) => Finding::ok(TLS, "certificate and key go together"),
            Err(bad) => Finding::problem(
                TLS,
                bad.to_string(),
                "set http.tls_certificate_file and http.tls_key_file to one pair",
            ),
        },
    });
    listen(examined, findings);
}

/// Binds the addresses for a moment.
fn listen(examined: &Examined, findings: &mut Findings) {
    let Examined { settings, part, .. } = examined;
    if let Ok(Some(holder)) = DataDir::holder(&settings.data_dir)
        && part.folds()
    {
        let holder = holder.holder;
        return findings
            .add(Finding::skipped(LISTEN, format!("{holder} uses the data directory, and so the addresses")));
    }
    let of_part = match part {
        Part::Projector => ("projector.listen", settings.projector.listen),
        Part::Service | Part::Ingest | Part::Query => ("http.listen", settings.http.listen),
    };
    let admin = settings.http.admin_listen.map(|address| ("http.admin_listen", address));
    let taken = [Some(of_part), admin].into_iter().flatten().filter_map(|(key, address): (&str, SocketAddr)| {
        let error = TcpListener::bind(address).err()?;
        Some(Finding::problem(
            LISTEN,
            format!("{key}: cannot listen at {address}: {error}"),
            format!("ss -ltnp 'sport = :{}' names the process there; stop it, or choose another {key}", address.port()),
        ))
    });
    findings.add_all(LISTEN, taken.collect(), format!("{} is free", of_part.1));
}
