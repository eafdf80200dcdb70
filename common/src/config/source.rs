//! A configuration's text, and where in it every key stands.
//!
//! The file and the overrides are read as one text, so that every place in it is one number:
//! the file first, then one line for each override. What is wrong is noted with its place, taken
//! out, and the rest is read again: so one reading finds everything.

use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer};

/// The most problems that are reported.
const PROBLEMS_MAX: usize = 100;

/// A file and its overrides, as they are read.
pub(super) struct Texts {
    file: String,
    overrides: Vec<Override>,
}

struct Override {
    /// As it was given.
    item: String,
    /// Its place in the whole text.
    range: Range<usize>,
    /// As TOML; blanks before it give everything in it its place in the whole text.
    toml: String,
}

impl Texts {
    pub(super) fn new(file: String, overrides: &[String]) -> Self {
        let mut at = file.len() + 1;
        let mut texts = Self { file, overrides: Vec::new() };
        for item in overrides {
            let (blanks, range) = (" ".repeat(at), at..at + item.len());
            let mut toml = format!("{blanks}{item}");
            let is_toml = DeTable::parse(&toml).is_ok();
            if let (false, Some((key, value))) = (is_toml, item.split_once('=')) {
                toml = format!("{blanks}{key}={}", toml::Value::String(value.to_owned()));
            }
            at = range.end.max(toml.len()) + 1;
            texts.overrides.push(Override { item: item.clone(), range: range.start..at - 1, toml });
        }
        texts
    }
}

/// The text and what is wrong with it.
pub(super) struct Source<'a> {
    texts: &'a Texts,
    table: Spanned<DeTable<'a>>,
    /// What could not be read, and so is as if it were not written.
    removed: Vec<String>,
    problems: Vec<(usize, String)>,
    is_toml: bool,
}

impl<'a> Source<'a> {
    pub(super) fn new(texts: &'a Texts) -> Self {
        let (table, errors) = DeTable::parse_recoverable(&texts.file);
        let is_toml = errors.is_empty();
        let mut source = Self { texts, table, removed: Vec::new(), problems: Vec::new(), is_toml };
        for error in errors {
            source.add(error.span().map_or(0, |span| span.start), error.message());
        }
        for item in &texts.overrides {
            if let Err(problem) = source.apply(item) {
                source.add(item.range.start, &problem);
            }
        }
        source
    }

    /// Puts one override on top.
    fn apply(&mut self, item: &'a Override) -> Result<(), String> {
        if !item.item.contains('=') {
            return Err("expected key=value, e.g. --set http.listen=127.0.0.1:8080".into());
        }
        let parsed = DeTable::parse(&item.toml).map_err(|error| error.message().to_owned())?;
        merge(self.table.get_mut(), parsed.into_inner())
    }

    /// Reads the target type; notes and takes out what is wrong until the rest can be read.
    pub(super) fn read<T: DeserializeOwned>(&mut self) -> Option<T> {
        if !self.is_toml {
            return None;
        }
        while self.problems.len() < PROBLEMS_MAX {
            let error = match T::deserialize(Deserializer::from(self.table.clone())) {
                Ok(value) => return Some(value),
                Err(error) => error,
            };
            let Some(path) = error.span().and_then(|span| find_span(self.table.get_ref(), &span))
            else {
                self.add(error.span().map_or(0, |span| span.start), error.message());
                return None;
            };
            let at = error.span().map_or(0, |span| span.start);
            let key = path.join(".");
            self.add(at, &format!("{key}: {}", error.message()));
            remove(self.table.get_mut(), &path);
            self.removed.push(key);
        }
        None
    }

    /// Adds a problem that begins with its key.
    pub(super) fn add_checked(&mut self, problem: &str) {
        let is_key = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let key = problem.split(|c| !is_key(c)).next().unwrap_or_default().trim_matches('.');
        if self.removed.iter().any(|removed| removed == key) {
            return;
        }
        match find_key(self.table.get_ref(), key) {
            Some(at) => self.add(at, problem),
            // After everything that has a place.
            None => self.problems.push((usize::MAX, format!("not set: {problem}"))),
        }
    }

    /// In the order of the text.
    pub(super) fn into_problems(mut self) -> Vec<String> {
        self.problems.sort_by_key(|(at, _)| *at);
        self.problems.into_iter().map(|(_, problem)| problem).collect()
    }

    fn add(&mut self, at: usize, problem: &str) {
        let problem = problem.trim_end().replace('\n', "; ");
        let place = match self.texts.overrides.iter().find(|item| item.range.contains(&at)) {
            Some(item) => format!("--set {}", item.item),
            None => {
                let file = self.texts.file.as_bytes();
                let before = &file[..at.min(file.len())];
                format!("line {}", before.iter().filter(|byte| **byte == b'\n').count() + 1)
            }
        };
        self.problems.push((at, format!("{place}: {problem}")));
    }
}

fn merge<'a>(into: &mut DeTable<'a>, from: DeTable<'a>) -> Result<(), String> {
    for (key, value) in from {
        let name = key.get_ref().to_string();
        let is_section = value.get_ref().is_table();
        match into.get_mut(name.as_str()).map(Spanned::get_mut) {
            Some(DeValue::Table(old)) if is_section => {
                if let DeValue::Table(new) = value.into_inner() {
                    merge(old, new)?;
                }
                continue;
            }
            Some(_) if is_section => return Err(format!("{name:?} is a value, not a section")),
            _ => {}
        }
        // The key too: it has the new place.
        into.remove(name.as_str());
        into.insert(key, value);
    }
    Ok(())
}

fn remove(table: &mut DeTable<'_>, path: &[String]) {
    let Some((first, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        table.remove(first.as_str());
    } else if let Some(DeValue::Table(inner)) = table.get_mut(first.as_str()).map(Spanned::get_mut)
    {
        remove(inner, rest);
    }
}

/// The innermost key at this place, or whose value is there.
fn find_span(table: &DeTable<'_>, span: &Range<usize>) -> Option<Vec<String>> {
    let has = |range: Range<usize>| range.start <= span.start && span.end <= range.end;
    for (key, value) in table {
        let name = || key.get_ref().to_string();
        if let DeValue::Table(inner) = value.get_ref()
            && let Some(mut path) = find_span(inner, span)
        {
            path.insert(0, name());
            return Some(path);
        }
        if has(key.span()) || has(value.span()) {
            return Some(vec![name()]);
        }
    }
    None
}

/// Where a dotted key stands.
fn find_key(table: &DeTable<'_>, dotted: &str) -> Option<usize> {
    let (first, rest) = dotted.split_once('.').unwrap_or((dotted, ""));
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == first)?;
    match value.get_ref() {
        _ if rest.is_empty() => Some(key.span().start),
        DeValue::Table(inner) => find_key(inner, rest),
        _ => None,
    }
}
