//! Connects to providers over real sockets: look up, check every address, connect to the checked one, TLS.
//!
//! Invariants: a provider that does not allow private addresses is never connected at one, whatever its name resolves to; no
//! redirect is followed and no proxy of the environment is used, as nothing here knows of any.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use proxyxai_core::{
    ports::Clock,
    route::{address, base_url::BaseUrl},
};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::net::{Dial, DialError, DialFactory, Io, Local};

/// How long a looked-up address is used.
const LOOKUP_AGE: Duration = Duration::from_secs(30);
/// Names kept, at most.
const LOOKUPS: usize = 256;

/// Makes diallers that share one TLS setup (and so its sessions).
///
/// # Errors
/// When there is no usable TLS provider.
pub fn factory(clock: Arc<dyn Clock>, timeout: Duration) -> io::Result<DialFactory> {
    let tls = Arc::new(tls_config()?);
    Ok(Arc::new(move || {
        Rc::new(SocketDial {
            clock: Arc::clone(&clock),
            timeout,
            tls: TlsConnector::from(Arc::clone(&tls)),
            lookups: RefCell::new(HashMap::new()),
        })
    }))
}

struct SocketDial {
    clock: Arc<dyn Clock>,
    timeout: Duration,
    tls: TlsConnector,
    lookups: RefCell<HashMap<(String, u16), Found>>,
}

/// When a name was looked up, and what it led to.
type Found = (Duration, Vec<SocketAddr>);

impl Dial for SocketDial {
    fn dial<'a>(
        &'a self,
        base: &'a BaseUrl,
        allow_private: bool,
    ) -> Local<'a, Result<Io, DialError>> {
        Box::pin(async move {
            let connected =
                tokio::time::timeout(self.timeout, self.connect(base, allow_private)).await;
            connected.unwrap_or(Err(DialError::TimedOut))
        })
    }
}

impl SocketDial {
    async fn connect(&self, base: &BaseUrl, allow_private: bool) -> Result<Io, DialError> {
        let addresses = self.lookup(base).await?;
        let private = |a: &IpAddr| address::is_private(*a);
        let mut last = match addresses.iter().map(SocketAddr::ip).find(private) {
            Some(found) if !allow_private => DialError::Private(found),
            _ => DialError::Lookup(io::ErrorKind::NotFound.into()),
        };
        for at in addresses
            .iter()
            .filter(|at| allow_private || !address::is_private(at.ip()))
        {
            match TcpStream::connect(at).await {
                Ok(stream) => {
                    stream.set_nodelay(true).map_err(DialError::Connect)?;
                    return if base.https() {
                        self.secure(base, stream).await
                    } else {
                        Ok(Io::Tcp(stream))
                    };
                }
                Err(error) => last = DialError::Connect(error),
            }
        }
        Err(last)
    }

    async fn secure(&self, base: &BaseUrl, stream: TcpStream) -> Result<Io, DialError> {
        let name = ServerName::try_from(base.host().to_owned())
            .map_err(|error| DialError::Tls(io::Error::other(error)))?;
        let stream = self
            .tls
            .connect(name, stream)
            .await
            .map_err(DialError::Tls)?;
        Ok(Io::Tls(Box::new(stream)))
    }

    async fn lookup(&self, base: &BaseUrl) -> Result<Vec<SocketAddr>, DialError> {
        if let Some(literal) = base.literal_address() {
            return Ok(vec![SocketAddr::new(literal, base.port())]);
        }
        let (now, key) = (
            self.clock.monotonic(),
            (base.host().to_owned(), base.port()),
        );
        if let Some((at, known)) = self.lookups.borrow().get(&key)
            && now.saturating_sub(*at) < LOOKUP_AGE
        {
            return Ok(known.clone());
        }
        let found: Vec<SocketAddr> = tokio::net::lookup_host((base.host(), base.port()))
            .await
            .map_err(DialError::Lookup)?
            .collect();
        let mut lookups = self.lookups.borrow_mut();
        if lookups.len() >= LOOKUPS {
            lookups.clear();
        }
        lookups.insert(key, (now, found.clone()));
        Ok(found)
    }
}

/// The system's certificates; where there are none, as in the smallest images, Mozilla's.
fn tls_config() -> io::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
