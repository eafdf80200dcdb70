//! Where binaries, directories and ports are.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use rand::RngExt;

/// Below the range that the kernel gives to outgoing connections: while a killed process is away,
/// no connection can take its port.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// The checkout: the nearest directory upwards with `deploy/local`.
///
/// # Errors
/// When there is none.
pub fn repo_dir() -> anyhow::Result<PathBuf> {
    let here = std::env::current_dir().context("find the present directory")?;
    let found = here.ancestors().find(|dir| dir.join("deploy/local").is_dir());
    found.map(Path::to_path_buf).with_context(|| format!("{} is in no checkout", here.display()))
}

/// The ignored directory for everything that runs leave behind, where the scripts of
/// `deploy/local` have theirs too.
///
/// # Errors
/// As [`repo_dir`].
pub fn local_dir() -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("PENSTOCK_LOCAL") {
        return Ok(dir.into());
    }
    Ok(repo_dir()?.join(".local"))
}

/// A binary of this workspace: in `PENSTOCK_BIN_DIR`, or beside the one that runs now.
pub(crate) fn binary(name: &str) -> anyhow::Result<PathBuf> {
    if let Some(dir) = std::env::var_os("PENSTOCK_BIN_DIR") {
        let path = Path::new(&dir).join(name);
        return if path.is_file() { Ok(path) } else { missing(name, &[path]) };
    }
    let exe = std::env::current_exe().context("find this binary")?;
    // Test binaries are in `deps/`, one below.
    let places: Vec<_> = exe.ancestors().skip(1).take(2).map(|dir| dir.join(name)).collect();
    match places.iter().find(|path| path.is_file()) {
        Some(path) => Ok(path.clone()),
        None => missing(name, &places),
    }
}

fn missing(name: &str, places: &[PathBuf]) -> anyhow::Result<PathBuf> {
    bail!("{name} is at none of {places:?}; cargo build -p {name} makes it")
}

/// Loopback ports that nobody listens on.
pub(crate) fn free_ports<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let mut rng = rand::rng();
    let mut held = Vec::with_capacity(N);
    for _ in 0..1000 {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, rng.random_range(PORTS)));
        // Held until all are found, so that none is found twice.
        held.extend(TcpListener::bind(address));
        if held.len() == N {
            let mut ports = [address; N];
            for (port, listener) in ports.iter_mut().zip(&held) {
                *port = listener.local_addr().context("read a free port")?;
            }
            return Ok(ports);
        }
    }
    bail!("no free ports in {PORTS:?}")
}
