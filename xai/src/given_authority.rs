//! An authority that somebody else made, as it stands in files.

use std::{fs, path::Path};

use proxyxai_control_plane::authority::Kept;
use zeroize::Zeroizing;

use crate::{failure::Failure, settings::store::Optional};

/// Reads it; `None` when the settings name none.
///
/// # Errors
/// When the files hold no certificate and key.
pub(crate) fn read(certificate: &Optional, key: &Optional) -> Result<Option<Kept>, Failure> {
    let Some((certificate, key)) = certificate.file().zip(key.file()) else {
        return Ok(None);
    };
    let certificate = block(
        "authority_certificate_file",
        &certificate,
        "CERTIFICATE",
        "a certificate",
    )?;
    let key = block(
        "authority_key_file",
        &key,
        "PRIVATE KEY",
        "a key in PKCS #8; `openssl pkcs8 -topk8 -nocrypt` makes one of it",
    )?;
    Ok(Some(Kept {
        certificate: certificate.to_vec(),
        key,
    }))
}

/// The first block of a PEM file.
fn block(
    setting: &str,
    file: &Path,
    tag: &str,
    wanted: &str,
) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let refuse = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("`{setting}`: {}: {why}", file.display()))
    };
    let text = Zeroizing::new(fs::read(file).map_err(|error| refuse(&error))?);
    let block = pem::parse(&*text).ok().filter(|block| block.tag() == tag);
    let block = block.ok_or_else(|| refuse(&format!("this is not {wanted}")))?;
    Ok(Zeroizing::new(block.into_contents()))
}
