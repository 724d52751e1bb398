//! Fuzzes the decoders of the disk format: pages of every table, values, journals. No bytes make
//! them panic or take more memory than the input justifies. A decoded page is encoded and decoded
//! again without change. INV-DECODE.

#![no_main]

use libfuzzer_sys::fuzz_target;
use receipts_fold::index::{BloomFilter, IdHash, IndexPage, MessageIndex, SEGMENT_MESSAGES, SegmentSet};
use receipts_fold::pages::codec::{Reader, Writer};
use receipts_fold::pages::{
    Chunk, ConversationPage, Departures, Erasure, Messages, Meta, Page, PageKey, Parked, People, PeopleIndex, Policy,
    ReadMarks, Table, TableId,
};
use receipts_fuzz::fixture::Fixture;
use receipts_fuzz::seeds;
use receipts_fuzz::values::{page_key, part_key, values};
use receipts_store::{Backend, Batch, MemoryBackend, Paged};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::fmt::Debug;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The bound of all memory that decoding may allocate: one page of the fullest kind, and a multiple
/// of the input. The costliest byte is an empty text in a list.
const BYTES_FREE: usize = 32 << 10;
const BYTES_PER_BYTE: usize = 64;

/// The first bytes of an input beside table codes.
const VALUE: u8 = 20;
const JOURNAL: u8 = 21;
const SEALED_JOURNAL: u8 = 22;

fuzz_target!(
    init: seeds::write_if_asked(|| {
        let fixture = Fixture::new();
        let pages = fixture.pages.iter().filter(|(_, payload)| payload.len() < 4_000).step_by(3);
        let mut seeds: Vec<Vec<u8>> = pages.map(|(key, payload)| [&key[..1], payload].concat()).collect();
        seeds.extend([sealed_segment().as_slice(), &filter()].map(<[u8]>::to_vec));
        let mut journal = Batch::new(0, 9, 0);
        journal.write(b"key", b"value");
        journal.remove(b"old");
        journal.seal();
        seeds.push([&[JOURNAL], journal.bytes()].concat());
        seeds.push([&[SEALED_JOURNAL], &journal.bytes()[..journal.bytes().len() - 4]].concat());
        let value = &values(&page_key(TableId::Departures, KEY), 9, &[1, 4, 2])[0].1;
        seeds.push([&[VALUE], &value[..]].concat());
        seeds
    }),
    |bytes: &[u8]| {
        let Some((what, bytes)) = bytes.split_first() else { return };
        match *what {
            1 => _ = page::<Meta>(bytes),
            2 => _ = Reader::new(bytes).small(),
            3 => _ = page::<ConversationPage>(bytes),
            4 => people(bytes),
            5 => _ = page::<PeopleIndex>(bytes).map(|page| page.slots(u32::from(bytes[0])).count()),
            6 => _ = page::<ReadMarks>(bytes),
            7 => _ = page::<Departures>(bytes),
            8 => messages(bytes),
            9 => chunk(bytes),
            10 => index_page(bytes),
            11 => filter_page(bytes),
            12 => _ = page::<Parked>(bytes),
            13 => _ = page::<Erasure>(bytes),
            14 => _ = page::<receipts_fold::Origin>(bytes),
            15 => _ = page::<Policy>(bytes),
            VALUE => value(bytes),
            JOURNAL => journal(bytes.to_vec()),
            SEALED_JOURNAL => journal([bytes, &crc32fast::hash(bytes).to_le_bytes()].concat()),
            _ => {}
        }
    }
);

const KEY: PageKey = PageKey { a: 0, b: 0 };

/// Decodes a page and checks the properties.
fn page<P: Page + PartialEq + Debug>(bytes: &[u8]) -> Option<P> {
    let region = Region::new(ALLOCATOR);
    let mut reader = Reader::new(bytes);
    let page = P::decode(&mut reader);
    let asked = region.change().bytes_allocated;
    assert!(asked <= BYTES_FREE + BYTES_PER_BYTE * bytes.len(), "{asked} bytes asked for by {}", bytes.len());
    let page = page.ok().filter(|_| reader.end().is_ok())?;
    _ = page.memory_bytes();
    let mut writer = Writer::default();
    page.encode(&mut writer);
    let mut reader = Reader::new(&writer.bytes);
    assert_eq!(P::decode(&mut reader).as_ref(), Ok(&page), "not the page that was written");
    assert_eq!(reader.end(), Ok(()));
    Some(page)
}

fn people(bytes: &[u8]) {
    let Some(page) = page::<People>(bytes) else { return };
    for (place, person) in page.iter().enumerate() {
        _ = (person.in_audience_at(9), person.left_after(9), person.is_former_member());
        let hash = page.hashes()[place];
        assert!(page.find(&person.id, hash).is_some_and(|found| found <= place as u32));
    }
}

fn messages(bytes: &[u8]) {
    let Some(page) = page::<Messages>(bytes) else { return };
    for place in 0..page.len() {
        let (_, _, message) = (page.id(place), page.link(place), page.at(place).expect("a place below the length"));
        assert!(message.read <= message.audience && message.hidden <= message.audience - message.read);
        _ = (message.chunks(), message.reads.counts(), message.reads.next_without_read(0, false));
    }
}

fn chunk(bytes: &[u8]) {
    let Some(Chunk(reads)) = page::<Chunk>(bytes) else { return };
    let (read, _, _) = reads.counts();
    let mut at = 0;
    for _ in 0..read {
        at = reads.next_read(at).expect("as many as were counted");
        _ = reads.after_ms(at);
        at += 1;
    }
    assert_eq!(reads.next_read(at).filter(|_| at < 512), None);
}

/// Looks up ids in a sealed segment with this page of the index.
fn index_page(bytes: &[u8]) {
    if page::<IndexPage>(bytes).is_none() {
        return;
    }
    let all = [&[8][..], &[0xFF; 64]].concat();
    let filter = BloomFilter::decode(&mut Reader::new(&all)).expect("a filter that claims everything");
    look_up([(TableId::Index, bytes)], filter);
}

/// Asks a filter of a segment without pages.
fn filter_page(bytes: &[u8]) {
    if let Some(filter) = page::<BloomFilter>(bytes) {
        look_up([], filter);
    }
}

fn look_up<const N: usize>(pages: [(TableId, &[u8]); N], filter: BloomFilter) {
    let backend = MemoryBackend::default();
    let id = IdHash::of("t", "m1");
    for (table, payload) in pages {
        put(&backend, &values(&page_key(table, PageKey { a: 0, b: (id.in_tenant >> 56) as u32 }), 9, payload));
    }
    let paged = Paged::new(backend, 0, 1 << 20);
    let index = MessageIndex::new(SEGMENT_MESSAGES, [(0, filter)], 1);
    let mut segments = SegmentSet::default();
    segments.add(0, 0).expect("the first segment");
    for conversation in [0, 1] {
        let found = index.candidates(&paged, id, (conversation, &segments)).expect("pages that decode");
        assert!(found.iter().all(|message| *message < SEGMENT_MESSAGES));
    }
    let found = index.candidates_anywhere(&paged, id.in_tenant, 7).expect("pages that decode");
    assert!(found.len() <= 7 && found.iter().all(|message| *message < SEGMENT_MESSAGES));
}

/// Reads a value of the medium: it is a page, or is found to be damaged.
fn value(bytes: &[u8]) {
    let backend = MemoryBackend::default();
    let key = page_key(TableId::Departures, KEY);
    put(&backend, &[(part_key(&key, 0), bytes.to_vec())]);
    let paged = Paged::new(backend, 0, 1 << 20);
    if let Ok(Some(_)) = Table::<Departures>::read(&paged, KEY) {
        // An accepted value equals the written one, to the last bit.
        let payload = &bytes[16..];
        let offset = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
        assert_eq!(values(&key, offset, payload)[0].1, bytes);
    }
}

fn put(backend: &MemoryBackend, values: &[(Vec<u8>, Vec<u8>)]) {
    let mut batch = Batch::new(0, 9, 0);
    values.iter().for_each(|(key, value)| batch.write(key, value));
    batch.seal();
    backend.commit(batch).expect("memory takes a batch");
}

/// Parses a journal with a right or wrong checksum: an accepted journal has only whole entries.
fn journal(bytes: Vec<u8>) {
    if let Ok(Some(batch)) = Batch::parse(bytes.clone(), 0) {
        assert_eq!(batch.bytes(), bytes);
        MemoryBackend::default().commit(batch).expect("memory takes a batch");
    }
}

/// Returns a page of the index with a few entries, as a seed.
fn sealed_segment() -> Vec<u8> {
    let hash = (IdHash::of("t", "m1").in_tenant >> 24) as u32;
    let entries = [(hash, 0u16, 3u16), (hash, 1, 4), (hash, 1, 9)];
    let entry = |(hash, tag, place): (u32, u16, u16)| {
        [&hash.to_le_bytes()[..], &tag.to_le_bytes(), &place.to_le_bytes()].concat()
    };
    [vec![TableId::Index as u8, entries.len() as u8], entries.into_iter().flat_map(entry).collect()].concat()
}

/// Returns a filter of two blocks, as a seed.
fn filter() -> Vec<u8> {
    [vec![TableId::BloomFilters as u8, 16], vec![0x5A; 128]].concat()
}
