//! Tests the Rust client against the real service: calls, failures, and streams through kills,
//! silence and lost logs (INV-CLIENT). `crates/client` tests the client's own decisions.

mod calls;
mod proxies;
mod streams;

use receipts_client::event::{Event, MessageSent, message_sent};
use receipts_client::{Client, event};
use receipts_tests::TIMEOUT;
use receipts_tests::process::Service;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

const SENT_AT_MS: u64 = 1_780_000_000_000;

/// Returns a client that acts for a service, or for a person if there is a caller.
fn client(address: &str, caller: Option<&str>) -> Client {
    let builder = Client::builder(format!("http://{address}")).wait(TIMEOUT / 2).http(|http| http.no_proxy());
    match caller {
        Some(caller) => builder.caller(caller),
        None => builder,
    }
    .build()
    .expect("a client")
}

fn sent(conversation: &str, message: &str) -> event::Draft<MessageSent<'static>> {
    message_sent(conversation, message, "alice", SENT_AT_MS).need_read_receipt()
}

/// A conversation in which alice has sent messages.
fn conversation(id: &str, members: &[&str], messages: &[&str]) -> Vec<Event<'static>> {
    let roster = event::members_changed(id).joined(["alice"]).joined(members.iter().copied()).build();
    let sends = messages.iter().map(|message| sent(id, message).build());
    std::iter::once(roster).chain(sends).collect()
}

/// Returns a free port, for a service that restarts at the same address.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port")
}

/// Starts `receipts serve` at an address.
fn serve_at(address: SocketAddr, data_dir: &Path) -> Service {
    let (address, data_dir) = (address.to_string(), data_dir.to_str().expect("UTF-8"));
    let flags = ["--http-listen", &address, "--data-dir", data_dir, "--projector-update-window-ms", "20"];
    Service::start("receipts", &[&["serve"], &flags[..]].concat())
}
