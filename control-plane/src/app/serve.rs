//! All services of a control plane on one server.

use std::{io, sync::Arc, time::Duration};

use proxyxai_proto::{
    admin::v1::{
        account_service_server::AccountServiceServer, audit_service_server::AuditServiceServer,
        backup_service_server::BackupServiceServer,
        credential_service_server::CredentialServiceServer,
        join_token_service_server::JoinTokenServiceServer, key_service_server::KeyServiceServer,
        log_service_server::LogServiceServer, node_service_server::NodeServiceServer,
        price_service_server::PriceServiceServer, provider_service_server::ProviderServiceServer,
        route_service_server::RouteServiceServer, secret_service_server::SecretServiceServer,
        settings_service_server::SettingsServiceServer,
        upstream_key_service_server::UpstreamKeyServiceServer,
        usage_query_service_server::UsageQueryServiceServer,
    },
    node::v1::join_service_server::JoinServiceServer,
    usage::v1::usage_service_server::UsageServiceServer,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Server, server::Connected};

use super::ControlPlane;
use crate::{
    admin::{
        accounts::AccountServer, backup::BackupServer, credentials::CredentialServer,
        keys::KeyServer, prices::PriceServer, providers::ProviderServer, routes::RouteServer,
        secrets::SecretServer, settings::SettingsServer, upstream_keys::UpstreamKeyServer,
    },
    audit::service::AuditServer,
    auth::{Gate, Guard},
    calls::Watched,
    config_service::ConfigServiceServer,
    join::{JoinServer, JoinTokenServer},
    log_service::LogServer,
    manifest::service::ManifestServer,
    node_service::NodeServer,
    usage_query::UsageQueryServer,
    usage_service::UsageServer,
};

impl ControlPlane {
    /// Serves all services on connections that come in, until `shutdown`. May be called for several sources at once.
    ///
    /// # Errors
    /// When the server itself fails; a failing connection ends only itself.
    pub async fn serve<I, C>(&self, incoming: I, shutdown: CancellationToken) -> io::Result<()>
    where
        I: Stream<Item = io::Result<C>> + Send,
        C: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    {
        let (health, health_service) = tonic_health::server::health_reporter();
        health
            .set_service_status("", tonic_health::ServingStatus::Serving)
            .await;
        let reflection = |builder: tonic_reflection::server::Builder<'static>| {
            builder
                .register_encoded_file_descriptor_set(proxyxai_proto::DESCRIPTORS)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let reflection_v1 = reflection(tonic_reflection::server::Builder::configure())
            .build_v1()
            .map_err(io::Error::other)?;
        let reflection_v1alpha = reflection(tonic_reflection::server::Builder::configure())
            .build_v1alpha()
            .map_err(io::Error::other)?;
        let config = || Arc::clone(&self.config);
        Server::builder()
            .timeout(Duration::from_secs(300))
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .http2_keepalive_timeout(Some(Duration::from_secs(5)))
            .max_concurrent_streams(Some(128))
            .layer(Watched(Arc::clone(&self.calls)))
            .layer(Guard(Arc::new(Gate {
                config: config(),
                credentials: Arc::clone(&self.credentials),
                door: Arc::clone(&self.door),
            })))
            .add_service(health_service)
            .add_service(reflection_v1)
            .add_service(reflection_v1alpha)
            .add_service(AccountServiceServer::new(AccountServer {
                config: config(),
                credentials: Arc::clone(&self.credentials),
            }))
            .add_service(CredentialServiceServer::new(CredentialServer {
                config: config(),
                credentials: Arc::clone(&self.credentials),
                trail: Arc::clone(&self.trail),
                deployment_id: self.deployment_id.clone(),
            }))
            .add_service(AuditServiceServer::new(AuditServer {
                config: config(),
                trail: Arc::clone(&self.trail),
                deployment_id: self.deployment_id.clone(),
            }))
            .add_service(KeyServiceServer::new(KeyServer {
                config: config(),
                pepper: self.pepper.clone(),
            }))
            .add_service(ProviderServiceServer::new(ProviderServer {
                config: config(),
            }))
            .add_service(UpstreamKeyServiceServer::new(UpstreamKeyServer {
                config: config(),
                pepper: self.pepper.clone(),
            }))
            .add_service(RouteServiceServer::new(RouteServer { config: config() }))
            .add_service(PriceServiceServer::new(PriceServer { config: config() }))
            .add_service(
                ManifestServer::service(
                    config(),
                    Arc::clone(&self.credentials),
                    self.pepper.clone(),
                )
                .map_err(io::Error::other)?,
            )
            .add_service(NodeServiceServer::new(NodeServer {
                config: config(),
                roster: Arc::clone(&self.roster),
                door: Arc::clone(&self.door),
                wishes: Arc::clone(&self.wishes),
            }))
            .add_service(LogServiceServer::new(LogServer {
                orders: Arc::clone(&self.orders),
                wishes: Arc::clone(&self.wishes),
                clock: Arc::clone(&self.books.clock),
            }))
            .add_service(UsageQueryServiceServer::new(UsageQueryServer {
                config: config(),
                store: Arc::clone(&self.store),
            }))
            .add_service(JoinTokenServiceServer::new(JoinTokenServer(Arc::clone(
                &self.door,
            ))))
            .add_service(JoinServiceServer::new(JoinServer(Arc::clone(&self.door))))
            .add_service(SecretServiceServer::new(SecretServer {
                keyring: Arc::clone(&self.keyring),
                random: Arc::clone(&self.random),
                config: config(),
                trail: Arc::clone(&self.trail),
            }))
            .add_service(SettingsServiceServer::new(SettingsServer {
                config: config(),
                audit_keep: self.settings.audit_keep,
            }))
            .add_service(BackupServiceServer::new(BackupServer {
                store: Arc::clone(&self.store),
                config: config(),
                trail: Arc::clone(&self.trail),
            }))
            .add_service(ConfigServiceServer(Arc::clone(&self.config_server)))
            .add_service(UsageServiceServer::new(UsageServer {
                books: Arc::clone(&self.books),
                roster: Arc::clone(&self.roster),
                door: Arc::clone(&self.door),
                orders: Arc::clone(&self.orders),
                stopping: self.stopping.clone(),
            }))
            .serve_with_incoming_shutdown(incoming, async move { shutdown.cancelled().await })
            .await
            .map_err(io::Error::other)
    }
}
