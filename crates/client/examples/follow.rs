//! A backend in small: writes a chat, asks who has read it, and follows what happens, until Ctrl-C.
//!
//! `receipts serve`, and beside it
//! `cargo run -p receipts-client --example follow -- [URL] [TOKEN]`, by default `http://127.0.0.1:8080` without a token.

#![allow(clippy::print_stdout, reason = "a program that shows what it does")]

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _};
use receipts_client::{Client, Error, Filter, Update, event};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().unwrap_or_else(|| "http://127.0.0.1:8080".to_owned());
    let builder = Client::builder(&url);
    let client = match arguments.next() {
        Some(token) => builder.token(token).build()?,
        None => builder.build()?,
    };

    // First the stream, then the chat: everything of it comes.
    let updates = client.updates_of_conversation("picnic").on_interruption(|error, wait| {
        println!("… {error}; connecting again in {} ms", wait.as_millis());
    });
    let mut updates = updates.open().await.with_context(|| format!("no stream of {url}"))?;

    client
        .post_events(&[
            event::members_changed("picnic").joined(["alice", "bob", "carol", "dave"]).build(),
            event::message_sent("picnic", "m1", "alice", 1_780_000_000_000).need_read_receipt().build(),
            event::message_read("picnic", "bob", ["m1"]).build(),
        ])
        .await?;

    // The client waits for its own writes by itself.
    if let Some(counts) = client.receipt("picnic", "m1").await?.counts {
        println!("read by {} of {}", counts.read_count, counts.audience_count);
    }
    let unread: Vec<_> = client.members("picnic", "m1", Filter::Unread).try_collect().await?;
    println!("not yet by {}", unread.iter().map(|member| member.user_id.as_str()).collect::<Vec<_>>().join(", "));
    println!("following; try: curl {url}/v1/events -H 'Content-Type: application/json' -d \\");
    println!(r#"  '{{"type":"message.read","conversation_id":"picnic","reader_id":"carol","message_ids":["m1"]}}'"#);

    while let Some(update) = updates.next().await {
        match update {
            Ok(Update::Receipt(update)) => {
                let readers: Vec<&str> = update.newly_read.iter().map(|reader| reader.user_id.as_str()).collect();
                println!("{} {:?}, newly {readers:?}", update.receipt.message_id, update.receipt.counts);
            }
            Ok(Update::ReadMark(update)) => println!("{} has read on", update.mark.reader_id),
            Ok(_) => {}
            // Ask for the receipts on show anew; the stream itself goes on from now.
            Err(error @ Error::UpdatesGone(_)) => println!("{error}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
