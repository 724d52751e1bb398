//! A bounded list of the greatest rows of a sequence. It does not know what is ranked.

use super::{Conversation, Message};

/// A tie-breaker for rows of equal rank, so that a list does not depend on the order of insertion.
pub(super) trait Named {
    fn name(&self) -> [&str; 3];
}

impl Named for Conversation {
    fn name(&self) -> [&str; 3] {
        [&self.tenant, &self.conversation_id, ""]
    }
}

impl Named for Message {
    fn name(&self) -> [&str; 3] {
        [&self.tenant, &self.conversation_id, &self.message_id]
    }
}

/// The greatest rows, at most `rows_max`.
pub(super) struct Top<T> {
    rows: Vec<(u64, T)>,
    rows_max: usize,
}

impl<T: Named> Top<T> {
    pub(super) fn new(rows_max: usize) -> Self {
        Self { rows: Vec::new(), rows_max }
    }

    /// Returns true if a row of this rank may be among the greatest.
    pub(super) fn takes(&self, rank: u64) -> bool {
        self.rows_max > 0 && (self.rows.len() < self.rows_max || self.rows.last().is_none_or(|(last, _)| rank >= *last))
    }

    /// Adds a row if its rank is among the greatest; calls `row` only then.
    pub(super) fn push(&mut self, rank: u64, row: impl FnOnce() -> T) {
        if !self.takes(rank) {
            return;
        }
        let row = row();
        let at = self.rows.partition_point(|(held, other)| *held > rank || *held == rank && other.name() < row.name());
        self.rows.insert(at, (rank, row));
        self.rows.truncate(self.rows_max);
    }

    /// Returns the rows, greatest first; rows of equal rank by name.
    pub(super) fn finish(self) -> Vec<T> {
        self.rows.into_iter().map(|(_, row)| row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Name(String);

    impl Named for Name {
        fn name(&self) -> [&str; 3] {
            [&self.0, "", ""]
        }
    }

    #[test]
    fn the_greatest_rows_stay_in_any_order_of_insertion() {
        let rows: Vec<(u64, String)> = (0..100_u64).map(|n| (n * 37 % 11, format!("n{:02}", n * 61 % 100))).collect();
        let mut wanted = rows.clone();
        wanted.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        for rows_max in [0, 1, 7, 1_000] {
            let mut forth = Top::new(rows_max);
            rows.iter().for_each(|(rank, name)| forth.push(*rank, || Name(name.clone())));
            let mut back = Top::new(rows_max);
            rows.iter().rev().for_each(|(rank, name)| back.push(*rank, || Name(name.clone())));
            let names = |top: Top<Name>| top.finish().into_iter().map(|name| name.0).collect::<Vec<_>>();
            let wanted: Vec<_> = wanted.iter().take(rows_max).map(|(_, name)| name.clone()).collect();
            assert_eq!((names(forth), names(back)), (wanted.clone(), wanted));
        }
    }
}
