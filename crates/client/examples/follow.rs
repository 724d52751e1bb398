//! A small backend: writes a chat, prints its readers, and follows the updates until Ctrl-C.
//!
//! Start `receipts serve`, then `cargo run -p receipts-client --example follow -- [URL] [TOKEN]`;
//! default: `http://127.0.0.1:8080` without a token.

#![allow(clippy::print_stdout, reason = "an example that prints its results")]

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

    // The stream opens before the chat begins, so that it carries all its updates.
    let updates = client.updates_of_conversation("picnic").on_interruption(|error, wait| {
        println!("… {error}; reconnecting in {} ms", wait.as_millis());
    });
    let mut updates = updates.open().await.with_context(|| format!("no stream of {url}"))?;

    client
        .post_events(&[
            event::members_changed("picnic").joined(["alice", "bob", "carol", "dave"]).build(),
            event::message_sent("picnic", "m1", "alice", 1_780_000_000_000).need_read_receipt().build(),
            event::message_read("picnic", "bob", ["m1"]).build(),
        ])
        .await?;

    // A client's reads include its own writes.
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
            // Query the shown receipts again; the stream continues from now on.
            Err(error @ Error::UpdatesGone(_)) => println!("{error}"),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
