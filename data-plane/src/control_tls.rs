//! TLS to a control plane, whose authority is pinned by its fingerprint: no name and no public authority is trusted in its place.
//!
//! Invariants: a control plane is accepted when its certificate was signed by the pinned authority for control planes of its deployment,
//! whatever address was dialled; the certificate that a node shows can be replaced while it runs, and is used from the next connection on.

use std::{
    fmt, io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::Uri;
use hyper_util::rt::TokioIo;
use proxyxai_core::secret::fingerprint::{CONTROL_PLANE_NAME, Fingerprint};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        ResolvesClientCert, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
    sign::CertifiedKey,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint};

use crate::config::control::with_timeouts;

/// Longest time to connect, TLS included.
const CONNECT: Duration = Duration::from_secs(5);

/// A channel to the control plane at `address` (`host:port`), which connects when it is used.
///
/// # Errors
/// When the address is none, or TLS cannot be used.
pub fn channel(
    address: &str,
    pin: Fingerprint,
    identity: Option<Arc<ClientIdentity>>,
) -> io::Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| io::Error::other(format!("`{address}` is no address such as `host:3444`")))?;
    Ok(with_timeouts(endpoint)
        .connect_with_connector_lazy(PinnedConnector::new(address, pin, identity)?))
}

/// Connects to one address, and accepts the pinned authority alone.
#[derive(Clone)]
struct PinnedConnector {
    address: Arc<str>,
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl PinnedConnector {
    fn new(
        address: &str,
        pin: Fingerprint,
        identity: Option<Arc<ClientIdentity>>,
    ) -> io::Result<Self> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Arc::new(PinnedAuthority {
            pin,
            provider: Arc::clone(&provider),
        });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let mut config = match identity {
            Some(identity) => config.with_client_cert_resolver(identity),
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            address: address.into(),
            tls: TlsConnector::from(Arc::new(config)),
            name: ServerName::try_from(CONTROL_PLANE_NAME).map_err(io::Error::other)?,
        })
    }

    async fn connect(self) -> io::Result<TokioIo<TlsStream<TcpStream>>> {
        let connected = async {
            let stream = TcpStream::connect(&*self.address).await?;
            stream.set_nodelay(true)?;
            self.tls.connect(self.name, stream).await
        };
        let silent = || io::Error::new(io::ErrorKind::TimedOut, "connecting took too long");
        let stream = timeout(CONNECT, connected).await.map_err(|_| silent())??;
        Ok(TokioIo::new(stream))
    }
}

impl tower::Service<Uri> for PinnedConnector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        Box::pin(self.clone().connect())
    }
}

/// The certificate that a node shows, and its key.
#[derive(Default)]
pub struct ClientIdentity {
    shown: ArcSwapOption<CertifiedKey>,
    /// Unix milliseconds after which it is not accepted; 0 when that is not known.
    ends: AtomicI64,
}

impl ClientIdentity {
    /// Shows this certificate from the next connection on.
    ///
    /// # Errors
    /// When certificate and key do not fit.
    pub fn replace(
        &self,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<(), Error> {
        let certified = CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())?;
        self.shown.store(Some(Arc::new(certified)));
        Ok(())
    }

    /// Notes until when the certificate is accepted, in Unix milliseconds.
    pub fn note_end(&self, unix_ms: i64) {
        self.ends.store(unix_ms, Ordering::Relaxed);
    }

    /// How long the certificate is still accepted, when that is known; zero when it is not.
    pub fn remaining(&self, now_unix_ms: i64) -> Option<Duration> {
        let end = self.ends.load(Ordering::Relaxed);
        let left = u64::try_from(end.saturating_sub(now_unix_ms)).unwrap_or(0);
        (end != 0).then(|| Duration::from_millis(left))
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientIdentity(…)")
    }
}

impl ResolvesClientCert for ClientIdentity {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.shown.load_full()
    }

    fn has_certs(&self) -> bool {
        self.shown.load().is_some()
    }
}

/// Trusts one authority.
struct PinnedAuthority {
    pin: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for PinnedAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PinnedAuthority({})", self.pin)
    }
}

impl PinnedAuthority {
    /// The library's own check, with the pinned authority as the only root: the one that the server sent along.
    fn verifier(&self, sent: &[CertificateDer<'_>]) -> Result<Arc<WebPkiServerVerifier>, Error> {
        let authority = sent.iter().find(|c| Fingerprint::of(c) == self.pin);
        let authority =
            authority.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| Error::General(error.to_string()))
    }
}

impl ServerCertVerifier for PinnedAuthority {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier(intermediates)?.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
