//! Makes the snapshot that gateways work from (spec I4, I9, I11; format:
//! `penstock_common::snapshot`): fleets, keys and limits from the catalog, the built-in schemas,
//! and how far the core is behind.

pub mod backlog;
pub mod pressure;

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use penstock_common::event::UnixMicros;
use penstock_common::schema::SchemaSet;
use penstock_common::snapshot::{CorePressure, Fleet, FleetKey, KeyHash, SchemaDocument, Snapshot};

use crate::store::fleets::FleetStore;

/// The snapshot of this moment, for gateways of `fleets`, or of all where none is named.
///
/// # Errors
/// When the catalog is away, or there is no such fleet.
pub async fn gather(
    store: &FleetStore,
    fleets: &[String],
    core_pressure: CorePressure,
    now: UnixMicros,
) -> anyhow::Result<Snapshot> {
    let known = store.fleets().await.context("read the fleets")?;
    if let Some(unknown) = fleets.iter().find(|fleet| !known.contains_key(*fleet)) {
        bail!("there is no fleet {unknown}: `cloud-core keys create --fleet {unknown}` makes it");
    }
    let keys = store.keys(None).await.context("read the keys")?;
    let wanted = known.into_iter().filter(|(name, _)| fleets.is_empty() || fleets.contains(name));
    let fleet = |(name, limits)| -> anyhow::Result<Fleet> {
        let keys = keys.iter().filter(|key| key.fleet == name && key.is_valid(now.0));
        let key = |key: &crate::store::fleets::KeyEntry| {
            anyhow::Ok(FleetKey {
                id: key.key_id,
                sha256: KeyHash::from_bytes(key.hash),
                expires_at: key.expires_at.map(Timestamp::from_microsecond).transpose()?,
            })
        };
        let keys = keys.map(key).collect::<Result<_, _>>()?;
        Ok(Fleet { name, limits, keys })
    };
    let schema = |(version, text)| {
        anyhow::Ok(SchemaDocument { version, schema: serde_json::from_str(text)? })
    };
    let snapshot = Snapshot {
        made_at: Timestamp::from_microsecond(now.0)?,
        schemas: (1..).zip(SchemaSet::BAKED).map(schema).collect::<Result<_, _>>()?,
        firmware_rules: serde_json::from_str(SchemaSet::BAKED_RULES)?,
        fleets: wanted.map(fleet).collect::<Result<_, _>>()?,
        core_pressure,
    };
    // A gateway would refuse what does not compile.
    let compiled = snapshot.schema_set().context("compile the schemas")?;
    ensure!(!compiled.schemas().is_empty(), "there are no schemas");
    Ok(snapshot)
}
