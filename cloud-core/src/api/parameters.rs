//! Reads query parameters, and collects everything that is wrong with them.

use penstock_common::event::UnixMicros;

/// The parameters of a request.
pub(super) struct Parameters<'a> {
    given: &'a [(String, String)],
    /// What is wrong so far.
    pub(super) problems: Vec<String>,
}

impl<'a> Parameters<'a> {
    /// Of which only these names are known, and those in `repeatable` may come more than once.
    pub(super) fn new(given: &'a [(String, String)], known: &[&str], repeatable: &[&str]) -> Self {
        let mut problems = Vec::new();
        for (number, (name, value)) in given.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                problems.push(format!("{name}: unknown; known are {}", known.join(", ")));
            } else if !repeatable.contains(&name.as_str())
                && given[..number].iter().any(|(other, _)| other == name)
            {
                problems.push(format!("{name}: given more than once"));
            }
            if value.contains('\0') {
                problems.push(format!("{name}: must not contain NUL"));
            }
        }
        Self { given, problems }
    }

    /// A value; one that is empty is as good as none.
    pub(super) fn text(&self, wanted: &str) -> Option<&'a str> {
        let found = self.given.iter().find(|(name, value)| name == wanted && !value.is_empty());
        found.map(|(_, value)| value.as_str())
    }

    /// All values of a name, each split at commas.
    pub(super) fn list(&self, wanted: &'a str) -> impl Iterator<Item = &'a str> {
        let values = self.given.iter().filter(move |(name, _)| name == wanted);
        values.flat_map(|(_, value)| value.split(',')).map(str::trim).filter(|v| !v.is_empty())
    }

    /// A value that must be there; empty where it is not.
    pub(super) fn required(&mut self, name: &str, example: &str) -> String {
        match self.text(name) {
            Some(text) => text.to_owned(),
            None => {
                self.problems.push(format!("{name}: missing, e.g. {name}={example}"));
                String::new()
            }
        }
    }

    /// A time, µs.
    pub(super) fn time(&mut self, name: &str) -> Option<i64> {
        match UnixMicros::parse_rfc3339(self.text(name)?) {
            Ok(time) => Some(time.0),
            Err(error) => {
                self.problems.push(format!(
                    "{name}: not an RFC 3339 time ({error}); e.g. {name}=2026-01-31T08:00:00Z, \
                     and a + of an offset is written %2B"
                ));
                None
            }
        }
    }

    /// A range of times that must be there; µs.
    pub(super) fn range(&mut self) -> (i64, i64) {
        let mut time = |name: &str| {
            if self.text(name).is_none() {
                self.problems.push(format!("{name}: missing, e.g. {name}=2026-01-31T08:00:00Z"));
            }
            self.time(name)
        };
        let (from, to) = (time("from"), time("to"));
        if let (Some(from), Some(to)) = (from, to)
            && from >= to
        {
            self.problems.push("from: must be before to, which is not included".into());
        }
        (from.unwrap_or_default(), to.unwrap_or_default())
    }

    /// How many at most.
    pub(super) fn limit(&mut self, default: usize, max: usize) -> usize {
        let Some(text) = self.text("limit") else { return default };
        match text.parse() {
            Ok(limit) if (1..=max).contains(&limit) => limit,
            _ => {
                self.problems.push(format!("limit: want a number from 1 to {max}"));
                default
            }
        }
    }

    /// The cursor of a list that belongs to this question.
    pub(super) fn cursor(&mut self, question: &str) -> Option<Vec<String>> {
        let decoded = super::cursor::decode(self.text("cursor")?, question);
        if decoded.is_none() {
            self.problems.push("cursor: of another question; pass next_cursor unchanged".into());
        }
        decoded
    }

    /// Whether all is well.
    pub(super) fn end<T>(self, value: T) -> Result<T, super::Problem> {
        if self.problems.is_empty() {
            Ok(value)
        } else {
            Err(super::Problem::bad_request(self.problems))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mistakes_are_named_together() {
        let given = [
            ("from", "yesterday"),
            ("limit", "0"),
            ("colour", "red"),
            ("stat", "a,b"),
            ("stat", " c"),
            ("q", "a\0"),
            ("limit", "3"),
        ];
        let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let known = ["from", "to", "limit", "stat", "q"];
        let mut parameters = Parameters::new(&given, &known, &["stat"]);
        assert_eq!(parameters.list("stat").collect::<Vec<_>>(), ["a", "b", "c"]);
        parameters.range();
        assert_eq!(parameters.limit(7, 10), 7);
        parameters.required("device", "press-1");
        let problems = parameters.problems;
        for name in
            ["colour:", "q:", "limit: given", "limit: want", "from: not", "to: missing", "device:"]
        {
            assert!(problems.iter().any(|p| p.starts_with(name)), "{name} in {problems:?}");
        }
        assert_eq!(problems.len(), 7);
    }
}
