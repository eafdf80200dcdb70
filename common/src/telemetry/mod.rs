//! Logs, the last complaints among them, and traces. Metrics live in each stage's `metrics.rs`, on one `prometheus::Registry` per process.

mod recent;
pub mod traces;

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

pub use self::recent::{Complaint, Recent};

/// As the subscriber is the process's, so is this.
static RECENT: LazyLock<Recent> = LazyLock::new(Recent::default);

/// The process's last warnings and errors; none before [`init`].
pub fn recent() -> Recent {
    RECENT.clone()
}

/// How a process logs, always to standard error.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A filter such as `info` or `info,edge_gateway=debug`.
    pub filter: String,
    /// `text` for people, `json` for collectors.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Text }
    }
}

/// Installs the process's subscriber.
///
/// # Errors
/// When the filter can't be read, or a subscriber is installed already.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|error| anyhow::anyhow!("log.filter {:?}: {error}", config.filter))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    let registry = tracing_subscriber::registry().with(filter).with(lines).with(recent());
    registry.try_init().map_err(|error| anyhow::anyhow!("install the log subscriber: {error}"))
}
