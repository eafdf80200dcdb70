//! Typed configuration: one TOML file, `--set key=value` on top, unknown keys refused.

use std::path::Path;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use toml::{Table, Value};

/// Reads `path` (all defaults where there is none), applies the `--set` overrides in order, and
/// deserializes.
///
/// An override is `dotted.key=value`; the value is read as TOML where that works, and as a plain
/// string where not, so that `--set kafka.bootstrap=127.0.0.1:9092` needs no quotes.
///
/// # Errors
/// With the file, and the line or key, when something can't be read or is unknown.
pub fn load<T: DeserializeOwned>(path: Option<&Path>, overrides: &[String]) -> anyhow::Result<T> {
    let mut table = match path {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("read the configuration {}", path.display()))?;
            // Read as the target type first: its errors carry the line.
            let table: Table = toml::from_str(&text)
                .with_context(|| format!("the configuration {} is not TOML", path.display()))?;
            if overrides.is_empty() {
                return toml::from_str(&text)
                    .with_context(|| format!("the configuration {}", path.display()));
            }
            table
        }
        None => Table::new(),
    };
    for item in overrides {
        apply(&mut table, item)?;
    }
    T::deserialize(table).context("the configuration with its --set overrides")
}

fn apply(table: &mut Table, item: &str) -> anyhow::Result<()> {
    let Some((key, value)) = item.split_once('=') else {
        bail!("--set {item:?}: expected key=value, e.g. --set http.listen=127.0.0.1:8080");
    };
    let value = toml::from_str::<Table>(&format!("v = {value}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("v"))
        .unwrap_or_else(|| Value::String(value.to_owned()));
    let mut parts: Vec<&str> = key.split('.').collect();
    let last = parts.pop().unwrap_or(key);
    let mut at = table;
    for part in parts {
        let entry = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(next) = entry else {
            bail!("--set {item:?}: {part:?} is a value, not a section");
        };
        at = next;
    }
    at.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Sample {
        name: String,
        http: Http,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields, default)]
    struct Http {
        listen: String,
        limit: u32,
    }

    #[test]
    fn overrides_reach_into_sections_and_need_no_quotes() {
        let set = ["http.listen=127.0.0.1:80", "http.limit=7", "name=a b"].map(String::from);
        let sample: Sample = load(None, &set).unwrap();
        let http = Http { listen: "127.0.0.1:80".into(), limit: 7 };
        assert_eq!(sample, Sample { name: "a b".into(), http });
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.toml");
        std::fs::write(&path, "name = \"x\"\n[http]\nlimmit = 3\n").unwrap();
        let error = format!("{:#}", load::<Sample>(Some(&path), &[]).unwrap_err());
        assert!(error.contains("line 3") && error.contains("limmit"), "{error}");
        let error = load::<Sample>(None, &["http.nope=1".into()]).unwrap_err();
        assert!(format!("{error:#}").contains("nope"), "{error:#}");
    }
}
