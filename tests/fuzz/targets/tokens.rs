//! Fuzzes cursors and position tokens. No text makes the parser panic, only issued cursors open,
//! and a token that is read keeps what it stands for.

#![no_main]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use libfuzzer_sys::fuzz_target;
use receipts_fold::view::MemberFilter;
use receipts_fuzz::seeds;
use receipts_query::{BadToken, CursorKey, ListId, LogTag, Positions, Since, StreamId, Token};

const KEY: CursorKey = CursorKey::new([42; 32]);
const LIST: ListId<'static> =
    ListId { tenant: "default", conversation_id: "g1", message_id: "m1", filter: MemberFilter::Unread };

fuzz_target!(
    init: seeds::write_if_asked(|| {
        let cursors = [0, 1, 400, u32::MAX].map(|slot| KEY.sign(LIST, slot));
        let foreign = KEY.sign(ListId { filter: MemberFilter::Read, ..LIST }, 400);
        let positions = [
            Positions::new(),
            Positions::written(0, 0),
            Positions::applied(3, u64::MAX),
            (0..40).map(|i| (i * 7, 1 + u64::from(i) * 1_000_003)).collect(),
            [(0, 1), (u32::MAX, 1 << 60)].into_iter().collect(),
            (0..1_000).map(|i| (i, 1_000_000_000 + u64::from(i) * 1_000_003)).collect(),
        ];
        let ids = positions.iter().map(|positions| StreamId(positions.clone()).to_string());
        let of_clients = positions.iter().map(|positions| positions.token(Some(LogTag(7))).to_string());
        let long_ids = positions.iter().map(|positions| {
            Token { log: None, since: Since::Stream(StreamId(positions.clone())) }.to_string()
        });
        let tokens = positions.iter().map(Positions::to_string).chain(ids).chain(of_clients).chain(long_ids);
        let texts = cursors.into_iter().chain([foreign]).chain(tokens);
        texts.flat_map(|text| [[&b"t"[..], text.as_bytes()].concat(), body(&text)]).collect()
    }),
    |bytes: &[u8]| {
        let Some((how, bytes)) = bytes.split_first() else { return };
        if how % 2 == 0 {
            // Kinds such as "t": the text as it is.
            text(&String::from_utf8_lossy(bytes));
        } else {
            // Adds a right checksum, so that the fuzzer gets past it.
            let sealed = [bytes, &crc32fast::hash(bytes).to_le_bytes()].concat();
            text(&URL_SAFE_NO_PAD.encode(sealed));
            round_trips(bytes);
        }
    }
);

/// Returns a seed: the bytes of a token before its checksum.
fn body(text: &str) -> Vec<u8> {
    let bytes = URL_SAFE_NO_PAD.decode(text).expect("was encoded");
    [&[1][..], &bytes[..bytes.len().saturating_sub(4)]].concat()
}

fn text(text: &str) {
    since(text);
    if let Ok(slot) = KEY.open(LIST, text) {
        assert_eq!(KEY.sign(LIST, slot), text, "a cursor that was never issued opens");
    }
    if let Ok(positions) = text.parse::<Positions>() {
        let again: Positions = positions.iter().collect();
        assert_eq!(again, positions);
        assert!(positions.covers(&Positions::new()) && positions.covers(&positions));
        assert_eq!(positions.iter().last().map(|(partition, _)| partition), positions.highest_partition());
    }
}

/// A text is at most one kind of token.
fn since(text: &str) {
    if let Ok(token) = text.parse::<Token>() {
        let again: Token = token.to_string().parse().expect("its own token");
        match (&token.since, &again.since) {
            (Since::Events(exact), Since::Rounded(rounded)) => {
                assert!(exact.covers(&rounded.least()) && rounded.most().covers(exact));
            }
            (Since::Rounded(finer), Since::Rounded(rounded)) => {
                assert!(finer.least().covers(&rounded.least()) && rounded.most().covers(&finer.most()));
            }
            (Since::Stream(StreamId(exact)), Since::Remainders(remainders)) => {
                assert!(
                    exact.covers(&remainders.resolve(|partition| exact.next_offset(partition)).unwrap_or_default())
                );
            }
            _ => assert_eq!(token, again),
        }
    }
    match text.parse() {
        Ok(Since::Stream(_) | Since::Remainders(_)) => {
            assert!(text.parse::<Positions>().is_err(), "an id that is a position as well");
        }
        Ok(Since::Events(positions)) => assert_eq!(text.parse(), Ok(positions)),
        Ok(Since::Rounded(_)) => assert_eq!(text.parse::<Positions>(), Err(BadToken::Rounded)),
        Err(_) => assert!(text.parse::<Positions>().is_err()),
    }
}

/// Positions and cursors of any numbers parse back, and merged positions cover both.
fn round_trips(bytes: &[u8]) {
    let entries = bytes.chunks_exact(12).map(|chunk| {
        let (partition, offset) = chunk.split_at(4);
        (
            u32::from_le_bytes(partition.try_into().expect("four bytes")),
            u64::from_le_bytes(offset.try_into().expect("eight bytes")),
        )
    });
    let (mut even, mut odd) = (Positions::new(), Positions::new());
    for (i, (partition, next_offset)) in entries.enumerate() {
        if i % 2 == 0 { &mut even } else { &mut odd }.raise(partition, next_offset);
        assert_eq!(KEY.open(LIST, &KEY.sign(LIST, partition)), Ok(partition));
        let other = ListId { filter: MemberFilter::Departed, ..LIST };
        assert!(KEY.open(other, &KEY.sign(LIST, partition)).is_err());
    }
    for positions in [&even, &odd] {
        assert_eq!(positions.to_string().parse().as_ref(), Ok(positions));
    }
    let mut merged = even.clone();
    merged.merge(&odd);
    assert!(merged.covers(&even) && merged.covers(&odd));
    odd.merge(&even);
    assert_eq!(merged, odd);
}
