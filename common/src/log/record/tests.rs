use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn encoded(entries: &[Vec<u8>], compress: bool) -> Vec<u8> {
    let mut group = Group::new();
    for entry in entries {
        group.push(entry);
    }
    Encoder::new(compress).encode(&group, Epoch(77), 5).to_vec()
}

fn decode(bytes: &[u8]) -> Result<(RecordHeader, Vec<Vec<u8>>), RecordError> {
    let (head, body) = bytes.split_first_chunk().ok_or(RecordError::Header)?;
    let header = RecordHeader::decode(head)?;
    let body = header.decode_body(body)?;
    Ok((header, Frames::of(&body).map(<[u8]>::to_vec).collect()))
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
    fn groups_round_trip(entries in entries(), compress: bool) {
        let bytes = encoded(&entries, compress);
        let (header, decoded) = decode(&bytes).unwrap();
        prop_assert_eq!(decoded, entries);
        prop_assert_eq!((header.epoch, header.first_seq), (Epoch(77), 5));
        prop_assert_eq!(header.next_seq(), 5 + u64::from(header.count));
        prop_assert_eq!(header.record_bytes(), bytes.len() as u64);
    }

    #[test]
    fn no_flipped_bit_passes(entries in entries(), compress: bool, at: prop::sample::Index) {
        let mut bytes = encoded(&entries, compress);
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
        body in vec(any::<u8>(), 0..200), plain in any::<u32>(), count in any::<u32>(), lz4: bool,
    ) {
        let header = RecordHeader {
            codec: u8::from(lz4),
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
    for compress in [false, true] {
        let bytes = encoded(&[vec![7; 100], vec![], vec![8; 3]], compress);
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
    assert!(!header(100, 100, 26, CODEC_PLAIN), "more entries than length fields fit");
    assert!(!header(100, 100, 0, CODEC_PLAIN), "no entries");
}

#[test]
fn the_largest_group_round_trips() {
    let entry = vec![0x55; GROUP_BYTES_MAX - FRAME_BYTES];
    for compress in [false, true] {
        let bytes = encoded(std::slice::from_ref(&entry), compress);
        assert!(decode(&bytes).unwrap().1 == std::slice::from_ref(&entry));
    }
}
