//! `sse-clients NAME URL`: follows a stream by one client and prints each event as a line of JSON,
//! and `{"end": why}` when the client gives up.

use eventsource_client::Client as _;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use std::error::Error;
use std::time::Duration;

fn heard(event: &str, data: &str) {
    println!("{}", json!({"event": event, "data": data}));
}

#[tokio::main]
async fn main() {
    let [name, url] = [1, 2].map(|at| std::env::args().nth(at).expect("sse-clients NAME URL"));
    let ended = match name.as_str() {
        "receipts-client" => own(&url).await,
        "reqwest-eventsource" => reqwest_eventsource(&url).await,
        "eventsource-client" => eventsource_client(&url).await,
        other => panic!("no client {other}"),
    };
    let why = ended.map_or_else(|error| error.to_string(), |()| "the stream ended".to_owned());
    println!("{}", json!({ "end": why }));
}

async fn own(url: &str) -> Result<(), Box<dyn Error>> {
    let (base, _) = url.split_once("/v1/").expect("a URL of the service");
    let client = receipts_client::Client::builder(base).retries(20).http(|http| http.no_proxy()).build()?;
    let mut updates = client.updates_of_conversation("g1").open().await?;
    while let Some(update) = updates.next().await {
        match update {
            Ok(receipts_client::Update::Receipt(update)) => {
                let version = update.receipt.version;
                let data = json!({"message_id": update.receipt.message_id, "version": version});
                heard("receipt.updated", &data.to_string());
            }
            Ok(_) => heard("other", "{}"),
            Err(receipts_client::Error::UpdatesGone(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn reqwest_eventsource(url: &str) -> Result<(), Box<dyn Error>> {
    let http = reqwest::Client::builder().no_proxy().build()?;
    let mut source = reqwest_eventsource::EventSource::new(http.get(url))?;
    while let Some(event) = source.next().await {
        match event {
            Ok(reqwest_eventsource::Event::Message(message)) => heard(&message.event, &message.data),
            Ok(reqwest_eventsource::Event::Open) => {}
            Err(error) => println!("{}", json!({"failed": error.to_string()})),
        }
    }
    Ok(())
}

async fn eventsource_client(url: &str) -> Result<(), Box<dyn Error>> {
    let transport = launchdarkly_sdk_transport::HyperTransport::builder()
        .connect_timeout(Duration::from_secs(10))
        .disable_proxy()
        .build_http()?;
    let mut events = eventsource_client::ClientBuilder::for_url(url)?.build_with_transport(transport).stream();
    while let Some(event) = events.next().await {
        match event {
            Ok(eventsource_client::SSE::Event(event)) => heard(&event.event_type, &event.data),
            Ok(_) => {}
            Err(error) => println!("{}", json!({"failed": Value::from(error.to_string())})),
        }
    }
    Ok(())
}
