//! What accounts say of the age of a node's configuration, enforced by a real node that is cut off: one account stops at its own limit, one
//! goes on past that of the deployment, the others stop at that one.

use proxyxai_proto::{
    admin::v1::{CreateAccountRequest, UpdateSettingsRequest, WaitAppliedRequest},
    config::v1::ServeExpired,
};

use super::*;

/// Seconds that the deployment allows.
const LIMIT: u64 = 120;
/// Seconds that one account allows.
const BRIEF: u64 = 60;

#[test]
fn accounts_of_a_node_that_is_cut_off_stop_each_at_its_own_limit() {
    let mut sim = simulation(29, Duration::from_secs(600));
    let credential = Arc::new(OnceLock::new());
    let provider = Simulator::new();
    let shared = Arc::clone(&credential);
    sim.host("control", move || control(29, Arc::clone(&shared)));
    let simulator = provider.clone();
    sim.host("provider", move || serve_provider(simulator.clone()));
    sim.host("node", move || serve_node(29, Arc::clone(&credential)));
    sim.client("client", async move {
        cut_off().await;
        Ok(())
    });
    sim.run().unwrap();
}

/// The key of a new account that says this.
async fn key_of(api: &Api, name: &str, max_stale_seconds: u64, serve: ServeExpired) -> String {
    let wanted = CreateAccountRequest {
        name: name.to_owned(),
        max_stale_seconds,
        serve_expired: serve.into(),
        ..CreateAccountRequest::default()
    };
    api.accounts().create_account(wanted).await.unwrap();
    let wanted = CreateKeyRequest {
        account: format!("root/{name}"),
        name: name.to_owned(),
        ..CreateKeyRequest::default()
    };
    let made = api.keys().create_key(wanted).await.unwrap();
    made.into_inner().secret
}

async fn cut_off() {
    let (api, made) = furnished().await;
    let other = made.secret;
    let brief = key_of(&api, "brief", BRIEF, ServeExpired::Unspecified).await;
    let on = key_of(&api, "goes-on", 0, ServeExpired::Allowed).await;
    until_served(&other).await;
    let limit = UpdateSettingsRequest {
        max_stale_seconds: Some(LIMIT),
        ..UpdateSettingsRequest::default()
    };
    api.settings().update_settings(limit).await.unwrap();
    let wait = WaitAppliedRequest {
        version: None,
        timeout_ms: 30_000,
    };
    let waited = api.nodes().wait_applied(wait).await.unwrap().into_inner();
    assert_eq!((waited.applied, waited.missing.len()), (1, 0));
    ::turmoil::partition("node", "control");
    // The last proof is at most one bookmark older than this.
    let cut = ::turmoil::sim_elapsed().unwrap();
    let until = |seconds: u64| {
        let since = ::turmoil::sim_elapsed().unwrap().saturating_sub(cut);
        sleep(Duration::from_secs(seconds).saturating_sub(since))
    };
    // Seconds since the cut, and who is served then: the brief one, the one that goes on, the other.
    for (at, served) in [
        (BRIEF - 6, [200, 200, 200]),
        (BRIEF + 1, [503, 200, 200]),
        (LIMIT - 6, [503, 200, 200]),
        (LIMIT + 1, [503, 200, 503]),
        (2 * LIMIT, [503, 200, 503]),
    ] {
        until(at).await;
        for (key, status) in [&brief, &on, &other].into_iter().zip(served) {
            let (found, body) = ask(key).await.unwrap();
            let body = String::from_utf8_lossy(&body);
            assert_eq!(found, status, "{at} s after the cut: {body}");
            assert!(status == 200 || body.contains("control plane"), "{body}");
            let named = body.contains("`root/brief`");
            assert_eq!(named, status == 503 && key == &brief, "{body}");
        }
    }
    ::turmoil::repair("node", "control");
    for key in [&brief, &on, &other] {
        until_served(key).await;
    }
}
