//! Puts the built page (`ui/dist`) into the binary. Without it there is a page that says how to
//! build it, so that the core can be built where there is no Node.js.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

const MISSING: &str = "<!doctype html><title>Penstock</title><p>This build has no dashboard: run \
                       <code>npm ci &amp;&amp; npm run build</code> in cloud-core/ui, or ./dev, and \
                       build again. The API works: see <a href=/v1/openapi.json>its description</a>.";

fn main() {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR").unwrap_or_default());
    let dist = root.join("ui/dist");
    println!("cargo::rerun-if-changed={}", dist.display());
    println!("cargo::rerun-if-changed=migrations");
    let page = |name: &str| {
        let path = dist.join(name);
        if path.is_file() {
            format!("include_str!({:?})", path.display().to_string())
        } else {
            format!("{MISSING:?}")
        }
    };
    let mut code = String::new();
    for (constant, file) in [("PAGE", "index.html"), ("DOCS", "docs.html")] {
        let _ = writeln!(code, "pub(super) const {constant}: &str = {};", page(file));
    }
    code.push_str("pub(super) const ASSETS: &[(&str, &[u8])] = &[\n");
    let mut files = assets(&dist.join("assets"));
    files.sort();
    for path in files {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let _ = writeln!(code, "    ({name:?}, include_bytes!({:?})),", path.display().to_string());
    }
    code.push_str("];\n");
    let out = PathBuf::from(env::var("OUT_DIR").unwrap_or_default()).join("ui.rs");
    if let Err(error) = fs::write(&out, code) {
        println!("cargo::error=write {}: {error}", out.display());
    }
}

fn assets(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}
