//! What the guest's gateway is given: its files, all of them written here.

use std::path::Path;

use anyhow::Context;

/// Where the gateway listens in the guest.
pub(super) const HTTP_PORT: u16 = 8080;
/// Where it shows its health and metrics there.
pub(super) const ADMIN_PORT: u16 = 8081;
/// The fleet of its devices.
pub(super) const FLEET: &str = "sim";
/// Small, so that segments are begun, finished and given back all the time.
const SEGMENT_BYTES: u64 = 32 << 10;
/// Room for what many lives without a link leave behind.
const SPOOL_BYTES_MAX: u64 = 64 << 20;

/// Writes what the guest has in `/etc/penstock` into `dir`.
///
/// # Errors
/// When it can't be written.
pub(super) fn write(dir: &Path, kafka: &str, topic_prefix: &str) -> anyhow::Result<()> {
    let toml = format!(
        "[gateway]\nname = \"gw-1\"\nfleet = {FLEET:?}\n\
         [http]\nlisten = \"0.0.0.0:{HTTP_PORT}\"\nretry_after_s = 1\nauth = \"off\"\n\
         [admin]\nlisten = \"0.0.0.0:{ADMIN_PORT}\"\n\
         [spool]\ndir = \"/data/spool\"\nbytes_max = {SPOOL_BYTES_MAX}\n\
         segment_bytes = {SEGMENT_BYTES}\n\
         [status]\ninterval_ms = 1000\n\
         [kafka]\nbootstrap = {kafka:?}\ntopic_prefix = {topic_prefix:?}\n",
    );
    std::fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    std::fs::write(dir.join("gateway.toml"), toml).context("write the gateway's configuration")
}
