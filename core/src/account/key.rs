//! Virtual keys: `sk-pxai-` + id (12) + secret (32) + tag (6), all base 62.
//!
//! The tag is the CRC-32 of all before it: it catches typing errors and lets scanners recognise leaked keys, and stops no
//! forger. Only a keyed hash of the whole text is ever stored.

use std::fmt;

use secrecy::{ExposeSecret, SecretString};
use zeroize::{Zeroize as _, Zeroizing};

use crate::snapshot::key_table::KeyId;

/// What every virtual key begins with.
pub const PREFIX: &str = "sk-pxai-";
/// Characters of the id.
pub const ID_LEN: usize = 12;
const SECRET_LEN: usize = 32;
const TAG_LEN: usize = 6;
const BODY_LEN: usize = ID_LEN + SECRET_LEN;
/// Characters of the whole key.
pub const LEN: usize = PREFIX.len() + BODY_LEN + TAG_LEN;
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A text that has the form of a virtual key; whether the key exists is another question.
#[derive(Clone, Copy)]
pub struct KeyText<'a> {
    text: &'a str,
    id: &'a str,
}

impl<'a> KeyText<'a> {
    /// Names the key; not secret.
    pub fn id(&self) -> &'a str {
        self.id
    }

    /// The whole key; secret.
    pub fn expose(&self) -> &'a str {
        self.text
    }
}

impl fmt::Debug for KeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{PREFIX}{}…", self.id)
    }
}

/// Checks the form of a virtual key, its tag included.
///
/// # Errors
/// Says what is wrong with the form, without repeating the text.
pub fn parse(text: &str) -> Result<KeyText<'_>, InvalidKey> {
    let rest = text.strip_prefix(PREFIX).ok_or(InvalidKey::Prefix)?;
    if rest.len() != BODY_LEN + TAG_LEN || !rest.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(InvalidKey::Form);
    }
    let (body, tag) = rest.split_at(BODY_LEN);
    if tag.as_bytes() != tag_of(&[PREFIX.as_bytes(), body.as_bytes()]) {
        return Err(InvalidKey::Tag);
    }
    let (id, _) = body.split_at(ID_LEN);
    Ok(KeyText { text, id })
}

/// Why a text is no virtual key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// It is a key of somebody else, or none.
    #[error("it does not begin with `sk-pxai-`, so it is no key of this gateway")]
    Prefix,
    /// Cut, or with foreign characters.
    #[error("it is not complete: a key has 50 letters and digits after `sk-pxai-`")]
    Form,
    /// A character is wrong.
    #[error("it has a typing error: its last six characters do not fit the others")]
    Tag,
}

/// A new virtual key.
pub struct GeneratedKey {
    /// Names the key; not secret.
    pub id: String,
    /// The whole key.
    pub text: SecretString,
}

/// Makes a virtual key from unpredictable bytes.
pub fn generate(mut random: [u8; 64]) -> GeneratedKey {
    let body = Zeroizing::new(base62(&random, BODY_LEN));
    random.zeroize();
    finish(&body)
}

/// Makes a new secret for the key with this id, from unpredictable bytes.
pub fn regenerate(id: KeyId, mut random: [u8; 64]) -> GeneratedKey {
    let secret = Zeroizing::new(base62(&random, SECRET_LEN));
    random.zeroize();
    finish(&Zeroizing::new(format!("{}{}", id.as_str(), *secret)))
}

fn finish(body: &str) -> GeneratedKey {
    let mut text = String::with_capacity(
        PREFIX
            .len()
            .saturating_add(BODY_LEN)
            .saturating_add(TAG_LEN),
    );
    text.push_str(PREFIX);
    text.push_str(body);
    let tag = tag_of(&[text.as_bytes()]);
    text.extend(tag.iter().map(|b| char::from(*b)));
    let id = body.chars().take(ID_LEN).collect();
    GeneratedKey {
        id,
        text: SecretString::from(text),
    }
}

/// `len` characters from a stream keyed by `seed`, without bias: bytes past the last multiple of 62 are passed over.
pub fn base62(seed: &[u8; 64], len: usize) -> String {
    let mut stream = blake3::Hasher::new_derive_key("proxyxai 2026 base62")
        .update(seed)
        .finalize_xof();
    let mut out = String::with_capacity(len);
    while out.len() < len {
        let mut byte = [0];
        stream.fill(&mut byte);
        let [byte] = byte;
        if byte < 248 {
            out.push(digit(u32::from(byte)));
        }
    }
    out
}

fn digit(value: u32) -> char {
    let index = usize::try_from(value % 62).unwrap_or_default();
    ALPHABET.get(index).map_or('0', |b| char::from(*b))
}

/// CRC-32 (IEEE) of the parts as six digits, the most significant first.
fn tag_of(parts: &[&[u8]]) -> [u8; TAG_LEN] {
    let mut crc = crc32fast::Hasher::new();
    parts.iter().for_each(|part| crc.update(part));
    let mut value = crc.finalize();
    let mut tag = [b'0'; TAG_LEN];
    for place in tag.iter_mut().rev() {
        *place = u8::try_from(digit(value)).unwrap_or(b'0');
        value /= 62;
    }
    tag
}

/// What a virtual key is looked up by: 128 bits of a keyed hash of its whole text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyDigest(pub [u8; 16]);

impl fmt::Debug for KeyDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Keys the hash: whoever holds only the store cannot try keys against it.
#[derive(Clone)]
pub struct Pepper([u8; 32]);

impl Pepper {
    /// Takes 32 unpredictable bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// For handing to nodes, over a protected channel only.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Digest of a whole key.
    pub fn digest(&self, text: &str) -> KeyDigest {
        let hash = blake3::keyed_hash(&self.0, text.as_bytes());
        let mut digest = [0; 16];
        digest
            .iter_mut()
            .zip(hash.as_bytes())
            .for_each(|(to, from)| *to = *from);
        KeyDigest(digest)
    }

    /// Digest of a generated key.
    pub fn digest_of(&self, key: &GeneratedKey) -> KeyDigest {
        self.digest(key.text.expose_secret())
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(…)")
    }
}

impl Drop for Pepper {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
