//! The tape as an instance representation of the `jsonschema` crate.

use std::borrow::Cow;
use std::ops::ControlFlow;

use jsonschema::JsonType;
use jsonschema::json::{Array, Json, JsonNumber, Node, NodeIdentity, Object};
use serde_json::{Number, Value};

use super::{Kind, Members, Slot, TapeNode};

/// Names the representation in the validator's type.
#[derive(Clone, Copy, Debug)]
pub struct TapeJson;

/// One string with the slot that describes it.
#[derive(Default)]
pub struct StringBuffer {
    text: String,
    slots: Vec<Slot>,
}

impl std::fmt::Debug for StringBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.text.fmt(f)
    }
}

impl Json for TapeJson {
    type Node<'a> = TapeNode<'a>;
    type PreparedKey = Box<str>;
    type StringBuffer = StringBuffer;

    // A lookup walks the members, so that one pass over them replaces several lookups.
    const KEYS_PER_LOOKUP: usize = 8;
    const ACYCLIC: bool = true;

    fn prepare_key(key: &str) -> Box<str> {
        key.into()
    }

    fn with_string_node<T>(
        buffer: &mut StringBuffer,
        string: &str,
        f: impl FnOnce(TapeNode<'_>) -> T,
    ) -> T {
        buffer.text.clear();
        buffer.text.push_str(string);
        buffer.slots.clear();
        buffer.slots.push(Slot {
            start: 0,
            end: u32::try_from(string.len()).unwrap_or(u32::MAX),
            data: 0,
            kind: Kind::Plain,
        });
        f(TapeNode { text: &buffer.text, slots: &buffer.slots, index: 0 })
    }
}

impl<'a> Node<'a, TapeJson> for TapeNode<'a> {
    type Object = TapeNode<'a>;
    type Array = TapeNode<'a>;
    type Number = TapeNumber<'a>;

    fn as_object(&self) -> Option<TapeNode<'a>> {
        (self.slot().kind == Kind::Object).then_some(*self)
    }

    fn as_array(&self) -> Option<TapeNode<'a>> {
        (self.slot().kind == Kind::Array).then_some(*self)
    }

    fn as_string(&self) -> Option<Cow<'a, str>> {
        self.as_text()
    }

    fn as_number(&self) -> Option<TapeNumber<'a>> {
        let slot = self.slot();
        let integer = slot.kind == Kind::Integer;
        (integer || slot.kind == Kind::Float).then(|| TapeNumber {
            text: self.raw(),
            value: f64::from_bits(slot.data),
            integer,
        })
    }

    fn as_boolean(&self) -> Option<bool> {
        match self.slot().kind {
            Kind::True => Some(true),
            Kind::False => Some(false),
            _ => None,
        }
    }

    fn is_null(&self) -> bool {
        self.slot().kind == Kind::Null
    }

    fn is_number(&self) -> bool {
        matches!(self.slot().kind, Kind::Integer | Kind::Float)
    }

    fn json_type(&self) -> JsonType {
        match self.slot().kind {
            Kind::Null => JsonType::Null,
            Kind::False | Kind::True => JsonType::Boolean,
            Kind::Integer | Kind::Float => JsonType::Number,
            Kind::Plain | Kind::Escaped => JsonType::String,
            Kind::Array => JsonType::Array,
            Kind::Object => JsonType::Object,
        }
    }

    fn to_value(&self) -> Cow<'a, Value> {
        Cow::Owned(match self.slot().kind {
            Kind::Null => Value::Null,
            Kind::False => Value::Bool(false),
            Kind::True => Value::Bool(true),
            Kind::Integer | Kind::Float => self
                .as_number()
                .map_or(Value::Null, |number| Value::Number(number.to_number().into_owned())),
            Kind::Plain | Kind::Escaped => Value::String(self.text().into_owned()),
            Kind::Array => {
                Value::Array(self.elements().map(|node| node.to_value().into_owned()).collect())
            }
            Kind::Object => Value::Object(
                TapeNode::members(self)
                    .map(|(name, node)| (name.text().into_owned(), node.to_value().into_owned()))
                    .collect(),
            ),
        })
    }

    fn identity(&self) -> Option<NodeIdentity> {
        Some(NodeIdentity::tagged(self.slots.as_ptr() as usize, self.index))
    }
}

/// A number in its text.
#[derive(Clone, Copy, Debug)]
pub struct TapeNumber<'a> {
    text: &'a str,
    value: f64,
    integer: bool,
}

impl TapeNumber<'_> {
    /// Below this, every integer is exact as a float.
    const EXACT: f64 = 9_007_199_254_740_992.0;
}

impl JsonNumber for TapeNumber<'_> {
    fn as_u64(&self) -> Option<u64> {
        if !self.integer || self.value.is_sign_negative() {
            return None;
        }
        if self.value < Self::EXACT { Some(self.value as u64) } else { self.text.parse().ok() }
    }

    fn as_i64(&self) -> Option<i64> {
        // "-0" is a float, as serde_json reads it.
        if !self.integer || (self.value == 0.0 && self.value.is_sign_negative()) {
            return None;
        }
        if self.value.abs() < Self::EXACT {
            Some(self.value as i64)
        } else {
            self.text.parse().ok()
        }
    }

    fn as_f64(&self) -> Option<f64> {
        Some(self.value)
    }

    fn as_str(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.text)
    }

    fn to_number(&self) -> Cow<'_, Number> {
        let integer = self.as_u64().map(Number::from).or_else(|| self.as_i64().map(Number::from));
        // A refused value may hold a number that is not finite: it is never shown from here.
        let number = integer.or_else(|| Number::from_f64(self.value));
        Cow::Owned(number.unwrap_or_else(|| Number::from(0)))
    }

    fn is_integer(&self) -> bool {
        self.value.fract() == 0.0
    }
}

impl<'a> Object<'a, TapeJson> for TapeNode<'a> {
    type Node = TapeNode<'a>;
    type MemberName = Cow<'a, str>;
    type MembersIter = NamedMembers<'a>;

    fn len(&self) -> usize {
        self.slot().count()
    }

    fn get(&self, key: &Box<str>) -> Option<TapeNode<'a>> {
        // The last one counts where a name repeats, as in `serde_json::Value`.
        TapeNode::members(self).filter(|(name, _)| name.text_is(key)).last().map(|(_, node)| node)
    }

    fn members(&self) -> NamedMembers<'a> {
        NamedMembers(TapeNode::members(self))
    }

    fn try_for_each_name_node<B>(
        &self,
        _buffer: &mut StringBuffer,
        mut f: impl FnMut(TapeNode<'_>) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        for (name, _) in TapeNode::members(self) {
            f(name)?;
        }
        ControlFlow::Continue(())
    }
}

/// Members with their names as text.
#[derive(Clone, Debug)]
pub struct NamedMembers<'a>(Members<'a>);

impl<'a> Iterator for NamedMembers<'a> {
    type Item = (Cow<'a, str>, TapeNode<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|(name, node)| (name.text(), node))
    }
}

impl<'a> Array<'a, TapeJson> for TapeNode<'a> {
    type Node = TapeNode<'a>;
    type ElementsIter = Elements<'a>;

    fn len(&self) -> usize {
        self.slot().count()
    }

    fn elements(&self) -> Elements<'a> {
        let slot = self.slot();
        let end = slot.next(self.index).min(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        Elements { node: *self, at: self.index + 1, end }
    }
}

/// The elements of an array.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    node: TapeNode<'a>,
    at: u32,
    end: u32,
}

impl<'a> Iterator for Elements<'a> {
    type Item = TapeNode<'a>;

    fn next(&mut self) -> Option<TapeNode<'a>> {
        if self.at >= self.end {
            return None;
        }
        let node = TapeNode { index: self.at, ..self.node };
        self.at = node.slot().next(self.at).max(self.at + 1);
        Some(node)
    }
}
