//! A flat, borrowed form of one JSON value: what admission reads instead of `serde_json::Value`.
//!
//! [`Tape::parse`] makes one pass over the text and writes one [`Slot`] per value and per key, in
//! document order, so that a container is followed by its contents. Strings and numbers stay in
//! the text. The slots are reused for the next value.
//!
//! Two kinds of trouble are told apart:
//! - [`SyntaxError`]: the text is not RFC 8259 JSON; nothing after that place can be read.
//! - [`Problem`]: it is JSON, but not what the pipeline stores (limits below); the value ends where
//!   it seems to, so that its neighbours in a batch can still be read.
//!
//! | refused as a problem | why |
//! |---|---|
//! | a name twice in the root object or in its `metrics` | two readers could see two values |
//! | containers nested deeper than [`DEPTH_MAX`] | readers downstream recurse |
//! | a number that is not finite as a 64-bit float | it could not be aggregated |
//! | an escaped surrogate without its other half | it is not Unicode text |
//! | a value longer than the caller's limit in bytes | it bounds the memory of the tape |
//!
//! Objects other than these two are free-form: a name may repeat there, and the last one counts.

mod json;
mod parse;
mod text;

use std::borrow::Cow;

pub use self::json::TapeJson;
pub use self::parse::skip_whitespace;
pub use self::text::escape_pointer;
use self::text::unescape;

/// How deep containers may nest; the event itself is 1.
pub const DEPTH_MAX: usize = 64;

/// How many problems of one value are reported.
pub const PROBLEMS_MAX: usize = 16;

/// Slots kept between values; a larger tape is given back.
const SLOTS_KEPT_MAX: usize = 16 * 1024;

/// Where the text stops being JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset}: expected {expected}")]
pub struct SyntaxError {
    /// Byte offset in the text.
    pub offset: usize,
    /// What could have stood there.
    pub expected: &'static str,
}

/// What kind of [`Problem`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// A name stands twice in an object that the pipeline reads.
    DuplicateKey,
    /// Containers are nested deeper than [`DEPTH_MAX`].
    TooDeep,
    /// A number overflows a 64-bit float.
    NumberOutOfRange,
    /// An escaped surrogate without its other half.
    LoneSurrogate,
    /// The value is longer than the limit.
    TooLarge,
}

/// Something that is JSON but not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What kind.
    pub kind: ProblemKind,
    /// JSON pointer (RFC 6901) to it.
    pub pointer: String,
    /// Where its text begins.
    pub start: usize,
    /// Where its text ends, as far as it was read.
    pub end: usize,
}

/// The type of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    False,
    True,
    /// Text without a fraction or an exponent; the value in `data`.
    Integer,
    /// Any other number; the value in `data`.
    Float,
    /// Without escapes; the span excludes the quotes.
    Plain,
    /// With escapes; the span excludes the quotes.
    Escaped,
    /// `data` = (slot after the contents) << 32 | number of elements.
    Array,
    /// `data` = (slot after the contents) << 32 | number of members.
    Object,
}

/// One value or key.
#[derive(Clone, Copy, Debug)]
struct Slot {
    start: u32,
    end: u32,
    data: u64,
    kind: Kind,
}

impl Slot {
    /// The slot after this value and all that it contains.
    const fn next(&self, index: u32) -> u32 {
        match self.kind {
            Kind::Array | Kind::Object => (self.data >> 32) as u32,
            _ => index + 1,
        }
    }

    /// How many elements or members a container has.
    const fn count(&self) -> usize {
        (self.data & 0xffff_ffff) as usize
    }
}

/// A container that is being read.
#[derive(Clone, Copy, Debug)]
struct Open {
    /// Its slot, or [`MUTED`].
    slot: u32,
    /// How many elements or members so far.
    count: u32,
    /// Span of the current key's text, for pointers.
    key: (u32, u32),
    object: bool,
}

/// Stands for a slot that was not written, because the value is refused anyway.
const MUTED: u32 = u32::MAX;

/// Reads JSON values into slots that it keeps for the next one.
#[derive(Debug, Default)]
pub struct Tape {
    slots: Vec<Slot>,
    open: Vec<Open>,
    problems: Vec<Problem>,
    names: Vec<u32>,
}

/// One value that was read, borrowed from its text and its tape.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<'a> {
    /// The offset after the value.
    pub end: usize,
    /// What is wrong with it; empty if nothing is.
    pub problems: &'a [Problem],
    text: &'a str,
    slots: &'a [Slot],
}

/// A value on a tape; cheap to copy.
#[derive(Clone, Copy, Debug)]
pub struct TapeNode<'a> {
    text: &'a str,
    slots: &'a [Slot],
    index: u32,
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the value that begins at `start`, which must not be whitespace.
    ///
    /// A value longer than `bytes_max` is read to its end for its syntax only.
    ///
    /// # Errors
    /// Where the text is not JSON.
    pub fn parse<'a>(
        &'a mut self,
        text: &'a str,
        start: usize,
        bytes_max: usize,
    ) -> Result<Parsed<'a>, SyntaxError> {
        self.clear();
        let end = parse::value(self, text, start, bytes_max)?;
        if self.slots.is_empty() {
            // A single scalar that is too large: there is nothing to read, but a root.
            self.slots.push(Slot { start: 0, end: 0, data: 0, kind: Kind::Null });
        }
        self.refuse_duplicates(text);
        Ok(Parsed { end, problems: &self.problems, text, slots: &self.slots })
    }

    fn clear(&mut self) {
        if self.slots.capacity() > SLOTS_KEPT_MAX {
            self.slots = Vec::new();
            self.open = Vec::new();
            self.names = Vec::new();
        }
        self.slots.clear();
        self.open.clear();
        self.problems.clear();
    }

    /// Looks for names that repeat in the root object and its `metrics`.
    fn refuse_duplicates(&mut self, text: &str) {
        let Self { slots, names, problems, .. } = self;
        let root = TapeNode { text, slots, index: 0 };
        refuse_duplicates_of(root, "", names, problems);
        for (name, member) in root.members() {
            if name.text_is("metrics") {
                refuse_duplicates_of(member, "/metrics", names, problems);
            }
        }
    }
}

/// Few names are compared pairwise; more are sorted, so that a hostile event costs n log n.
const NAMES_COMPARED_MAX: usize = 16;

fn refuse_duplicates_of(
    object: TapeNode<'_>,
    pointer: &str,
    names: &mut Vec<u32>,
    problems: &mut Vec<Problem>,
) {
    names.clear();
    let mut report = |name: TapeNode<'_>| {
        if problems.len() < PROBLEMS_MAX {
            let slot = name.slot();
            let pointer = format!("{pointer}/{}", escape_pointer(&name.text()));
            let (start, end) = (slot.start as usize, slot.end as usize);
            problems.push(Problem { kind: ProblemKind::DuplicateKey, pointer, start, end });
        }
    };
    let key = |index| TapeNode { index, ..object };
    if object.slot().count() <= NAMES_COMPARED_MAX {
        for (name, _) in object.members() {
            if names.iter().any(|&earlier| key(earlier).same_text(name)) {
                report(name);
            }
            names.push(name.index);
        }
        return;
    }
    names.extend(object.members().map(|(name, _)| name.index));
    names.sort_by(|&a, &b| key(a).text().cmp(&key(b).text()).then(a.cmp(&b)));
    for pair in names.windows(2) {
        if key(pair[0]).same_text(key(pair[1])) {
            report(key(pair[1]));
        }
    }
}

impl<'a> Parsed<'a> {
    /// The text that a problem is about.
    pub fn text_of(&self, problem: &Problem) -> &'a str {
        self.text.get(problem.start..problem.end).unwrap_or_default()
    }

    /// The value itself.
    pub fn root(&self) -> TapeNode<'a> {
        TapeNode { text: self.text, slots: self.slots, index: 0 }
    }
}

impl<'a> TapeNode<'a> {
    fn slot(&self) -> &'a Slot {
        &self.slots[self.index as usize]
    }

    /// The text between the quotes, or of a number; a container's from bracket to bracket.
    pub fn raw(&self) -> &'a str {
        let slot = self.slot();
        &self.text[slot.start as usize..slot.end as usize]
    }

    /// Whether this is an object.
    pub fn is_object(&self) -> bool {
        self.slot().kind == Kind::Object
    }

    /// The string's text, if this is a string.
    pub fn as_text(&self) -> Option<Cow<'a, str>> {
        matches!(self.slot().kind, Kind::Plain | Kind::Escaped).then(|| self.text())
    }

    /// Names and values of an object in document order; nothing for other types.
    pub fn members(&self) -> Members<'a> {
        let slot = self.slot();
        let end = if slot.kind == Kind::Object { slot.next(self.index) } else { 0 };
        // A refused value may lack slots: never read past those that there are.
        let end = end.min(u32::try_from(self.slots.len()).unwrap_or(MUTED));
        Members { node: *self, at: self.index + 1, end }
    }

    /// The value of a member of this object.
    pub fn member(&self, name: &str) -> Option<TapeNode<'a>> {
        self.members().find(|(key, _)| key.text_is(name)).map(|(_, value)| value)
    }

    /// A string's text, unescaped.
    fn text(&self) -> Cow<'a, str> {
        match self.slot().kind {
            Kind::Escaped => Cow::Owned(unescape(self.raw())),
            _ => Cow::Borrowed(self.raw()),
        }
    }

    /// Whether this string's text is `expected`. Asked for every name of every event: the length
    /// decides most of the time, and bytes need no check for character boundaries.
    #[inline]
    pub fn text_is(&self, expected: &str) -> bool {
        let slot = self.slot();
        match slot.kind {
            Kind::Plain => {
                (slot.end - slot.start) as usize == expected.len()
                    && self.text.as_bytes()[slot.start as usize..slot.end as usize]
                        == *expected.as_bytes()
            }
            Kind::Escaped => unescape(self.raw()) == expected,
            _ => false,
        }
    }

    fn same_text(&self, other: TapeNode<'_>) -> bool {
        match (self.slot().kind, other.slot().kind) {
            (Kind::Plain, Kind::Plain) => self.raw() == other.raw(),
            _ => self.text() == other.text(),
        }
    }
}

/// The members of an object.
#[derive(Clone, Debug)]
pub struct Members<'a> {
    node: TapeNode<'a>,
    at: u32,
    end: u32,
}

impl<'a> Iterator for Members<'a> {
    type Item = (TapeNode<'a>, TapeNode<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at + 1 >= self.end {
            return None;
        }
        let name = TapeNode { index: self.at, ..self.node };
        let value = TapeNode { index: self.at + 1, ..self.node };
        self.at = value.slot().next(value.index).max(value.index + 1);
        Some((name, value))
    }
}

#[cfg(test)]
mod tests;
