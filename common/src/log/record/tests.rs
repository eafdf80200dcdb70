use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::log::seal::{KEY_BYTES, Key};

const COMPRESSIONS: [Compression; 3] = [Compression::None, Compression::Lz4, Compression::Zstd];

fn key(id: u32) -> Key {
    Key::new(KeyId(id), &[id as u8; KEY_BYTES])
}

/// How a record is written: each compression, sealed or not.
fn ways() -> impl Strategy<Value = (Compression, bool)> {
    (prop::sample::select(&COMPRESSIONS[..]), any::<bool>())
}

fn encoded(entries: &[Vec<u8>], (compression, is_sealed): (Compression, bool)) -> Vec<u8> {
    let mut group = Group::new();
    for entry in entries {
        group.push(entry);
    }
    let key = is_sealed.then(|| key(7));
    Encoder::new(compression, key.as_ref()).encode(&group, Epoch(77), 5).to_vec()
}

fn decode_with(bytes: &[u8], keys: &Keys) -> Result<(RecordHeader, Vec<Vec<u8>>), RecordError> {
    let (head, body) = bytes.split_first_chunk().ok_or(RecordError::Header)?;
    let header = RecordHeader::decode(head)?;
    let body = header.decode_body(&mut body.to_vec(), keys)?;
    Ok((header, Frames::of(&body).map(<[u8]>::to_vec).collect()))
}

fn decode(bytes: &[u8]) -> Result<(RecordHeader, Vec<Vec<u8>>), RecordError> {
    decode_with(bytes, &Keys::new(vec![key(7), key(8)]))
}

fn entries() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let entry = prop_oneof![
        vec(any::<u8>(), 0..300),
        (any::<u8>(), 0..2000usize).prop_map(|(byte, n)| vec![byte; n]),
    ];
    vec(entry, 1..20)
}

proptest! {
    #[test]
    fn groups_round_trip(entries in entries(), way in ways()) {
        let bytes = encoded(&entries, way);
        let (header, decoded) = decode(&bytes).unwrap();
        prop_assert_eq!(decoded, entries);
        prop_assert_eq!((header.epoch, header.first_seq), (Epoch(77), 5));
        prop_assert_eq!(header.next_seq(), 5 + u64::from(header.count));
        prop_assert_eq!(header.record_bytes(), bytes.len() as u64);
    }

    #[test]
    fn no_flipped_bit_passes(entries in entries(), way in ways(), at: prop::sample::Index) {
        let mut bytes = encoded(&entries, way);
        let bit = at.index(bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decode(&bytes).is_err());
    }

    #[test]
    fn any_bytes_are_decoded_without_panic(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes).is_err());
    }

    /// Also where header and checksums are right and the rest is not.
    #[test]
    fn a_forged_header_is_survived(
        body in vec(any::<u8>(), 0..200), plain in any::<u32>(), count in any::<u32>(),
        version in 0..4u8, codec in 0..4u8, key in 6..9u32,
    ) {
        let header = RecordHeader {
            version,
            codec,
            key: KeyId(key % 8),
            body_bytes: body.len() as u32,
            plain_bytes: plain >> (plain % 32),
            count: count >> (count % 32),
            epoch: Epoch(1),
            first_seq: u64::from(plain),
            body_crc: crc32c::crc32c(&body),
        };
        let mut bytes = vec![0; HEADER_BYTES];
        header.encode(&mut bytes);
        bytes.extend_from_slice(&body);
        if let Ok((header, entries)) = decode(&bytes) {
            prop_assert_eq!(entries.len(), header.count as usize);
        }
    }
}

#[test]
fn every_truncation_is_refused() {
    for way in COMPRESSIONS.into_iter().flat_map(|one| [(one, false), (one, true)]) {
        let bytes = encoded(&[vec![7; 100], vec![], vec![8; 3]], way);
        assert!(decode(&bytes).is_ok());
        for n in 0..bytes.len() {
            assert!(decode(&bytes[..n]).is_err(), "{n} of {} bytes", bytes.len());
        }
    }
}

#[test]
fn a_header_can_not_ask_for_more_than_the_limits() {
    let header = |body_bytes, plain_bytes, count, codec| {
        let header = RecordHeader {
            version: VERSION,
            key: KeyId::NONE,
            codec,
            body_bytes,
            plain_bytes,
            count,
            epoch: Epoch(1),
            first_seq: 0,
            body_crc: 0,
        };
        let mut bytes = [0; HEADER_BYTES];
        header.encode(&mut bytes);
        RecordHeader::decode(&bytes).is_ok()
    };
    let max = GROUP_BYTES_MAX as u32;
    assert!(header(max, max, 1, CODEC_PLAIN) && header(max / 200, max, 1, CODEC_LZ4));
    assert!(!header(max + 1, max + 1, 1, CODEC_PLAIN), "too long");
    assert!(!header(max, max + 1, 1, CODEC_LZ4), "uncompresses to too much");
    assert!(!header(1000, max, 1, CODEC_LZ4), "a ratio LZ4 can't have");
    assert!(!header(100, 100, 1, CODEC_ZSTD), "zstd that does not compress");
    assert!(!header(100, 100, 26, CODEC_PLAIN), "more entries than length fields fit");
    assert!(!header(100, 100, 0, CODEC_PLAIN), "no entries");
}

#[test]
fn the_largest_group_round_trips() {
    let entry = vec![0x55; GROUP_BYTES_MAX - FRAME_BYTES];
    for way in COMPRESSIONS.map(|compression| (compression, true)) {
        let bytes = encoded(std::slice::from_ref(&entry), way);
        assert!(decode(&bytes).unwrap().1 == std::slice::from_ref(&entry));
    }
}

/// The bytes of version 1, as the first release of the format wrote them.
#[test]
fn a_record_of_version_1_is_read() {
    let mut bytes = encoded(&[b"one".to_vec(), b"two".to_vec()], (Compression::None, false));
    bytes[4] = 1;
    let crc = crc32c::crc32c(&bytes[..44]);
    bytes[44..48].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(decode(&bytes).unwrap().1, [b"one", b"two"]);
    // It knew neither zstd nor keys.
    for (at, value) in [(5, 2), (20, 7)] {
        let mut later = bytes.clone();
        later[at] = value;
        let crc = crc32c::crc32c(&later[..44]);
        later[44..48].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode(&later).unwrap_err(), RecordError::Unknown);
    }
}

#[test]
fn a_sealed_record_shows_nothing_and_says_which_key_it_needs() {
    let text = b"vibration_rms of press-17".to_vec();
    for compression in COMPRESSIONS {
        let bytes = encoded(std::slice::from_ref(&text), (compression, true));
        assert!(!bytes.windows(6).any(|window| window == b"press-"));
        let error = |keys: Keys| decode_with(&bytes, &keys).unwrap_err();
        assert_eq!(error(Keys::none()), RecordError::NoKey(KeyId(7)));
        assert_eq!(error(Keys::new(vec![key(8)])), RecordError::NoKey(KeyId(7)));
        let other = Key::new(KeyId(7), &[0; KEY_BYTES]);
        assert_eq!(error(Keys::new(vec![other])), RecordError::Seal(KeyId(7)));
        assert_eq!(decode_with(&bytes, &Keys::to_read(vec![key(7)])).unwrap().1, [&text[..]]);
    }
}

/// A body can't be moved under another number, whatever its checksums say.
#[test]
fn a_sealed_body_belongs_to_its_header() {
    let bytes = encoded(&[vec![7; 100]], (Compression::Lz4, true));
    for at in [24, 32] {
        let mut forged = bytes.clone();
        forged[at] ^= 1;
        let crc = crc32c::crc32c(&forged[..44]);
        forged[44..48].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(decode(&forged).unwrap_err(), RecordError::Seal(KeyId(7)));
    }
}
