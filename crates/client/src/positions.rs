//! The positions that a client has written or seen, merged into one token for each log.
//!
//! The service makes tokens. This module only takes those of the formats that it knows apart, and
//! keeps others as they are.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use receipts_event::token::{Content, Kind, shortened};
use std::collections::BTreeMap;

/// Characters of kept tokens of other versions, joined. Servers limit a header to some 8,000.
const OTHERS_MAX: usize = 2_000;

/// Positions that later reads wait for.
#[derive(Debug, Default)]
pub(crate) struct Positions {
    /// By the log that their tokens name, if they name one; there is a second log only after the
    /// service got another.
    logs: BTreeMap<Option<u32>, Offsets>,
    /// Tokens of other versions, oldest first, and the number of the call that added each.
    others: Vec<(String, u64)>,
    /// The number of calls that have added tokens.
    added: u64,
}

/// How far a log was written or seen.
#[derive(Debug, Default)]
struct Offsets {
    /// The number of last bits that each offset lacks: that of the most rounded token.
    shift: u32,
    /// By partition: the next offset without these bits, and the number of the call that added it.
    by_partition: BTreeMap<u32, (u64, u64)>,
}

impl Offsets {
    /// Merges a token: of each partition the greater offset, so that the result stands for every
    /// position that the two may stand for.
    fn merge(&mut self, content: &Content, added: u64) {
        if content.shift > self.shift {
            let more = content.shift - self.shift;
            self.by_partition.values_mut().for_each(|(offset, _)| *offset = shortened(*offset, more));
            self.shift = content.shift;
        }
        for (partition, offset) in &content.offsets {
            let offset = shortened(*offset, self.shift - content.shift);
            let kept = self.by_partition.entry(*partition).or_default();
            // Equal rounded offsets may stand for a later one.
            if offset > kept.0 || (offset == kept.0 && self.shift > 0) || kept.1 == 0 {
                *kept = (offset, added);
            }
        }
    }

    fn content(&self, log: Option<u32>) -> Content {
        let offsets = self.by_partition.iter().map(|(partition, (offset, _))| (*partition, *offset));
        Content { kind: Kind::Events, log, shift: self.shift, offsets: offsets.collect() }
    }
}

impl Positions {
    /// Returns one value for `Receipts-Min-Position`; empty if there is nothing to wait for. A
    /// token has at most 2,000 characters.
    pub(crate) fn token(&self) -> String {
        let merged = self.logs.iter().map(|(log, offsets)| URL_SAFE_NO_PAD.encode(offsets.content(*log).bytes()));
        merged.chain(self.others.iter().map(|(token, _)| token.clone())).collect::<Vec<_>>().join(",")
    }

    /// Returns a mark for [`Self::remove`]: everything that was added so far.
    pub(crate) fn mark(&self) -> u64 {
        self.added
    }

    /// Adds a token, or several separated by commas: the greater offset of each partition.
    pub(crate) fn add(&mut self, tokens: &str) {
        self.added += 1;
        for token in tokens.split(',').map(str::trim).filter(|token| !token.is_empty()) {
            match decode(token) {
                Some(content) if content.offsets.is_empty() => {}
                Some(content) => self.logs.entry(content.log).or_default().merge(&content, self.added),
                None => {
                    self.others.retain(|(other, _)| other != token);
                    self.others.push((token.to_owned(), self.added));
                }
            }
        }
        while self.others.iter().map(|(token, _)| token.len() + 1).sum::<usize>() > OTHERS_MAX {
            self.others.remove(0);
        }
    }

    /// Removes everything that was added before the mark, but not what was added since.
    pub(crate) fn remove(&mut self, mark: u64) {
        self.others.retain(|(_, added)| *added > mark);
        self.logs.values_mut().for_each(|offsets| offsets.by_partition.retain(|_, (_, added)| *added > mark));
        self.logs.retain(|_, offsets| !offsets.by_partition.is_empty());
    }
}

/// Reads a token of the event log; `None` if it is of another version or kind, or no token.
fn decode(token: &str) -> Option<Content> {
    let content = Content::read(&URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    (content.kind == Kind::Events).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::*;
    use receipts_event::token::{least, most};
    use serde::Deserialize;

    fn of(log: Option<u32>, offsets: &[(u32, u64)]) -> String {
        let mut positions = Positions::default();
        for (partition, offset) in offsets {
            let content = Content { log, offsets: vec![(*partition, *offset)], ..Content::default() };
            positions.add(&URL_SAFE_NO_PAD.encode(content.bytes()));
        }
        positions.token()
    }

    /// Offsets of the first partitions around a base, by a seed.
    fn many(count: u32, base: u64, spread: u64, seed: u64) -> Vec<(u32, u64)> {
        let random = |at: u32| (seed ^ u64::from(at)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
        (0..count).map(|at| (at, base + random(at) % spread)).collect()
    }

    /// `schemas/token/golden-v2.json`, which the TypeScript client reads too.
    #[derive(Deserialize)]
    struct Golden {
        tokens: Vec<GoldenToken>,
        merges: Vec<GoldenMerge>,
    }

    #[derive(Deserialize)]
    struct GoldenToken {
        token: String,
        log: Option<u32>,
        shift: u32,
        offsets: Vec<(u32, String)>,
    }

    #[derive(Deserialize)]
    struct GoldenMerge {
        tokens: Vec<String>,
        merged: String,
    }

    #[test]
    fn golden_tokens_are_read_and_merged() {
        let text = include_str!("../../../schemas/token/golden-v2.json");
        let golden: Golden = serde_json::from_str(text).unwrap();
        assert!(golden.tokens.len() > 5 && golden.merges.len() > 3);
        for GoldenToken { token, log, shift, offsets } in golden.tokens {
            let offsets = offsets.into_iter().map(|(partition, offset)| (partition, offset.parse().unwrap()));
            let content = Content { kind: Kind::Events, log, shift, offsets: offsets.collect() };
            assert_eq!(decode(&token).as_ref(), Some(&content), "{token}");
            assert_eq!(URL_SAFE_NO_PAD.encode(content.bytes()), token);
        }
        for GoldenMerge { tokens, merged } in golden.merges {
            let mut positions = Positions::default();
            tokens.iter().for_each(|token| positions.add(token));
            assert_eq!(positions.token(), merged, "{tokens:?}");
        }
    }

    /// INV-TOKEN
    #[test]
    fn merged_token_stands_for_both_positions() {
        for (at, count) in [1, 12, 64, 65, 400, 1_000, 10_000].into_iter().enumerate() {
            for (base, spread) in [(1, 900), (1_000_000_000, 1_000), (3_000_000_000, 1 << 31), (1 << 40, 1 << 39)] {
                let (a, b) = (many(count, base, spread, 1), many(count / 2 + 1, base + spread / 3, spread, at as u64));
                let token = |offsets: &[(u32, u64)]| {
                    let content = Content { log: Some(7), offsets: offsets.to_vec(), ..Content::default() };
                    URL_SAFE_NO_PAD.encode(content.bytes())
                };
                let mut positions = Positions::default();
                positions.add(&token(&a));
                positions.add(&token(&b));
                positions.add(&token(&[(0, base)]));
                let merged = positions.token();
                assert!(merged.len() <= 2_000, "{count} partitions: {} characters", merged.len());
                let content = decode(&merged).unwrap();
                for (at, (partition, offset)) in a.iter().enumerate() {
                    let truth = b.get(at).map_or(*offset, |(_, other)| *offset.max(other));
                    let (found, rounded) = content.offsets[at];
                    assert_eq!(found, *partition);
                    assert!((least(rounded, content.shift)..=most(rounded, content.shift)).contains(&truth));
                }
                let mut again = Positions::default();
                again.add(&token(&b));
                again.add(&merged);
                assert_eq!(again.token(), merged, "merging again changes nothing");
            }
        }
    }

    #[test]
    fn tokens_are_merged_by_partition() {
        // The token of the OpenAPI document: partition 3, next offset 42.
        assert_eq!(of(None, &[(3, 42)]), "AQMqMCkVDg");
        for log in [None, Some(7), Some(u32::MAX)] {
            let mut positions = Positions::default();
            for offsets in [&[(3, 42)][..], &[(0, 5), (999, u64::MAX)], &[(3, 7), (0, 6)]] {
                positions.add(&of(log, offsets));
            }
            assert_eq!(positions.token(), of(log, &[(0, 6), (3, 42), (999, u64::MAX)]));
            let mut positions = Positions::default();
            for n in 0..10_000 {
                positions.add(&of(log, &[(n % 64, 1_000_000_000 + u64::from(n))]));
            }
            assert!(positions.token().len() < 200, "64 partitions and one token");
        }
    }

    #[test]
    fn tokens_of_two_logs_and_other_versions_stay_apart() {
        let mut positions = Positions::default();
        let (here, elsewhere) = (of(Some(7), &[(0, 1)]), of(Some(8), &[(0, 2)]));
        positions.add(&format!("AgNvbmU, nonsense,AQMqMCkVDw,AgNvbmU,{here},{elsewhere}"));
        assert_eq!(positions.token(), format!("{here},{elsewhere},nonsense,AQMqMCkVDw,AgNvbmU"));
        for n in 0..1_000 {
            positions.add(&format!("token-{n}-{}", "x".repeat(300)));
        }
        assert!(positions.token().len() < 2_100 && positions.token().contains("token-999-"));
    }

    #[test]
    fn removed_token_keeps_what_was_added_since() {
        let mut positions = Positions::default();
        positions.add(&format!("{},{},other", of(Some(7), &[(0, 5), (1, 5)]), of(None, &[(0, 5)])));
        let mark = positions.mark();
        positions.add(&of(Some(7), &[(1, 6)]));
        positions.remove(mark);
        assert_eq!(positions.token(), of(Some(7), &[(1, 6)]));
    }

    /// A rounded offset does not show that a later one was added.
    #[test]
    fn removed_rounded_token_keeps_later_offsets() {
        let all = Content { offsets: many(1_000, 1, 1 << 40, 7), ..Content::default() };
        let token = URL_SAFE_NO_PAD.encode(all.bytes());
        let mut positions = Positions::default();
        positions.add(&token);
        let mark = positions.mark();
        let later = (5, all.offsets[5].1 + 1);
        positions.add(&of(None, &[later]));
        positions.remove(mark);
        let kept = decode(&positions.token()).unwrap();
        assert!(kept.offsets.len() == 1 && most(kept.offsets[0].1, kept.shift) >= later.1);
        positions.remove(positions.mark());
        positions.add(&of(None, &[later]));
        assert_eq!(positions.token(), of(None, &[later]), "nothing rounded is left");
    }
}
