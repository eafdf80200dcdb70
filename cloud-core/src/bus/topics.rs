//! `topics apply`: creates the pipeline's topics and brings their settings in line (spec Q1).
//!
//! The number of partitions is never changed: a device's partition follows from it, and order is
//! kept by partition. A difference is reported with what to do about it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use penstock_common::topic::Topic;

use super::BusError;

/// What a topic shall be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPlan {
    /// The full name.
    pub name: String,
    /// How many partitions.
    pub partitions: i32,
    /// How many copies, when it is created.
    pub replication: i32,
    /// The settings that we own; others are left as they are.
    pub settings: BTreeMap<String, String>,
}

/// What a topic is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicState {
    /// How many partitions.
    pub partitions: i32,
    /// All effective settings.
    pub settings: BTreeMap<String, String>,
    /// Which of them were set on the topic itself.
    pub overridden: Vec<String>,
}

/// What administration needs of a bus.
#[async_trait]
pub trait TopicAdmin: Send + Sync {
    /// The topic as it is, if it is.
    async fn describe(&self, name: &str) -> Result<Option<TopicState>, BusError>;
    /// Creates it; one that exists already is no error.
    async fn create(&self, plan: &TopicPlan) -> Result<(), BusError>;
    /// Makes `settings` the whole of the topic's own settings.
    async fn set(&self, name: &str, settings: &BTreeMap<String, String>) -> Result<(), BusError>;
}

/// What to do about one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Keep,
    /// It does not exist.
    Create,
    /// These of our settings differ (name, from, to).
    Settings(Vec<(String, String, String)>),
    /// Somebody has to decide.
    Refuse(String),
}

/// The topics of an installation.
pub fn plans(prefix: &str, replication: i32, min_insync_replicas: i32) -> Vec<TopicPlan> {
    let plan = |topic: Topic| {
        let spec = topic.spec();
        let settings = [
            ("cleanup.policy", "delete".to_owned()),
            ("max.message.bytes", spec.message_bytes_max.to_string()),
            ("message.timestamp.type", "LogAppendTime".to_owned()),
            ("min.insync.replicas", min_insync_replicas.to_string()),
            ("retention.bytes", spec.retention_bytes_per_partition.to_string()),
            ("retention.ms", spec.retention.as_millis().to_string()),
        ];
        TopicPlan {
            name: topic.name(prefix),
            partitions: spec.partitions,
            replication,
            settings: settings.map(|(key, value)| (key.to_owned(), value)).into(),
        }
    };
    Topic::ALL.map(plan).to_vec()
}

/// Compares a topic with its plan.
pub fn compare(plan: &TopicPlan, state: Option<&TopicState>) -> Change {
    let Some(state) = state else { return Change::Create };
    if state.partitions != plan.partitions {
        return Change::Refuse(format!(
            "{} has {} partitions, wanted are {}. The number is never changed on a topic in use: \
             devices would move between partitions and lose their order. Use another \
             kafka.topic_prefix, or drain and delete the topic, then apply again.",
            plan.name, state.partitions, plan.partitions
        ));
    }
    let is = |key: &String| state.settings.get(key).cloned().unwrap_or_else(|| "unset".into());
    let differing: Vec<_> = plan
        .settings
        .iter()
        .filter(|(key, wanted)| state.settings.get(*key) != Some(*wanted))
        .map(|(key, wanted)| (key.clone(), is(key), wanted.clone()))
        .collect();
    if differing.is_empty() { Change::Keep } else { Change::Settings(differing) }
}

/// What `apply` did or would do, a line a topic; `refused` says that some need a person.
#[derive(Debug, Default)]
pub struct Report {
    /// In plain words.
    pub lines: Vec<String>,
    /// How many topics were (or would be) created or altered.
    pub changed: usize,
    /// How many topics could not be brought in line.
    pub refused: usize,
}

/// Brings the topics in line; with `dry_run` only says what it would do.
///
/// # Errors
/// When the bus can't be reached or refuses.
pub async fn apply(
    admin: &dyn TopicAdmin,
    plans: &[TopicPlan],
    dry_run: bool,
) -> Result<Report, BusError> {
    let mut report = Report::default();
    let (created, set) = if dry_run { ("would create", "would set") } else { ("created", "set") };
    for plan in plans {
        let state = admin.describe(&plan.name).await?;
        let line = match compare(plan, state.as_ref()) {
            Change::Keep => format!("{}: in line", plan.name),
            Change::Create => {
                if !dry_run {
                    admin.create(plan).await?;
                }
                report.changed += 1;
                let (partitions, copies) = (plan.partitions, plan.replication);
                format!("{}: {created} with {partitions} partitions, {copies} copies", plan.name)
            }
            Change::Settings(differing) => {
                if !dry_run {
                    admin.set(&plan.name, &merged(plan, &state.unwrap_or_default())).await?;
                }
                report.changed += 1;
                let each = differing.iter().map(|(key, is, to)| format!("{key} from {is} to {to}"));
                format!("{}: {set} {}", plan.name, each.collect::<Vec<_>>().join(", "))
            }
            Change::Refuse(reason) => {
                report.refused += 1;
                reason
            }
        };
        report.lines.push(line);
    }
    Ok(report)
}

/// Our settings over those that somebody else set on the topic.
fn merged(plan: &TopicPlan, state: &TopicState) -> BTreeMap<String, String> {
    let theirs = state
        .overridden
        .iter()
        .filter_map(|key| state.settings.get(key).map(|value| (key.clone(), value.clone())));
    let mut all: BTreeMap<String, String> = theirs.collect();
    all.extend(plan.settings.clone());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(plan: &TopicPlan) -> TopicState {
        let overridden = plan.settings.keys().cloned().collect();
        TopicState { partitions: plan.partitions, settings: plan.settings.clone(), overridden }
    }

    #[test]
    fn every_topic_gets_append_times_and_bounds() {
        for plan in plans("p.", 3, 2) {
            assert!(plan.name.starts_with("p."));
            assert_eq!(plan.settings["message.timestamp.type"], "LogAppendTime");
            assert!(plan.settings["retention.ms"].parse::<i64>().unwrap() > 0);
            assert!(plan.settings["retention.bytes"].parse::<i64>().unwrap() > 0);
            assert_eq!(compare(&plan, None), Change::Create);
            assert_eq!(compare(&plan, Some(&state(&plan))), Change::Keep);
        }
    }

    #[test]
    fn a_setting_is_brought_in_line_and_foreign_ones_stay() {
        let plan = &plans("", 1, 1)[0];
        let mut is = state(plan);
        is.settings.insert("retention.ms".into(), "1".into());
        is.settings.insert("segment.ms".into(), "5".into());
        is.overridden.push("segment.ms".into());
        let wanted = plan.settings["retention.ms"].clone();
        let change = compare(plan, Some(&is));
        assert_eq!(change, Change::Settings(vec![("retention.ms".into(), "1".into(), wanted)]));
        let all = merged(plan, &is);
        assert_eq!(all["segment.ms"], "5");
        assert_eq!(all["retention.ms"], plan.settings["retention.ms"]);
    }

    #[test]
    fn a_partition_count_is_never_changed() {
        let plan = &plans("", 1, 1)[0];
        for partitions in [plan.partitions - 1, plan.partitions + 1] {
            let is = TopicState { partitions, ..state(plan) };
            let Change::Refuse(reason) = compare(plan, Some(&is)) else { panic!("not refused") };
            assert!(reason.contains("topic_prefix"), "{reason}");
        }
    }
}
