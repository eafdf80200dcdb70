//! Escapes: of JSON strings, and of JSON pointers.

use std::borrow::Cow;

/// The text of a string whose escapes are known to be well-formed; a lone surrogate becomes
/// U+FFFD.
pub(super) fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest.as_bytes().get(at + 1).copied().unwrap_or(b'\\');
        let mut used = 2;
        out.push(match escape {
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let high = hex4(rest.as_bytes(), at + 2);
                used = 6;
                let pair = rest.get(at + 6..).is_some_and(|rest| rest.starts_with("\\u"));
                match hex4(rest.as_bytes(), at + 8) {
                    low if pair && is_high(high) && is_low(low) => {
                        used = 12;
                        let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                        char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
                    }
                    _ => char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER),
                }
            }
            other => char::from(other),
        });
        rest = rest.get(at + used..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// Four hexadecimal digits; the parser has made sure of them.
pub(super) fn hex4(bytes: &[u8], at: usize) -> u32 {
    let digits = bytes.get(at..at + 4).unwrap_or(b"0000");
    digits.iter().fold(0, |value, &digit| value << 4 | char::from(digit).to_digit(16).unwrap_or(0))
}

pub(super) const fn is_high(unit: u32) -> bool {
    matches!(unit, 0xd800..=0xdbff)
}

pub(super) const fn is_low(unit: u32) -> bool {
    matches!(unit, 0xdc00..=0xdfff)
}

/// One reference token of a JSON pointer (RFC 6901).
pub fn escape_pointer(name: &str) -> Cow<'_, str> {
    if name.contains(['~', '/']) {
        Cow::Owned(name.replace('~', "~0").replace('/', "~1"))
    } else {
        Cow::Borrowed(name)
    }
}
