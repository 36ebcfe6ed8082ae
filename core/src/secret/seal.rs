//! Seals secrets: AES-256-GCM under a key of its own per record, bound to where the record stands.
//!
//! The key of a record is HKDF-SHA-256 (RFC 5869) of the sealing key over 32 random bytes that are stored beside it, so no nonce
//! is ever counted or repeated, and the limit of 2^32 random nonces per key (NIST SP 800-38D) is out of reach.
//! Associated data names the place: a ciphertext that is moved or copied elsewhere does not open.
//!
//! Format: magic `PXS1`, key id (8), info (32), ciphertext and tag.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey},
    hkdf,
};
use zeroize::{Zeroize, Zeroizing};

const MAGIC: &[u8; 4] = b"PXS1";
const ID_LEN: usize = 8;
const INFO_LEN: usize = 32;
/// Bytes before the ciphertext.
pub const HEAD_LEN: usize = MAGIC.len() + ID_LEN + INFO_LEN;
/// Bytes that sealing adds, the tag included.
const OVERHEAD: usize = HEAD_LEN + 16;

/// Tells sealing keys apart without giving them away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealKeyId(pub [u8; ID_LEN]);

impl std::fmt::Display for SealKeyId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A 32-byte key that seals and opens records.
pub struct SealKey {
    bytes: [u8; 32],
    id: SealKeyId,
}

impl SealKey {
    /// Takes 32 unpredictable bytes.
    pub fn new(bytes: [u8; 32]) -> Self {
        let mut id = [0; ID_LEN];
        blake3::Hasher::new_derive_key("proxyxai 2026 sealing key id")
            .update(&bytes)
            .finalize_xof()
            .fill(&mut id);
        Self {
            bytes,
            id: SealKeyId(id),
        }
    }

    /// A key for another purpose; neither key can be told from the other.
    pub fn derive(&self, purpose: &str) -> Self {
        Self::new(blake3::derive_key(purpose, &self.bytes))
    }

    /// A check value of the key.
    pub fn id(&self) -> SealKeyId {
        self.id
    }

    /// The key of one record.
    fn record_key(&self, info: &[u8]) -> Result<LessSafeKey, SealError> {
        let parts = [info];
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, b"proxyxai seal")
            .extract(&self.bytes)
            .expand(&parts, &AES_256_GCM)
            .map(UnboundKey::from)
            .map_err(|_| SealError::Cipher)?;
        Ok(LessSafeKey::new(derived))
    }
}

impl Drop for SealKey {
    fn drop(&mut self) {
        self.bytes.zeroize();
    }
}

impl std::fmt::Debug for SealKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealKey({})", self.id)
    }
}

/// Seals `plain`. `info` must be 32 bytes that were never used with this key before: random ones.
///
/// # Errors
/// [`SealError::Cipher`] when the cipher refuses, which it does only for absurd lengths.
pub fn seal(
    key: &SealKey,
    info: [u8; INFO_LEN],
    associated: &[u8],
    plain: &[u8],
) -> Result<Vec<u8>, SealError> {
    let mut sealed = Vec::with_capacity(plain.len().saturating_add(OVERHEAD));
    sealed.extend_from_slice(&[0; HEAD_LEN]);
    sealed.extend_from_slice(plain);
    seal_in_place(key, info, associated, &mut sealed, 0)?;
    Ok(sealed)
}

/// Seals what stands after the [`HEAD_LEN`] bytes that begin at `from`, without a copy; what is from there on then is what [`seal`]
/// gives. On an error nothing of it may be used.
///
/// # Errors
/// Those of [`seal`], and [`SealError::Format`] when there are fewer bytes.
pub fn seal_in_place(
    key: &SealKey,
    info: [u8; INFO_LEN],
    associated: &[u8],
    bytes: &mut Vec<u8>,
    from: usize,
) -> Result<(), SealError> {
    let (head, body) = bytes
        .get_mut(from..)
        .and_then(|bytes| bytes.split_at_mut_checked(HEAD_LEN))
        .ok_or(SealError::Format)?;
    head.copy_from_slice(&[MAGIC.as_slice(), &key.id.0, &info].concat());
    let tag = key
        .record_key(&info)?
        .seal_in_place_separate_tag(
            Nonce::assume_unique_for_key([0; 12]),
            Aad::from(associated),
            body,
        )
        .map_err(|_| SealError::Cipher)?;
    bytes.extend_from_slice(tag.as_ref());
    Ok(())
}

/// Opens what [`seal`] made with the same key and associated data.
///
/// # Errors
/// Names whether the format, the key or the content (or its place) is wrong.
pub fn open(
    key: &SealKey,
    associated: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let mut bytes = Zeroizing::new(sealed.to_vec());
    let len = open_in_place(key, associated, &mut bytes)?.len();
    bytes.copy_within(HEAD_LEN.., 0);
    bytes.truncate(len);
    Ok(bytes)
}

/// Opens what [`seal`] made, without a copy: the plain bytes are a part of those given.
///
/// # Errors
/// Those of [`open`].
pub fn open_in_place<'a>(
    key: &SealKey,
    associated: &[u8],
    sealed: &'a mut [u8],
) -> Result<&'a mut [u8], SealError> {
    let (head, body) = sealed
        .split_at_mut_checked(HEAD_LEN)
        .ok_or(SealError::Format)?;
    let (magic, rest) = head
        .split_at_checked(MAGIC.len())
        .ok_or(SealError::Format)?;
    let (id, info) = rest.split_at_checked(ID_LEN).ok_or(SealError::Format)?;
    if magic != MAGIC {
        return Err(SealError::Format);
    }
    if id != key.id.0 {
        let sealed_by = id
            .try_into()
            .map(SealKeyId)
            .map_err(|_| SealError::Format)?;
        return Err(SealError::OtherKey {
            sealed_by,
            given: key.id,
        });
    }
    key.record_key(info)?
        .open_in_place(
            Nonce::assume_unique_for_key([0; 12]),
            Aad::from(associated),
            body,
        )
        .map_err(|_| SealError::Content)
}

/// The key that sealed this.
///
/// # Errors
/// When it is nothing that was sealed.
pub fn sealed_by(sealed: &[u8]) -> Result<SealKeyId, SealError> {
    let rest = sealed.strip_prefix(MAGIC).ok_or(SealError::Format)?;
    let id = rest.first_chunk().ok_or(SealError::Format)?;
    Ok(SealKeyId(*id))
}

/// Seals a key under another one; see [`seal`].
///
/// # Errors
/// As [`seal`].
pub fn wrap(
    under: &SealKey,
    info: [u8; INFO_LEN],
    associated: &[u8],
    key: &SealKey,
) -> Result<Vec<u8>, SealError> {
    seal(under, info, associated, &key.bytes)
}

/// Opens what [`wrap`] made.
///
/// # Errors
/// As [`open`], and [`SealError::Format`] when what was sealed is no key.
pub fn unwrap_key(under: &SealKey, associated: &[u8], sealed: &[u8]) -> Result<SealKey, SealError> {
    let bytes = open(under, associated, sealed)?;
    let bytes = bytes.as_slice().try_into().map_err(|_| SealError::Format)?;
    Ok(SealKey::new(bytes))
}

/// Why something was not sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Not something that was sealed by this program.
    #[error("the sealed bytes have an unknown format")]
    Format,
    /// Another key sealed it.
    #[error("sealed under key {sealed_by}, but the key given is {given}")]
    OtherKey {
        /// The key that sealed.
        sealed_by: SealKeyId,
        /// The key at hand.
        given: SealKeyId,
    },
    /// Changed, or moved from where it was sealed for.
    #[error("the sealed bytes were changed, or belong to another record")]
    Content,
    /// The cipher itself refused.
    #[error("the cipher refused the input")]
    Cipher,
}
