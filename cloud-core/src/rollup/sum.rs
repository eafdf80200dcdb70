//! An exact sum of f64: an integer that counts 2⁻¹⁰⁷⁴, the smallest f64.
//!
//! Addition of integers knows no order, so the sum of a set of values is the same number however
//! they arrive and however parts of it are merged; rounding happens once, when it is read. Only
//! the limbs that are needed are kept: two or three for values of like magnitude.

/// The bit number of 2⁰: f64 has no bit below 2⁻¹⁰⁷⁴.
const UNIT_BIT: usize = 1074;

/// No sum of 2⁶⁴ finite values needs a limb above this: (1074 + 1024 + 64) / 64, and the sign.
const LIMBS_MAX: usize = 36;

/// The sum. Two's complement, least limb first.
#[derive(Clone, Debug, Default)]
pub struct ExactSum {
    /// The number of the first limb; what is below is zero.
    low: usize,
    /// The last one is a spare: it holds little more than the sign.
    limbs: Vec<u64>,
}

impl ExactSum {
    /// Adds a finite value.
    pub fn add(&mut self, value: f64) {
        let bits = value.to_bits();
        let exponent = (bits >> 52 & 0x7ff) as usize;
        let fraction = bits & ((1 << 52) - 1);
        // Subnormal values have the exponent of the least normal ones, without the leading bit.
        let (mantissa, bit) =
            if exponent == 0 { (fraction, 0) } else { (fraction | 1 << 52, exponent - 1) };
        if mantissa == 0 {
            return;
        }
        let shifted = u128::from(mantissa) << (bit % 64);
        let parts = [shifted as u64, (shifted >> 64) as u64];
        let at = self.cover(bit / 64, 2);
        if value.is_sign_negative() {
            self.subtract(at, parts);
        } else {
            self.add_at(at, &parts, 0);
        }
        self.spare();
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: &Self) {
        let Some(last) = other.limbs.last() else { return };
        let at = self.cover(other.low, other.limbs.len());
        let sign = ((*last as i64) >> 63) as u64;
        self.add_at(at, &other.limbs, sign);
        self.spare();
    }

    /// Makes room for `count` limbs from limb `first` on and one above them; returns where.
    fn cover(&mut self, first: usize, count: usize) -> usize {
        if self.limbs.is_empty() {
            self.low = first;
        }
        if first < self.low {
            self.limbs.splice(0..0, std::iter::repeat_n(0, self.low - first));
            self.low = first;
        }
        let at = first - self.low;
        let sign = self.limbs.last().map_or(0, |last| ((*last as i64) >> 63) as u64);
        if self.limbs.len() <= at + count {
            self.limbs.resize(at + count + 1, sign);
        }
        at
    }

    /// Adds `parts`, continued upward by `sign`, from limb `at` on.
    fn add_at(&mut self, at: usize, parts: &[u64], sign: u64) {
        let mut carry = false;
        let mut parts = parts.iter();
        for limb in &mut self.limbs[at..] {
            let part = parts.next();
            if part.is_none() && !carry && sign == 0 {
                return;
            }
            let (sum, over) = limb.overflowing_add(*part.unwrap_or(&sign));
            let (sum, over_too) = sum.overflowing_add(u64::from(carry));
            (*limb, carry) = (sum, over | over_too);
        }
    }

    fn subtract(&mut self, at: usize, parts: [u64; 2]) {
        let mut borrow = false;
        let mut parts = parts.into_iter();
        for limb in &mut self.limbs[at..] {
            let part = parts.next();
            if part.is_none() && !borrow {
                return;
            }
            let (rest, under) = limb.overflowing_sub(part.unwrap_or(0));
            let (rest, under_too) = rest.overflowing_sub(u64::from(borrow));
            (*limb, borrow) = (rest, under | under_too);
        }
    }

    /// Keeps the last limb far from overflowing.
    fn spare(&mut self) {
        let Some(last) = self.limbs.last() else { return };
        let last = *last as i64;
        if !(-(1 << 62)..1 << 62).contains(&last) {
            self.limbs.push((last >> 63) as u64);
        }
    }

    /// The canonical form: whether it is negative, the number of the first limb that is not zero,
    /// and the magnitude's limbs up to the last that is not zero. Zero has none.
    pub fn magnitude(&self) -> (bool, usize, Vec<u64>) {
        let negative = self.limbs.last().is_some_and(|last| (*last as i64) < 0);
        let mut limbs = self.limbs.clone();
        if negative {
            let mut carry = true;
            for limb in &mut limbs {
                (*limb, carry) = (!*limb).overflowing_add(u64::from(carry));
            }
        }
        while limbs.last() == Some(&0) {
            limbs.pop();
        }
        let zeros = limbs.iter().take_while(|limb| **limb == 0).count();
        limbs.drain(..zeros);
        if limbs.is_empty() { (false, 0, limbs) } else { (negative, self.low + zeros, limbs) }
    }

    /// From the canonical form; none when it is not canonical.
    pub fn from_magnitude(negative: bool, low: usize, limbs: Vec<u64>) -> Option<Self> {
        let ends = [limbs.first(), limbs.last()];
        if ends.contains(&Some(&0)) || low + limbs.len() > LIMBS_MAX {
            return None;
        }
        if limbs.is_empty() {
            return (!negative && low == 0).then(Self::default);
        }
        let mut sum = Self { low, limbs };
        sum.limbs.push(0);
        if negative {
            let mut carry = true;
            for limb in &mut sum.limbs {
                (*limb, carry) = (!*limb).overflowing_add(u64::from(carry));
            }
        }
        Some(sum)
    }

    /// The f64 nearest to the sum, ties to even. Beyond the range of f64 it is ±[`f64::MAX`]:
    /// neither JSON nor our readers have an infinity.
    pub fn value(&self) -> f64 {
        let (negative, low, limbs) = self.magnitude();
        let magnitude = round(low, &limbs);
        if negative { -magnitude } else { magnitude }
    }
}

/// Rounds a magnitude without zero limbs at its ends.
fn round(low: usize, limbs: &[u64]) -> f64 {
    let Some(top) = limbs.last() else { return 0.0 };
    let bit_length = (low + limbs.len()) * 64 - top.leading_zeros() as usize;
    // The bits from `from` on become the mantissa; below 2⁻¹⁰⁷⁴⁺⁵³ all of them fit.
    let from = bit_length.saturating_sub(53);
    let bit = |number: usize| {
        let limb = (number / 64).checked_sub(low).and_then(|index| limbs.get(index));
        limb.is_some_and(|limb| limb >> (number % 64) & 1 == 1)
    };
    let word = |index: usize| {
        index.checked_sub(low).and_then(|index| limbs.get(index)).copied().unwrap_or(0)
    };
    let wide = u128::from(word(from / 64 + 1)) << 64 | u128::from(word(from / 64));
    let mut mantissa = (wide >> (from % 64)) as u64 & ((1 << 53) - 1);
    if from > 0 && bit(from - 1) {
        let below = (low * 64..from - 1).any(bit);
        mantissa += u64::from(below || mantissa & 1 == 1);
    }
    // 2^from in two steps: it may be beyond what one f64 holds on its way.
    let exponent = i32::try_from(from).unwrap_or(i32::MAX) - UNIT_BIT as i32;
    let scaled = if exponent >= -1022 {
        mantissa as f64 * power(exponent)
    } else {
        mantissa as f64 * power(-1022) * power(exponent + 1022)
    };
    scaled.min(f64::MAX)
}

/// 2^`exponent` for −1022..=1023; infinite above.
fn power(exponent: i32) -> f64 {
    let biased = u64::try_from(exponent + 1023).unwrap_or(0);
    f64::from_bits(biased.min(0x7ff) << 52)
}

#[cfg(test)]
mod tests;
