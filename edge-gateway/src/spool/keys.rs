//! The key file (`spool.key_file`): what the spool is encrypted with.
//!
//! One key a line, oldest first: its id (8 hexadecimal digits), the key (64), and when it was
//! made. Lines that begin with `#` are comments. The last key encrypts what is written, all of
//! them decrypt: so rotation is adding a line ([`add`]) and a restart, and a line may be removed
//! once `edge-gateway spool stat` no longer lists its id.
//!
//! The id is taken from the key's SHA-256, so a line that was damaged is found out. Such lines are
//! named and passed over; a file without any whole line is set aside and a new one begun, because
//! a gateway must go on taking events. What was encrypted with a lost key is never removed: its
//! files wait as `*.locked` until the key is back in the file.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use penstock_common::clock::{Clock, SystemClock};
use penstock_common::log::seal::{KEY_BYTES, Key, KeyId, Keys};
use sha2::{Digest, Sha256};

use super::SpoolConfig;

const HEADER: &str = "\
# Keys of a gateway's spool, oldest first: the last one encrypts, all of them decrypt.
# Keep a copy elsewhere: without its key, what is in the spool can't be read.
";
/// Larger than any key file; a larger file is none.
const BYTES_MAX: u64 = 1 << 20;

/// The keys that the spool is opened with. With `spool.encrypt`, a first key is made where there
/// is none; without it, keys that are there still decrypt.
///
/// # Errors
/// When the file can't be read or made, or others than its owner can read it.
pub fn for_spool(config: &SpoolConfig) -> anyhow::Result<Keys> {
    let path = config.key_file();
    let mut keys = load(&path)?;
    if !config.encrypt {
        return Ok(Keys::to_read(keys.unwrap_or_default()));
    }
    if keys.as_ref().is_some_and(Vec::is_empty) {
        let aside = set_aside(&path)?;
        tracing::error!(
            file = %path.display(),
            aside = %aside.display(),
            "the spool's key file holds no whole key; it is set aside and a new one is begun"
        );
        keys = None;
    }
    let keys = match keys {
        Some(keys) => keys,
        None => {
            let id = add(&path)?;
            tracing::warn!(
                file = %path.display(), key = %id,
                "a key for the spool was made: keep a copy of the file elsewhere"
            );
            load(&path)?.unwrap_or_default()
        }
    };
    if keys.is_empty() {
        bail!("the spool's key file {} holds no key although one was just made", path.display());
    }
    Ok(Keys::new(keys))
}

/// The keys of a file that must be left as it is, for reading; none where there is no file.
///
/// # Errors
/// When the file can't be read, or others than its owner can read it.
pub fn to_read(path: &Path) -> anyhow::Result<Keys> {
    Ok(Keys::to_read(load(path)?.unwrap_or_default()))
}

/// Adds a new key to the file, creating it where it is missing; whole or not at all.
///
/// # Errors
/// When the file can't be read or written.
pub fn add(path: &Path) -> anyhow::Result<KeyId> {
    let old = match read(path)? {
        Some(text) => text,
        None => HEADER.to_owned(),
    };
    let key: [u8; KEY_BYTES] = rand::random();
    let id = id_of(&key);
    let gap = if old.is_empty() || old.ends_with('\n') { "" } else { "\n" };
    let made = SystemClock.now().to_rfc3339();
    let text = format!("{old}{gap}{id} {} {made}\n", to_hex(&key));
    let write = || {
        let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
        let dir = dir.unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let partial = path.with_added_extension("partial");
        let _ = fs::remove_file(&partial);
        let mut file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, path)?;
        File::open(dir)?.sync_all()
    };
    write().with_context(|| format!("write the spool's key file {}", path.display()))?;
    Ok(id)
}

/// `None` where there is no file.
fn load(path: &Path) -> anyhow::Result<Option<Vec<Key>>> {
    let Some(text) = read(path)? else { return Ok(None) };
    let mut keys: Vec<Key> = Vec::new();
    for (at, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match parse(line) {
            Some(key) if keys.iter().all(|known| known.id() != key.id()) => keys.push(key),
            // Twice the same line does no harm.
            Some(_) => {}
            None => tracing::error!(
                file = %path.display(), line = at + 1,
                "a line of the spool's key file is damaged; what it encrypted can't be read"
            ),
        }
    }
    Ok(Some(keys))
}

fn read(path: &Path) -> anyhow::Result<Option<String>> {
    let context = || format!("read the spool's key file {}", path.display());
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(context),
    };
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        bail!(
            "the spool's key file {path} can be used by others than its owner (mode {mode:04o}); \
             run: chmod 600 {path}",
            path = path.display()
        );
    }
    if !metadata.is_file() || metadata.len() > BYTES_MAX {
        bail!("{} is no key file of a spool (spool.key_file)", path.display());
    }
    let bytes = fs::read(path).with_context(context)?;
    // What is no text is no whole line either.
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn set_aside(path: &Path) -> anyhow::Result<PathBuf> {
    let now_s = SystemClock.now().0 / 1_000_000;
    let aside = path.with_added_extension(format!("damaged-{now_s}"));
    fs::rename(path, &aside)
        .with_context(|| format!("set the spool's key file {} aside", path.display()))?;
    Ok(aside)
}

fn parse(line: &str) -> Option<Key> {
    let mut fields = line.split_ascii_whitespace();
    let id: KeyId = fields.next()?.parse().ok()?;
    let key = from_hex(fields.next()?)?;
    (id == id_of(&key)).then(|| Key::new(id, &key))
}

fn id_of(key: &[u8; KEY_BYTES]) -> KeyId {
    let mut hash = Sha256::new();
    hash.update(b"penstock spool key\n");
    hash.update(key);
    let hash = hash.finalize();
    let id = u32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]]);
    // 0 says that nothing is encrypted.
    KeyId(id.max(1))
}

fn to_hex(key: &[u8; KEY_BYTES]) -> String {
    key.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<[u8; KEY_BYTES]> {
    let mut key = [0; KEY_BYTES];
    if text.len() != 2 * KEY_BYTES || !text.is_ascii() {
        return None;
    }
    for (at, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn config(dir: &Path) -> SpoolConfig {
        SpoolConfig { dir: dir.to_owned(), ..SpoolConfig::default() }
    }

    fn ids(path: &Path) -> Vec<KeyId> {
        load(path).unwrap().unwrap().iter().map(Key::id).collect()
    }

    #[test]
    fn the_first_start_makes_a_key_that_later_ones_use() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(&dir.path().join("spool"));
        let first = for_spool(&config).unwrap();
        assert_ne!(first.newest_id(), KeyId::NONE);
        let mode = fs::metadata(config.key_file()).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(for_spool(&config).unwrap().newest_id(), first.newest_id());
    }

    #[test]
    fn a_key_that_is_added_seals_and_the_older_ones_still_open() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        let old = for_spool(&config).unwrap().newest_id();
        let new = add(&config.key_file()).unwrap();
        assert_eq!(ids(&config.key_file()), [old, new]);
        let keys = for_spool(&config).unwrap();
        assert_eq!(keys.newest_id(), new);
        assert!(keys.can_read(old));
    }

    #[test]
    fn without_encryption_no_key_is_made_and_those_there_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let config = SpoolConfig { encrypt: false, ..config(dir.path()) };
        assert_eq!(for_spool(&config).unwrap().newest_id(), KeyId::NONE);
        assert!(!config.key_file().exists());
        let id = add(&config.key_file()).unwrap();
        let keys = for_spool(&config).unwrap();
        assert_eq!((keys.newest_id(), keys.can_read(id)), (KeyId::NONE, true));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path());
        for_spool(&config).unwrap();
        fs::set_permissions(config.key_file(), fs::Permissions::from_mode(0o640)).unwrap();
        let error = for_spool(&config).unwrap_err().to_string();
        assert!(error.contains("0640") && error.contains("chmod 600"), "{error}");
    }

    #[test]
    fn a_damaged_line_costs_its_key_only_and_a_file_of_none_is_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let path = config(dir.path()).key_file();
        let (one, two) = (add(&path).unwrap(), add(&path).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        let line = text.lines().find(|line| line.starts_with(&one.to_string())).unwrap();
        let digit = if line.as_bytes()[20] == b'0' { "1" } else { "0" };
        let damaged = format!("{}{digit}{}", &line[..20], &line[21..]);
        fs::write(&path, text.replace(line, &damaged)).unwrap();
        assert_eq!(ids(&path), [two]);

        fs::write(&path, [0xFF; 300]).unwrap();
        let keys = for_spool(&config(dir.path())).unwrap();
        assert!(keys.newest_id() != KeyId::NONE && !keys.can_read(two));
        let aside = fs::read_dir(dir.path()).unwrap().filter(|entry| {
            entry.as_ref().unwrap().file_name().to_string_lossy().contains("damaged")
        });
        assert_eq!(aside.count(), 1);
    }
}
