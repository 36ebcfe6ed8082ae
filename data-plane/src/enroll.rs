//! How a node becomes one of its deployment, and stays one: a join token gets it a certificate, which it renews at half of its life.
//!
//! Invariants: the key of a certificate never leaves the node; a certificate that ran out while no control plane could be reached is
//! renewed all the same, as the renewal secret proves who asks; what was got is saved before it is shown.

use std::{io, sync::Arc, time::Duration};

use proxyxai_core::{
    causes,
    ports::{Clock, Random, random_bytes},
    secret::{ExposeSecret as _, SecretString, join_token::JoinToken},
    trace::TraceContext,
};
use proxyxai_proto::node::v1::{
    JoinRequest, NodeCertificate, RenewRequest, join_service_client::JoinServiceClient,
};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, transport::Channel};
use zeroize::Zeroizing;

use crate::{config::backoff::Backoff, control_tls::ClientIdentity, trace};

/// Longest time for one answer.
const ANSWER: Duration = Duration::from_secs(10);
/// Longest wait before it is looked again whether a certificate is due: clocks jump, machines sleep.
const LOOK: Duration = Duration::from_secs(60);

/// What a node holds once it has joined. The key and the renewal secret are secret.
pub struct Enrolled {
    /// Names the node.
    pub node_id: String,
    /// PKCS #8 in DER.
    pub key: Zeroizing<Vec<u8>>,
    /// The node's certificate, then the authority's, each in DER.
    pub chain: Vec<Vec<u8>>,
    /// Unix milliseconds since which it is held, and after which it is not accepted.
    pub held: (i64, i64),
    /// Proves who asks for the next certificate.
    pub renewal_secret: SecretString,
}

/// Why a node has no certificate.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The control plane says no; asking again changes nothing.
    #[error("the control plane does not let this node in: {0}")]
    Refused(String),
    /// What answers was not signed by the authority that the token names.
    #[error(
        "what answers is no control plane of the gateway whose authority is pinned; check its address, and make the join token at that gateway"
    )]
    Untrusted,
    /// No control plane answers.
    #[error("no control plane answers: {0}")]
    Unreachable(String),
    /// The system gives no key, or what came back is no certificate.
    #[error("no certificate could be made: {0}")]
    Failed(String),
}

/// Joins with a token, within a trace if there is one.
///
/// # Errors
/// [`EnrollError`].
pub async fn join(
    channel: Channel,
    token: &JoinToken,
    node_id: &str,
    clock: &dyn Clock,
    trace: Option<TraceContext>,
) -> Result<Enrolled, EnrollError> {
    let (key, certificate_request) = request()?;
    let mut request = tonic::Request::new(JoinRequest {
        token: token.expose().to_owned(),
        node_id: node_id.to_owned(),
        certificate_request,
    });
    trace::send_along(trace, request.metadata_mut());
    let call = async { JoinServiceClient::new(channel).join(request).await };
    let joined = answered(timeout(ANSWER, call).await)?;
    let certificate = joined.certificate.unwrap_or_default();
    Ok(Enrolled {
        node_id: node_id.to_owned(),
        key,
        held: (clock.unix_ms(), certificate.not_after_unix_ms),
        chain: certificate.chain,
        renewal_secret: joined.renewal_secret.into(),
    })
}

impl Enrolled {
    /// Shows the certificate from the next connection on.
    ///
    /// # Errors
    /// When certificate and key do not fit.
    pub fn show(&self, identity: &ClientIdentity) -> Result<(), EnrollError> {
        let chain = self.chain.iter().cloned().map(CertificateDer::from);
        let key = PrivatePkcs8KeyDer::from(self.key.to_vec());
        identity
            .replace(chain.collect(), key.into())
            .map_err(|error| EnrollError::Failed(error.to_string()))?;
        identity.note_end(self.held.1);
        Ok(())
    }

    /// The same node with its next certificate.
    async fn renewed(&self, channel: Channel, clock: &dyn Clock) -> Result<Self, EnrollError> {
        let (key, certificate_request) = request()?;
        let call = async {
            JoinServiceClient::new(channel)
                .renew(RenewRequest {
                    node_id: self.node_id.clone(),
                    renewal_secret: self.renewal_secret.expose_secret().to_owned(),
                    certificate_request,
                })
                .await
        };
        let NodeCertificate {
            chain,
            not_after_unix_ms,
        } = answered(timeout(ANSWER, call).await)?
            .certificate
            .unwrap_or_default();
        Ok(Self {
            node_id: self.node_id.clone(),
            key,
            chain,
            held: (clock.unix_ms(), not_after_unix_ms),
            renewal_secret: self.renewal_secret.clone(),
        })
    }
}

/// Keeps a certificate good until `shutdown`. The channel must not show the certificate, which may have run out.
pub struct Renewal {
    /// What is held now.
    pub enrolled: Enrolled,
    /// To each control plane, without a client certificate.
    pub channels: Vec<Channel>,
    /// What is shown to the control plane elsewhere.
    pub identity: Arc<ClientIdentity>,
    /// Tells time.
    pub clock: Arc<dyn Clock>,
    /// Spreads the nodes of a deployment over time.
    pub random: Arc<dyn Random>,
}

impl Renewal {
    /// Runs until `shutdown`; `save` keeps what was got, and says when it cannot.
    pub async fn run(
        mut self,
        mut save: impl FnMut(&Enrolled) -> io::Result<()>,
        shutdown: CancellationToken,
    ) {
        let [spread, ..] = random_bytes::<8>(&*self.random);
        let mut backoff = Backoff::new(Arc::clone(&self.random));
        loop {
            let wait = match due_in(self.enrolled.held, spread, self.clock.unix_ms()) {
                Some(left) => left.min(LOOK),
                None => match self.renew(&mut save).await {
                    Ok(()) => {
                        backoff.reset();
                        continue;
                    }
                    Err(error) => {
                        let wait = backoff.next_wait();
                        tracing::warn!(%error, wait_ms = wait.as_millis(), "the node's certificate could not be renewed; trying again");
                        wait
                    }
                },
            };
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// The next certificate, from the first control plane that answers.
    async fn next(&self) -> Result<Enrolled, EnrollError> {
        let mut failed = EnrollError::Unreachable("none is known".to_owned());
        for channel in &self.channels {
            match self.enrolled.renewed(channel.clone(), &*self.clock).await {
                Err(error @ (EnrollError::Unreachable(_) | EnrollError::Untrusted)) => {
                    failed = error;
                }
                done => return done,
            }
        }
        Err(failed)
    }

    async fn renew(
        &mut self,
        save: &mut impl FnMut(&Enrolled) -> io::Result<()>,
    ) -> Result<(), EnrollError> {
        let next = self.next().await?;
        save(&next).map_err(|error| EnrollError::Failed(format!("it cannot be saved: {error}")))?;
        next.show(&self.identity)?;
        self.enrolled = next;
        tracing::info!(
            node = self.enrolled.node_id,
            "the node's certificate was renewed"
        );
        Ok(())
    }
}

/// How long until a certificate is renewed: half of its life, and up to a tenth less, as `spread` says; `None` means now.
fn due_in((since, until): (i64, i64), spread: u8, now_unix_ms: i64) -> Option<Duration> {
    let life = until.saturating_sub(since).max(0);
    let earlier = (life / 10).saturating_mul(i64::from(spread)) / 256;
    let due = since.saturating_add(life / 2).saturating_sub(earlier);
    let left = u64::try_from(due.saturating_sub(now_unix_ms)).ok()?;
    (left > 0).then(|| Duration::from_millis(left))
}

/// A new key, and the request for its certificate.
fn request() -> Result<(Zeroizing<Vec<u8>>, Vec<u8>), EnrollError> {
    let make = || -> Result<_, rcgen::Error> {
        let key = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&key)?;
        Ok((Zeroizing::new(key.serialize_der()), request.der().to_vec()))
    };
    make().map_err(|error| EnrollError::Failed(error.to_string()))
}

fn answered<T>(
    answer: Result<Result<tonic::Response<T>, Status>, tokio::time::error::Elapsed>,
) -> Result<T, EnrollError> {
    match answer {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(status)) if is_untrusted(&status) => Err(EnrollError::Untrusted),
        Ok(Err(status)) => Err(match status.code() {
            Code::Unauthenticated
            | Code::PermissionDenied
            | Code::InvalidArgument
            | Code::AlreadyExists
            | Code::Unimplemented => EnrollError::Refused(status.message().to_owned()),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::NotFound
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => EnrollError::Unreachable(causes::in_one_line(&status)),
        }),
        Err(_) => Err(EnrollError::Unreachable("it took too long".to_owned())),
    }
}

/// Whether TLS ended because the certificate of the other end does not fit.
fn is_untrusted(status: &Status) -> bool {
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let inner = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref);
        let tls = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if matches!(tls, Some(rustls::Error::InvalidCertificate(_))) {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_renewed_at_half_of_its_life_or_a_little_sooner() {
        const HOUR: i64 = 3_600_000;
        let check = |held: (i64, i64), spread: u8, now: i64, due: Option<i64>| {
            let due = due.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap()));
            assert_eq!(due_in(held, spread, now), due, "{held:?} {spread} {now}");
        };
        check((0, 20 * HOUR), 0, 0, Some(10 * HOUR));
        check((0, 20 * HOUR), 128, 0, Some(9 * HOUR));
        check((0, 20 * HOUR), 0, 10 * HOUR, None);
        check((0, 20 * HOUR), 0, 100 * HOUR, None);
        check((5 * HOUR, 5 * HOUR), 0, 0, Some(5 * HOUR));
        check((HOUR, 0), 9, 2 * HOUR, None);
    }
}
