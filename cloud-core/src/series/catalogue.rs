//! What the schemas say about the metrics. Pure.

use std::collections::BTreeMap;

use penstock_common::schema::SchemaSet;
use serde_json::Value;

/// A metric, in the words of the newest schema that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMetric {
    /// Its name.
    pub name: String,
    /// For people.
    pub title: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// Its unit.
    pub unit: Option<String>,
    /// New devices should not be asked for it.
    pub deprecated: bool,
    /// The first version that knows it.
    pub since_schema: u32,
}

/// All metrics that any version knows, by name.
pub fn known_metrics(schemas: &SchemaSet) -> Vec<KnownMetric> {
    let mut known: BTreeMap<&str, KnownMetric> = BTreeMap::new();
    // Ascending: later words replace earlier ones, and the first version stays.
    for schema in schemas.schemas() {
        for name in schema.metrics() {
            let said = &schema.document()["properties"]["metrics"]["properties"][name];
            let text = |key: &str| said[key].as_str().map(str::to_owned);
            let since_schema = known.get(name).map_or(schema.version(), |known| known.since_schema);
            let metric = KnownMetric {
                name: name.to_owned(),
                title: text("title"),
                description: text("description"),
                unit: text("x-unit"),
                deprecated: said["deprecated"] == Value::Bool(true),
                since_schema,
            };
            known.insert(name, metric);
        }
    }
    known.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_words_and_the_first_version() {
        let known = known_metrics(&SchemaSet::baked().unwrap());
        let of = |name: &str| known.iter().find(|metric| metric.name == name).unwrap();
        assert_eq!((of("cpu_temp").since_schema, of("humidity").since_schema), (1, 2));
        assert_eq!(of("cpu_temp").unit.as_deref(), Some("°C"));
        assert!(of("supply_voltage").deprecated && !of("cpu_temp").deprecated);
        assert!(known.is_sorted_by(|a, b| a.name < b.name));
    }
}
