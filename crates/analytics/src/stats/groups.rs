//! Sums by name, for tenants and group types, in bounded memory. It does not know what a name
//! means.

use super::figures::{Group, Groups};
use super::{Readers, Traffic};
use std::collections::HashMap;

/// The maximum number of names in memory. About 2 MB at names of 100 bytes.
const NAMES_MAX: usize = 10_000;

/// Sums by name. They are exact for up to [`NAMES_MAX`] names; beyond, the names with the fewest
/// messages so far are added to the others.
#[derive(Default)]
pub(super) struct Named {
    names: HashMap<String, (u64, Readers)>,
    others: (u64, u64, Readers),
}

impl Named {
    /// Adds a conversation's messages to a name.
    pub(super) fn add(&mut self, name: &str, traffic: &Traffic) {
        if traffic.messages == 0 {
            return;
        }
        if !self.names.contains_key(name) {
            if self.names.len() == NAMES_MAX {
                self.merge_smallest(NAMES_MAX / 2);
            }
            self.names.insert(name.to_owned(), Default::default());
        }
        let Some((messages, readers)) = self.names.get_mut(name) else { return };
        *messages += traffic.messages;
        readers.join(&traffic.readers);
    }

    /// Adds all names but the `kept` largest to the others.
    fn merge_smallest(&mut self, kept: usize) {
        let mut sorted: Vec<_> = self.names.drain().collect();
        sorted.sort_unstable_by(|(name, (messages, _)), (other, (than, _))| than.cmp(messages).then(name.cmp(other)));
        for (_, (messages, readers)) in sorted.drain(kept.min(sorted.len())..) {
            self.others.0 += 1;
            self.others.1 += messages;
            self.others.2.join(&readers);
        }
        self.names = sorted.into_iter().collect();
    }

    /// Returns the `top` names with the most messages, and the sums of the others.
    pub(super) fn finish(mut self, top: usize) -> Groups {
        self.merge_smallest(top);
        let mut largest: Vec<Group> =
            self.names.into_iter().map(|(name, (messages, readers))| Group { name, messages, readers }).collect();
        largest.sort_unstable_by(|a, b| b.messages.cmp(&a.messages).then_with(|| a.name.cmp(&b.name)));
        let (others, others_messages, others_readers) = self.others;
        Groups { largest, others, others_messages, others_readers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_kept_when_names_are_merged() {
        let mut named = Named::default();
        let rows = 3 * NAMES_MAX as u64;
        for n in 0..rows {
            // One name in three is frequent; it stays exact.
            let name = if n % 3 == 0 { "often".to_owned() } else { format!("n{n}") };
            named.add(&name, &Traffic { messages: 1, ..Traffic::default() });
            assert!(named.names.len() <= NAMES_MAX);
        }
        let groups = named.finish(2);
        assert_eq!((groups.largest[0].name.as_str(), groups.largest[0].messages), ("often", rows / 3));
        assert_eq!(groups.largest.len(), 2);
        assert_eq!(groups.largest.iter().map(|of| of.messages).sum::<u64>() + groups.others_messages, rows);
        assert_eq!(groups.others, rows - rows / 3 - 1);
    }
}
