//! The chats of the soak: an endless seeded history, written as JSON on demand, whose state does
//! not grow. Sends no HTTP, reads no clock, judges no answer.

use receipts_testkit::random::Random;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};

/// Conversations beside the large one; sizes follow a power law from 2 to `SIZE_MAX`.
const GROUPS: usize = 2_000;
const SIZE_MAX: f64 = 5_000.0;
/// The number of the large conversation.
const LARGE: usize = GROUPS;
/// Newest message ids per conversation that reads and queries name.
const NEWEST: usize = 30;
/// Messages that reads name, each once or, in larger groups, more often.
const RECENT: usize = 200_000;
/// Events that may be sent twice.
const REPEATED: usize = 2_000;
/// How long after a read of it an early message is sent, in milliseconds.
const EARLY_MS: u64 = 1_000;

/// The kinds of events, and how often of ten thousand times each happens.
const WEIGHTS: [(Happening, u32); 12] = [
    (Happening::Send, 1_400),
    (Happening::Read, 4_994),
    (Happening::ReadOfLarge, 1_800),
    (Happening::Mark, 700),
    (Happening::HiddenRead, 300),
    (Happening::Again, 400),
    (Happening::Early, 100),
    (Happening::Stranger, 100),
    (Happening::Recall, 100),
    (Happening::Churn, 100),
    (Happening::Configure, 5),
    (Happening::Erase, 1),
];

#[derive(Debug, Clone, Copy)]
enum Happening {
    Send,
    Read,
    ReadOfLarge,
    Mark,
    HiddenRead,
    Again,
    Early,
    Stranger,
    Recall,
    Churn,
    Configure,
    Erase,
}

/// A conversation: its members by seat, and its newest messages.
struct Group {
    /// Members at the beginning, which is the number of seats.
    size: u64,
    /// The number of the large conversation.
    first: u64,
    /// Seats whose person has changed.
    replaced: HashMap<u64, u64>,
    /// A seat whose person has left and will return.
    away: Option<u64>,
    newest: VecDeque<u64>,
}

impl Group {
    fn person(&self, place: u64) -> u64 {
        self.replaced.get(&place).copied().unwrap_or(self.first + place)
    }
}

/// An endless history.
pub(crate) struct Chat {
    random: Random,
    groups: Vec<Group>,
    messages: u64,
    people: u64,
    recent: VecDeque<(u32, u64)>,
    repeated: VecDeque<String>,
    /// Messages that were named before they are sent, and the Unix milliseconds of sending.
    early: VecDeque<(u64, u32, u64)>,
    weights: [u32; WEIGHTS.len()],
}

fn conversation(group: u32) -> String {
    if group as usize == LARGE { "large".into() } else { format!("group-{group:05}") }
}

fn message(number: u64) -> String {
    format!("message-{number:010}")
}

fn person(number: u64) -> String {
    format!("user-{number:08}")
}

impl Chat {
    /// The chats of a seed; the largest has `large` members.
    pub(crate) fn new(seed: u64, large: u64) -> Self {
        let mut random = Random::new(seed);
        let mut groups = Vec::with_capacity(GROUPS + 1);
        let mut people = 0;
        for number in 0..=GROUPS {
            // The quantiles of the density s^-2.
            let quantile = (number as f64 + 0.5) / GROUPS as f64;
            let size = if number == LARGE { large } else { (2.0 / (1.0 - quantile)).min(SIZE_MAX) as u64 };
            // A third of a group's people are also in the next group.
            groups.push(Group { size, first: people, replaced: HashMap::new(), away: None, newest: VecDeque::new() });
            people += size - size / 3;
        }
        random.shuffle(&mut groups[..GROUPS]);
        Self {
            random,
            groups,
            messages: 0,
            people: people + large,
            recent: VecDeque::new(),
            repeated: VecDeque::new(),
            early: VecDeque::new(),
            weights: WEIGHTS.map(|(_, weight)| weight),
        }
    }

    /// The first events: the policy and the rosters.
    pub(crate) fn beginning(&self) -> Vec<Value> {
        let mut events = vec![json!({"type": "policy.changed", "read_receipts": {"*": true, "quiet": false}})];
        for (number, group) in self.groups.iter().enumerate() {
            let id = conversation(number as u32);
            events.push(configured(&id, group.size, number));
            let people: Vec<_> = (0..group.size).map(|place| person(group.person(place))).collect();
            for joined in people.chunks(5_000) {
                events.push(json!({"type": "members.changed", "conversation_id": id, "joined": joined}));
            }
        }
        events
    }

    /// Writes the next event at a time in Unix milliseconds, as one JSON object.
    pub(crate) fn next(&mut self, now_ms: u64) -> String {
        if self.early.front().is_some_and(|(due_ms, ..)| *due_ms <= now_ms) {
            let (_, group, number) = self.early.pop_front().expect("looked at");
            return self.sent(group, number, now_ms);
        }
        if self.recent.is_empty() {
            return self.send(now_ms);
        }
        let event = match WEIGHTS[self.random.weighted(&self.weights)].0 {
            Happening::Send => self.send(now_ms),
            Happening::Read => self.read(now_ms, false),
            Happening::HiddenRead => self.read(now_ms, true),
            Happening::ReadOfLarge => {
                let reader = self.member(LARGE as u32);
                self.read_newest(LARGE as u32, &reader, now_ms)
            }
            Happening::Mark => self.mark(now_ms),
            Happening::Early => self.name_early(now_ms),
            Happening::Stranger => {
                let (group, _) = self.recent_one();
                self.read_newest(group, "nobody-of-the-roster", now_ms)
            }
            Happening::Recall => {
                let (group, number) = self.recent_one();
                recalled(group, number)
            }
            Happening::Churn => self.churn(),
            Happening::Configure => {
                let group = self.random.index(GROUPS);
                configured(&conversation(group as u32), self.groups[group].size, group).to_string()
            }
            Happening::Erase => self.erase(),
            Happening::Again => match self.repeated.pop_front() {
                Some(event) => return event,
                None => self.send(now_ms),
            },
        };
        if self.random.chance(0.1) && self.repeated.len() < REPEATED && !event.contains("user.erased") {
            self.repeated.push_back(event.clone());
        }
        event
    }

    /// The ids of up to 30 messages of one conversation, as a screen shows them, and the
    /// conversation.
    pub(crate) fn screen(&mut self) -> (String, Vec<String>) {
        let (group, _) = self.recent_one();
        (conversation(group), self.groups[group as usize].newest.iter().copied().map(message).collect())
    }

    /// The ids of up to 30 messages of any conversations.
    pub(crate) fn some(&mut self) -> Vec<String> {
        (0..NEWEST).map(|_| message(self.recent_one().1)).collect()
    }

    /// A conversation and a message in it.
    pub(crate) fn one(&mut self) -> (String, String) {
        let (group, number) = self.recent_one();
        (conversation(group), message(number))
    }

    /// The largest conversation, and its newest message.
    pub(crate) fn largest(&self) -> (String, Option<String>) {
        (conversation(LARGE as u32), self.groups[LARGE].newest.back().copied().map(message))
    }

    fn new_message(&mut self) -> u64 {
        self.messages += 1;
        self.messages
    }

    fn any_group(&mut self) -> u32 {
        if self.random.chance(0.002) { LARGE as u32 } else { self.random.index(GROUPS) as u32 }
    }

    fn member(&mut self, group: u32) -> String {
        let group = &self.groups[group as usize];
        person(group.person(self.random.below(group.size)))
    }

    /// A sent message, more often a new one, and more often one in a larger group.
    fn recent_one(&mut self) -> (u32, u64) {
        let back = (self.recent.len() as f64 * self.random.unit().powi(4)) as usize;
        let at = self.recent.len().checked_sub(back + 1);
        at.and_then(|at| self.recent.get(at)).copied().unwrap_or((0, 0))
    }

    fn send(&mut self, now_ms: u64) -> String {
        let (group, number) = (self.any_group(), self.new_message());
        self.sent(group, number, now_ms)
    }

    fn sent(&mut self, group: u32, number: u64, now_ms: u64) -> String {
        let sender = self.member(group);
        let held = &mut self.groups[group as usize];
        held.newest.push_back(number);
        if held.newest.len() > NEWEST {
            held.newest.pop_front();
        }
        for _ in 0..(held.size / 8).clamp(1, 64) {
            self.recent.push_back((group, number));
        }
        while self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        let wanted = self.random.chance(0.95);
        let recipients = if self.random.chance(0.02) {
            let some: Vec<_> = (0..5).map(|_| self.member(group)).collect();
            format!(r#","recipients":{}"#, json!(some))
        } else {
            String::new()
        };
        format!(
            r#"{{"type":"message.sent","conversation_id":"{}","message_id":"{}","sender_id":"{sender}","sent_at_ms":{now_ms},"need_read_receipt":{wanted}{recipients}}}"#,
            conversation(group),
            message(number),
        )
    }

    fn read(&mut self, now_ms: u64, hidden: bool) -> String {
        let (group, number) = self.recent_one();
        let reader = self.member(group);
        if !hidden && self.random.chance(0.3) {
            return self.read_newest(group, &reader, now_ms);
        }
        read(group, &reader, &[number], now_ms, hidden)
    }

    /// A person opens a chat.
    fn read_newest(&mut self, group: u32, reader: &str, now_ms: u64) -> String {
        let newest = &self.groups[group as usize].newest;
        if newest.is_empty() {
            return self.send(now_ms);
        }
        let count = 1 + self.random.index(newest.len().min(8));
        let ids: Vec<u64> = newest.iter().rev().take(count).copied().collect();
        read(group, reader, &ids, now_ms, false)
    }

    fn mark(&mut self, now_ms: u64) -> String {
        let (group, number) = self.recent_one();
        let reader = self.member(group);
        let up_to = if self.random.chance(0.7) {
            format!(r#""up_to_message_id":"{}""#, message(number))
        } else {
            format!(r#""up_to_sent_at_ms":{}"#, now_ms - self.random.below(60_000))
        };
        format!(
            r#"{{"type":"conversation.read","conversation_id":"{}","reader_id":"{reader}",{up_to},"read_at_ms":{now_ms}}}"#,
            conversation(group),
        )
    }

    /// Names a message that is sent later.
    fn name_early(&mut self, now_ms: u64) -> String {
        let (group, number) = (self.any_group(), self.new_message());
        self.early.push_back((now_ms + EARLY_MS, group, number));
        let reader = self.member(group);
        match self.random.below(10) {
            0 => recalled(group, number),
            _ => read(group, &reader, &[number], now_ms, false),
        }
    }

    /// A person leaves or returns; at times a newcomer takes the seat.
    fn churn(&mut self) -> String {
        let number = if self.random.chance(0.2) { LARGE } else { self.random.index(GROUPS) };
        let newcomer = self.random.chance(0.1);
        let id = conversation(number as u32);
        let group = &mut self.groups[number];
        match group.away.take() {
            None => {
                let place = self.random.below(group.size);
                group.away = Some(place);
                json!({"type": "members.changed", "conversation_id": id, "left": [person(group.person(place))]})
                    .to_string()
            }
            Some(place) => {
                if newcomer {
                    group.replaced.insert(place, self.people);
                    self.people += 1;
                }
                json!({"type": "members.changed", "conversation_id": id, "joined": [person(group.person(place))]})
                    .to_string()
            }
        }
    }

    /// A person is erased; a newcomer takes the seat with the next change of the roster.
    fn erase(&mut self) -> String {
        let number = self.random.index(GROUPS);
        let group = &mut self.groups[number];
        let place = group.away.take().unwrap_or_else(|| self.random.below(group.size));
        let gone = group.person(place);
        group.replaced.insert(place, self.people);
        group.away = Some(place);
        self.people += 1;
        json!({"type": "user.erased", "user_id": person(gone)}).to_string()
    }
}

fn configured(id: &str, size: u64, number: usize) -> Value {
    if size == 2 {
        return json!({"type": "conversation.configured", "conversation_id": id, "kind": "direct"});
    }
    let group_type = if number % 50 == 7 { "quiet" } else { "default" };
    json!({"type": "conversation.configured", "conversation_id": id, "kind": "group", "group_type": group_type})
}

fn read(group: u32, reader: &str, ids: &[u64], now_ms: u64, hidden: bool) -> String {
    let ids = ids.iter().map(|id| format!(r#""{}""#, message(*id))).collect::<Vec<_>>().join(",");
    format!(
        r#"{{"type":"message.read","conversation_id":"{}","reader_id":"{reader}","message_ids":[{ids}],"read_at_ms":{now_ms},"hidden":{hidden}}}"#,
        conversation(group),
    )
}

fn recalled(group: u32, number: u64) -> String {
    json!({"type": "message.recalled", "conversation_id": conversation(group), "message_id": message(number)})
        .to_string()
}
