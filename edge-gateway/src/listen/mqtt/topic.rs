//! Topic templates (pure): `penstock/{fleet}/{device}/events` as a filter to subscribe to, as a
//! pattern that reads fleet and device out of a topic, and as a topic to publish on.

use std::fmt;
use std::str::FromStr;

/// The longest template, in bytes; MQTT itself allows 65,535.
const TEMPLATE_BYTES_MAX: usize = 1_024;

/// One level of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Literal(String),
    Fleet,
    Device,
    /// `+`: any one level.
    Any,
    /// `#`, as the last: all that follows.
    Rest,
}

/// A topic template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Level>);

/// What a topic says of who published there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) fleet: Option<&'a str>,
    pub(super) device: Option<&'a str>,
}

impl FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() || text.len() > TEMPLATE_BYTES_MAX {
            return Err(format!("{text:?}; expected 1 to {TEMPLATE_BYTES_MAX} bytes"));
        }
        if text.starts_with('$') || text.contains('\0') {
            return Err(format!("{text:?}; topics of the broker itself ($…) can't be used"));
        }
        let mut levels = Vec::new();
        for part in text.split('/') {
            if levels.last() == Some(&Level::Rest) {
                return Err(format!("{text:?}; # must be the last level"));
            }
            levels.push(match part {
                "{fleet}" => Level::Fleet,
                "{device}" => Level::Device,
                "+" => Level::Any,
                "#" => Level::Rest,
                literal if literal.contains(['+', '#', '{', '}']) => {
                    let expected = "{fleet}, {device}, + and # each stand for a whole level";
                    return Err(format!("{text:?}, level {literal:?}; {expected}"));
                }
                literal => Level::Literal(literal.to_owned()),
            });
        }
        for placeholder in [Level::Fleet, Level::Device] {
            if levels.iter().filter(|level| **level == placeholder).count() > 1 {
                return Err(format!("{text:?}; {{fleet}} and {{device}} at most once each"));
            }
        }
        Ok(Self(levels))
    }
}

impl Template {
    /// The filter that matches every topic of this template.
    pub(super) fn filter(&self) -> String {
        let levels = self.0.iter().map(|level| match level {
            Level::Literal(literal) => literal.as_str(),
            Level::Fleet | Level::Device | Level::Any => "+",
            Level::Rest => "#",
        });
        levels.collect::<Vec<_>>().join("/")
    }

    /// Reads a topic of this template; `None` if it is not one.
    pub(super) fn read<'a>(&self, topic: &'a str) -> Option<Place<'a>> {
        let mut place = Place::default();
        let mut parts = topic.split('/');
        for level in &self.0 {
            if *level == Level::Rest {
                // `a/#` matches `a` as well.
                return Some(place);
            }
            let part = parts.next()?;
            match level {
                Level::Literal(literal) if literal != part => return None,
                Level::Literal(_) | Level::Any | Level::Rest => {}
                Level::Fleet => place.fleet = Some(part),
                Level::Device => place.device = Some(part),
            }
        }
        parts.next().is_none().then_some(place)
    }

    /// Whether a topic can be made of it by filling in fleet and device.
    pub(super) fn is_complete(&self) -> bool {
        !self.0.iter().any(|level| matches!(level, Level::Any | Level::Rest))
    }

    /// The topic for that fleet and device; `None` where one is needed and missing, or is nothing
    /// that can be a level of a topic.
    pub(super) fn fill(&self, place: Place<'_>) -> Option<String> {
        let mut topic = String::new();
        for (position, level) in self.0.iter().enumerate() {
            if position > 0 {
                topic.push('/');
            }
            topic.push_str(match level {
                Level::Literal(literal) => literal,
                Level::Fleet => place.fleet.filter(|text| is_level(text))?,
                Level::Device => place.device.filter(|text| is_level(text))?,
                Level::Any | Level::Rest => return None,
            });
        }
        Some(topic)
    }

    /// Whether a topic of the one may be a topic of the other.
    pub(super) fn overlaps(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.0.iter(), other.0.iter());
        loop {
            match (ours.next(), theirs.next()) {
                (None, None) | (Some(Level::Rest), _) | (_, Some(Level::Rest)) => return true,
                (Some(Level::Literal(a)), Some(Level::Literal(b))) if a != b => return false,
                (Some(_), Some(_)) => {}
                (None, Some(_)) | (Some(_), None) => return false,
            }
        }
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, level) in self.0.iter().enumerate() {
            let slash = if position > 0 { "/" } else { "" };
            let text = match level {
                Level::Literal(literal) => literal,
                Level::Fleet => "{fleet}",
                Level::Device => "{device}",
                Level::Any => "+",
                Level::Rest => "#",
            };
            write!(f, "{slash}{text}")?;
        }
        Ok(())
    }
}

/// Whether the text can be one level of a topic that is published on. What a device calls itself
/// must not lead the gateway's answer elsewhere.
fn is_level(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 128
        && !text.starts_with('$')
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"/+#".contains(&byte))
}

/// Whether a fleet can be called so: 1 to 64 of `A-Z a-z 0-9 . _ -`.
pub(super) fn is_fleet_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=64).contains(&text.len()) && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(text: &str) -> Template {
        text.parse().unwrap()
    }

    fn place<'a>(fleet: Option<&'a str>, device: Option<&'a str>) -> Place<'a> {
        Place { fleet, device }
    }

    #[test]
    fn a_template_is_a_filter_a_pattern_and_a_topic() {
        let events = template("penstock/{fleet}/{device}/events");
        assert_eq!(events.filter(), "penstock/+/+/events");
        assert_eq!(events.to_string(), "penstock/{fleet}/{device}/events");
        let read = events.read("penstock/line-1/press-17/events");
        assert_eq!(read, Some(place(Some("line-1"), Some("press-17"))));
        for other in ["penstock/line-1/press-17", "penstock/a/b/c/events", "x/a/b/events", ""] {
            assert_eq!(events.read(other), None, "{other}");
        }
        let filled = events.fill(place(Some("line-1"), Some("press-17")));
        assert_eq!(filled.as_deref(), Some("penstock/line-1/press-17/events"));
        assert_eq!(events.fill(place(None, Some("press-17"))), None);
    }

    #[test]
    fn wildcards_match_as_in_mqtt() {
        let any = template("plant/+/{device}/#");
        assert_eq!(any.filter(), "plant/+/+/#");
        for topic in ["plant/x/d", "plant/x/d/e", "plant/x/d/e/f"] {
            assert_eq!(any.read(topic), Some(place(None, Some("d"))), "{topic}");
        }
        assert_eq!(any.read("plant/x"), None);
        assert!(!any.is_complete() && template("a/{device}").is_complete());
        assert_eq!(template("#").read("anything/at/all"), Some(Place::default()));
        // An empty level is a level.
        assert_eq!(template("a/{device}/b").read("a//b"), Some(place(None, Some(""))));
    }

    #[test]
    fn what_is_no_template_is_said() {
        for (text, says) in [
            ("", "expected 1 to"),
            ("$SYS/broker", "$…"),
            ("a/#/b", "last level"),
            ("a/b+", "whole level"),
            ("a/{Device}", "whole level"),
            ("{device}/{device}", "at most once"),
        ] {
            let error = text.parse::<Template>().unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_device_cannot_lead_an_answer_elsewhere() {
        let errors = template("penstock/{device}/errors");
        for device in ["", "a/b", "+", "#", "$SYS", "a b", "käse", "a\0", &"x".repeat(129)] {
            assert_eq!(errors.fill(place(None, Some(device))), None, "{device:?}");
        }
        let plain = errors.fill(place(None, Some("press:17.a_b")));
        assert_eq!(plain.as_deref(), Some("penstock/press:17.a_b/errors"));
    }

    #[test]
    fn overlapping_templates_are_found() {
        let errors = template("penstock/{fleet}/{device}/errors");
        for (events, overlaps) in [
            ("penstock/{fleet}/{device}/events", false),
            ("penstock/{fleet}/{device}/+", true),
            ("penstock/#", true),
            ("penstock/{device}/errors", false),
            ("+/+/+/errors", true),
            ("other/#", false),
        ] {
            assert_eq!(template(events).overlaps(&errors), overlaps, "{events}");
            assert_eq!(errors.overlaps(&template(events)), overlaps, "{events}");
        }
    }
}
