//! What a run leaves on the broker, and what it weighs there.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use penstock_common::topic::Topic;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::{Offset, TopicPartitionList};

use super::repo_dir;

/// Removes a run's topics.
///
/// # Errors
/// When the broker does not answer.
pub async fn delete_topics(kafka: &str, prefix: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create().context("reach Kafka")?;
    let names = Topic::ALL.map(|topic| topic.name(prefix));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    admin.delete_topics(&names, &options).await.context("delete the run's topics")?;
    Ok(())
}

/// Deletes the records of a partition before `offset`, as an operator or a broken broker would.
///
/// # Errors
/// When the broker refuses.
pub async fn delete_records(
    kafka: &str,
    topic: &str,
    partition: i32,
    offset: i64,
) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create().context("reach Kafka")?;
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    let deleted = admin.delete_records(&before, &options).await;
    let deleted = deleted.with_context(|| format!("delete records of {topic}/{partition}"))?;
    deleted.elements().iter().try_for_each(|element| {
        element.error().with_context(|| format!("delete records of {topic}/{partition}"))
    })
}

/// Creates a topic whose partitions are on these brokers, the first of each its leader.
///
/// # Errors
/// When the broker refuses.
pub async fn create_topic_on(
    kafka: &str,
    topic: &str,
    brokers_of_partitions: &[&[i32]],
) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create().context("reach Kafka")?;
    let partitions = i32::try_from(brokers_of_partitions.len())?;
    let replication = TopicReplication::Variable(brokers_of_partitions);
    let topics = [NewTopic::new(topic, partitions, replication)];
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    let created = admin.create_topics(&topics, &options).await.context("create a topic")?;
    for result in created {
        result.map_err(|(name, code)| anyhow::anyhow!("create {name}: {code}"))?;
    }
    Ok(())
}

/// Takes the right to write to a topic from a user, or gives it back.
///
/// # Errors
/// When Kafka's own tool fails.
pub async fn forbid(
    kafka: &str,
    topic: &str,
    user: &str,
    is_forbidden: bool,
) -> anyhow::Result<()> {
    let output = tokio::process::Command::new(repo_dir()?.join("deploy/local/kafka/tool"))
        .args(["org.apache.kafka.tools.AclCommand", "--bootstrap-server", kafka, "--force"])
        .args([if is_forbidden { "--add" } else { "--remove" }, "--topic", topic])
        .args(["--deny-principal", &format!("User:{user}"), "--operation", "Write"])
        .output()
        .await
        .context("run Kafka's tool for access rules")?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "Kafka's tool for access rules: {said}");
    Ok(())
}

/// The bytes of a topic's segments on the private broker's disk.
///
/// # Errors
/// When the broker's directory can't be read.
pub fn topic_bytes(local_dir: &Path, topic: &str) -> anyhow::Result<u64> {
    let data = local_dir.join("kafka").join("data");
    let mut bytes = 0;
    let partitions =
        std::fs::read_dir(&data).with_context(|| format!("read {}", data.display()))?;
    for partition in partitions {
        let partition = partition?;
        let name = partition.file_name();
        let is_of_topic = name
            .to_str()
            .and_then(|name| name.strip_prefix(topic)?.strip_prefix('-'))
            .is_some_and(|number| number.parse::<u32>().is_ok());
        if !is_of_topic {
            continue;
        }
        for file in std::fs::read_dir(partition.path())? {
            let file = file?;
            if file.path().extension().is_some_and(|extension| extension == "log") {
                bytes += file.metadata()?.len();
            }
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_segments_of_that_topic_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        for (partition, file, bytes) in [
            ("a.raw-events-0", "0.log", 3),
            ("a.raw-events-12", "0.log", 4),
            ("a.raw-events-0", "0.index", 100),
            ("a.raw-events-x-0", "0.log", 100),
            ("b.raw-events-0", "0.log", 100),
        ] {
            let partition = dir.path().join("kafka/data").join(partition);
            std::fs::create_dir_all(&partition).unwrap();
            std::fs::write(partition.join(file), vec![0; bytes]).unwrap();
        }
        assert_eq!(topic_bytes(dir.path(), "a.raw-events").unwrap(), 7);
    }
}
