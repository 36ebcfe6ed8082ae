//! The gRPC API with a credential: clients of each service, and errors as sentences.

use proxyxai_core::secret::{ExposeSecret as _, SecretString};
use proxyxai_proto::admin::v1::{
    account_service_client::AccountServiceClient, backup_service_client::BackupServiceClient,
    key_service_client::KeyServiceClient, node_service_client::NodeServiceClient,
    provider_service_client::ProviderServiceClient, route_service_client::RouteServiceClient,
    secret_service_client::SecretServiceClient,
    upstream_key_service_client::UpstreamKeyServiceClient,
    usage_query_service_client::UsageQueryServiceClient,
};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::failure::{Exit, Failure};

/// Shows the credential with every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A channel that shows the credential.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// The admin API.
pub struct Api {
    channel: Authorized,
    /// What is called, for sentences.
    place: String,
}

impl Api {
    /// The API over this channel.
    ///
    /// # Errors
    /// When the credential cannot stand in a header.
    pub fn new(
        channel: Channel,
        credential: &SecretString,
        place: String,
    ) -> Result<Self, Failure> {
        let mut value = MetadataValue::try_from(format!("Bearer {}", credential.expose_secret()))
            .map_err(|_| {
            Failure::usage(
                "the admin credential has characters that cannot be sent; look at its file",
            )
        })?;
        value.set_sensitive(true);
        Ok(Self {
            channel: InterceptedService::new(channel, Bearer(value)),
            place,
        })
    }

    /// The subaccount tree.
    pub fn accounts(&self) -> AccountServiceClient<Authorized> {
        AccountServiceClient::new(self.channel.clone())
    }

    /// Virtual keys.
    pub fn keys(&self) -> KeyServiceClient<Authorized> {
        KeyServiceClient::new(self.channel.clone())
    }

    /// Providers.
    pub fn providers(&self) -> ProviderServiceClient<Authorized> {
        ProviderServiceClient::new(self.channel.clone())
    }

    /// Upstream keys.
    pub fn upstream_keys(&self) -> UpstreamKeyServiceClient<Authorized> {
        UpstreamKeyServiceClient::new(self.channel.clone())
    }

    /// Routes.
    pub fn routes(&self) -> RouteServiceClient<Authorized> {
        RouteServiceClient::new(self.channel.clone())
    }

    /// Copies of the store.
    pub fn backups(&self) -> BackupServiceClient<Authorized> {
        BackupServiceClient::new(self.channel.clone())
    }

    /// The keys that seal secrets.
    pub fn secrets(&self) -> SecretServiceClient<Authorized> {
        SecretServiceClient::new(self.channel.clone())
    }

    /// Nodes.
    pub fn nodes(&self) -> NodeServiceClient<Authorized> {
        NodeServiceClient::new(self.channel.clone())
    }

    /// Usage.
    pub fn usage(&self) -> UsageQueryServiceClient<Authorized> {
        UsageQueryServiceClient::new(self.channel.clone())
    }

    /// A refusal as one sentence.
    #[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
    pub fn failure(&self, status: Status) -> Failure {
        let said = status.message();
        match status.code() {
            Code::NotFound => Failure::new(Exit::NotFound, said),
            Code::Unauthenticated | Code::PermissionDenied => Failure::new(
                Exit::Unreachable,
                format!(
                    "{} does not accept the admin credential: {said}",
                    self.place
                ),
            ),
            Code::Unavailable if std::error::Error::source(&status).is_some() => Failure::new(
                Exit::Unreachable,
                format!(
                    "{} cannot be reached; is `xai up` running, and is --server right?",
                    self.place
                ),
            ),
            Code::InvalidArgument
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Unavailable => Failure::failed(said),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::OutOfRange
            | Code::Unimplemented
            | Code::Internal
            | Code::DataLoss => Failure::failed(format!(
                "{} failed ({}): {said}",
                self.place,
                status.code().description()
            )),
        }
    }
}

/// Follows the pages of a list to the end. `$call` asks for one page by its token.
macro_rules! all_pages {
    ($api:expr, $field:ident, $token:ident => $call:expr) => {{
        let mut all = Vec::new();
        let mut $token = String::new();
        loop {
            let page = $call
                .await
                .map_err(|status| $api.failure(status))?
                .into_inner();
            all.extend(page.$field);
            if page.next_page_token.is_empty() {
                break all;
            }
            $token = page.next_page_token;
        }
    }};
}

/// One call, its refusal as a sentence.
macro_rules! call {
    ($api:expr, $call:expr) => {
        $call
            .await
            .map_err(|status| $api.failure(status))?
            .into_inner()
    };
}

pub(crate) use {all_pages, call};

/// Items of one page of a list.
pub const PAGE: u32 = 1000;
