//! Where etcd is, who we are there, and how long to wait for it.

use std::time::Duration;

use etcd_client::{Certificate, Identity, TlsOptions};
use proxyxai_core::secret::{ExposeSecret as _, SecretString};

/// Where etcd is and how it is used.
#[derive(Debug, Clone)]
pub struct EtcdSettings {
    /// Its members, as `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoints: Vec<String>,
    /// What all keys begin with; a `/` is added at the end if there is none.
    pub prefix: String,
    /// Name and password, where etcd asks for them.
    pub user: Option<(String, SecretString)>,
    /// For `https` endpoints; without it, the system's authorities are trusted.
    pub tls: EtcdTls,
    /// Longest time to connect to a member.
    pub connect_timeout: Duration,
    /// Longest time that one member may take for an answer.
    pub request_timeout: Duration,
    /// A watch that heard nothing for so long is lost. The tick comes every five seconds.
    pub freshness: Duration,
    /// How long the leadership of one who fell silent goes on; whole seconds, at least 2.
    pub leadership: Duration,
    /// Run also on versions with known faults.
    pub allow_old_version: bool,
}

/// Certificates, in PEM.
#[derive(Debug, Clone, Default)]
pub struct EtcdTls {
    /// Who signed the certificates of the members.
    pub authority: Option<Vec<u8>>,
    /// Our certificate and its key.
    pub identity: Option<(Vec<u8>, SecretString)>,
}

impl EtcdSettings {
    /// What suits, for these members.
    pub fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            prefix: "proxyxai/".to_owned(),
            user: None,
            tls: EtcdTls::default(),
            connect_timeout: Duration::from_secs(3),
            request_timeout: Duration::from_secs(5),
            freshness: Duration::from_secs(15),
            leadership: Duration::from_secs(5),
            allow_old_version: false,
        }
    }
}

impl EtcdTls {
    pub(super) fn options(&self) -> TlsOptions {
        let options = match &self.authority {
            Some(pem) => TlsOptions::new().ca_certificate(Certificate::from_pem(pem)),
            None => TlsOptions::new().with_native_roots(),
        };
        match &self.identity {
            Some((certificate, key)) => {
                options.identity(Identity::from_pem(certificate, key.expose_secret()))
            }
            None => options,
        }
    }
}
