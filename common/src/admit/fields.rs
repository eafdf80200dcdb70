//! The fields that admission reads itself, and their formats: the schemas only note those.

use std::borrow::Cow;

use uuid::Uuid;

use super::FieldError;
use crate::event::UnixMicros;
use crate::schema::tape::TapeNode;

/// 9999-12-31T23:59:59.999999Z.
const TIMESTAMP_MAX: UnixMicros = UnixMicros(253_402_300_799_999_999);

const TIMESTAMP_EXPECTED: &str =
    "RFC 3339 from 1970 on, with an offset, e.g. 2026-01-31T12:00:00.250Z";

/// The fields that admission reads itself.
#[derive(Clone, Copy, Default)]
pub(super) struct Fields<'t> {
    pub(super) event_id: Option<TapeNode<'t>>,
    pub(super) device_id: Option<TapeNode<'t>>,
    pub(super) firmware: Option<TapeNode<'t>>,
    pub(super) timestamp: Option<TapeNode<'t>>,
}

impl<'t> Fields<'t> {
    pub(super) fn read(root: TapeNode<'t>) -> Self {
        let mut fields = Self::default();
        for (name, value) in root.members() {
            let Some(name) = name.as_text() else { continue };
            match name.as_ref() {
                "event_id" => fields.event_id = Some(value),
                "device_id" => fields.device_id = Some(value),
                "device_firmware_version" => fields.firmware = Some(value),
                "timestamp" => fields.timestamp = Some(value),
                _ => {}
            }
        }
        fields
    }

    pub(super) fn typed(&self) -> Option<(Uuid, UnixMicros)> {
        let event_id = event_id(&self.event_id?.as_text()?)?;
        Some((event_id, timestamp(&self.timestamp?.as_text()?)?))
    }

    /// The formats that the schema only notes.
    pub(super) fn format_errors(&self, errors: &mut Vec<FieldError>) {
        if let Some(text) = self.event_id.and_then(|node| node.as_text())
            && event_id(&text).is_none()
        {
            let expected = "a hyphenated UUID that is not nil";
            errors.push(FieldError::new("/event_id", "format", expected, format!("{text:?}")));
        }
        if let Some(text) = self.timestamp.and_then(|node| node.as_text())
            && timestamp(&text).is_none()
        {
            let got = format!("{text:?}");
            errors.push(FieldError::new("/timestamp", "format", TIMESTAMP_EXPECTED, got));
        }
    }
}

pub(super) fn event_id(text: &str) -> Option<Uuid> {
    // The other forms that the crate reads have other lengths.
    if text.len() != 36 {
        return None;
    }
    Uuid::try_parse(text).ok().filter(|id| !id.is_nil())
}

/// RFC 3339 and no more: jiff alone would also take a space, basic formats and time zone names.
pub(super) fn timestamp(text: &str) -> Option<UnixMicros> {
    let bytes = text.as_bytes();
    let shape = b"0000-00-00T00:00:00";
    let fits = |(byte, &shape): (&u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        b'T' => matches!(byte, b'T' | b't'),
        mark => *byte == mark,
    };
    let rest = bytes.get(shape.len()..)?;
    if !bytes.iter().zip(shape).all(fits) {
        return None;
    }
    let offset = match rest.split_first() {
        Some((b'.', fraction)) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits == 0 {
                return None;
            }
            &fraction[digits..]
        }
        _ => rest,
    };
    let offset_fits = match offset {
        [b'Z' | b'z'] => true,
        [b'+' | b'-', h1, h2, b':', m1, m2] => [h1, h2, m1, m2].iter().all(|b| b.is_ascii_digit()),
        _ => false,
    };
    let in_range = |time: &UnixMicros| (0..=TIMESTAMP_MAX.0).contains(&time.0);
    offset_fits.then(|| UnixMicros::parse_rfc3339(text).ok()).flatten().filter(in_range)
}

pub(super) fn text(node: Option<TapeNode<'_>>) -> Option<Cow<'_, str>> {
    node.and_then(|node| node.as_text())
}

/// Whether a device id can be the key of a message.
pub fn is_key(device_id: &str) -> bool {
    !device_id.is_empty()
        && device_id.len() <= 128
        && device_id.bytes().all(|b| b.is_ascii_graphic())
}
