//! Who may call what, over the wire.

use proxyxai_core::secret::ExposeSecret as _;
use proxyxai_proto::{
    admin::v1::{
        ListAccountsRequest, QueryUsageRequest, account_service_client::AccountServiceClient,
        usage_query_service_client::UsageQueryServiceClient,
    },
    config::v1::{ResolveKeysRequest, config_service_client::ConfigServiceClient},
    usage::v1::usage_service_client::UsageServiceClient,
};
use tonic::{Code, service::interceptor::InterceptedService};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::harness::{ADMIN, Bearer, Plane, World};

/// The codes that an admin call, a query, a look-up and a report get.
async fn codes(plane: &Plane, credential: Option<&str>) -> [Code; 4] {
    let channel = InterceptedService::new(
        plane.channel.clone(),
        Bearer(credential.map(ToOwned::to_owned)),
    );
    let code = |status: Option<tonic::Status>| status.map_or(Code::Ok, |status| status.code());
    let mut accounts = AccountServiceClient::new(channel.clone());
    let mut queries = UsageQueryServiceClient::new(channel.clone());
    let mut config = ConfigServiceClient::new(channel.clone());
    let mut reports = UsageServiceClient::new(channel);
    let no_messages = tokio_stream::empty::<proxyxai_proto::usage::v1::ReportRequest>();
    [
        code(
            accounts
                .list_accounts(ListAccountsRequest::default())
                .await
                .err(),
        ),
        code(
            queries
                .query_usage(QueryUsageRequest::default())
                .await
                .err(),
        ),
        code(
            config
                .resolve_keys(ResolveKeysRequest::default())
                .await
                .err(),
        ),
        code(reports.report(no_messages).await.err()),
    ]
}

#[tokio::test(start_paused = true)]
async fn roles_are_kept_apart_over_the_wire() {
    use Code::{InvalidArgument, Ok, PermissionDenied, Unauthenticated};
    let plane = World::new().start().await;
    let node = plane.plane.node_credential().expose_secret().to_owned();
    let (longer, shorter) = (format!("{ADMIN}x"), &ADMIN[1..]);
    for (credential, want) in [
        (Some(ADMIN), [Ok, Ok, PermissionDenied, PermissionDenied]),
        // The report is let in, and refused for not beginning with Register.
        (
            Some(node.as_str()),
            [PermissionDenied, PermissionDenied, Ok, InvalidArgument],
        ),
        (Some(longer.as_str()), [Unauthenticated; 4]),
        (Some(shorter), [Unauthenticated; 4]),
        (Some(""), [Unauthenticated; 4]),
        (None, [Unauthenticated; 4]),
    ] {
        assert_eq!(codes(&plane, credential).await, want, "{credential:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_credential_is_of_one_start_only() {
    let world = World::new();
    let first = world.start().await;
    let old = first.plane.node_credential().expose_secret().to_owned();
    drop(first);
    let second = world.start().await;
    assert_eq!(codes(&second, Some(&old)).await, [Code::Unauthenticated; 4]);
}

#[tokio::test(start_paused = true)]
async fn health_and_the_schema_are_open_to_anybody() {
    let plane = World::new().start().await;
    let mut health = HealthClient::new(plane.channel.clone());
    let answer = health.check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().status, 1, "serving");
    let mut reflection = ServerReflectionClient::new(plane.channel.clone());
    let list = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answer = reflection
        .server_reflection_info(tokio_stream::once(list))
        .await
        .unwrap();
    let first = answer.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = first.message_response else {
        panic!("{first:?}")
    };
    let named = |name: &str| list.service.iter().any(|service| service.name == name);
    assert!(named("proxyxai.admin.v1.AccountService") && named("grpc.health.v1.Health"));
}
