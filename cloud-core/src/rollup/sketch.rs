//! Counts by value: log-linear buckets, taken from an f64's bits.
//!
//! A bucket is a sign, an exponent and the six highest bits of the mantissa, so its width is at
//! most 2⁻⁶ of its values, and its middle is within 2⁻⁷ (0.79 %) of each. Nothing is computed in
//! floating point, so every machine puts a value into the same bucket; counts are added, so no
//! order and no way of merging makes a difference. Values nearer to zero than 2⁻¹⁰²² (subnormal
//! ones) keep an absolute error of 2⁻¹⁰²⁹ instead.

/// The bits of an f64 below a bucket's key.
const DROPPED_BITS: u32 = 46;

/// Keys lie in `-KEYS..KEYS`: sign apart, eleven bits of exponent and six of mantissa.
const KEYS: i32 = 1 << 17;

/// A bucket: its values lie next to each other, and keys ascend with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Which.
    pub key: i32,
    /// How many values; never zero.
    pub count: u64,
}

/// The bucket of a finite value.
pub fn key_of(value: f64) -> i32 {
    let key = (value.abs().to_bits() >> DROPPED_BITS) as i32;
    if value.is_sign_negative() { !key } else { key }
}

/// Whether a finite value can have this key.
pub fn is_key(key: i32) -> bool {
    // The exponent 0x7ff is for infinities and NaN.
    let finite = 0x7ff << 6;
    (-KEYS..KEYS).contains(&key) && (if key < 0 { !key } else { key }) < finite
}

/// The middle of a bucket. That of the two around zero is zero.
pub fn middle(key: i32) -> f64 {
    let magnitude = u64::from((if key < 0 { !key } else { key }).unsigned_abs());
    if magnitude == 0 {
        return 0.0;
    }
    let middle = f64::from_bits(magnitude << DROPPED_BITS | 1 << (DROPPED_BITS - 1));
    if key < 0 { -middle } else { middle }
}

/// Buckets in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sketch(Vec<Bucket>);

impl Sketch {
    /// Counts a value.
    pub fn add(&mut self, value: f64) {
        let key = key_of(value);
        match self.0.binary_search_by_key(&key, |bucket| bucket.key) {
            Ok(at) => self.0[at].count += 1,
            Err(at) => self.0.insert(at, Bucket { key, count: 1 }),
        }
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        let (mine, theirs) = (std::mem::take(&mut self.0), &other.0);
        self.0.reserve(mine.len().max(theirs.len()));
        let mut theirs = theirs.iter().copied().peekable();
        for mut bucket in mine {
            while let Some(before) = theirs.next_if(|other| other.key < bucket.key) {
                self.0.push(before);
            }
            if let Some(same) = theirs.next_if(|other| other.key == bucket.key) {
                bucket.count += same.count;
            }
            self.0.push(bucket);
        }
        self.0.extend(theirs);
    }

    /// The buckets, ascending.
    pub fn buckets(&self) -> &[Bucket] {
        &self.0
    }

    /// From buckets; none when they are not strictly ascending, or one can't be.
    pub fn from_buckets(buckets: Vec<Bucket>) -> Option<Self> {
        let ascending = buckets.windows(2).all(|pair| pair[0].key < pair[1].key);
        let possible = buckets.iter().all(|bucket| is_key(bucket.key) && bucket.count > 0);
        (ascending && possible).then_some(Self(buckets))
    }

    /// The middle of the bucket that holds the value of this rank, from 1.
    pub fn at_rank(&self, rank: u64) -> f64 {
        let mut seen = 0;
        for bucket in &self.0 {
            seen += bucket.count;
            if seen >= rank {
                return middle(bucket.key);
            }
        }
        self.0.last().map_or(0.0, |bucket| middle(bucket.key))
    }

    /// The memory behind it.
    pub fn heap_bytes(&self) -> usize {
        self.0.capacity() * size_of::<Bucket>()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn finite() -> impl Strategy<Value = f64> {
        any::<u64>().prop_map(f64::from_bits).prop_filter("finite", |value| value.is_finite())
    }

    #[test]
    fn zero_and_the_ends_of_the_range_have_buckets() {
        assert_eq!((key_of(0.0), middle(0), middle(-1)), (0, 0.0, 0.0));
        for value in [f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, -5e-324, 1.0, -1.0] {
            assert!(is_key(key_of(value)) && middle(key_of(value)).is_finite(), "{value}");
        }
        assert!(!is_key(0x7ff << 6) && !is_key(!(0x7ff << 6)));
    }

    proptest! {
        #[test]
        fn the_middle_is_within_one_percent(value in finite()) {
            let error = (middle(key_of(value)) - value).abs();
            prop_assert!(error <= value.abs() * 0.0079 + f64::from_bits(1 << 45));
        }

        #[test]
        fn keys_ascend_with_values(a in finite(), b in finite()) {
            prop_assert!(is_key(key_of(a)));
            prop_assert!(a > b || key_of(a) <= key_of(b) || (a == 0.0 && b == 0.0));
        }
    }
}
