//! The conversations of the demo: a few written by hand, each of which shows one feature, a group
//! of 100,000, and many generated ones as background. The seed decides times and readers.

use super::chat::{Chat, Message, Story};
use receipts_event::Kind;

/// Members of the largest group.
pub(crate) const EVERYONE: usize = 100_000;
/// The largest group.
pub(crate) const EVERYONE_ID: &str = "g-everyone";
/// The direct chat whose read mark is shown, and its reader.
pub(crate) const DIRECT_ID: &str = "d-alice-bob";
pub(crate) const DIRECT_READER: &str = "bob";

/// The age of the chat, in seconds.
const LENGTH_S: u64 = 3_600;
const DIRECT_CHATS: u64 = 300;
const GROUPS: u64 = 150;

const NAMES: [&str; 64] = [
    "alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan", "judy", "kofi", "lena", "maya", "noor",
    "olivia", "peggy", "quinn", "rosa", "sami", "trent", "uma", "victor", "wendy", "xenia", "yara", "zoe", "amir",
    "bea", "chidi", "dina", "emil", "fatou", "goran", "hana", "ines", "jonas", "kira", "liam", "mina", "nils", "oscar",
    "priya", "ravi", "sofia", "tariq", "ulla", "vera", "wei", "ximena", "yusuf", "zeynep", "ana", "bruno", "clara",
    "diego", "elif", "farid", "gita", "hugo", "iris", "jin", "kaya", "luca", "mei",
];

/// Returns the name of a person by number: `alice`, …, `mei`, `alice-1`, and so on.
pub(crate) fn person(number: usize) -> String {
    let (round, name) = (number / NAMES.len(), NAMES[number % NAMES.len()]);
    if round == 0 { name.to_owned() } else { format!("{name}-{round}") }
}

/// Generates the chat of a seed, up to `now_ms`.
pub(crate) fn generate(tenant: &str, partition_count: u32, seed: u64, now_ms: u64) -> Story {
    let mut chat = Chat::new(tenant, partition_count, seed, now_ms);
    let begin = chat.ago(LENGTH_S);
    chat.policy(begin, &[("broadcast", false), ("*", true)]);
    lunch(&mut chat);
    release(&mut chat);
    direct(&mut chat);
    board(&mut chat);
    others(&mut chat);
    everyone(&mut chat);
    crowd(&mut chat);
    chat.into_story()
}

fn people(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Two members read, one departs without having read, two have not read yet.
fn lunch(chat: &mut Chat) {
    const ID: &str = "g-lunch";
    let friends = people(&["bob", "carol", "dave", "erin", "frank"]);
    chat.open(chat.ago(3_000), ID, Kind::Group, None, &[people(&["alice"]), friends.clone()].concat());
    let lunch = chat.send(chat.ago(1_800), ID, "lunch-1", "alice");
    chat.feature(ID, &lunch, "Lunch?", "a member who left without reading is counted apart");
    let order = chat.random.shuffled(friends);
    for (reader, after_ms) in order[..2].iter().zip([41_000, 95_000]) {
        chat.read(lunch.at_ms + after_ms, ID, reader, ["lunch-1"], false);
    }
    chat.members(chat.ago(900), ID, &[], &order[2..3], &[]);
    let chatter = chat.send_to(chat.ago(600), ID, "lunch-2", "alice", false, None);
    chat.feature(ID, &chatter, "Or sushi?", "sent without asking for a receipt");
}

/// A second device, a hidden reader, a bot that observes, and a member who joins later.
fn release(chat: &mut Chat) {
    const ID: &str = "g-release";
    chat.open(chat.ago(3_000), ID, Kind::Group, None, &people(&["heidi", "ivan", "judy", "kofi"]));
    chat.members(chat.ago(2_990), ID, &[], &[], &people(&["build-bot"]));
    let release = chat.send(chat.ago(1_500), ID, "release-1", "heidi");
    chat.feature(ID, &release, "2.4 is out!", "one reads twice, one hidden; the bot and a newcomer are not asked");
    chat.read(release.at_ms + 2_000, ID, "build-bot", ["release-1"], false);
    chat.read(release.at_ms + 30_000, ID, "ivan", ["release-1"], false);
    chat.read(release.at_ms + 33_000, ID, "ivan", ["release-1"], false);
    chat.read(release.at_ms + 60_000, ID, "judy", ["release-1"], true);
    chat.members(chat.ago(1_000), ID, &people(&["zoe"]), &[], &[]);
    chat.read(chat.ago(990), ID, "zoe", ["release-1"], false);
}

/// A read mark, and an answer that is not read yet.
fn direct(chat: &mut Chat) {
    chat.open(chat.ago(3_000), DIRECT_ID, Kind::Direct, None, &people(&["alice", DIRECT_READER]));
    let asked = chat.send(chat.ago(420), DIRECT_ID, "keys-1", "alice");
    chat.read_up_to(asked.at_ms + 48_000, DIRECT_ID, DIRECT_READER, "keys-1");
    chat.feature(DIRECT_ID, &asked, "Did you find the keys?", "read by a mark: everything up to here");
    let answer = chat.send(chat.ago(360), DIRECT_ID, "keys-2", DIRECT_READER);
    chat.feature(DIRECT_ID, &answer, "In the fridge.", "");
}

/// The message names its recipients, one of them a guest.
fn board(chat: &mut Chat) {
    const ID: &str = "g-board";
    chat.open(chat.ago(3_000), ID, Kind::Group, None, &people(&["olivia", "peggy", "rosa", "sami"]));
    let minutes = chat.send_to(chat.ago(1_200), ID, "minutes-1", "olivia", true, Some(&["peggy", "trent"]));
    chat.feature(ID, &minutes, "Please sign the minutes", "for two by name, one of them a guest");
    for (reader, after_ms) in [("trent", 62_000), ("peggy", 190_000)] {
        chat.read(minutes.at_ms + after_ms, ID, reader, ["minutes-1"], false);
    }
}

/// A recalled message, and a group type without receipts.
fn others(chat: &mut Chat) {
    const PARTY: &str = "g-party";
    chat.open(chat.ago(3_000), PARTY, Kind::Group, None, &people(&["grace", "maya", "noor", "uma"]));
    let surprise = chat.send(chat.ago(800), PARTY, "party-1", "grace");
    chat.read(surprise.at_ms + 9_000, PARTY, "maya", ["party-1"], false);
    chat.recall(surprise.at_ms + 20_000, PARTY, "party-1");
    chat.feature(PARTY, &surprise, "Surprise party for Noor!", "taken back after 20 s");
    const NEWS: &str = "g-news";
    chat.open(chat.ago(3_000), NEWS, Kind::Group, Some("broadcast"), &people(&["lena", "ravi", "wei"]));
    let news = chat.send(chat.ago(700), NEWS, "news-1", "lena");
    chat.feature(NEWS, &news, "The canteen has a new menu", "the policy switches receipts off for this group type");
}

/// 100,000 members and three announcements; some members depart, and some read hidden.
fn everyone(chat: &mut Chat) {
    let members: Vec<String> = (0..EVERYONE).map(person).collect();
    chat.open(chat.ago(LENGTH_S - 60), EVERYONE_ID, Kind::Group, None, &members);
    let mut announcements: Vec<Message> = Vec::new();
    for (seconds, id, text, remark) in [
        (2_700, "town-hall-1", "Town hall at 3 pm", "sent 45 min ago"),
        (480, "town-hall-2", "Town hall moved to 4 pm", "sent 8 min ago"),
        (120, "town-hall-3", "Doors are open", "sent 2 min ago"),
    ] {
        let message = chat.send(chat.ago(seconds), EVERYONE_ID, id, "olivia");
        chat.feature(EVERYONE_ID, &message, text, remark);
        announcements.push(message);
    }
    // A few hundred members depart, at four times between the announcements.
    let mut departs_at = vec![u64::MAX; members.len()];
    for seconds in [2_400, 1_500, 460, 90] {
        let at_ms = chat.ago(seconds);
        let mut departing = Vec::new();
        for _ in 0..100 + chat.random.below(50) {
            let number = chat.random.below(members.len() as u64) as usize;
            if departs_at[number] == u64::MAX && members[number] != "olivia" {
                departs_at[number] = at_ms;
                departing.push(members[number].clone());
            }
        }
        chat.members(at_ms, EVERYONE_ID, &[], &departing, &[]);
    }
    for (member, departs_at) in members.iter().zip(departs_at) {
        let (is_away, hidden) = (chat.random.chance(0.05), chat.random.chance(0.01));
        if !is_away && member != "olivia" {
            chat.simulate_reader(EVERYONE_ID, member, &announcements, departs_at, hidden);
        }
    }
}

/// Direct chats and small groups whose members send and read messages.
fn crowd(chat: &mut Chat) {
    for number in 0..DIRECT_CHATS {
        let pair: Vec<String> = (0..2).map(|_| person(chat.random.below(5_000) as usize)).collect();
        if pair[0] != pair[1] {
            converse(chat, &format!("d-{number}"), Kind::Direct, &pair);
        }
    }
    for number in 0..GROUPS {
        let size = chat.random.group_size(3, 200);
        let first = chat.random.below(5_000) as usize;
        let members: Vec<String> = (0..size as usize).map(|step| person(first + 7 * step)).collect();
        converse(chat, &format!("g-{number}"), Kind::Group, &members);
    }
}

fn converse(chat: &mut Chat, id: &str, kind: Kind, members: &[String]) {
    let begin = chat.ago(LENGTH_S - 60);
    chat.open(begin, id, kind, None, members);
    let count = 2 + chat.random.below(12);
    let mut times: Vec<u64> = (0..count).map(|_| begin + 1_000 + chat.random.below((LENGTH_S - 90) * 1_000)).collect();
    times.sort_unstable();
    let mut messages = Vec::new();
    for (number, at_ms) in times.into_iter().enumerate() {
        let sender = chat.random.pick(members).clone();
        messages.push(chat.send(at_ms, id, &format!("{id}-{number}"), &sender));
    }
    for member in members {
        if chat.random.chance(0.9) {
            chat.simulate_reader(id, member, &messages, chat.now_ms(), false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_event::{Body, decode};
    use std::collections::BTreeSet;

    const NOW_MS: u64 = 1_780_000_000_000;

    #[test]
    fn a_seed_decides_a_chat_of_valid_events() {
        let (story, again) = (generate("default", 4, 7, NOW_MS), generate("default", 4, 7, NOW_MS));
        let values = |story: &Story| story.events.iter().map(|event| event.values.clone()).collect::<Vec<_>>();
        assert!(values(&story) == values(&again), "the same seed gives another chat");
        assert!(values(&story) != values(&generate("default", 4, 8, NOW_MS)), "another seed gives the same chat");
        let mut types = BTreeSet::new();
        for record in &story.events {
            assert_eq!(record.values.len(), if record.is_control { 4 } else { 1 });
            for value in &record.values {
                let event = decode(value).expect("a good event");
                assert!(event.key_matches(&record.key));
                types.insert(event.type_name());
            }
        }
        assert!(story.events.len() > 200_000 && types.len() == 7, "{} of {types:?}", story.events.len());
    }

    #[test]
    fn nothing_happens_after_now() {
        for event in generate("default", 1, 3, NOW_MS).events {
            let at_ms = match decode(&event.values[0]).expect("a good event").body {
                Body::MessageSent(body) => body.sent_at_ms,
                Body::MessageRead(body) => body.read_at_ms.expect("said"),
                Body::ConversationRead(body) => body.read_at_ms.expect("said"),
                _ => NOW_MS,
            };
            assert!(at_ms <= NOW_MS);
        }
    }

    #[test]
    fn members_of_the_large_group_have_unique_names() {
        let names: BTreeSet<String> = (0..EVERYONE).map(person).collect();
        assert_eq!((names.len(), person(0), person(65)), (EVERYONE, "alice".to_owned(), "bob-1".to_owned()));
    }
}
