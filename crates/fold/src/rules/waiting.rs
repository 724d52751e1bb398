//! The index of parked records in memory: by message, by age, and by tenant (INV-FOLD-BUDGET).
//! Rebuilt from the parked records when a store opens. Reads no page and decides nothing.

use crate::pages::Parked;
use hashbrown::HashMap;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;

/// The parked records of a partition.
#[derive(Default)]
pub(crate) struct Waiting {
    /// ([`name_hash`] of a message that a record waits for, its offset).
    by_message: BTreeSet<(u64, u64)>,
    /// (timestamp, offset).
    by_age: BTreeSet<(u64, u64)>,
    by_tenant: HashMap<Arc<str>, WaitingOfTenant>,
    /// The tenants by their bytes. The last one has the most; of equal ones, its name sorts first.
    by_bytes: BTreeSet<(u64, Reverse<Arc<str>>)>,
}

/// The parked records of a tenant.
#[derive(Default)]
struct WaitingOfTenant {
    bytes: u64,
    offsets: BTreeSet<u64>,
}

/// Bytes of memory of an id that a record waits for, of a record, and of a tenant: the entries of
/// the maps with their share of free room.
const ID_BYTES: usize = 24;
const RECORD_BYTES: usize = 40;
const TENANT_BYTES: usize = 240;

/// Returns the hash of a conversation's name and a message id. Not part of the store's format.
pub(crate) fn name_hash(conversation: &[u8], message_id: &str) -> u64 {
    use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};
    xxh3_64_with_seed(message_id.as_bytes(), xxh3_64(conversation))
}

impl Waiting {
    pub(crate) fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    /// The number of records.
    pub(crate) fn len(&self) -> usize {
        self.by_age.len()
    }

    pub(crate) fn insert(&mut self, parked: &Parked) {
        let hashes = parked.waits_for.iter().map(|id| name_hash(parked.conversation(), id));
        self.by_message.extend(hashes.map(|hash| (hash, parked.offset)));
        self.by_age.insert((parked.timestamp_ms, parked.offset));
        let tenant: Arc<str> = match self.by_tenant.get_key_value(&*parked.tenant) {
            Some((tenant, _)) => Arc::clone(tenant),
            None => (&*parked.tenant).into(),
        };
        let own = self.by_tenant.entry(Arc::clone(&tenant)).or_default();
        self.by_bytes.remove(&(own.bytes, Reverse(Arc::clone(&tenant))));
        own.offsets.insert(parked.offset);
        own.bytes = own.bytes.saturating_add(parked.bytes);
        self.by_bytes.insert((own.bytes, Reverse(tenant)));
    }

    pub(crate) fn remove(&mut self, parked: &Parked) {
        for id in &parked.waits_for {
            self.by_message.remove(&(name_hash(parked.conversation(), id), parked.offset));
        }
        self.by_age.remove(&(parked.timestamp_ms, parked.offset));
        let Some((tenant, _)) = self.by_tenant.get_key_value(&*parked.tenant) else { return };
        let tenant = Arc::clone(tenant);
        let Some(own) = self.by_tenant.get_mut(&tenant) else { return };
        self.by_bytes.remove(&(own.bytes, Reverse(Arc::clone(&tenant))));
        own.offsets.remove(&parked.offset);
        own.bytes = own.bytes.saturating_sub(parked.bytes);
        if own.offsets.is_empty() {
            self.by_tenant.remove(&tenant);
        } else {
            self.by_bytes.insert((own.bytes, Reverse(tenant)));
        }
    }

    /// Returns timestamp and offset of the record that has waited for longest.
    pub(crate) fn oldest(&self) -> Option<(u64, u64)> {
        self.by_age.first().copied()
    }

    /// Returns the lowest offset of the tenant with the most bytes.
    pub(crate) fn oldest_of_the_fullest(&self) -> Option<u64> {
        let (_, Reverse(tenant)) = self.by_bytes.last()?;
        self.by_tenant.get(tenant)?.offsets.first().copied()
    }

    /// Returns the offsets of records that probably wait for the message, in order.
    pub(crate) fn waiting_for(&self, hash: u64) -> Vec<u64> {
        self.by_message.range((hash, 0)..=(hash, u64::MAX)).map(|(_, offset)| *offset).collect()
    }

    /// Notes that a record no longer waits for a message.
    pub(crate) fn forget(&mut self, hash: u64, offset: u64) {
        self.by_message.remove(&(hash, offset));
    }

    /// Bytes of memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        let names: usize = self.by_tenant.keys().map(|tenant| tenant.len()).sum();
        ID_BYTES * self.by_message.len()
            + RECORD_BYTES * self.by_age.len()
            + TENANT_BYTES * self.by_tenant.len()
            + names
    }
}
