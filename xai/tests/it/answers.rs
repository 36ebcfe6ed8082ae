//! What a fresh gateway tells whoever calls it: people, probes, OpenAI and Anthropic clients, any gRPC client.

use serde_json::json;
use tokio_stream::StreamExt as _;
use tonic::{Request, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::process::{Ask, Gateway, Home};

#[tokio::test]
async fn without_an_upstream_key_it_starts_and_says_how_to_add_one() {
    let home = Home::new();
    let gateway = home.start(&[]).await;
    assert!(gateway.said().contains("There is no upstream key yet"));
    let ready = Gateway::get(gateway.ops, "/ready", &[]).await;
    assert_eq!(ready.status, 200, "{ready:?}");
    let key = home.first_key();
    let openai = gateway.ask(&Ask::chat(&key, "gpt-4o-mini", "")).await;
    let anthropic = gateway
        .ask(&Ask::messages(&key, "claude-sonnet-4-5", ""))
        .await;
    for reply in [&openai, &anthropic] {
        assert_eq!(reply.status, 503, "{reply:?}");
        assert_eq!(reply.headers["x-should-retry"], "false");
        let message = reply.json()["error"]["message"].clone();
        let message = message.as_str().unwrap();
        for part in ["xai upstream-key create", "XAI_KEYS"] {
            assert!(message.contains(part), "{message}");
        }
    }
    assert_eq!(openai.json()["error"]["code"], "no_upstream_key");
    assert_eq!(anthropic.json()["type"], "error");
    // What was said is enough: these very commands make it serve.
    home.json(&format!(
        "provider create openai --kind openai --base {} --allow-private",
        home.providers()
    ))
    .await;
    let words = "upstream-key create --provider openai --secret-file -";
    let words: Vec<&str> = words.split(' ').collect();
    let done = home.finish(home.command(&words, &[]), "sk-1\n").await;
    assert_eq!(done.code, Some(0), "{done:?}");
    super::process::until("it serves", async || {
        let reply = gateway.ask(&Ask::chat(&key, "gpt-4o-mini", "")).await;
        (reply.status == 200).then_some(())
    })
    .await;
    gateway.stop().await;
}

#[tokio::test]
async fn the_address_itself_explains_and_other_paths_do_in_the_callers_words() {
    let home = Home::new();
    let gateway = home.start(&[]).await;
    let to = gateway.client;
    let text = Gateway::get(to, "/", &[]).await;
    assert_eq!(text.status, 200);
    for part in ["ProxyXAI", "/v1", "xai key create"] {
        assert!(text.body.contains(part), "{text:?}");
    }
    let page = Gateway::get(to, "/", &[("accept", "application/json")]).await;
    assert_eq!(page.json()["name"], "ProxyXAI");

    let openai = Gateway::get(to, "/v1/nothing", &[("authorization", "Bearer x")]).await;
    let error = &openai.json()["error"];
    assert_eq!((openai.status, &error["code"]), (404, &json!("not_found")));
    assert_eq!(error["type"], "invalid_request_error");
    assert!(error["param"].is_null() && error["message"].as_str().unwrap().contains("/v1"));

    let version = [("anthropic-version", "2023-06-01"), ("x-api-key", "x")];
    let anthropic = Gateway::get(to, "/v1/nothing", &version).await;
    let body = anthropic.json();
    assert_eq!((anthropic.status, &body["type"]), (404, &json!("error")));
    assert_eq!(body["error"]["type"], "not_found_error");
    assert_eq!(
        body["request_id"],
        anthropic.headers["x-proxyxai-request-id"].to_str().unwrap()
    );
    gateway.stop().await;
}

#[tokio::test]
async fn any_grpc_client_finds_its_way() {
    let home = Home::new();
    let gateway = home.start(&[]).await;
    let channel = Channel::from_shared(format!("http://{}", gateway.grpc)).unwrap();
    let channel = channel.connect().await.unwrap();
    let health = HealthClient::new(channel.clone())
        .check(HealthCheckRequest::default())
        .await;
    assert_eq!(health.unwrap().into_inner().status, 1, "it is serving");
    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let answers = ServerReflectionClient::new(channel.clone())
        .server_reflection_info(Request::new(tokio_stream::once(ask)))
        .await;
    let answer = answers.unwrap().into_inner().next().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<&str> = list.service.iter().map(|s| s.name.as_str()).collect();
    for service in [
        "Account",
        "Key",
        "Provider",
        "UpstreamKey",
        "Route",
        "UsageQuery",
    ] {
        let name = format!("proxyxai.admin.v1.{service}Service");
        assert!(names.contains(&name.as_str()), "{name} is not in {names:?}");
    }
    // Without the credential nothing is told but that.
    let accounts =
        proxyxai_proto::admin::v1::account_service_client::AccountServiceClient::new(channel)
            .list_accounts(proxyxai_proto::admin::v1::ListAccountsRequest::default())
            .await;
    assert_eq!(accounts.unwrap_err().code(), tonic::Code::Unauthenticated);
    gateway.stop().await;
}
