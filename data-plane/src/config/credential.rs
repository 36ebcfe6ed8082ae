//! What a node shows to its control planes, with every call.

use proxyxai_core::secret::{ExposeSecret, SecretString};
use tonic::{
    Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

/// A channel with the credential on it.
pub type ControlChannel = InterceptedService<Channel, NodeCredential>;

/// What a node proves itself with; never printed. Nothing, when the certificate of its connections says who it is.
#[derive(Clone)]
pub struct NodeCredential(Option<MetadataValue<Ascii>>);

impl NodeCredential {
    /// Takes the credential as the control plane gave it.
    ///
    /// # Errors
    /// The credential has characters that cannot stand in a header.
    pub fn new(credential: &SecretString) -> Result<Self, InvalidCredential> {
        let text = format!("Bearer {}", credential.expose_secret());
        let mut value: MetadataValue<Ascii> = text.parse().map_err(|_| InvalidCredential)?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }

    /// None but the certificate of the connection.
    pub const fn certificate() -> Self {
        Self(None)
    }

    /// Puts the credential on a channel.
    pub fn on(self, channel: Channel) -> ControlChannel {
        InterceptedService::new(channel, self)
    }
}

impl Interceptor for NodeCredential {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// The credential is no text for a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the node credential has characters that cannot stand in a header; take it as the control plane printed it"
)]
pub struct InvalidCredential;
