//! Which metrics of an event count: those that the schema of the event's own version knows,
//! deprecated ones too (spec E3, E4). A metric that a later version adds counts from then on, in
//! events of that version (spec P6).

use std::sync::Arc;

use penstock_common::schema::SchemaSet;

/// A metric that some schema knows, by number.
pub type Metric = u32;

/// The known metrics of each schema version.
#[derive(Clone, Debug)]
pub struct CountedMetrics {
    /// In alphabetical order; their places are their numbers.
    names: Arc<[Arc<str>]>,
    /// Ascending by version.
    versions: Arc<[(u32, Box<[Metric]>)]>,
}

impl CountedMetrics {
    /// Those of all versions of the set.
    pub fn new(schemas: &SchemaSet) -> Self {
        Self::from_versions(
            schemas.schemas().iter().map(|schema| (schema.version(), schema.metrics())),
        )
    }

    /// From version numbers and the names that they know.
    pub fn from_versions<'a, N>(versions: impl IntoIterator<Item = (u32, N)>) -> Self
    where
        N: IntoIterator<Item = &'a str>,
    {
        let known = |(version, names): (u32, N)| (version, names.into_iter().collect::<Vec<_>>());
        let mut versions: Vec<(u32, Vec<&str>)> = versions.into_iter().map(known).collect();
        versions.sort_unstable_by_key(|(version, _)| *version);
        let mut names: Vec<&str> = versions.iter().flat_map(|(_, names)| names).copied().collect();
        names.sort_unstable();
        names.dedup();
        let number = |name: &&str| names.binary_search(name).ok().map(|at| at as Metric);
        let versions = versions
            .iter()
            .map(|(version, known)| (*version, known.iter().filter_map(number).collect()))
            .collect();
        Self { versions, names: names.into_iter().map(Arc::from).collect() }
    }

    /// The metric of that name in an event of that schema version; none when it does not count.
    pub fn metric(&self, schema_version: u32, name: &str) -> Option<Metric> {
        let at = self.versions.binary_search_by_key(&schema_version, |known| known.0).ok()?;
        let known = self.versions[at].1.iter().copied();
        // A handful: faster than hashing.
        known.into_iter().find(|metric| &*self.names[*metric as usize] == name)
    }

    /// A metric's name.
    pub fn name(&self, metric: Metric) -> &Arc<str> {
        &self.names[metric as usize]
    }

    /// How many metrics any version knows.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether no version knows any.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_counts_from_the_version_on_that_knows_it() {
        let metrics = CountedMetrics::new(&SchemaSet::baked().unwrap());
        let counts = |version, name| metrics.metric(version, name).is_some();
        assert!(counts(1, "cpu_temp") && !counts(1, "humidity") && counts(2, "humidity"));
        assert!(counts(3, "supply_voltage"), "deprecated, and known");
        assert!(!counts(3, "unheard_of") && !counts(9_999, "cpu_temp"));
        assert_eq!(metrics.metric(1, "cpu_temp"), metrics.metric(3, "cpu_temp"));
        let humidity = metrics.metric(2, "humidity").unwrap();
        assert_eq!(&**metrics.name(humidity), "humidity");
    }
}
