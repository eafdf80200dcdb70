use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;

/// An independent exact sum: digits of 32 bits, each in an i64 of its own, carried only at the
/// end; kept apart by sign.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Big(Vec<i64>);

const DIGITS: usize = 80;

impl Big {
    fn of(values: &[f64]) -> Self {
        let mut digits = vec![0_i64; DIGITS];
        for value in values {
            let bits = value.to_bits();
            let exponent = (bits >> 52) & 0x7ff;
            let mantissa = bits & 0xf_ffff_ffff_ffff;
            let (mantissa, shift) = match exponent {
                0 => (mantissa, 0),
                _ => (mantissa + 0x10_0000_0000_0000, exponent - 1),
            };
            for bit in 0..53 {
                if mantissa >> bit & 1 == 1 {
                    let place = (shift + bit) as usize;
                    let one = 1_i64 << (place % 32);
                    digits[place / 32] += if *value < 0.0 { -one } else { one };
                }
            }
        }
        Self(digits).carried()
    }

    /// Every digit in 0..2³² but the last, which has the sign.
    fn carried(mut self) -> Self {
        for place in 0..DIGITS - 1 {
            let carry = self.0[place].div_euclid(1 << 32);
            self.0[place] -= carry << 32;
            self.0[place + 1] += carry;
        }
        self
    }

    fn minus(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a - b).collect()).carried()
    }

    fn magnitude(&self) -> Self {
        let zero = Self(vec![0; DIGITS]);
        if self.0[DIGITS - 1] < 0 { zero.minus(self) } else { self.clone() }
    }

    fn cmp(&self, other: &Self) -> Ordering {
        self.0.iter().rev().cmp(other.0.iter().rev())
    }
}

/// `rounded` is the f64 nearest to the sum of `values`, and the even one of two.
fn assert_nearest(values: &[f64], rounded: f64) {
    let exact = Big::of(values);
    let error = |candidate: f64| exact.minus(&Big::of(&[candidate])).magnitude();
    for other in [rounded.next_up(), rounded.next_down()] {
        if other.is_infinite() {
            continue;
        }
        match error(rounded).cmp(&error(other)) {
            Ordering::Less => {}
            Ordering::Equal => assert_eq!(rounded.to_bits() & 1, 0, "tie in {values:?}"),
            Ordering::Greater => panic!("{other:e} is nearer than {rounded:e} to {values:?}"),
        }
    }
}

fn sum(values: &[f64]) -> ExactSum {
    let mut sum = ExactSum::default();
    values.iter().for_each(|value| sum.add(*value));
    sum
}

/// Any finite value of moderate size, a common one, or one of the extremes.
fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        4 => -1e6..1e6_f64,
        2 => any::<u64>().prop_map(f64::from_bits)
            .prop_map(|v| if v.abs() < 1e300 { v } else { 0.1 }),
        1 => prop::sample::select(vec![0.0, -0.0, 1.0, -1.0, 5e-324, -5e-324, 1e300, -1e300,
            f64::MIN_POSITIVE, f64::EPSILON, 9_007_199_254_740_992.0, -9_007_199_254_740_993.0]),
    ]
}

#[test]
fn the_known_hard_cases() {
    assert_eq!(sum(&[]).value(), 0.0);
    assert_eq!(sum(&[0.1; 10]).value(), 1.0);
    assert_eq!(sum(&[1e100, 1.0, -1e100]).value(), 1.0);
    assert_eq!(sum(&[1e308, 1e308, -1e308, -1e308, 5e-324]).value(), 5e-324);
    // A half beside an even and an odd mantissa, and a hair above the half.
    assert_eq!(sum(&[9_007_199_254_740_992.0, 1.0]).value(), 9_007_199_254_740_992.0);
    assert_eq!(sum(&[9_007_199_254_740_994.0, 1.0]).value(), 9_007_199_254_740_996.0);
    assert_eq!(sum(&[9_007_199_254_740_992.0, 1.0, 5e-324]).value(), 9_007_199_254_740_994.0);
}

#[test]
fn beyond_the_range_it_stays_at_the_end_of_it() {
    let mut huge = sum(&[f64::MAX; 3]);
    assert_eq!(huge.value(), f64::MAX);
    huge.add(-f64::MAX);
    huge.add(-f64::MAX);
    assert_eq!(huge.value(), f64::MAX);
    huge.add(-f64::MAX);
    assert_eq!(huge.magnitude(), (false, 0, Vec::new()));
    for _ in 0..70 {
        // 2⁷⁰ times the greatest value.
        let twice = sum(&[f64::MIN; 2]);
        huge.merge(&twice);
        let again = huge.clone();
        huge.merge(&again);
    }
    assert_eq!(huge.value(), f64::MIN);
}

#[test]
fn a_form_that_is_not_canonical_is_refused() {
    let from = ExactSum::from_magnitude;
    assert!(from(false, 0, vec![]).is_some() && from(true, 3, vec![7, 0, 1]).is_some());
    assert!(from(true, 0, vec![]).is_none() && from(false, 1, vec![]).is_none());
    assert!(from(false, 0, vec![0, 1]).is_none() && from(false, 0, vec![1, 0]).is_none());
    assert!(from(false, 36, vec![1]).is_none() && from(false, usize::MAX - 1, vec![1]).is_none());
}

proptest! {
    #[test]
    fn it_is_rounded_to_the_nearest(values in prop::collection::vec(value(), 0..40)) {
        assert_nearest(&values, sum(&values).value());
    }

    #[test]
    fn neither_order_nor_splits_matter(
        values in prop::collection::vec(value(), 0..40),
        shuffled in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = sum(&values);
        let mut rotated = values.clone();
        rotated.rotate_left(shuffled.index(values.len() + 1).min(values.len()));
        let (left, right) = rotated.split_at(cut.index(values.len() + 1));
        let mut merged = sum(left);
        merged.merge(&sum(right));
        prop_assert_eq!(merged.magnitude(), whole.magnitude());
        let (negative, low, limbs) = whole.magnitude();
        let again = ExactSum::from_magnitude(negative, low, limbs).unwrap();
        prop_assert_eq!(again.magnitude(), whole.magnitude());
        prop_assert_eq!(again.value().to_bits(), whole.value().to_bits());
    }
}
