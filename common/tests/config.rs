//! The configuration file as people get to know it: everything wrong at once, with its line.

use serde::{Deserialize, Serialize};

use penstock_common::config::{load, load_checked, print};

#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Sample {
    ready_file: Option<String>,
    http: Http,
    name: String,
}

#[derive(Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Http {
    listen: String,
    limit: u32,
    password: String,
    password_file: String,
    retry: Vec<u32>,
}

fn told(text: &str, set: &[&str], check: impl FnOnce(&Sample) -> Vec<String>) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    let set: Vec<String> = set.iter().map(|item| (*item).to_owned()).collect();
    match load_checked(Some(&path), &set, check) {
        Ok(_) => Vec::new(),
        Err(error) => format!("{error:#}").lines().skip(1).map(|l| l.trim().to_owned()).collect(),
    }
}

#[test]
fn overrides_reach_into_sections_and_need_no_quotes() {
    let set = ["http.listen=127.0.0.1:80", "http.limit=7", "name=a b"].map(String::from);
    let sample: Sample = load(None, &set).unwrap();
    let http = Http { listen: "127.0.0.1:80".into(), limit: 7, ..Http::default() };
    assert_eq!(sample, Sample { name: "a b".into(), http, ready_file: None });
}

#[test]
fn the_last_override_wins_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, "name = \"x\"\n[http]\nlimit = 3\nlisten = \"a\"\n").unwrap();
    let set = ["http.limit=4", "http.limit=5"].map(String::from);
    let sample: Sample = load(Some(&path), &set).unwrap();
    assert_eq!((sample.http.limit, sample.http.listen.as_str()), (5, "a"));
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_line() {
    let text = "nam = \"x\"\nname = 5\n[http]\n# a comment\nlimmit = 3\nlimit = \"many\"\n\
                listen = \"x\"\nretry = [1, \"two\"]\n[http2]\na = 1\n";
    let set = ["http.password=5", "http.nope=1", "name.x=1", "what"];
    let problems = told(text, &set, |sample| {
        assert_eq!(sample.http.listen, "x");
        vec![
            "http.listen: \"x\"; expected an address".into(),
            "http.limit: 0; expected 1 to 9".into(),
            "ready_file: is missing".into(),
        ]
    });
    let starts = [
        "line 1: nam: unknown field",
        "line 2: name: invalid type: integer `5`, expected a string",
        "line 5: http.limmit: unknown field",
        "line 6: http.limit: invalid type",
        "line 7: http.listen: \"x\"; expected an address",
        "line 8: http.retry: invalid type",
        "line 9: http2: unknown field",
        "--set http.password=5: http.password: invalid type",
        "--set http.nope=1: http.nope: unknown field",
        "--set name.x=1: \"name\" is a value, not a section",
        "--set what: expected key=value",
        "not set: ready_file: is missing",
    ];
    assert_eq!(problems.len(), starts.len(), "{problems:#?}");
    for (problem, start) in problems.iter().zip(starts) {
        assert!(problem.starts_with(start), "{problem:?} does not start with {start:?}");
    }
}

#[test]
fn text_that_is_not_toml_is_told_with_all_its_lines() {
    let problems = told("name = \n[http]\nlimit = 3\nlimit = 4\n", &[], |_| Vec::new());
    assert_eq!(problems.len(), 2, "{problems:#?}");
    assert!(problems[0].starts_with("line 1: "), "{problems:#?}");
    assert!(problems[1].starts_with("line 4: "), "{problems:#?}");
}

#[test]
fn what_is_printed_can_be_read_again_and_has_no_secret() {
    let set = ["http.password=hunter2", "http.password_file=/run/p", "http.limit=7", "name=n"];
    let mut sample: Sample = load(None, &set.map(String::from)).unwrap();
    let text = print(&sample).unwrap();
    assert!(!text.contains("hunter2") && text.contains("/run/p"), "{text}");
    sample.http.password = "(hidden)".into();
    assert_eq!(toml::from_str::<Sample>(&text).unwrap(), sample, "{text}");
}
