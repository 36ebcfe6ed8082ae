//! TLS towards clients: a certificate that was given, and that can be replaced while the node runs.
//!
//! Invariants: a certificate and a key that do not belong together are never taken up; connections that are open keep what they began with.

use std::{io, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Takes connections of clients over TLS. Cheap to clone; clones show the same certificate.
#[derive(Clone)]
pub struct ClientTls {
    acceptor: TlsAcceptor,
    shown: Arc<Shown>,
}

#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

/// Why a certificate and its key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidCertificate {
    /// There is no certificate, or what there is is none.
    #[error("the certificate is no PEM file of certificates, that of the server first")]
    Certificate,
    /// There is no key, or what there is is none.
    #[error("the key is no PEM file of an unencrypted private key (PKCS #8, PKCS #1 or SEC 1)")]
    Key,
    /// They cannot be used together.
    #[error("the certificate and the key do not belong together: {0}")]
    Pair(#[source] rustls::Error),
}

impl ClientTls {
    /// Takes connections with this certificate (a chain in PEM, that of the server first) and its key (PEM).
    ///
    /// # Errors
    /// [`InvalidCertificate`]: they cannot be used.
    pub fn new(certificate: &[u8], key: &[u8]) -> Result<Self, InvalidCertificate> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let shown = Arc::new(Shown(ArcSwap::from_pointee(certified(certificate, key)?)));
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(InvalidCertificate::Pair)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&shown) as _);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { acceptor, shown })
    }

    /// Shows another certificate from the next connection on.
    ///
    /// # Errors
    /// [`InvalidCertificate`]: it cannot be used; the one before is still shown.
    pub fn replace(&self, certificate: &[u8], key: &[u8]) -> Result<(), InvalidCertificate> {
        let next = certified(certificate, key)?;
        self.shown.0.store(Arc::new(next));
        Ok(())
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
        self.acceptor.accept(stream).await
    }
}

fn certified(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, InvalidCertificate> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<_, _>>()
        .map_err(|_| InvalidCertificate::Certificate)?;
    if chain.is_empty() {
        return Err(InvalidCertificate::Certificate);
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| InvalidCertificate::Key)?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map_err(InvalidCertificate::Pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn what_does_not_fit_is_refused_and_changes_nothing() {
        let ((one, one_key), (two, two_key)) = (pair("one.example"), pair("two.example"));
        let tls = ClientTls::new(one.as_bytes(), one_key.as_bytes()).unwrap();
        let shown = |tls: &ClientTls| tls.shown.0.load().cert.clone();
        let first = shown(&tls);
        let check = |certificate: &str, key: &str, said: &str| {
            let refusal = tls
                .replace(certificate.as_bytes(), key.as_bytes())
                .unwrap_err();
            assert!(refusal.to_string().contains(said), "{refusal}");
            assert_eq!(shown(&tls), first);
        };
        check("", &one_key, "no PEM file of certificates");
        check(&one_key, &one_key, "no PEM file of certificates");
        check(&one, "", "no PEM file of an unencrypted private key");
        check(&one, &two_key, "do not belong together");
        tls.replace(two.as_bytes(), two_key.as_bytes()).unwrap();
        assert_ne!(shown(&tls), first);
    }
}
