//! How long a certificate is good: the one thing of X.509 that the gateway reads itself, to tell
//! people before it ends. Whether it can be trusted is the devices' business, and rustls's.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use penstock_common::event::UnixMicros;

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// Its begin.
    pub not_before: UnixMicros,
    /// Its last second.
    pub not_after: UnixMicros,
}

/// DER's tags.
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

impl Validity {
    /// Reads it from a certificate in DER; none where that can't be understood.
    pub fn of(certificate: &[u8]) -> Option<Self> {
        // Certificate ::= SEQUENCE { tbsCertificate SEQUENCE { [0] version, serialNumber,
        // signature, issuer, validity SEQUENCE { notBefore, notAfter }, … }, … }
        let (certificate, _) = element(certificate, SEQUENCE)?;
        let (mut tbs, _) = element(certificate, SEQUENCE)?;
        if tbs.first() == Some(&VERSION) {
            (_, tbs) = element(tbs, VERSION)?;
        }
        for tag in [INTEGER, SEQUENCE, SEQUENCE] {
            (_, tbs) = element(tbs, tag)?;
        }
        let (validity, _) = element(tbs, SEQUENCE)?;
        let (not_before, rest) = time(validity)?;
        let (not_after, _) = time(rest)?;
        Some(Self { not_before, not_after })
    }

    /// When both are good.
    #[must_use]
    pub fn both(self, other: Self) -> Self {
        Self {
            not_before: self.not_before.max(other.not_before),
            not_after: self.not_after.min(other.not_after),
        }
    }
}

/// The content of the first element, which has this tag, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The length itself is so long: at most four bytes, or it is no certificate.
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (length.iter().fold(0, |sum, &byte| sum << 8 | usize::from(byte)), rest)
        }
        _ => return None,
    };
    if found != tag {
        return None;
    }
    rest.split_at_checked(length)
}

/// UTCTime `YYMMDDHHMMSSZ` (years 1950 to 2049) or GeneralizedTime `YYYYMMDDHHMMSSZ`.
fn time(bytes: &[u8]) -> Option<(UnixMicros, &[u8])> {
    let (text, rest, century) = match bytes.first()? {
        &UTC_TIME => {
            let (text, rest) = element(bytes, UTC_TIME)?;
            let century = if text.first()? < &b'5' { "20" } else { "19" };
            (text, rest, century)
        }
        _ => {
            let (text, rest) = element(bytes, GENERALIZED_TIME)?;
            (text, rest, "")
        }
    };
    let text = format!("{century}{}", std::str::from_utf8(text).ok()?);
    let time = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?;
    let time = time.to_zoned(TimeZone::UTC).ok()?;
    Some((UnixMicros(time.timestamp().as_microsecond()), rest))
}
