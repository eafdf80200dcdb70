//! The bytes of an aggregate.
//!
//! **Format 1** (all integers varint, LEB128; f64 as 8 bytes little-endian):
//!
//! | field | |
//! |---|---|
//! | version | one byte, 1 |
//! | count | |
//! | values | if count ≤ 16: `count` f64, ascending; nothing else follows |
//! | min, max | two f64 |
//! | sum | limbs × 2 + negative; the number of the first limb; the limbs, 8 bytes each, least first: a magnitude in units of 2⁻¹⁰⁷⁴ ([`crate::rollup::sum`]) |
//! | buckets | how many; for each the key less the one before (the first: less 0, zigzag), and the count |

use super::{Aggregate, EXACT_MAX, Many, Repr, sort_into};
use crate::rollup::sketch::{Bucket, Sketch, key_of};
use crate::rollup::sum::ExactSum;

/// The version of the encoding.
const VERSION: u8 = 1;

/// Why bytes are no aggregate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They end too early.
    #[error("the aggregate is cut off")]
    CutOff,
    /// A version that is not known here.
    #[error("the aggregate has the unknown version {0}")]
    Version(u8),
    /// Its parts contradict each other, or the canonical form.
    #[error("the aggregate is damaged: {0}")]
    Damaged(&'static str),
}

impl Aggregate {
    /// The canonical bytes; see the table of the module.
    pub fn encode(&self) -> Vec<u8> {
        match &self.0 {
            Repr::Few(values) => {
                let mut out = Vec::with_capacity(2 + values.len() * 8);
                out.extend([VERSION, values.len() as u8]);
                let mut sorted = [0.0; EXACT_MAX];
                for value in sort_into(&mut sorted, values) {
                    out.extend(value.to_le_bytes());
                }
                out
            }
            Repr::Many(many) => many.encode(),
        }
    }

    /// Reads what [`Self::encode`] wrote.
    ///
    /// # Errors
    /// When it can't have been written so.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        let version = reader.byte()?;
        if version != VERSION {
            return Err(DecodeError::Version(version));
        }
        let count = reader.integer()?;
        let aggregate = if count <= EXACT_MAX as u64 {
            let values: Vec<f64> =
                (0..count).map(|_| reader.float()).collect::<Result<_, DecodeError>>()?;
            if values.windows(2).any(|pair| pair[0] > pair[1]) {
                return Err(DecodeError::Damaged("values are out of order"));
            }
            Self(Repr::Few(values))
        } else {
            Self(Repr::Many(Box::new(Many::decode(count, &mut reader)?)))
        };
        if reader.0.is_empty() { Ok(aggregate) } else { Err(DecodeError::Damaged("it goes on")) }
    }
}

impl Many {
    fn encode(&self) -> Vec<u8> {
        let buckets = self.sketch.buckets();
        let mut out = Vec::with_capacity(64 + buckets.len() * 3);
        out.push(VERSION);
        push_integer(&mut out, self.count);
        out.extend(self.min.to_le_bytes());
        out.extend(self.max.to_le_bytes());
        let (negative, low, limbs) = self.sum.magnitude();
        push_integer(&mut out, (limbs.len() as u64) << 1 | u64::from(negative));
        push_integer(&mut out, low as u64);
        for limb in limbs {
            out.extend(limb.to_le_bytes());
        }
        push_integer(&mut out, buckets.len() as u64);
        let mut before = None;
        for bucket in buckets {
            let step = match before {
                None => u64::from((bucket.key << 1 ^ bucket.key >> 31) as u32),
                Some(before) => u64::from((bucket.key - before) as u32),
            };
            push_integer(&mut out, step);
            push_integer(&mut out, bucket.count);
            before = Some(bucket.key);
        }
        out
    }

    fn decode(count: u64, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (min, max) = (reader.float()?, reader.float()?);
        let header = reader.integer()?;
        let low = reader.integer()?;
        if header >> 1 > 64 || low > 64 {
            return Err(DecodeError::Damaged("the sum is too long"));
        }
        let limbs = (0..header >> 1).map(|_| reader.limb()).collect::<Result<_, _>>()?;
        let sum = ExactSum::from_magnitude(header & 1 == 1, low as usize, limbs)
            .ok_or(DecodeError::Damaged("the sum is not canonical"))?;
        let buckets = reader.buckets()?;
        let counted = buckets.iter().try_fold(0_u64, |all, bucket| all.checked_add(bucket.count));
        let ends = [buckets.first(), buckets.last()].map(|bucket| bucket.map(|bucket| bucket.key));
        let sketch =
            Sketch::from_buckets(buckets).ok_or(DecodeError::Damaged("its buckets can't be"))?;
        let many = Self { count, min, max, sum, sketch };
        if counted != Some(count) {
            return Err(DecodeError::Damaged("its buckets do not add up"));
        }
        if min > max || ends != [Some(key_of(min)), Some(key_of(max))] {
            return Err(DecodeError::Damaged("its extremes do not fit its buckets"));
        }
        Ok(many)
    }
}

fn push_integer(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> Result<u8, DecodeError> {
        let (byte, rest) = self.0.split_first().ok_or(DecodeError::CutOff)?;
        self.0 = rest;
        Ok(*byte)
    }

    /// In its shortest form only.
    fn integer(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let part = u64::from(byte & 0x7f);
            if part << shift >> shift != part || (byte == 0 && shift > 0) {
                break;
            }
            value |= part << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(DecodeError::Damaged("an integer is malformed"))
    }

    fn limb(&mut self) -> Result<u64, DecodeError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(DecodeError::CutOff)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*bytes))
    }

    fn float(&mut self) -> Result<f64, DecodeError> {
        let value = f64::from_bits(self.limb()?);
        let negative_zero = value == 0.0 && value.is_sign_negative();
        if value.is_finite() && !negative_zero {
            return Ok(value);
        }
        Err(DecodeError::Damaged("a value is not finite, or is −0"))
    }

    fn buckets(&mut self) -> Result<Vec<Bucket>, DecodeError> {
        let length = self.integer()?;
        // A bucket takes two bytes at least: no length makes us reserve more than is there.
        if length > self.0.len() as u64 / 2 {
            return Err(DecodeError::CutOff);
        }
        let mut buckets: Vec<Bucket> = Vec::with_capacity(length as usize);
        for _ in 0..length {
            let too_large = |_| DecodeError::Damaged("a bucket's key is too large");
            let step = u32::try_from(self.integer()?).map_err(too_large)?;
            let key = match buckets.last() {
                None => Some((step >> 1) as i32 ^ -((step & 1) as i32)),
                Some(before) => before.key.checked_add_unsigned(step),
            };
            let key = key.ok_or(DecodeError::Damaged("a bucket's key is too large"))?;
            buckets.push(Bucket { key, count: self.integer()? });
        }
        Ok(buckets)
    }
}
