//! The parser behind [`Tape::parse`](super::Tape::parse): strict RFC 8259, without recursion.

use super::text::{escape_pointer, hex4, is_high, is_low, unescape};
use super::{
    DEPTH_MAX, Kind, MUTED, Open, PROBLEMS_MAX, Problem, ProblemKind, Slot, SyntaxError, Tape,
};

/// The offset of the first byte at or after `at` that is not JSON whitespace.
pub fn skip_whitespace(bytes: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = bytes.get(at) {
        at += 1;
    }
    at
}

/// Reads one value from `start`; returns the offset after it.
pub(super) fn value(
    tape: &mut Tape,
    text: &str,
    start: usize,
    bytes_max: usize,
) -> Result<usize, SyntaxError> {
    if u32::try_from(text.len()).is_err() {
        return Err(SyntaxError { offset: start, expected: "at most 4 GiB of text" });
    }
    let limit = start.saturating_add(bytes_max);
    let mut parser = Parser { tape, text, bytes: text.as_bytes(), at: start, start, limit };
    parser.run()?;
    let end = parser.at;
    if end > limit {
        parser.problem_at(ProblemKind::TooLarge, String::new(), start, end);
    }
    Ok(end)
}

struct Parser<'t> {
    tape: &'t mut Tape,
    text: &'t str,
    bytes: &'t [u8],
    at: usize,
    start: usize,
    /// Past this offset nothing is written any more: the value is too large.
    limit: usize,
}

impl Parser<'_> {
    /// Reads values until the first one is complete.
    fn run(&mut self) -> Result<(), SyntaxError> {
        'value: loop {
            match self.bytes.get(self.at) {
                Some(b'{') => {
                    self.open(Kind::Object);
                    self.at = skip_whitespace(self.bytes, self.at);
                    if self.bytes.get(self.at) != Some(&b'}') {
                        self.key("a name in quotes or '}'")?;
                        continue 'value;
                    }
                }
                Some(b'[') => {
                    self.open(Kind::Array);
                    self.at = skip_whitespace(self.bytes, self.at);
                    if self.bytes.get(self.at) != Some(&b']') {
                        continue 'value;
                    }
                }
                Some(_) => self.scalar()?,
                None => return Err(self.error("a value")),
            }
            // A value is complete, or an empty container stands before its bracket.
            loop {
                let Some(&Open { object, .. }) = self.tape.open.last() else { return Ok(()) };
                self.at = skip_whitespace(self.bytes, self.at);
                match (self.bytes.get(self.at), object) {
                    (Some(b','), true) if self.has_contents() => {
                        self.at = skip_whitespace(self.bytes, self.at + 1);
                        self.key("a name in quotes")?;
                        continue 'value;
                    }
                    (Some(b','), false) if self.has_contents() => {
                        self.at = skip_whitespace(self.bytes, self.at + 1);
                        continue 'value;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => self.close(),
                    (_, true) => return Err(self.error("',' or '}'")),
                    (_, false) => return Err(self.error("',' or ']'")),
                }
            }
        }
    }

    fn has_contents(&self) -> bool {
        self.tape.open.last().is_some_and(|open| open.count > 0)
    }

    /// Writes a slot, unless the value is refused anyway and its contents matter no more.
    fn push(&mut self, kind: Kind, start: usize, end: usize, data: u64) -> u32 {
        if end > self.limit || self.tape.open.len() > DEPTH_MAX {
            return MUTED;
        }
        let index = self.tape.slots.len() as u32;
        self.tape.slots.push(Slot { start: start as u32, end: end as u32, data, kind });
        index
    }

    fn count_value(&mut self) {
        if let Some(open) = self.tape.open.last_mut() {
            open.count += 1;
        }
    }

    fn open(&mut self, kind: Kind) {
        self.count_value();
        let data = (self.tape.slots.len() as u64 + 1) << 32;
        let slot = self.push(kind, self.at, self.at, data);
        if self.tape.open.len() == DEPTH_MAX {
            self.problem(ProblemKind::TooDeep, self.at, self.at + 1);
        }
        let object = kind == Kind::Object;
        self.tape.open.push(Open { slot, count: 0, key: (0, 0), object });
        self.at += 1;
    }

    fn close(&mut self) {
        self.at += 1;
        let Some(open) = self.tape.open.pop() else { return };
        let next = self.tape.slots.len() as u64;
        if open.slot != MUTED
            && let Some(slot) = self.tape.slots.get_mut(open.slot as usize)
        {
            slot.end = self.at as u32;
            slot.data = next << 32 | u64::from(open.count);
        }
    }

    /// Reads a name and its colon, up to the value.
    fn key(&mut self, expected: &'static str) -> Result<(), SyntaxError> {
        if self.bytes.get(self.at) != Some(&b'"') {
            return Err(self.error(expected));
        }
        let start = self.at + 1;
        // Set before reading, so that a problem inside the name has a pointer to it.
        self.set_key(start, start);
        let escaped = self.string()?;
        let end = self.at - 1;
        self.set_key(start, end);
        let kind = if escaped { Kind::Escaped } else { Kind::Plain };
        self.push(kind, start, end, 0);
        self.at = skip_whitespace(self.bytes, self.at);
        if self.bytes.get(self.at) != Some(&b':') {
            return Err(self.error("':'"));
        }
        self.at = skip_whitespace(self.bytes, self.at + 1);
        Ok(())
    }

    fn set_key(&mut self, start: usize, end: usize) {
        if let Some(open) = self.tape.open.last_mut() {
            open.key = (start as u32, end as u32);
        }
    }

    fn scalar(&mut self) -> Result<(), SyntaxError> {
        self.count_value();
        match self.bytes[self.at] {
            b'"' => {
                let start = self.at + 1;
                let escaped = self.string()?;
                let kind = if escaped { Kind::Escaped } else { Kind::Plain };
                self.push(kind, start, self.at - 1, 0);
                Ok(())
            }
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.word("true", Kind::True),
            b'f' => self.word("false", Kind::False),
            b'n' => self.word("null", Kind::Null),
            _ => Err(self.error("a value")),
        }
    }

    fn word(&mut self, word: &'static str, kind: Kind) -> Result<(), SyntaxError> {
        let end = self.at + word.len();
        if self.bytes.get(self.at..end) != Some(word.as_bytes()) {
            return Err(self.error("a value"));
        }
        self.push(kind, self.at, end, 0);
        self.at = end;
        Ok(())
    }

    /// Reads a string from its opening quote; whether it has escapes.
    fn string(&mut self) -> Result<bool, SyntaxError> {
        let opening = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            self.at = plain_end(self.bytes, self.at);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape(opening)?;
                }
                Some(_) => return Err(self.error("an escape instead of a control character")),
                None => return Err(self.error("the closing '\"' of a string")),
            }
        }
    }

    /// Reads one escape; for a surrogate, both halves.
    fn escape(&mut self, opening: usize) -> Result<(), SyntaxError> {
        match self.bytes.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                Ok(())
            }
            Some(b'u') => {
                let first = self.unit()?;
                if is_high(first) && self.bytes[self.at..].starts_with(b"\\u") {
                    let low_at = self.at;
                    if is_low(self.unit()?) {
                        return Ok(());
                    }
                    // Not its other half: to be read again on its own.
                    self.at = low_at;
                }
                if is_high(first) || is_low(first) {
                    self.problem(ProblemKind::LoneSurrogate, opening, self.at);
                }
                Ok(())
            }
            _ => Err(self.error("an escape such as \\n or \\u0041")),
        }
    }

    /// Reads `\uXXXX`.
    fn unit(&mut self) -> Result<u32, SyntaxError> {
        let digits = self.at + 2;
        let valid = |digits: &[u8]| digits.iter().all(u8::is_ascii_hexdigit);
        if !self.bytes.get(digits..digits + 4).is_some_and(valid) {
            return Err(self.error("four hexadecimal digits after \\u"));
        }
        self.at = digits + 4;
        Ok(hex4(self.bytes, digits))
    }

    fn number(&mut self) -> Result<(), SyntaxError> {
        let start = self.at;
        let mut digits = Digits::default();
        let negative = self.bytes[self.at] == b'-';
        self.at += usize::from(negative);
        match self.bytes.get(self.at) {
            Some(b'0') => {
                digits.count = 1;
                self.at += 1;
            }
            Some(b'1'..=b'9') => self.at = digits.read(self.bytes, self.at),
            _ => return Err(self.error("a digit")),
        }
        let mut fraction_digits = 0;
        let mut kind = Kind::Integer;
        if self.bytes.get(self.at) == Some(&b'.') {
            let first = self.at + 1;
            self.at = digits.read(self.bytes, first);
            fraction_digits = self.at - first;
            kind = Kind::Float;
            if fraction_digits == 0 {
                return Err(self.error("a digit"));
            }
        }
        let mut exponent = false;
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            (exponent, kind) = (true, Kind::Float);
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            let first = self.at;
            self.at = Digits::default().read(self.bytes, first);
            if self.at == first {
                return Err(self.error("a digit"));
            }
        }
        let value = match digits.exact(fraction_digits) {
            Some(value) if !exponent => {
                if negative {
                    -value
                } else {
                    value
                }
            }
            // Std reads every JSON number; it rounds correctly, and overflows to infinity.
            _ => self.text[start..self.at].parse().unwrap_or(f64::INFINITY),
        };
        if !value.is_finite() {
            self.problem(ProblemKind::NumberOutOfRange, start, self.at);
        }
        self.push(kind, start, self.at, value.to_bits());
        Ok(())
    }

    fn error(&self, expected: &'static str) -> SyntaxError {
        SyntaxError { offset: self.at.min(self.bytes.len()), expected }
    }

    #[cold]
    fn problem(&mut self, kind: ProblemKind, start: usize, end: usize) {
        let mut pointer = String::new();
        for open in &self.tape.open {
            pointer.push('/');
            if open.object {
                let name = unescape(&self.text[open.key.0 as usize..open.key.1 as usize]);
                pointer.push_str(&escape_pointer(&name));
            } else {
                pointer.push_str(&open.count.saturating_sub(1).to_string());
            }
        }
        self.problem_at(kind, pointer, start, end);
    }

    #[cold]
    fn problem_at(&mut self, kind: ProblemKind, pointer: String, start: usize, end: usize) {
        debug_assert!(start >= self.start);
        let repeats = |earlier: &Problem| earlier.kind == kind && kind == ProblemKind::TooDeep;
        if self.tape.problems.len() < PROBLEMS_MAX && !self.tape.problems.iter().any(repeats) {
            self.tape.problems.push(Problem { kind, pointer, start, end });
        }
    }
}

/// The digits of a number without its sign, point and exponent.
#[derive(Default)]
struct Digits {
    value: u64,
    count: usize,
}

impl Digits {
    fn read(&mut self, bytes: &[u8], mut at: usize) -> usize {
        while let Some(digit @ b'0'..=b'9') = bytes.get(at) {
            self.value = self.value.wrapping_mul(10).wrapping_add(u64::from(digit - b'0'));
            self.count += 1;
            at += 1;
        }
        at
    }

    /// The value with the last `fraction_digits` behind the point, where one correctly rounded
    /// division gives it: both operands are exact (below 2^53, and a power of ten up to 10^15).
    fn exact(&self, fraction_digits: usize) -> Option<f64> {
        const POWERS: [f64; 16] =
            [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];
        if self.count > 15 {
            return None;
        }
        Some(self.value as f64 / POWERS.get(fraction_digits)?)
    }
}

/// The offset of the first byte at or after `at` that is a quote, a backslash or a control
/// character, or of the text's end. Eight bytes at a time.
fn plain_end(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    while let Some(&chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let word = u64::from_le_bytes(chunk);
        let zero_in = |w: u64| w.wrapping_sub(ONES) & !w;
        let quote = zero_in(word ^ (ONES * 0x22));
        let backslash = zero_in(word ^ (ONES * 0x5c));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let found = (quote | backslash | control) & HIGHS;
        if found != 0 {
            // Borrows can only mark bytes above a real find, so the lowest mark is one.
            return at + (found.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = bytes.get(at) {
        if matches!(byte, b'"' | b'\\' | 0..0x20) {
            break;
        }
        at += 1;
    }
    at
}
