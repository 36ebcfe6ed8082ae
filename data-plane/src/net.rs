//! Connections, and who makes them: real sockets, TLS over them, or whatever a simulation hands in.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
};

use proxyxai_core::route::base_url::BaseUrl;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{client::TlsStream, server::TlsStream as ClientStream};

/// A byte stream of any kind.
pub trait ByteStream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> ByteStream for T {}

/// A connection. The common kinds are named so that reading and writing them costs no indirect call.
pub enum Io {
    /// Plain TCP.
    Tcp(TcpStream),
    /// TLS over TCP, towards a provider.
    Tls(Box<TlsStream<TcpStream>>),
    /// TLS over TCP, of a client.
    Client(Box<ClientStream<TcpStream>>),
    /// Anything else, as simulations use.
    Other(Box<dyn ByteStream>),
}

macro_rules! each {
    ($self:expr, $io:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Tcp($io) => $call,
            Self::Tls($io) => $call,
            Self::Client($io) => $call,
            Self::Other($io) => $call,
        }
    };
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_read(cx, buf))
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, io => Pin::new(io).poll_write_vectored(cx, parts))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
            Self::Client(io) => io.is_write_vectored(),
            Self::Other(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, io => Pin::new(io).poll_shutdown(cx))
    }
}

/// The future of a step on one core.
pub type Local<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Where clients come from.
pub enum Listener {
    /// A socket.
    Tcp(TcpListener),
    /// Whatever a simulation accepts with.
    Other(Box<dyn Accept>),
}

/// Accepts connections.
pub trait Accept {
    /// The next connection and who it is from.
    fn accept(&mut self) -> Local<'_, io::Result<(Io, SocketAddr)>>;
}

impl Listener {
    /// The next connection and who it is from.
    ///
    /// # Errors
    /// What the system says; the listener goes on.
    pub async fn accept(&mut self) -> io::Result<(Io, SocketAddr)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok((Io::Tcp(stream), from))
            }
            Self::Other(other) => other.accept().await,
        }
    }
}

/// Connects to providers.
pub trait Dial {
    /// A new connection, ready for HTTP.
    fn dial<'a>(
        &'a self,
        base: &'a BaseUrl,
        allow_private: bool,
    ) -> Local<'a, Result<Io, DialError>>;
}

/// Makes the dialler of one core.
pub type DialFactory = Arc<dyn Fn() -> Rc<dyn Dial> + Send + Sync>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The name leads nowhere.
    #[error("the host name of the provider cannot be looked up")]
    Lookup(#[source] io::Error),
    /// The address is one that a provider must not have.
    #[error(
        "the provider's host has the private address {0}; allow private addresses for it if that is meant"
    )]
    Private(std::net::IpAddr),
    /// Nobody answers there.
    #[error("the provider does not accept the connection")]
    Connect(#[source] io::Error),
    /// TLS failed.
    #[error("the TLS handshake with the provider failed")]
    Tls(#[source] io::Error),
    /// It took too long.
    #[error("connecting to the provider took too long")]
    TimedOut,
}
