//! The figures of a window, from all its values, in the most obvious way.

/// Fractions of values are exact in units of 2⁻⁸⁰: no simulated value is finer.
const SCALE_BITS: i32 = 80;

/// What a rollup row says of a window's values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// How many.
    pub count: i64,
    /// The f64 nearest to the exact sum.
    pub sum: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
    /// The value of rank ⌈count / 2⌉.
    pub p50: f64,
    /// The value of rank ⌈0.95 count⌉.
    pub p95: f64,
}

/// How far p50 and p95 may be off, relative to the true value.
pub const QUANTILE_ERROR_MAX: f64 = 0.01;

/// The figures; none of no values.
pub fn figures(values: &[f64]) -> Option<Figures> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    // In whole percent, so that no rounding can move a rank.
    let rank = |percent: usize| sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1];
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let count = i64::try_from(sorted.len()).ok()?;
    Some(Figures { count, sum: sum(values)?, min, max, p50: rank(50), p95: rank(95) })
}

impl Figures {
    /// What is wrong with `stored`, if these are the true figures.
    pub fn faults(&self, stored: &Self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut exact = |name: &str, truth: f64, stored: f64| {
            if truth != stored {
                faults.push(format!("{name} is {stored}, not {truth}"));
            }
        };
        exact("count", self.count as f64, stored.count as f64);
        exact("sum", self.sum, stored.sum);
        exact("min", self.min, stored.min);
        exact("max", self.max, stored.max);
        for (name, truth, stored) in [("p50", self.p50, stored.p50), ("p95", self.p95, stored.p95)]
        {
            // A hair more for the rounding of the comparison itself.
            let is_near = (stored - truth).abs() <= truth.abs() * (QUANTILE_ERROR_MAX + 1e-12);
            if !is_near || stored < self.min || stored > self.max {
                faults.push(format!("{name} is {stored}, too far from {truth}"));
            }
        }
        faults
    }
}

/// The sum in fixed-point integers, rounded once; none if it does not fit into them.
fn sum(values: &[f64]) -> Option<f64> {
    let total = values.iter().try_fold(0_i128, |total, value| total.checked_add(fixed(*value)?))?;
    // Both steps are exact but for the one rounding of the conversion.
    Some(total as f64 * 2_f64.powi(-SCALE_BITS))
}

fn fixed(value: f64) -> Option<i128> {
    let bits = value.to_bits();
    let exponent = i32::try_from((bits >> 52) & 0x7ff).ok()?;
    let fraction = i128::from(bits & ((1 << 52) - 1));
    let (mantissa, exponent) = match exponent {
        0 => (fraction, -1074),
        0x7ff => return None,
        _ => (fraction | 1 << 52, exponent - 1075),
    };
    let shift = exponent + SCALE_BITS;
    let magnitude = match shift {
        0..=60 => mantissa.checked_shl(shift.unsigned_abs())?,
        -52..0 if mantissa.trailing_zeros() >= shift.unsigned_abs() => mantissa >> -shift,
        _ if mantissa == 0 => 0,
        _ => return None,
    };
    Some(if value.is_sign_negative() { -magnitude } else { magnitude })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_those_of_the_book() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        let figures = figures(&values).unwrap();
        let wanted =
            Figures { count: 100, sum: 5050.0, min: 1.0, max: 100.0, p50: 50.0, p95: 95.0 };
        assert_eq!(figures, wanted);
        assert_eq!(super::figures(&[]), None);
        let one = super::figures(&[-0.25]).unwrap();
        assert_eq!((one.p50, one.p95, one.sum), (-0.25, -0.25, -0.25));
    }

    #[test]
    fn the_sum_is_rounded_once() {
        // Added one by one, ten tenths are not one.
        assert_ne!([0.1; 10].iter().sum::<f64>(), 1.0);
        assert_eq!(sum(&[0.1; 10]), Some(1.0));
        assert_eq!(sum(&[1e9, 0.01, -1e9]), Some(0.01));
        assert_eq!(sum(&[f64::MIN_POSITIVE]), None, "finer than the scale");
        assert_eq!(sum(&[f64::NAN]), None);
    }

    #[test]
    fn a_wrong_row_is_found() {
        let truth = figures(&[1.0, 2.0, 4.0]).unwrap();
        assert!(truth.faults(&truth).is_empty());
        let near = Figures { p50: 2.019, ..truth };
        assert!(truth.faults(&near).is_empty());
        for wrong in [
            Figures { count: 4, ..truth },
            Figures { sum: 7.000_000_1, ..truth },
            Figures { p50: 2.03, ..truth },
            Figures { p95: 4.01, ..truth },
            Figures { max: 4.5, ..truth },
        ] {
            assert_eq!(truth.faults(&wrong).len(), 1, "{wrong:?}");
        }
    }
}
