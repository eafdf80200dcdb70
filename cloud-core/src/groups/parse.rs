//! Reads exports of groups, JSON or CSV, and says all that is wrong with them. Pure.
//!
//! JSON: `{"groups": [{"name": "hall-2", "devices": [{"fleet": "f", "device": "d"}]}]}`. CSV: a
//! header line with the columns `group,fleet,device` in any order, fields quoted as in RFC 4180.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::store::groups::{DeviceName, Groups};

/// Memberships in one import at most.
pub const MEMBERS_MAX: usize = 500_000;
/// Characters of a group's name at most.
const NAME_CHARS_MAX: usize = 128;
/// Mistakes that are named; there may be more.
const MISTAKES_MAX: usize = 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    devices: Vec<Device>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    fleet: String,
    device: String,
}

/// What is wrong, with its place.
struct Mistakes(Vec<String>);

impl Mistakes {
    fn add(&mut self, what: String) {
        if self.0.len() < MISTAKES_MAX {
            self.0.push(what);
        }
    }

    fn check(&mut self, place: &str, group: &str, device: Option<&DeviceName>) {
        let is_good = |text: &str, max: usize| {
            !text.is_empty() && text.chars().count() <= max && !text.contains(char::is_control)
        };
        if !is_good(group, NAME_CHARS_MAX) {
            self.add(format!(
                "{place}: a group's name has 1 to {NAME_CHARS_MAX} characters, none of control"
            ));
        }
        if let Some(DeviceName { fleet, device }) = device
            && !(is_good(fleet, 128) && is_good(device, 128))
        {
            self.add(format!("{place}: fleet and device have 1 to 128 characters each"));
        }
    }

    fn end(self, groups: Groups) -> Result<Groups, Vec<String>> {
        let members: usize = groups.values().map(Vec::len).sum();
        let mut mistakes = self.0;
        if members > MEMBERS_MAX {
            mistakes.push(format!("{members} memberships: at most {MEMBERS_MAX} at once"));
        }
        if mistakes.is_empty() { Ok(groups) } else { Err(mistakes) }
    }
}

/// Reads JSON.
///
/// # Errors
/// With what is wrong.
pub fn json(text: &str) -> Result<Groups, Vec<String>> {
    let document: Document =
        serde_json::from_str(text).map_err(|error| vec![format!("JSON: {error}")])?;
    let mut mistakes = Mistakes(Vec::new());
    let mut groups = Groups::new();
    for (number, group) in document.groups.into_iter().enumerate() {
        let place = format!("/groups/{number}");
        mistakes.check(&place, &group.name, None);
        let mut devices = Vec::with_capacity(group.devices.len());
        for (number, Device { fleet, device }) in group.devices.into_iter().enumerate() {
            let name = DeviceName { fleet, device };
            mistakes.check(&format!("{place}/devices/{number}"), &group.name, Some(&name));
            devices.push(name);
        }
        if groups.insert(group.name.clone(), devices).is_some() {
            mistakes.add(format!("{place}: the group {:?} is there twice", group.name));
        }
    }
    mistakes.end(groups)
}

/// Reads CSV.
///
/// # Errors
/// With what is wrong.
pub fn csv(text: &str) -> Result<Groups, Vec<String>> {
    let mut reader =
        ::csv::ReaderBuilder::new().trim(::csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| vec![format!("CSV: {error}")])?;
    let columns: BTreeMap<&str, usize> = header
        .iter()
        .enumerate()
        .map(|(at, name)| (name.trim_start_matches('\u{feff}'), at))
        .collect();
    let (Some(&group), Some(&fleet), Some(&device)) =
        (columns.get("group"), columns.get("fleet"), columns.get("device"))
    else {
        return Err(vec![format!(
            "CSV: the first line must name the columns group, fleet and device; it is {:?}",
            header.iter().collect::<Vec<_>>().join(",")
        )]);
    };
    let mut mistakes = Mistakes(Vec::new());
    let mut groups = Groups::new();
    for (number, record) in (2..).zip(reader.records()) {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                mistakes.add(format!("CSV: {error}"));
                continue;
            }
        };
        let field = |at: usize| record.get(at).unwrap_or_default().to_owned();
        let name = DeviceName { fleet: field(fleet), device: field(device) };
        let group = field(group);
        mistakes.check(&format!("line {number}"), &group, Some(&name));
        groups.entry(group).or_default().push(name);
    }
    mistakes.end(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(fleet: &str, device: &str) -> DeviceName {
        DeviceName { fleet: fleet.into(), device: device.into() }
    }

    #[test]
    fn both_forms_say_the_same() {
        let from_json = json(
            r#"{"groups":[{"name":"hall 2","devices":[{"fleet":"f","device":"a"},
                {"fleet":"f","device":"b"}]},{"name":"all","devices":[{"fleet":"f","device":"a"}]}]}"#,
        )
        .unwrap();
        let from_csv =
            csv("\u{feff}device,group,fleet\r\na,\"hall 2\",f\r\nb,hall 2,f\r\na,all,f\r\n")
                .unwrap();
        assert_eq!(from_json, from_csv);
        assert_eq!(from_json["hall 2"], [device("f", "a"), device("f", "b")]);
    }

    #[test]
    fn an_empty_group_is_one_to_remove() {
        assert_eq!(json(r#"{"groups":[{"name":"x","devices":[]}]}"#).unwrap()["x"], []);
        assert_eq!(json(r#"{"groups":[]}"#).unwrap(), Groups::new());
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let wrong = json(
            r#"{"groups":[{"name":"","devices":[{"fleet":"","device":"a"}]},
                {"name":"x","devices":[]},{"name":"x","devices":[]}]}"#,
        )
        .unwrap_err();
        assert!(wrong[0].starts_with("/groups/0:"), "{wrong:?}");
        assert!(wrong.iter().any(|text| text.starts_with("/groups/0/devices/0:")), "{wrong:?}");
        assert!(wrong.iter().any(|text| text.starts_with("/groups/2:")), "{wrong:?}");
        assert!(json("{").unwrap_err()[0].starts_with("JSON:"));
        assert!(json(r#"{"groups":[],"x":1}"#).unwrap_err()[0].contains("unknown field"));
        assert!(csv("a,b\n1,2\n").unwrap_err()[0].contains("group, fleet and device"));
        let wrong = csv("group,fleet,device\ng,f,d\ng,f\n,f,d\n").unwrap_err();
        assert_eq!(wrong.len(), 2, "{wrong:?}");
        assert!(wrong[1].starts_with("line 4:"), "{wrong:?}");
    }
}
