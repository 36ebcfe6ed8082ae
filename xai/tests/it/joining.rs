//! How nodes get in: a real gateway, and the node's own code over real TLS.

use std::sync::Arc;

use proxyxai_core::{
    ports::Clock as _,
    secret::{fingerprint::Fingerprint, join_token::JoinToken},
};
use proxyxai_data_plane::{
    control_tls::{self, ClientIdentity},
    enroll::{self, EnrollError, Enrolled},
};
use proxyxai_proto::config::v1::{
    Hello, StreamRequest, config_service_client::ConfigServiceClient, stream_request,
    stream_response,
};
use proxyxai_proto::usage::v1::{
    Register, ReportRequest, report_request, usage_service_client::UsageServiceClient,
};
use tokio_stream::StreamExt as _;
use xai::system::SystemClock;

use super::process::{Gateway, Home};

async fn token(home: &Home, words: &str) -> JoinToken {
    let made = home.json(&format!("join-token create {words}")).await;
    JoinToken::parse(made["token"].as_str().unwrap()).unwrap()
}

async fn join(gateway: &Gateway, token: &JoinToken, node: &str) -> Result<Enrolled, EnrollError> {
    let channel = control_tls::channel(&gateway.grpc.to_string(), token.authority, None).unwrap();
    enroll::join(channel, token, node, &SystemClock::start(), None).await
}

#[tokio::test]
async fn a_join_token_lets_in_whom_it_should_and_nobody_else() {
    let home = Home::new();
    let gateway = home.start(&[]).await;
    let once = token(&home, "--uses 1 --expires 1h").await;
    let enrolled = join(&gateway, &once, "node-a").await.unwrap();
    let now = SystemClock::start().unix_ms();
    assert!(
        enrolled.held.1 > now && enrolled.held.1 - now <= 25 * 3_600_000,
        "short-lived"
    );
    enrolled.show(&ClientIdentity::default()).unwrap();

    let refused = async |token: &JoinToken, node: &str, words: &str| {
        let said = join(&gateway, token, node).await.err().unwrap().to_string();
        assert!(said.contains(words), "{said}");
    };
    refused(&once, "node-b", "as many nodes as it may").await;
    let reusable = token(&home, "--uses 0").await;
    refused(&reusable, "node-a", "has joined before").await;
    join(&gateway, &reusable, "node-c").await.unwrap();
    home.json(&format!("join-token revoke {}", reusable.id))
        .await;
    refused(&reusable, "node-d", "was revoked").await;

    let listed = home.json("join-token list").await;
    let tokens = listed["join_tokens"].as_array().unwrap();
    let uses: Vec<u64> = tokens.iter().map(|t| t["uses"].as_u64().unwrap()).collect();
    assert_eq!(uses, [1, 1], "{listed}");
    assert!(!listed.to_string().contains(once.expose()), "law 21");
    gateway.stop().await;
}

#[tokio::test]
async fn whoever_is_not_the_pinned_authority_learns_nothing() {
    let home = Home::new();
    let gateway = home.start(&[]).await;
    let made = token(&home, "").await;
    let elsewhere = Fingerprint::of(b"another authority");
    let channel = control_tls::channel(&gateway.grpc.to_string(), elsewhere, None).unwrap();
    let said = enroll::join(channel, &made, "node-a", &SystemClock::start(), None).await;
    assert!(matches!(said, Err(EnrollError::Untrusted)));
    let listed = home.json("join-token list").await;
    assert_eq!(listed["join_tokens"][0]["uses"], 0, "the token never left");

    // A certificate that no authority signed is no way in either: the connection ends before a call is heard.
    let forged = forged_identity();
    let channel =
        control_tls::channel(&gateway.grpc.to_string(), made.authority, Some(forged)).unwrap();
    let said = enroll::join(channel, &made, "node-a", &SystemClock::start(), None).await;
    assert!(matches!(said, Err(EnrollError::Unreachable(_))));
    gateway.stop().await;
}

/// The first words on a stream of the configuration that is opened with the certificate of a node and names itself.
async fn says(
    gateway: &Gateway,
    token: &JoinToken,
    certificate: &Arc<ClientIdentity>,
    itself: &str,
) -> Result<Option<stream_response::Message>, tonic::Code> {
    let identity = Some(Arc::clone(certificate));
    let channel =
        control_tls::channel(&gateway.grpc.to_string(), token.authority, identity).unwrap();
    let hello = stream_request::Message::Hello(Hello {
        node_id: itself.to_owned(),
        ..Hello::default()
    });
    let hello = StreamRequest {
        message: Some(hello),
    };
    let requests = tokio_stream::iter([hello]).chain(tokio_stream::pending());
    let mut client = ConfigServiceClient::new(channel);
    let mut answers = match client.stream(requests).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => return Err(status.code()),
    };
    let first = answers.message().await.map_err(|status| status.code())?;
    Ok(first.and_then(|first| first.message))
}

/// What is answered to a report that is opened with the certificate of a node and is about this one.
async fn reports(
    gateway: &Gateway,
    token: &JoinToken,
    certificate: &Arc<ClientIdentity>,
    of: &str,
) -> Result<(), tonic::Code> {
    let identity = Some(Arc::clone(certificate));
    let channel =
        control_tls::channel(&gateway.grpc.to_string(), token.authority, identity).unwrap();
    let register = report_request::Message::Register(Register {
        node_id: of.to_owned(),
        epoch: 1,
    });
    let register = ReportRequest {
        message: Some(register),
    };
    let requests = tokio_stream::iter([register]).chain(tokio_stream::pending());
    let answers = UsageServiceClient::new(channel).report(requests).await;
    let mut answers = answers.map_err(|status| status.code())?.into_inner();
    let first = answers.message().await.map_err(|status| status.code())?;
    assert!(first.is_some(), "{of}");
    Ok(())
}

#[tokio::test]
async fn a_stream_names_the_node_of_its_certificate_until_that_is_removed() {
    let home = Home::new();
    let gateway = home.start(&[]).await;
    let token = token(&home, "--uses 2").await;
    let mut certificates = Vec::new();
    for node in ["node-a", "node-b"] {
        let identity = Arc::new(ClientIdentity::default());
        let enrolled = join(&gateway, &token, node).await.unwrap();
        enrolled.show(&identity).unwrap();
        certificates.push(identity);
    }
    let (a, b) = (&certificates[0], &certificates[1]);
    let listed = home.json("nodes").await;
    let greeted = says(&gateway, &token, a, "node-a").await.unwrap();
    assert!(matches!(
        greeted,
        Some(stream_response::Message::ServerHello(_))
    ));
    let other = says(&gateway, &token, a, "node-b").await;
    assert_eq!(other.err(), Some(tonic::Code::PermissionDenied));
    let itself = listed["nodes"][0]["id"].as_str().unwrap();
    // Nor does a node report in the name of another one that joined, or that has a stream; what has neither may be an earlier self.
    let denied = Some(tonic::Code::PermissionDenied);
    for (certificate, of, refused) in [
        (a, "node-a", None),
        (a, "node-b", denied),
        (b, "node-a", denied),
        (b, "node-b", None),
        (b, itself, denied),
        (b, "node-before", None),
    ] {
        let said = reports(&gateway, &token, certificate, of).await;
        assert_eq!(said.err(), refused, "{of}");
    }

    // It never had a stream: what stands is that it joined.
    let removed = home.xai("node remove node-b").await;
    assert_eq!(removed.code, Some(0), "{removed:?}");
    let gone = says(&gateway, &token, b, "node-b").await;
    assert_eq!(gone.err(), Some(tonic::Code::Unauthenticated));
    let gone = reports(&gateway, &token, b, "node-b").await;
    assert_eq!(gone.err(), Some(tonic::Code::Unauthenticated));
    let other = reports(&gateway, &token, a, "node-b").await;
    assert_eq!(other.err(), denied);
    let nobody = home.xai("node remove node-b").await;
    assert!(nobody.err.contains("node-b"), "{nobody:?}");
    let trail = home.json("audit list").await.to_string();
    assert!(trail.contains("RemoveNode"), "{trail}");
    gateway.stop().await;
}

/// An identity of an authority of its own.
fn forged_identity() -> Arc<ClientIdentity> {
    use proxyxai_control_plane::authority::Authority;
    let (authority, _) = Authority::make("forged", SystemClock::start().unix_ms()).unwrap();
    let server = authority
        .server(&[], SystemClock::start().unix_ms())
        .unwrap();
    let identity = Arc::new(ClientIdentity::default());
    identity.replace(server.chain, server.key).unwrap();
    identity
}
