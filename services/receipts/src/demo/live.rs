//! Goes on with the chat while the demo stays: an announcement that fills with reads, and a group
//! that talks. Must not change a message that the demo has shown.

use super::chat::{Chat, ChatEvent};
use super::random::Random;
use super::story::{EVERYONE, EVERYONE_ID, person};
use anyhow::Result;
use receipts_event::Kind;
use receipts_log::{Entry, Writer};
use receipts_runtime::clock;
use std::time::Duration;

/// The first announcement that fills.
pub(crate) const FIRST_ID: &str = "town-hall-live-1";
/// The group that talks.
pub(crate) const GROUP_ID: &str = "g-live";

const TICK: Duration = Duration::from_millis(200);
/// Reads of the announcement in one tick: from 10 to 39, so it takes some 13 minutes to fill.
const READS_LEAST: u64 = 10;
const READS_MORE: u64 = 30;
/// Of this number of people, one does not read an announcement.
const NEVER_READS: usize = 16;
const SENDER: &str = "olivia";
const FRIENDS: usize = 6;

/// The chat from now on.
pub(crate) struct Live {
    tenant: String,
    partition_count: u32,
    random: Random,
    /// People who are still to read the announcement.
    waiting: Vec<usize>,
    announcements: u32,
    messages: u32,
}

impl Live {
    pub(crate) const fn new(tenant: String, partition_count: u32, seed: u64) -> Self {
        Self { tenant, partition_count, random: Random::new(seed), waiting: Vec::new(), announcements: 0, messages: 0 }
    }

    /// Writes the chat into the log until the returned future is dropped.
    ///
    /// # Errors
    /// If the log does not accept an event.
    pub(crate) async fn run(mut self, writer: &dyn Writer) -> Result<()> {
        let mut chat = self.chat();
        chat.open(chat.now_ms(), GROUP_ID, Kind::Group, None, &friends());
        append(writer, chat).await?;
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let mut chat = self.chat();
            self.announce(&mut chat);
            self.talk(&mut chat);
            append(writer, chat).await?;
        }
    }

    /// A chat that begins now, whose random numbers go on from the last one's.
    fn chat(&mut self) -> Chat {
        Chat::new(&self.tenant, self.partition_count, self.random.below(u64::MAX), clock::unix_ms())
    }

    /// Some people read the announcement; once nobody else will, there is another one.
    fn announce(&mut self, chat: &mut Chat) {
        let now_ms = chat.now_ms();
        if self.waiting.is_empty() {
            self.announcements += 1;
            chat.send(now_ms, EVERYONE_ID, &announcement(self.announcements), SENDER);
            let readers =
                (0..EVERYONE).filter(|number| number % NEVER_READS > 0 && person(*number) != SENDER).collect();
            self.waiting = chat.random.shuffled(readers);
        }
        let reads = READS_LEAST + chat.random.below(READS_MORE);
        let left = self.waiting.len().saturating_sub(reads as usize);
        for number in self.waiting.split_off(left) {
            chat.read(now_ms, EVERYONE_ID, &person(number), [announcement(self.announcements).as_str()], false);
        }
    }

    /// Every few seconds a friend sends a message, and another one opens the chat.
    fn talk(&mut self, chat: &mut Chat) {
        let now_ms = chat.now_ms();
        let friends = friends();
        if chat.random.chance(0.05) {
            self.messages += 1;
            let sender = chat.random.pick(&friends).clone();
            chat.send(now_ms, GROUP_ID, &format!("live-{}", self.messages), &sender);
        } else if self.messages > 0 && chat.random.chance(0.15) {
            let reader = chat.random.pick(&friends).clone();
            chat.read_up_to(now_ms, GROUP_ID, &reader, &format!("live-{}", self.messages));
        }
    }
}

fn announcement(number: u32) -> String {
    format!("{}{number}", FIRST_ID.trim_end_matches('1'))
}

fn friends() -> Vec<String> {
    (0..FRIENDS).map(person).collect()
}

async fn append(writer: &dyn Writer, chat: Chat) -> Result<()> {
    let records = chat.into_story().events.into_iter().flat_map(|ChatEvent { key, values, .. }| {
        values.into_iter().map(move |value| Entry::event(key.clone(), value, None))
    });
    // All are appended before the first one is waited for.
    let pending: Vec<_> = records.map(|entry| writer.append(entry)).collect();
    for appended in pending {
        appended.await??;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reads of the events so far, of the announcements only.
    fn reads(live: &mut Live, ticks: usize) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..ticks {
            let mut chat = live.chat();
            live.announce(&mut chat);
            let values = chat.into_story().events.into_iter().flat_map(|event| event.values);
            let reads =
                values.map(|value| String::from_utf8(value).expect("UTF-8")).filter(|v| v.contains("message.read"));
            all.extend(reads);
        }
        all
    }

    #[test]
    fn announcement_fills_without_repetition_then_another_begins() {
        assert_eq!(announcement(1), FIRST_ID);
        let mut live = Live::new("t".to_owned(), 1, 7);
        let first = reads(&mut live, 50);
        assert!((500..2_000).contains(&first.len()), "{}", first.len());
        let mut people: Vec<_> =
            first.iter().map(|read| read.split("\"reader_id\":").nth(1).expect("a reader").to_owned()).collect();
        people.sort_unstable();
        people.dedup();
        assert_eq!(people.len(), first.len(), "nobody reads twice");
        live.waiting.truncate(1);
        assert_eq!(reads(&mut live, 1).len(), 1);
        assert!(reads(&mut live, 1)[0].contains("town-hall-live-2"));
    }
}
