//! The certificate that clients are shown, as it stands in files: read at the start, and again when the files change.
//!
//! Invariant: files that cannot be used, as while one of the two is being replaced, leave the certificate before in use.

use std::{fs, path::PathBuf, time::Duration};

use proxyxai_data_plane::client_tls::ClientTls;
use tokio::time::sleep;

use crate::{failure::Failure, settings::store::Optional};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// A certificate in files, and whoever shows it.
pub(crate) struct CertificateFiles {
    certificate: PathBuf,
    key: PathBuf,
    held: (Vec<u8>, zeroize::Zeroizing<Vec<u8>>),
    tls: ClientTls,
}

impl CertificateFiles {
    /// Reads them; `None` when the settings name none.
    ///
    /// # Errors
    /// When they cannot be used.
    pub(crate) fn read(certificate: &Optional, key: &Optional) -> Result<Option<Self>, Failure> {
        let Some((certificate, key)) = certificate.file().zip(key.file()) else {
            return Ok(None);
        };
        let held = (
            read(&certificate, "tls_certificate_file")?,
            zeroize::Zeroizing::new(read(&key, "tls_key_file")?),
        );
        let tls = ClientTls::new(&held.0, &held.1).map_err(|error| {
            Failure::usage(format!(
                "`tls_certificate_file` and `tls_key_file` cannot be used: {error}"
            ))
        })?;
        Ok(Some(Self {
            certificate,
            key,
            held,
            tls,
        }))
    }

    /// What shows the certificate.
    pub(crate) fn tls(&self) -> ClientTls {
        self.tls.clone()
    }

    /// Looks at the files again and again.
    async fn follow(mut self) {
        let mut refused = None;
        loop {
            sleep(LOOK).await;
            let (Ok(certificate), Ok(key)) = (fs::read(&self.certificate), fs::read(&self.key))
            else {
                // One of them is being replaced; a certificate that runs out is seen by its date.
                continue;
            };
            let found = (certificate, zeroize::Zeroizing::new(key));
            if found == self.held || refused.as_ref() == Some(&found) {
                continue;
            }
            match self.tls.replace(&found.0, &found.1) {
                Ok(()) => {
                    tracing::info!("clients are shown the new certificate from now on");
                    (self.held, refused) = (found, None);
                }
                Err(error) => {
                    tracing::error!(%error, "the new certificate for clients cannot be used; the one before is still shown");
                    refused = Some(found);
                }
            }
        }
    }
}

/// Follows the files, if there are any; never ends.
pub(crate) async fn follow(certificate: Option<CertificateFiles>) {
    if let Some(certificate) = certificate {
        certificate.follow().await;
    }
    std::future::pending().await
}

fn read(file: &PathBuf, setting: &str) -> Result<Vec<u8>, Failure> {
    fs::read(file).map_err(|error| {
        let file = file.display();
        Failure::usage(format!("`{setting}`: {file} cannot be read: {error}"))
    })
}
