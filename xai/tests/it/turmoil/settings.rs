//! How old a configuration may become, changed while everything runs: enforced by a real node once the change is acknowledged.

use proxyxai_proto::admin::v1::{UpdateSettingsRequest, WaitAppliedRequest};

use super::*;

/// Seconds that the node may serve without proof; the least that a deployment may say.
const LIMIT: u64 = 60;

#[test]
fn a_changed_limit_is_enforced_by_a_node_that_is_cut_off() {
    let mut sim = simulation(23, Duration::from_secs(300));
    let credential = Arc::new(OnceLock::new());
    let provider = Simulator::new();
    let shared = Arc::clone(&credential);
    sim.host("control", move || control(23, Arc::clone(&shared)));
    let simulator = provider.clone();
    sim.host("provider", move || serve_provider(simulator.clone()));
    sim.host("node", move || serve_node(23, Arc::clone(&credential)));
    sim.client("client", async move {
        cut_off().await;
        Ok(())
    });
    sim.run().unwrap();
}

async fn cut_off() {
    let (api, made) = furnished().await;
    let key = made.secret;
    until_served(&key).await;
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
    let since = || {
        ::turmoil::sim_elapsed()
            .unwrap()
            .saturating_sub(cut)
            .as_secs()
    };
    while since() < LIMIT - 5 {
        assert_eq!(
            ask(&key).await.unwrap().0,
            200,
            "{} s after the cut",
            since()
        );
        sleep(Duration::from_secs(5)).await;
    }
    sleep(Duration::from_secs(6)).await;
    let (status, body) = ask(&key).await.unwrap();
    let body = String::from_utf8_lossy(&body);
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("control plane"), "{body}");
    ::turmoil::repair("node", "control");
    until_served(&key).await;
}
