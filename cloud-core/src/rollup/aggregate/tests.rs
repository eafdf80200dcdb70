use proptest::prelude::*;

use super::format::DecodeError;
use super::*;

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        6 => -1e3..1e3_f64,
        2 => (0..50_i32).prop_map(f64::from),
        1 => any::<u64>().prop_map(f64::from_bits)
            .prop_filter("in range", |v| v.is_finite() && v.abs() > 1e-300 && v.abs() < 1e300),
        1 => Just(-0.0),
    ]
}

fn values() -> impl Strategy<Value = Vec<f64>> {
    prop_oneof![prop::collection::vec(value(), 0..=20), prop::collection::vec(value(), 0..=200),]
}

fn of(values: &[f64]) -> Aggregate {
    values.iter().copied().collect()
}

fn naive_quantile(sorted: &[f64], hundredths: usize) -> f64 {
    let rank = (hundredths * sorted.len()).div_ceil(100).max(1);
    sorted[rank - 1]
}

#[test]
fn an_empty_one_has_nothing() {
    let empty = Aggregate::new();
    assert!(empty.is_empty());
    assert_eq!((empty.min(), empty.max(), empty.sum(), empty.quantile(0.5)), (0.0, 0.0, 0.0, 0.0));
    assert_eq!(empty.encode(), [1, 0]);
    assert_eq!(Aggregate::decode(&[1, 0]), Ok(empty));
}

#[test]
fn values_that_are_not_finite_are_passed_over_and_zero_has_no_sign() {
    let odd = of(&[f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0]);
    assert_eq!(odd.encode(), of(&[0.0]).encode());
}

/// The frozen bytes: if this test has to change, the version must too.
#[test]
fn the_bytes_are_exactly_these() {
    let few = of(&[2.0, -1.0]);
    let expected = [&[1_u8, 2][..], &(-1.0_f64).to_le_bytes(), &2.0_f64.to_le_bytes()].concat();
    assert_eq!(few.encode(), expected);
    // 1.0 is 2^1074 units: bit 50 of limb 16. 17 × 2^1074 + 2^1075 (2.0 thrice: 6) = 2^1074 × 23.
    let many: Aggregate = [1.0; 17].into_iter().chain([2.0; 3]).collect();
    let keys = [1023_u32 << 6, 1 << 6];
    let mut expected = vec![1, 20];
    expected.extend(1.0_f64.to_le_bytes());
    expected.extend(2.0_f64.to_le_bytes());
    expected.extend([2, 16]);
    expected.extend((23_u64 << 50).to_le_bytes());
    let zigzag = keys[0] << 1;
    expected.extend([2, zigzag as u8 | 0x80, (zigzag >> 7) as u8 | 0x80, (zigzag >> 14) as u8, 17]);
    expected.extend([keys[1] as u8, 3]);
    assert_eq!(many.encode(), expected);
}

#[test]
fn whole_ranks_are_not_rounded_up() {
    for count in [20_u64, 40, 100, 1_000_000, 1 << 40] {
        assert_eq!(rank(0.95, count * 20), count * 19);
        assert_eq!(rank(0.1, count * 10), count);
        assert_eq!(rank(0.1, count * 10 + 1), count + 1);
    }
    assert_eq!((rank(0.0, 9), rank(1.0, 9), rank(0.5, 0)), (1, 9, 0));
}

#[test]
fn damage_is_refused_without_a_panic() {
    let samples = [
        of(&[1.5]),
        (0..16).map(f64::from).collect(),
        (0..300).map(|i| f64::from(i) * 0.37 - 20.0).collect(),
        [1e300, -1e300, 5e-324].into_iter().cycle().take(40).collect(),
    ];
    for sample in samples {
        let bytes = sample.encode();
        for length in 0..bytes.len() {
            assert!(Aggregate::decode(&bytes[..length]).is_err(), "cut to {length}");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert_eq!(Aggregate::decode(&longer), Err(DecodeError::Damaged("it goes on")));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            // A value may have become another one; but what is read is canonical in any case.
            if let Ok(read) = Aggregate::decode(&flipped) {
                assert_eq!(read.encode(), flipped, "bit {bit}");
                assert_eq!(read.count(), sample.count(), "bit {bit}");
            }
        }
    }
    assert_eq!(Aggregate::decode(&[2, 0]), Err(DecodeError::Version(2)));
    assert_eq!(Aggregate::decode(&[]), Err(DecodeError::CutOff));
    assert!(Aggregate::decode(&[1, 0x80, 0]).is_err(), "an integer that is longer than it must be");
}

proptest! {
    #[test]
    fn any_order_and_any_split_give_the_same_bytes(
        values in values(),
        order in prop::collection::vec(any::<u64>(), 200),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let bytes = of(&values).encode();
        let mut shuffled: Vec<(u64, f64)> = order.into_iter().zip(values.clone()).collect();
        shuffled.sort_by_key(|(place, _)| *place);
        let shuffled: Vec<f64> = shuffled.into_iter().map(|(_, value)| value).collect();
        prop_assert_eq!(&of(&shuffled).encode(), &bytes);
        // Parts, merged one after the other, and pair by pair.
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(values.len() + 1)).collect();
        ends.push(values.len());
        ends.sort_unstable();
        let mut parts = Vec::new();
        let mut start = 0;
        for end in ends {
            parts.push(of(&shuffled[start..end]));
            start = end;
        }
        let mut chained = Aggregate::new();
        parts.iter().for_each(|part| chained.merge(part));
        prop_assert_eq!(&chained.encode(), &bytes);
        while parts.len() > 1 {
            let last = parts.pop().unwrap();
            let middle = parts.len() / 2;
            parts[middle].merge(&last);
        }
        prop_assert_eq!(&parts[0].encode(), &bytes);
    }

    #[test]
    fn it_tells_what_the_values_say(values in values()) {
        let aggregate = of(&values);
        let mut sorted: Vec<f64> = values.iter().map(|value| value + 0.0).collect();
        sorted.sort_by(f64::total_cmp);
        prop_assert_eq!(aggregate.count(), values.len() as u64);
        if let (Some(first), Some(last)) = (sorted.first(), sorted.last()) {
            prop_assert_eq!(aggregate.min().to_bits(), first.to_bits());
            prop_assert_eq!(aggregate.max().to_bits(), last.to_bits());
            for hundredths in [0, 1, 5, 50, 95, 99, 100] {
                let expected = naive_quantile(&sorted, hundredths);
                let got = aggregate.quantile(hundredths as f64 / 100.0);
                if values.len() <= EXACT_MAX {
                    prop_assert_eq!(got.to_bits(), expected.to_bits());
                }
                prop_assert!((got - expected).abs() <= expected.abs() * 0.01);
                prop_assert!((*first..=*last).contains(&got));
            }
        }
        let mut sum = ExactSum::default();
        values.iter().for_each(|value| sum.add(*value));
        prop_assert_eq!(aggregate.sum().to_bits(), sum.value().to_bits());
    }

    #[test]
    fn it_comes_back_from_its_bytes(values in values(), more in values()) {
        let mut aggregate = of(&values);
        let mut read = Aggregate::decode(&aggregate.encode()).unwrap();
        prop_assert_eq!(read.encode(), aggregate.encode());
        // And goes on as if it had never been away.
        for value in more {
            aggregate.add(value);
            read.add(value);
        }
        prop_assert_eq!(read.encode(), aggregate.encode());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let with_version = [&[1], &bytes[..]].concat();
        if let Ok(read) = Aggregate::decode(&with_version) {
            prop_assert_eq!(read.encode(), with_version);
        }
    }
}
