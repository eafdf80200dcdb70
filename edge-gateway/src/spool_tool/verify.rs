//! `spool verify`: every event read, decrypted, checked.

use std::io::Write;

use penstock_common::log::segment::Lane;

use super::Found;
use super::stat::tell_trouble;
use crate::spool::SpoolConfig;
use crate::spool::offline::Offline;

pub(super) fn run(config: &SpoolConfig, out: &mut dyn Write) -> anyhow::Result<Found> {
    let spool = Offline::look(config)?;
    writeln!(out, "Spool in {}", config.dir.display())?;
    let mut found = Found::Well;
    for (lane, log) in spool.lanes() {
        let known = log.stat().damaged;
        let (mut entries, mut unreadable) = (0_u64, 0_u64);
        let damaged = Offline::read(log, None, |stored| {
            match stored.entry {
                Ok(_) => entries += 1,
                Err(_) => unreadable += 1,
            }
            Ok(())
        })?;
        let lane = match lane {
            Lane::Main => "Events to forward",
            Lane::Dead => "Gave way, to be forwarded as dead letters",
        };
        writeln!(out, "  {lane}: {} files, {entries} entries are good.", log.segments().len())?;
        if unreadable > 0 {
            found = Found::Trouble;
            writeln!(
                out,
                "  DAMAGED: {unreadable} entries are whole, but nothing that this program knows."
            )?;
        }
        for range in damaged.iter().filter(|range| !known.contains(range)) {
            found = Found::Trouble;
            writeln!(out, "  DAMAGED: {range}: {} entries are lost.", range.entries())?;
        }
    }
    if tell_trouble(&spool, out)? == Found::Trouble {
        found = Found::Trouble;
    }
    match found {
        Found::Well => writeln!(out, "All is well.")?,
        Found::Trouble => writeln!(
            out,
            "What is listed above can't be read. Everything else is forwarded as usual; files \
             that are set aside can be sent to an expert, and removed by hand."
        )?,
    }
    Ok(found)
}
