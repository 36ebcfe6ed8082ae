//! TLS in front of the gRPC services: every connection is encrypted; who shows a certificate of this deployment is known as that node.
//!
//! Invariants: a client certificate is asked for and not required, but one that is shown must be good; handshakes are bounded in time and
//! number, so that a slow or silent client holds up nobody.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_stream::{Stream, StreamExt as _, wrappers::ReceiverStream};
use tonic::transport::server::Connected;

use crate::authority::{self, Authority, AuthorityError, ServerCertificate};

/// Longest time that a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at the same time.
const HANDSHAKES: usize = 256;

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The node whose certificate it showed.
    pub node: Option<Arc<str>>,
}

/// The server's side of TLS, whose certificate can be replaced while it serves.
#[derive(Clone)]
pub struct Tls {
    authority: Arc<Authority>,
    config: Arc<ServerConfig>,
    current: Arc<Current>,
}

/// The certificate that is shown now.
struct Current {
    provider: Arc<CryptoProvider>,
    certificate: ArcSwap<CertifiedKey>,
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current(…)")
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.certificate.load_full())
    }
}

impl Tls {
    /// Shows this certificate, and knows the nodes of this authority.
    ///
    /// # Errors
    /// When certificate and key do not fit.
    pub fn new(
        authority: Arc<Authority>,
        certificate: ServerCertificate,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let current = Arc::new(Current {
            certificate: ArcSwap::new(certified(&provider, certificate)?),
            provider: Arc::clone(&provider),
        });
        let mut roots = RootCertStore::empty();
        roots.add(authority.certificate().clone())?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| TlsError(error.to_string()))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::clone(&current) as _);
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Self {
            authority,
            config: Arc::new(config),
            current,
        })
    }

    /// Unix milliseconds after which the certificate that is shown now is not accepted.
    pub fn not_after_unix_ms(&self) -> Option<i64> {
        let shown = self.current.certificate.load();
        authority::not_after(shown.cert.first()?)
    }

    /// Shows another certificate from now on; connections that exist go on.
    ///
    /// # Errors
    /// When certificate and key do not fit; the old one is still shown then.
    pub fn replace(&self, certificate: ServerCertificate) -> Result<(), TlsError> {
        let next = certified(&self.current.provider, certificate)?;
        self.current.certificate.store(next);
        Ok(())
    }

    /// Connections whose handshake succeeded, in the order in which they did.
    pub fn accept<I, C>(&self, incoming: I) -> ReceiverStream<io::Result<TlsConnection<C>>>
    where
        I: Stream<Item = io::Result<C>> + Send + 'static,
        C: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (ready, accepted) = mpsc::channel(1);
        let this = self.clone();
        tokio::spawn(async move {
            let (handshakes, acceptor) = (
                Arc::new(Semaphore::new(HANDSHAKES)),
                TlsAcceptor::from(Arc::clone(&this.config)),
            );
            let mut incoming = std::pin::pin!(incoming);
            loop {
                let Ok(turn) = Arc::clone(&handshakes).acquire_owned().await else {
                    return;
                };
                let connection = tokio::select! {
                    biased;
                    () = ready.closed() => return,
                    next = incoming.next() => match next {
                        Some(Ok(connection)) => connection,
                        Some(Err(error)) => {
                            tracing::debug!(%error, "a connection could not be accepted");
                            continue;
                        }
                        None => return,
                    },
                };
                let (this, acceptor, ready) = (this.clone(), acceptor.clone(), ready.clone());
                tokio::spawn(async move {
                    let shaken = timeout(HANDSHAKE, this.shake(&acceptor, connection)).await;
                    drop(turn);
                    match shaken {
                        Ok(Ok(connection)) => drop(ready.send(Ok(connection)).await),
                        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!("a TLS handshake took too long"),
                    }
                });
            }
        });
        ReceiverStream::new(accepted)
    }

    async fn shake<C>(&self, acceptor: &TlsAcceptor, connection: C) -> io::Result<TlsConnection<C>>
    where
        C: AsyncRead + AsyncWrite + Unpin,
    {
        let io = acceptor.accept(connection).await?;
        let shown = io.get_ref().1.peer_certificates();
        let node = match shown.and_then(<[_]>::first) {
            Some(certificate) => Some(
                self.authority
                    .node_of(certificate)
                    .ok_or_else(|| io::Error::other("its certificate names no node"))?
                    .into(),
            ),
            None => None,
        };
        Ok(TlsConnection {
            io,
            peer: Peer { node },
        })
    }
}

/// An encrypted connection.
pub struct TlsConnection<C> {
    io: TlsStream<C>,
    peer: Peer,
}

impl<C> Connected for TlsConnection<C> {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncRead for TlsConnection<C> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(task, into)
    }
}

impl<C: AsyncRead + AsyncWrite + Unpin> AsyncWrite for TlsConnection<C> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        task: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(task)
    }
}

fn certified(
    provider: &CryptoProvider,
    certificate: ServerCertificate,
) -> Result<Arc<CertifiedKey>, TlsError> {
    let certified = CertifiedKey::from_der(certificate.chain, certificate.key, provider)?;
    Ok(Arc::new(certified))
}

/// TLS cannot be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("TLS cannot be set up: {0}")]
pub struct TlsError(String);

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self(error.to_string())
    }
}

impl From<AuthorityError> for TlsError {
    fn from(error: AuthorityError) -> Self {
        Self(error.to_string())
    }
}
