//! The erased people of a partition in memory, by tenant: each person once, with the newest
//! erasure. Rebuilt from the erasures when a store opens. Reads no page.
//!
//! An erasure has a number; a conversation knows up to which number it has applied them. Looking
//! for the others never costs more than the shorter of two lists: the people of the conversation,
//! or the erasures of its tenant that it has not seen. Other tenants' erasures cost nothing
//! (INV-FOLD-BUDGET).

use hashbrown::HashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The erased people of all tenants.
#[derive(Default)]
pub(crate) struct Erased {
    tenants: HashMap<Box<str>, ErasedOfTenant>,
    bytes: usize,
}

/// The erased people of one tenant.
#[derive(Default)]
pub(crate) struct ErasedOfTenant {
    /// Number of each person's newest erasure.
    numbers: HashMap<Arc<str>, u64>,
    /// The person of each number, and the offset of the erasure.
    by_number: BTreeMap<u64, (Arc<str>, u64)>,
}

/// The cheaper list to walk for the erasures that a conversation has not seen.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Walk {
    /// There are none.
    Nothing,
    /// The erasures: user ids and offsets, in log order.
    Erasures(Vec<(Arc<str>, u64)>),
    /// The people of the conversation, because they are fewer.
    People,
}

/// Bytes of memory of a tenant, and of a person without the id: the entries of the maps with their
/// share of free room, and the counts of `Arc`.
const TENANT_BYTES: usize = 160;
const PERSON_BYTES: usize = 112;

impl Erased {
    /// Returns the erased people of a tenant, if it has any.
    pub(crate) fn of(&self, tenant: &str) -> Option<&ErasedOfTenant> {
        if self.tenants.is_empty() { None } else { self.tenants.get(tenant) }
    }

    /// Adds an erasure. Returns the number of the person's older one, which it replaces.
    pub(crate) fn insert(&mut self, tenant: &str, user_id: &str, number: u64, offset: u64) -> Option<u64> {
        if !self.tenants.contains_key(tenant) {
            self.bytes += TENANT_BYTES + tenant.len();
        }
        let own = self.tenants.entry_ref(tenant).or_default();
        let older = own.numbers.get(user_id).copied();
        let id = match older.and_then(|older| own.by_number.remove(&older)) {
            Some((id, _)) => id,
            None => {
                self.bytes += PERSON_BYTES + user_id.len();
                user_id.into()
            }
        };
        own.numbers.insert(Arc::clone(&id), number);
        own.by_number.insert(number, (id, offset));
        older
    }

    /// The numbers of all erasures, in order.
    pub(crate) fn numbers(&self) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.tenants.values().flat_map(|own| own.by_number.keys().copied()).collect();
        numbers.sort_unstable();
        numbers
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.bytes
    }
}

impl ErasedOfTenant {
    /// The number of people.
    pub(crate) fn people(&self) -> u64 {
        self.numbers.len() as u64
    }

    pub(crate) fn contains(&self, user_id: &str) -> bool {
        self.numbers.contains_key(user_id)
    }

    /// Returns the offset of a person's erasure, if its number is `from` or higher.
    pub(crate) fn unseen(&self, user_id: &str, from: u64) -> Option<u64> {
        let number = self.numbers.get(user_id).filter(|number| **number >= from)?;
        self.by_number.get(number).map(|(_, offset)| *offset)
    }

    /// Chooses the list to walk for the erasures from the number `from` on, in a conversation of
    /// that number of people. Looks at `people` + 1 erasures at most.
    pub(crate) fn walk(&self, from: u64, people: u32) -> Walk {
        let unseen = || self.by_number.range(from..).take(people as usize + 1);
        match unseen().count() {
            0 => Walk::Nothing,
            count if count > people as usize => Walk::People,
            _ => Walk::Erasures(unseen().map(|(_, erasure)| erasure.clone()).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_person_is_remembered_once() {
        let mut erased = Erased::default();
        assert_eq!(erased.insert("t", "bob", 0, 10), None);
        assert_eq!(erased.insert("t", "eve", 1, 11), None);
        let bytes = erased.memory_bytes();
        assert_eq!(erased.insert("t", "bob", 2, 12), Some(0));
        assert_eq!(erased.insert("u", "bob", 3, 13), None);
        assert_eq!((erased.numbers(), bytes), (vec![1, 2, 3], TENANT_BYTES + 1 + 2 * (PERSON_BYTES + 3)));
        let own = erased.of("t").unwrap();
        assert_eq!((own.people(), own.unseen("bob", 2), own.unseen("bob", 3)), (2, Some(12), None));
        assert_eq!(own.walk(1, 2), Walk::Erasures(vec![("eve".into(), 11), ("bob".into(), 12)]), "in log order");
    }

    /// Nobody pays for another tenant's erasures, and a small conversation not for many of its own.
    #[test]
    fn walk_follows_the_shorter_list() {
        let mut erased = Erased::default();
        for number in 0..1_000 {
            erased.insert("loud", &format!("u{number}"), number, number);
        }
        erased.insert("small", "bob", 1_000, 1_000);
        assert_eq!(erased.of("quiet").map(|own| own.walk(0, 5)), None);
        let loud = erased.of("loud").unwrap();
        assert_eq!(
            (loud.walk(0, 3), loud.walk(996, 3), loud.walk(1_000, 3)),
            (Walk::People, Walk::People, Walk::Nothing)
        );
        assert!(matches!(loud.walk(997, 3), Walk::Erasures(list) if list.len() == 3));
        assert_eq!(erased.of("small").unwrap().walk(0, 5), Walk::Erasures(vec![("bob".into(), 1_000)]));
    }
}
