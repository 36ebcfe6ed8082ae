//! The gRPC API with a credential: clients of each service, and errors as sentences.

use proxyxai_core::secret::{ExposeSecret as _, SecretString};
use proxyxai_proto::admin::v1::{
    account_service_client::AccountServiceClient, audit_service_client::AuditServiceClient,
    backup_service_client::BackupServiceClient, credential_service_client::CredentialServiceClient,
    join_token_service_client::JoinTokenServiceClient, key_service_client::KeyServiceClient,
    log_service_client::LogServiceClient, manifest_service_client::ManifestServiceClient,
    node_service_client::NodeServiceClient, price_service_client::PriceServiceClient,
    provider_service_client::ProviderServiceClient, route_service_client::RouteServiceClient,
    secret_service_client::SecretServiceClient, settings_service_client::SettingsServiceClient,
    upstream_key_service_client::UpstreamKeyServiceClient,
    usage_query_service_client::UsageQueryServiceClient,
};
use tonic::{
    Code, Request, Status,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};
use tonic_types::StatusExt as _;

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

    /// Join tokens.
    pub fn join_tokens(&self) -> JoinTokenServiceClient<Authorized> {
        JoinTokenServiceClient::new(self.channel.clone())
    }

    /// Tables of list prices.
    pub fn prices(&self) -> PriceServiceClient<Authorized> {
        PriceServiceClient::new(self.channel.clone())
    }

    /// Copies of the store.
    pub fn backups(&self) -> BackupServiceClient<Authorized> {
        BackupServiceClient::new(self.channel.clone())
    }

    /// The keys that seal secrets.
    pub fn secrets(&self) -> SecretServiceClient<Authorized> {
        SecretServiceClient::new(self.channel.clone())
    }

    /// The configuration as a whole.
    pub fn manifests(&self) -> ManifestServiceClient<Authorized> {
        const MAX_BYTES: usize = 64 << 20;
        ManifestServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_BYTES)
            .max_encoding_message_size(MAX_BYTES)
    }

    /// Nodes.
    pub fn nodes(&self) -> NodeServiceClient<Authorized> {
        NodeServiceClient::new(self.channel.clone())
    }

    /// Settings of the whole deployment.
    pub fn settings(&self) -> SettingsServiceClient<Authorized> {
        SettingsServiceClient::new(self.channel.clone())
    }

    /// Levels of logs.
    pub fn logs(&self) -> LogServiceClient<Authorized> {
        LogServiceClient::new(self.channel.clone())
    }

    /// Usage.
    pub fn usage(&self) -> UsageQueryServiceClient<Authorized> {
        UsageQueryServiceClient::new(self.channel.clone())
    }

    /// Credentials.
    pub fn credentials(&self) -> CredentialServiceClient<Authorized> {
        CredentialServiceClient::new(self.channel.clone())
    }

    /// The audit trail.
    pub fn audit(&self) -> AuditServiceClient<Authorized> {
        AuditServiceClient::new(self.channel.clone())
    }

    /// A refusal as one sentence.
    #[expect(clippy::needless_pass_by_value, reason = "made for map_err")]
    pub fn failure(&self, status: Status) -> Failure {
        let fields = wrong_fields(&status);
        let said = fields.as_deref().unwrap_or(status.message());
        match status.code() {
            Code::NotFound => Failure::new(Exit::NotFound, said),
            Code::Unauthenticated => Failure::new(
                Exit::Unreachable,
                format!("{} does not accept the credential: {said}", self.place),
            ),
            Code::Unavailable if is_of_another_authority(&status) => Failure::new(
                Exit::Unreachable,
                format!(
                    "{} is not signed by the authority that is pinned; is it the right gateway, and the fingerprint that it prints at start?",
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
            | Code::PermissionDenied
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

/// Whether the connection failed because its certificate was not accepted.
fn is_of_another_authority(status: &Status) -> bool {
    let causes = std::iter::successors(std::error::Error::source(status), |error| error.source());
    causes
        .filter_map(|error| error.downcast_ref::<std::io::Error>()?.get_ref())
        .any(|error| {
            matches!(
                error.downcast_ref(),
                Some(rustls::Error::InvalidCertificate(_))
            )
        })
}

/// One sentence for each field that is refused, each on its own line; `None` when the refusal names none.
fn wrong_fields(status: &Status) -> Option<String> {
    let details = status.get_error_details();
    let violations = &details.bad_request()?.field_violations;
    let sentences: Vec<String> = violations
        .iter()
        .map(|one| format!("{}: {}", one.field, one.description))
        .collect();
    (!sentences.is_empty()).then(|| sentences.join("\n"))
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
