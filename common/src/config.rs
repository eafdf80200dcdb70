//! Typed configuration: one TOML file, `--set key=value` on top, unknown keys refused, everything
//! that is wrong reported at once with its line, and the effective configuration printed without
//! secrets.

mod source;

use std::path::Path;

use anyhow::{Context, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;
use toml::Value;

use self::source::{Source, Texts};

/// Stands for a secret in what is printed.
const HIDDEN: &str = "(hidden)";

/// Reads `path` (all defaults where there is none), applies the `--set` overrides in order, and
/// deserializes. See [`load_checked`].
///
/// # Errors
/// With everything that can't be read or is unknown.
pub fn load<T: DeserializeOwned>(path: Option<&Path>, overrides: &[String]) -> anyhow::Result<T> {
    load_checked(path, overrides, |_| Vec::new())
}

/// Like [`load`], and adds what `check` finds wrong with the values.
///
/// An override is `dotted.key=value`; the value is read as TOML where that works, and as a plain
/// string where not, so that `--set kafka.bootstrap=127.0.0.1:9092` needs no quotes.
///
/// A problem of `check` begins with the key that it is about (`http.retry_after_s: …`); so it gets
/// the key's line. What could not be read counts as not written, and is not checked.
///
/// # Errors
/// With every problem, one a line: unknown keys, wrong types and values out of range alike. Only
/// text that is not TOML hides what else there is.
pub fn load_checked<T: DeserializeOwned>(
    path: Option<&Path>,
    overrides: &[String],
    check: impl FnOnce(&T) -> Vec<String>,
) -> anyhow::Result<T> {
    let text = match path {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("read the configuration {}", path.display()))?,
        None => String::new(),
    };
    let texts = Texts::new(text, overrides);
    let mut source = Source::new(&texts);
    let value: Option<T> = source.read();
    if let Some(value) = &value {
        for problem in check(value) {
            source.add_checked(&problem);
        }
    }
    let what = path.map_or_else(String::new, |path| format!(" {}", path.display()));
    match (value, source.into_problems()) {
        (Some(value), problems) if problems.is_empty() => Ok(value),
        (_, problems) => {
            bail!("the configuration{what} can't be used:\n  {}", problems.join("\n  "))
        }
    }
}

/// A configuration as TOML, every default included and every secret hidden: texts under a key
/// that is named like one. A path to a secret is none.
///
/// # Errors
/// When it has no form in TOML.
pub fn print<T: Serialize>(config: &T) -> anyhow::Result<String> {
    let mut value = Value::try_from(config).context("the configuration has no form in TOML")?;
    hide(&mut value);
    toml::to_string(&value).context("the configuration has no form in TOML")
}

fn hide(value: &mut Value) {
    match value {
        Value::Table(table) => {
            for (key, value) in table.iter_mut() {
                match value {
                    Value::String(text) if is_secret(key) => *text = HIDDEN.to_owned(),
                    value => hide(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}

fn is_secret(key: &str) -> bool {
    let names = ["password", "secret", "token", "key"];
    !key.ends_with("_file") && names.iter().any(|name| key.split('_').any(|part| part == *name))
}
