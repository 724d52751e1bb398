//! Tests streams of the client over a service that is killed, hangs, or has lost its log.

use super::{client, conversation, free_address, sent, serve_at};
use futures_util::StreamExt as _;
use receipts_client::event::{self, Kind, UpTo};
use receipts_client::{Client, Error, Update, Updates};
use receipts_tests::TIMEOUT;
use receipts_tests::process::Service;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Returns the next item of a stream.
async fn next(updates: &mut Updates) -> Option<Result<Update, Error>> {
    tokio::time::timeout(TIMEOUT, updates.next()).await.expect("something within the time")
}

/// Receives updates until `is` accepts the receipts so far, by conversation or message and read
/// count.
async fn hear_receipts(updates: &mut Updates, mut is: impl FnMut(&str, u32) -> bool) {
    loop {
        if let Update::Receipt(update) = next(updates).await.expect("the update before the end").expect("an update") {
            let counts = update.receipt.counts.expect("ok");
            if is(&update.receipt.message_id, counts.read_count) {
                return;
            }
        }
    }
}

/// INV-CLIENT, INV-STREAM
#[tokio::test(flavor = "multi_thread")]
async fn sender_hears_of_readers_and_marks() {
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &["--projector-update-window-ms", "20"]);
    let backend = client(&service.address, None);
    backend.post_events(&[event::conversation_configured("d1", Kind::Direct).build()]).await.expect("written");
    backend.post_events(&conversation("d1", &["bob"], &[])).await.expect("written");
    let mut updates = client(&service.address, Some("alice")).updates_of_sender("alice").open().await.expect("hers");
    // Events after the opening arrive on it.
    let mark = event::conversation_read("d1", "bob", UpTo::Message("m1".into())).build();
    backend.post_events(&[sent("d1", "m1").build(), mark]).await.expect("written");
    let (mut readers, mut marks) = (Vec::new(), Vec::new());
    while readers.is_empty() || marks.is_empty() {
        match next(&mut updates).await.expect("no end").expect("an update") {
            Update::Receipt(update) => readers.extend(update.newly_read.into_iter().map(|reader| reader.user_id)),
            Update::ReadMark(update) => {
                marks.push((update.mark.reader_id, update.peer_id, update.mark.up_to_message_id))
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(readers, ["bob"]);
    assert_eq!(marks, [("bob".to_owned(), Some("alice".to_owned()), Some("m1".to_owned()))]);
    assert_ne!(updates.last_event_id(), "");
}

/// INV-CLIENT, INV-STREAM: the stream carries every event acknowledged before, during and after the
/// service's absence.
#[tokio::test(flavor = "multi_thread")]
async fn client_stream_has_no_gap_through_kills() {
    const KILLS: usize = 3;
    const MESSAGES: usize = 40;
    let data = tempfile::tempdir().expect("a folder");
    let address = free_address();
    let mut service = serve_at(address, data.path());
    let backend = Client::builder(format!("http://{address}")).retries(30).wait(TIMEOUT / 2);
    let backend = backend.http(|http| http.no_proxy()).build().expect("a client");
    backend.post_events(&conversation("g1", &["bob", "carol"], &[])).await.expect("written");
    let interruptions = Arc::new(Mutex::new(Vec::new()));
    let subscription = backend.updates_of_conversation("g1").on_interruption({
        let interruptions = Arc::clone(&interruptions);
        move |error, _| interruptions.lock().expect("a lock").push(error.to_string())
    });
    let mut updates = subscription.open().await.expect("opened");
    // Messages that both have read, by the stream.
    let (heard, mut read_by_both) = tokio::sync::watch::channel(0);
    let hearing = tokio::spawn(async move {
        let mut newest = BTreeMap::<String, u32>::new();
        hear_receipts(&mut updates, |message, read| {
            let count = newest.entry(message.to_owned()).or_default();
            *count = read.max(*count);
            let done = newest.values().filter(|read| **read == 2).count();
            heard.send_replace(done);
            done == (KILLS + 1) * MESSAGES
        })
        .await;
        updates
    });
    for round in 0..=KILLS {
        let ids: Vec<String> = (0..MESSAGES).map(|n| format!("m{round}-{n}")).collect();
        let sends: Vec<_> = ids.iter().map(|id| sent("g1", id).build()).collect();
        backend.post_events(&sends).await.expect("written");
        backend.post_events(&[event::message_read("g1", "bob", &ids).build()]).await.expect("written");
        if round < KILLS {
            service.kill();
            service = serve_at(address, data.path());
        }
        backend.post_events(&[event::message_read("g1", "carol", &ids).build()]).await.expect("written");
        // Waits until the stream is connected again before the next kill.
        let all = read_by_both.wait_for(|done| *done == (round + 1) * MESSAGES);
        tokio::time::timeout(TIMEOUT, all).await.expect("all of the round is heard").expect("no end");
    }
    let updates = hearing.await.expect("no panic");
    assert!(interruptions.lock().expect("a lock").len() >= KILLS, "{interruptions:?}");

    // The next process continues from this one's position.
    let since = updates.last_event_id().to_owned();
    drop(updates);
    backend.post_events(&[sent("g1", "late").build()]).await.expect("written");
    let mut later = backend.updates_of_conversation("g1").since(since).open().await.expect("opened");
    let mut first = None;
    hear_receipts(&mut later, |message, _| {
        first.get_or_insert_with(|| message.to_owned());
        message == "late"
    })
    .await;
    assert_eq!(first.as_deref(), Some("late"), "nothing that was taken before comes again");
    drop(service);
}

/// INV-CLIENT, INV-STREAM
#[tokio::test(flavor = "multi_thread")]
async fn break_before_the_first_update_leaves_no_gap() {
    let data = tempfile::tempdir().expect("a folder");
    let address = free_address();
    let service = serve_at(address, data.path());
    let backend = Client::builder(format!("http://{address}")).retries(30).http(|http| http.no_proxy());
    let backend = backend.build().expect("a client");
    let (told, mut interrupted) = tokio::sync::mpsc::unbounded_channel();
    let subscription = backend.updates_of_conversation("g1").on_interruption(move |_, _| _ = told.send(()));
    let mut updates = subscription.open().await.expect("opened");
    // The first event has a position and no update, so the stream shows nothing yet.
    let nothing = tokio::time::timeout(Duration::from_millis(300), updates.next()).await;
    assert!(nothing.is_err(), "{nothing:?}");
    assert_ne!(updates.last_event_id(), "");
    // From here on it is polled again, so that it connects again.
    let hearing = tokio::spawn(async move {
        hear_receipts(&mut updates, |message, read| (message, read) == ("m1", 0)).await;
    });
    service.kill();
    let service = serve_at(address, data.path());
    backend.post_events(&conversation("g1", &["bob"], &["m1"])).await.expect("written");
    tokio::time::timeout(TIMEOUT, hearing).await.expect("heard").expect("no panic");
    assert!(interrupted.try_recv().is_ok());
    drop(service);
}

/// INV-CLIENT: the client leaves a silent connection, and the next one carries the missed updates.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_hangs_is_noticed_by_its_silence() {
    let data = tempfile::tempdir().expect("a folder");
    let service = Service::serve(data.path(), &["--http-heartbeat-ms", "100", "--projector-update-window-ms", "20"]);
    let backend = client(&service.address, None);
    backend.post_events(&conversation("g1", &["bob"], &["m1"])).await.expect("written");
    let listener = Client::builder(format!("http://{}", service.address)).heartbeat_timeout(Duration::from_secs(1));
    let listener = listener.http(|http| http.no_proxy()).build().expect("a client");
    let (told, mut interrupted) = tokio::sync::mpsc::unbounded_channel();
    let subscription = listener.updates_of_conversation("g1").on_interruption(move |error, _| {
        _ = told.send(format!("{error:?}"));
    });
    let mut updates = subscription.open().await.expect("opened");
    let hearing = tokio::spawn(async move {
        hear_receipts(&mut updates, |message, read| (message, read) == ("m1", 1)).await;
    });
    service.signal("STOP");
    let why = tokio::time::timeout(TIMEOUT, interrupted.recv()).await.expect("noticed").expect("told");
    assert!(why.contains("TimedOut"), "{why}");
    service.signal("CONT");
    backend.post_events(&[event::message_read("g1", "bob", ["m1"]).build()]).await.expect("written");
    tokio::time::timeout(TIMEOUT, hearing).await.expect("heard").expect("no panic");
}

/// INV-CLIENT, INV-STREAM
#[tokio::test(flavor = "multi_thread")]
async fn lost_updates_are_an_error_and_the_stream_continues() {
    let data = tempfile::tempdir().expect("a folder");
    let address = free_address();
    let service = serve_at(address, data.path());
    let backend = Client::builder(format!("http://{address}")).retries(30).http(|http| http.no_proxy());
    let backend = backend.build().expect("a client");
    backend.post_events(&conversation("g1", &["bob"], &["m1"])).await.expect("written");
    let mut updates = backend.updates_of_conversation("g1").open().await.expect("opened");
    backend.post_events(&[event::message_read("g1", "bob", ["m1"]).build()]).await.expect("written");
    hear_receipts(&mut updates, |message, read| (message, read) == ("m1", 1)).await;
    let since = updates.last_event_id().to_owned();

    // The same address with another log: the updates are lost, like those before a log's beginning.
    service.kill();
    let other = tempfile::tempdir().expect("a folder");
    let service = serve_at(address, other.path());
    match next(&mut updates).await.expect("no end") {
        Err(Error::UpdatesGone(problem)) => assert_eq!((problem.status, problem.is("updates-gone")), (410, true)),
        other => panic!("{other:?}"),
    }
    let refused = backend.updates_of_conversation("g1").since(since).open().await.expect_err("gone");
    assert!(matches!(refused, Error::UpdatesGone(_)), "{refused:?}");
    // The stream is connected by now, so later events arrive.
    backend.post_events(&conversation("g1", &["bob"], &["m2"])).await.expect("written");
    hear_receipts(&mut updates, |message, _| message == "m2").await;
    drop(service);
}

/// INV-CLIENT
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_refused_says_why_and_ends() {
    let data = tempfile::tempdir().expect("a folder");
    let address = free_address();
    let service = serve_at(address, data.path());
    let mallory = client(&service.address, Some("mallory"));
    assert!(mallory.updates_of_sender("alice").open().await.expect_err("not hers").is("forbidden"));
    assert!(mallory.updates_of_sender("mallory").since("x").open().await.expect_err("no token").is("bad-position"));

    // Refused later: the service now accepts tokens only.
    let mut updates = mallory.updates_of_sender("mallory").open().await.expect("hers");
    service.kill();
    let secret = data.path().join("secret");
    std::fs::write(&secret, "0123456789abcdef0123456789abcdef").expect("written");
    let (address, data_dir) = (address.to_string(), data.path().to_str().expect("UTF-8"));
    let flags = [
        "serve",
        "--http-listen",
        &address,
        "--data-dir",
        data_dir,
        "--auth-secret-file",
        secret.to_str().expect("UTF-8"),
        "--auth-issuer",
        "test",
        "--auth-audience",
        "receipts",
    ];
    let service = Service::start("receipts", &flags);
    let refused = next(&mut updates).await.expect("an error").expect_err("refused");
    assert!(refused.is("invalid"), "{refused:?}");
    assert!(next(&mut updates).await.is_none());
    drop(service);
}
