//! The deployment's own certificate authority: it vouches for control planes and nodes of this deployment, and for nothing else.
//!
//! Invariants: a certificate of a node names exactly one node, may only be shown by clients, and lives for [`NODE_LIFETIME`]; that of
//! a control plane may only be shown by servers. Nothing of a request for a certificate is taken over but its public key.

mod given_authority;

use std::{fmt, time::Duration};

use proxyxai_core::secret::fingerprint::{CONTROL_PLANE_NAME, Fingerprint};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

/// How long a node's certificate is good for; it is renewed at half of that.
pub const NODE_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// How long a control plane's certificate is good for; each start makes a new one, and so does a running one at half of that.
pub const SERVER_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);
/// When a running control plane makes its next certificate.
pub const SERVER_RENEWAL: Duration = Duration::from_secs(15 * 24 * 3600);
const AUTHORITY_LIFETIME: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
/// Clocks may differ by so much.
const SKEW: Duration = Duration::from_secs(300);
const TRUST_DOMAIN: &str = "spiffe://proxyxai.internal";

/// Signs certificates.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    deployment: String,
}

/// What an authority is kept as. The key is secret: it is sealed before it is stored.
pub struct Kept {
    /// In DER.
    pub certificate: Vec<u8>,
    /// PKCS #8 in DER.
    pub key: Zeroizing<Vec<u8>>,
}

/// A certificate for a node.
pub struct NodeCertificate {
    /// The certificate, then that of the authority, each in DER.
    pub chain: Vec<Vec<u8>>,
    /// Unix milliseconds after which it is not accepted.
    pub not_after_unix_ms: i64,
}

/// A certificate and key for a control plane.
pub struct ServerCertificate {
    /// The certificate, then that of the authority.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: PrivateKeyDer<'static>,
}

impl Authority {
    /// Makes a new authority.
    ///
    /// # Errors
    /// When the system gives no key.
    pub fn make(deployment: &str, now_unix_ms: i64) -> Result<(Self, Kept), AuthorityError> {
        let key = KeyPair::generate().map_err(failed)?;
        let mut params = params(&format!("ProxyXAI deployment {deployment}"));
        valid(&mut params, now_unix_ms, AUTHORITY_LIFETIME);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(failed)?;
        let kept = Kept {
            certificate: certificate.der().to_vec(),
            key: Zeroizing::new(key.serialize_der()),
        };
        let authority = Self {
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
            deployment: deployment.to_owned(),
        };
        Ok((authority, kept))
    }

    /// Takes up an authority that was made before.
    ///
    /// # Errors
    /// When what was kept is no authority.
    pub fn open(deployment: &str, kept: &Kept) -> Result<Self, AuthorityError> {
        let key = KeyPair::try_from(kept.key.as_slice()).map_err(failed)?;
        let certificate = CertificateDer::from(kept.certificate.clone());
        Ok(Self {
            issuer: Issuer::from_ca_cert_der(&certificate, key).map_err(failed)?,
            certificate,
            deployment: deployment.to_owned(),
        })
    }

    /// Takes up an authority that somebody else made, for a new deployment.
    ///
    /// # Errors
    /// When it cannot sign what nodes and clients then accept: the key is another one's, or the certificate is none of an authority, or
    /// has run out.
    pub fn take_up(
        deployment: &str,
        given: &Kept,
        now_unix_ms: i64,
    ) -> Result<(Self, Kept), AuthorityError> {
        let authority = Self::open(deployment, given)?;
        given_authority::check(given, authority.issuer.key(), now_unix_ms)?;
        let kept = Kept {
            certificate: given.certificate.clone(),
            key: given.key.clone(),
        };
        Ok((authority, kept))
    }

    /// What clients pin.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// Its certificate in DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Unix milliseconds after which it is not accepted any more, and with it no certificate of the deployment.
    pub fn not_after_unix_ms(&self) -> Option<i64> {
        not_after(&self.certificate)
    }

    /// Its certificate in PEM (RFC 7468).
    pub fn certificate_pem(&self) -> String {
        pem::encode(&pem::Pem::new("CERTIFICATE", self.certificate.to_vec()))
    }

    /// A certificate for a control plane that is reached under these names and addresses, besides the one that pinning clients ask for.
    ///
    /// # Errors
    /// When a name is none.
    pub fn server(
        &self,
        names: &[String],
        now_unix_ms: i64,
    ) -> Result<ServerCertificate, AuthorityError> {
        let all = [CONTROL_PLANE_NAME, "localhost", "127.0.0.1", "::1"]
            .into_iter()
            .map(str::to_owned)
            .chain(names.iter().cloned());
        let mut params = CertificateParams::new(all.collect::<Vec<_>>()).map_err(failed)?;
        name(&mut params, "ProxyXAI control plane");
        valid(&mut params, now_unix_ms, SERVER_LIFETIME);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().map_err(failed)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(failed)?;
        Ok(ServerCertificate {
            chain: vec![certificate.der().clone(), self.certificate.clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        })
    }

    /// A certificate for a node, over the public key of its request (PKCS #10 in DER), which proves that the node has the key.
    ///
    /// # Errors
    /// When the request is none, or is not signed with its own key.
    pub fn node(
        &self,
        node: &str,
        request: &[u8],
        now_unix_ms: i64,
    ) -> Result<NodeCertificate, AuthorityError> {
        let request = CertificateSigningRequestParams::from_der(&request.into()).map_err(failed)?;
        let mut params = params(node);
        let uri = format!("{TRUST_DOMAIN}/{}/node/{node}", self.deployment);
        params.subject_alt_names = vec![SanType::URI(uri.try_into().map_err(failed)?)];
        let not_after_unix_ms = valid(&mut params, now_unix_ms, NODE_LIFETIME);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let signed = params.signed_by(&request.public_key, &self.issuer);
        Ok(NodeCertificate {
            chain: vec![
                signed.map_err(failed)?.der().to_vec(),
                self.certificate.to_vec(),
            ],
            not_after_unix_ms,
        })
    }

    /// The node that a certificate names, once its signature and time were checked by the TLS library; `None` for one that names none, or
    /// more than one thing, or a node of another deployment.
    pub fn node_of(&self, certificate: &[u8]) -> Option<String> {
        use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
        let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
        let names = &certificate
            .subject_alternative_name()
            .ok()??
            .value
            .general_names;
        let [GeneralName::URI(uri)] = names.as_slice() else {
            return None;
        };
        let node = uri
            .strip_prefix(TRUST_DOMAIN)?
            .strip_prefix('/')?
            .strip_prefix(self.deployment.as_str())?
            .strip_prefix("/node/")?;
        (!node.is_empty() && !certificate.is_ca()).then(|| node.to_owned())
    }
}

/// Unix milliseconds after which a certificate is not accepted.
pub(crate) fn not_after(certificate: &[u8]) -> Option<i64> {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let end = certificate.validity().not_after.timestamp();
    end.checked_mul(1_000)
}

fn params(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    name(&mut params, common_name);
    params
}

fn name(params: &mut CertificateParams, common_name: &str) {
    params.distinguished_name = rcgen::DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
}

/// Sets the time of validity; the answer is its end in Unix milliseconds.
fn valid(params: &mut CertificateParams, now_unix_ms: i64, lifetime: Duration) -> i64 {
    let epoch = date_time_ymd(1970, 1, 1);
    let seconds = Duration::from_millis(u64::try_from(now_unix_ms).unwrap_or(0)).as_secs();
    let end = seconds.saturating_add(lifetime.as_secs());
    let at = |seconds: u64| {
        let since = Duration::from_secs(seconds).try_into().ok();
        since.and_then(|since| epoch.checked_add(since))
    };
    params.not_before = at(seconds.saturating_sub(SKEW.as_secs())).unwrap_or(epoch);
    params.not_after = at(end).unwrap_or(epoch);
    i64::try_from(end.saturating_mul(1000)).unwrap_or(i64::MAX)
}

fn failed(error: impl fmt::Display) -> AuthorityError {
    AuthorityError(error.to_string())
}

/// A certificate cannot be made or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate authority cannot do this: {0}")]
pub struct AuthorityError(String);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000_000;

    fn request() -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut wished =
            CertificateParams::new(vec!["control-plane.proxyxai.internal".to_owned()]).unwrap();
        wished.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wished.serialize_request(&key).unwrap().der().to_vec()
    }

    #[test]
    fn an_authority_that_was_kept_is_the_same() {
        let (made, kept) = Authority::make("dep", NOW).unwrap();
        let opened = Authority::open("dep", &kept).unwrap();
        assert_eq!(made.fingerprint(), opened.fingerprint());
        let certificate = opened.node("node-1", &request(), NOW).unwrap();
        let leaf = &certificate.chain[0];
        assert_eq!(made.node_of(leaf).as_deref(), Some("node-1"));
        assert_eq!(certificate.not_after_unix_ms, NOW + 24 * 3_600_000);
    }

    #[test]
    fn a_certificate_names_what_the_authority_says_not_what_was_wished_for() {
        use x509_parser::prelude::{FromDer as _, X509Certificate};
        let (authority, _) = Authority::make("dep", NOW).unwrap();
        let leaf = authority
            .node("node-1", &request(), NOW)
            .unwrap()
            .chain
            .remove(0);
        let (_, parsed) = X509Certificate::from_der(&leaf).unwrap();
        assert!(!parsed.is_ca());
        let usage = parsed.extended_key_usage().unwrap().unwrap().value;
        assert!(usage.client_auth && !usage.server_auth && !usage.any);
        let (other, _) = Authority::make("other", NOW).unwrap();
        assert_eq!(
            other.node_of(&leaf),
            None,
            "a node of another deployment is none of ours"
        );
        assert_eq!(authority.node_of(authority.certificate()), None);
        let server = authority.server(&["gw.example".to_owned()], NOW).unwrap();
        assert_eq!(
            authority.node_of(&server.chain[0]),
            None,
            "a control plane is no node"
        );
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let (authority, _) = Authority::make("dep", NOW).unwrap();
        let mut forged = request();
        let last = forged.len() - 1;
        forged[last] ^= 1;
        for bad in [&b""[..], b"\x30\x00", &forged] {
            assert!(authority.node("node-1", bad, NOW).is_err());
        }
        assert!(
            authority
                .server(&["not a name\u{e9}".to_owned()], NOW)
                .is_err()
        );
    }
}
