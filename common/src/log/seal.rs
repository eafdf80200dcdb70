//! Sealing: how the body of a record is encrypted and authenticated (spec I7, O6).
//!
//! The cipher is XChaCha20-Poly1305. A sealed body is 8 random bytes (the salt), the ciphertext,
//! and a tag of 16 bytes. The record's header up to the checksums is authenticated with it, so a
//! body can't be put under another number, epoch or key. The record's checksum covers the sealed
//! bytes: whoever has no key can still tell damage from a whole record.
//!
//! # No nonce is used twice
//! The nonce of 24 bytes is epoch (8), number of the first entry (8), salt (8).
//! - Within an epoch numbers only go up, and an epoch ends with the first write that fails, so the
//!   log never encrypts two groups under one (epoch, number).
//! - Epochs are 63 random bits, drawn at each opening and after each failure.
//! - A group that is written again under its own number with other bytes (re-compressed, when its
//!   segment moves to another lane; perhaps again, if a crash cut that short) differs by its salt;
//!   and two epochs that are the same by chance differ by it as well.
//!
//! # Keys
//! A key has an id, which stands in every record and in the header of every segment. New records
//! are sealed with the newest key; all keys of the ring open. A whole segment has one key: the
//! ring is fixed while the log is open, and an opening begins a new segment.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chacha20poly1305::aead::AeadInPlace;
use chacha20poly1305::{KeyInit, Tag, XChaCha20Poly1305, XNonce};

use crate::event::Epoch;

/// Length of a key.
pub const KEY_BYTES: usize = 32;
pub(super) const SALT_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
/// How much longer a body is when it is sealed.
pub const SEAL_BYTES: usize = SALT_BYTES + TAG_BYTES;

/// Names a key. It says nothing about the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

impl KeyId {
    /// Of what is not sealed.
    pub const NONE: Self = Self(0);

    /// Whether it says that nothing is sealed.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl FromStr for KeyId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u32::from_str_radix(text, 16).map(Self)
    }
}

/// A key with its id.
#[derive(Clone)]
pub struct Key {
    id: KeyId,
    cipher: XChaCha20Poly1305,
}

impl Key {
    /// A key; its id must not be [`KeyId::NONE`], and no two keys of a ring may share one.
    pub fn new(id: KeyId, bytes: &[u8; KEY_BYTES]) -> Self {
        Self { id, cipher: XChaCha20Poly1305::new(bytes.into()) }
    }

    /// Its id.
    pub const fn id(&self) -> KeyId {
        self.id
    }

    /// Encrypts what stands in `body` between the salt and the tag; both are written.
    pub(super) fn seal(&self, place: Place, header: &[u8], body: &mut [u8]) -> bool {
        let salt: [u8; SALT_BYTES] = rand::random();
        let Some((head, rest)) = body.split_first_chunk_mut::<SALT_BYTES>() else { return false };
        let Some((text, end)) = rest.split_last_chunk_mut::<TAG_BYTES>() else { return false };
        *head = salt;
        match self.cipher.encrypt_in_place_detached(&place.nonce(salt), header, text) {
            Ok(tag) => {
                end.copy_from_slice(&tag);
                true
            }
            Err(_) => false,
        }
    }

    /// Decrypts a body in place; what it held, or `None` if it was not sealed like this.
    pub(super) fn open<'a>(
        &self,
        place: Place,
        header: &[u8],
        body: &'a mut [u8],
    ) -> Option<&'a [u8]> {
        let (salt, rest) = body.split_first_chunk_mut::<SALT_BYTES>()?;
        let (text, tag) = rest.split_last_chunk_mut::<TAG_BYTES>()?;
        let nonce = place.nonce(*salt);
        let tag = Tag::from_slice(&*tag);
        self.cipher.decrypt_in_place_detached(&nonce, header, text, tag).ok()?;
        Some(text)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

/// The part of the nonce that names a record.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) epoch: Epoch,
    pub(super) first_seq: u64,
}

impl Place {
    fn nonce(self, salt: [u8; SALT_BYTES]) -> XNonce {
        let mut nonce = XNonce::default();
        nonce[..8].copy_from_slice(&self.epoch.0.to_le_bytes());
        nonce[8..16].copy_from_slice(&self.first_seq.to_le_bytes());
        nonce[16..].copy_from_slice(&salt);
        nonce
    }
}

/// The keys of a log; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    all: Arc<[Key]>,
    seals: bool,
}

impl Keys {
    /// No keys: what is written is not sealed, and what is sealed can't be read.
    pub fn none() -> Self {
        Self::default()
    }

    /// Seals with the last one, reads with all.
    pub fn new(all: Vec<Key>) -> Self {
        Self { all: all.into(), seals: true }
    }

    /// Reads with all, seals nothing.
    pub fn to_read(all: Vec<Key>) -> Self {
        Self { all: all.into(), seals: false }
    }

    /// What new records are sealed with.
    pub(super) fn newest(&self) -> Option<&Key> {
        self.all.last().filter(|_| self.seals)
    }

    /// The id of what new records are sealed with.
    pub fn newest_id(&self) -> KeyId {
        self.newest().map_or(KeyId::NONE, Key::id)
    }

    /// The key of this id.
    pub fn get(&self, id: KeyId) -> Option<&Key> {
        self.all.iter().find(|key| key.id == id)
    }

    /// Whether what has this key id can be read.
    pub fn can_read(&self, id: KeyId) -> bool {
        id == KeyId::NONE || self.get(id).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place { epoch: Epoch(7), first_seq: 9 };

    fn sealed(key: &Key, text: &[u8]) -> Vec<u8> {
        let mut body = vec![0; SALT_BYTES];
        body.extend_from_slice(text);
        body.extend_from_slice(&[0; TAG_BYTES]);
        assert!(key.seal(PLACE, b"header", &mut body));
        body
    }

    #[test]
    fn what_is_sealed_opens_under_its_own_place_header_and_key_only() {
        let key = Key::new(KeyId(1), &[3; KEY_BYTES]);
        let body = sealed(&key, b"sixteen bytes, or more");
        assert!(!body.windows(7).any(|window| window == b"sixteen"));
        let open = |key: &Key, place, header: &[u8]| {
            key.open(place, header, &mut body.clone()).map(<[u8]>::to_vec)
        };
        assert_eq!(open(&key, PLACE, b"header").unwrap(), b"sixteen bytes, or more");
        assert_eq!(open(&key, Place { first_seq: 8, ..PLACE }, b"header"), None);
        assert_eq!(open(&key, Place { epoch: Epoch(8), ..PLACE }, b"header"), None);
        assert_eq!(open(&key, PLACE, b"Header"), None);
        assert_eq!(open(&Key::new(KeyId(1), &[4; KEY_BYTES]), PLACE, b"header"), None);
        for at in 0..body.len() {
            let mut flipped = body.clone();
            flipped[at] ^= 1;
            assert_eq!(key.open(PLACE, b"header", &mut flipped), None, "byte {at}");
        }
    }

    #[test]
    fn the_same_group_sealed_again_has_another_nonce() {
        let key = Key::new(KeyId(1), &[3; KEY_BYTES]);
        let (one, two) = (sealed(&key, b"a"), sealed(&key, b"a"));
        assert_ne!(one[..SALT_BYTES], two[..SALT_BYTES]);
    }

    #[test]
    fn too_little_to_be_sealed_is_refused() {
        let key = Key::new(KeyId(1), &[3; KEY_BYTES]);
        for length in 0..SEAL_BYTES {
            assert!(key.open(PLACE, b"", &mut vec![0; length]).is_none());
        }
    }

    #[test]
    fn a_key_says_its_id_and_nothing_else() {
        let key = Key::new(KeyId(0xABC), &[3; KEY_BYTES]);
        assert_eq!(format!("{key:?}"), "Key(00000abc)");
        assert_eq!("00000abc".parse(), Ok(KeyId(0xABC)));
    }
}
