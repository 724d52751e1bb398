//! The words that went out of the tree, and the word to use instead. A word stands here because it
//! had several meanings, or because a reader had to guess it. `docs/glossary.md` has the words that
//! stayed.

/// A word or phrase that is not to come back.
pub(super) struct OldWord {
    /// In lower case: words in a row, in whatever form they are written: `look ahead` finds
    /// `look_ahead` and `LookAhead`. With a capital letter or an underscore: exactly this
    /// identifier.
    pub(super) pattern: &'static str,
    pub(super) instead: &'static str,
    /// Where the word means something else and is right: beginnings of paths.
    allowed: &'static [&'static str],
}

const fn old(pattern: &'static str, instead: &'static str) -> OldWord {
    OldWord { pattern, instead, allowed: &[] }
}

const OLD_WORDS: &[OldWord] = &[
    old("stretch", "segment (of the index), membership (of a person), page (of a list) or range (of the log)"),
    old("stretches", "segments, memberships, pages or ranges"),
    old("young", "active"),
    old("settle", "write_meta, apply_erasures, merge_late or reap: say which"),
    old("settles", "say what is written, applied, merged or reaped"),
    old("settled", "say what is written, applied, merged or reaped"),
    // In scripts it is a command.
    OldWord {
        pattern: "touch",
        instead: "prefetch, mark dirty, enqueue, read or change: say which",
        allowed: &["tests/tools/"],
    },
    old("touches", "prefetches, marks dirty, enqueues, reads or changes: say which"),
    old("touched", "prefetched, dirty, enqueued, read or changed: say which"),
    old("agenda", "schedule"),
    old("lane", "worker or shard"),
    old("lanes", "workers or shards"),
    old("at hand", "peek, or cached"),
    old("look ahead", "prefetch"),
    old("looks ahead", "prefetches"),
    old("looked ahead", "prefetched"),
    old("looking ahead", "prefetching"),
    old("hurry", "cap_due"),
    old("hurries", "cap_due"),
    old("whoever", "the noun: the caller, the owner, the reader"),
    old("whatever", "the noun, or \"any\""),
    old("so many", "the number: \"that number of\", or its name"),
    old("a turn", "per, or each time"),
    old("in the place of", "instead of"),
    old("leave log", "departures"),
    old("hot page", "cached page"),
    old("hot pages", "cached pages"),
    old("note places", "write_sled_snapshot"),
    old("noted places", "sled snapshot"),
    old("sign of life", "heartbeat"),
    old("signs of life", "heartbeats"),
    old("ImageSource", "SnapshotSource"),
    old("note_places", "write_sled_snapshot"),
    old("open_whole", "open_strict"),
    old("SnapshotAsk", "SnapshotRequest"),
    old("SnapshotDesk", "SnapshotControl"),
    old("SnapshotDoing", "SnapshotPhase"),
    old("SnapshotNewest", "TakenSnapshot"),
    old("answers_before", "cluster::merge"),
    old("receipts_sent_by", "receipts, with a sender"),
    old("find_sent_by", "find, with a sender"),
    old("hand_out", "deliver"),
    old("DRAFT_BYTES", "PRE_ENCODE_BYTES"),
    old("draft_bytes", "pre_encode_bytes"),
    old("Lingering", "Linger"),
    old("NotJustNow", "Step::LogUnavailable"),
    old("InTurns", "InlineSource"),
    old("LOOK_AHEAD_EVENTS", "PREFETCH_EVENTS"),
    old("forget_expired", "remove_expired"),
    old("open_with_stretches", "open_with_segments"),
    old("Chained", "PackedLink"),
    old("own_pages", "pages_of_partition"),
    old("LeftSince", "departed_cache"),
    old("state as fate", "Fate, at its definition"),
    old("Handed", "SourceItem"),
    old("Told", "the name of what it holds"),
    old("Askers", "AccessRule"),
    old("Reach", "Visibility"),
    old("Patience", "Timeouts"),
    old("Drained", "DrainOutcome"),
    old("Halves", "ProbeTable"),
    old("table id leaves", "departures"),
    old("Place", "Position, Location, Slot or Path: say which"),
];

/// The old words that a line of a file holds.
pub(super) fn found(path: &str, line: &str) -> Vec<&'static OldWord> {
    let words = words(line);
    let exact: Vec<&str> = line.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_').collect();
    let stands = |old: &&OldWord| {
        if old.allowed.iter().any(|start| path.starts_with(start)) {
            return false;
        }
        if old.pattern.contains(|letter: char| letter.is_uppercase() || letter == '_') {
            return exact.contains(&old.pattern);
        }
        let pattern: Vec<&str> = old.pattern.split(' ').collect();
        words.windows(pattern.len()).any(|window| window.iter().zip(&pattern).all(|(word, part)| word == part))
    };
    OLD_WORDS.iter().filter(stands).collect()
}

/// The words of a line in lower case, identifiers taken apart: `look_ahead` and `LookAhead` are
/// "look" and "ahead".
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut before = ' ';
    for letter in line.chars() {
        if !letter.is_alphanumeric() || (letter.is_uppercase() && before.is_lowercase()) {
            words.push(String::new());
        }
        if letter.is_alphanumeric() {
            words.last_mut().expect("begins with one").extend(letter.to_lowercase());
        }
        before = letter;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[test]
fn old_words_are_found_in_any_form() {
    let patterns = |line| found("x.rs", line).iter().map(|old| old.pattern).collect::<Vec<_>>();
    assert_eq!(patterns("/// Looks ahead over a stretch."), ["stretch", "looks ahead"]);
    assert_eq!(patterns("fn look_ahead() -> LookAhead"), ["look ahead"]);
    assert_eq!(patterns("struct Told;"), ["Told"]);
    assert_eq!(patterns("as told, a sealed segment, placed there"), Vec::<&str>::new());
}
