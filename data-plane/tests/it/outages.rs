//! A node that starts from its disk copy while no control plane can be reached.

use std::{sync::Arc, time::Duration};

use proxyxai_data_plane::{
    config::NodeState,
    context::Settings,
    report::{Disk as _, MemoryDisk},
};
use proxyxai_proto::config::v1::{ProviderKind, resource::Kind};
use tokio::time::{sleep, timeout};

use crate::harness::{
    CHAT, COMPLETION, PATIENCE, Setup, Upstream, core, plain, post_as, provider, run,
};

/// Runs a node until it has written its copy.
async fn copied(upstream: &Upstream) -> Arc<MemoryDisk> {
    copied_with(upstream, Vec::new()).await
}

/// The same, with more in its configuration.
pub(crate) async fn copied_with(upstream: &Upstream, more: Vec<Kind>) -> Arc<MemoryDisk> {
    let disk = Arc::new(MemoryDisk::default());
    let mut resources = provider("sim", ProviderKind::Openai, upstream.address, &["k1"]);
    resources.extend(more);
    let core = core(Setup {
        resources,
        copy: Some(Arc::clone(&disk)),
        ..Setup::default()
    })
    .await;
    let written = async {
        while core.metric("xai_config_copies_total") == 0 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, written).await.unwrap();
    assert_eq!(core.handle.state(), NodeState::Current);
    disk
}

#[test]
fn law_13_a_node_with_a_copy_serves_and_enforces_without_a_control_plane() {
    run(|| async {
        let upstream = Upstream::start(vec![plain("200 OK", "", COMPLETION)]).await;
        let disk = copied(&upstream).await;
        let core = core(Setup {
            copy: Some(Arc::clone(&disk)),
            alone: true,
            ..Setup::default()
        })
        .await;
        assert_eq!(core.handle.state(), NodeState::Cached);
        for (account, status) in [
            ("root", 200),
            ("team1", 200),
            ("gone99", 403),
            ("disabled", 401),
            ("unknown to the snapshot", 503),
        ] {
            let answer = core
                .send(&post_as(account, "/v1/chat/completions", CHAT))
                .await;
            assert_eq!(answer.status, status, "{account}: {}", answer.text());
        }
        let other = CHAT.replace("gpt-4o-mini", "gpt-5");
        let answer = core
            .send(&post_as("team1", "/v1/chat/completions", &other))
            .await;
        assert_eq!(answer.status, 403, "{}", answer.text());
        assert_eq!(upstream.seen().len(), 2);
        let names: Vec<String> = disk.list().unwrap().into_iter().map(|f| f.name).collect();
        assert!(names.contains(&"config.copy".to_owned()), "{names:?}");
    });
}

#[test]
fn a_copy_that_is_too_old_is_not_served_in_any_dialect() {
    run(|| async {
        let upstream = Upstream::start(vec![plain("200 OK", "", COMPLETION)]).await;
        let disk = copied(&upstream).await;
        let core = core(Setup {
            settings: Settings {
                max_stale: Duration::from_millis(1),
                ..Settings::default()
            },
            copy: Some(disk),
            alone: true,
            serves: false,
            ..Setup::default()
        })
        .await;
        assert_eq!(core.handle.state(), NodeState::Expired);
        assert!(!core.handle.is_ready());
        for (path, pointer) in [
            ("/v1/chat/completions", "/error/type"),
            ("/v1/messages", "/error/type"),
        ] {
            let answer = core.send(&post_as("root", path, CHAT)).await;
            let header = |name| answer.header(name);
            assert_eq!(
                (
                    answer.status,
                    header("x-should-retry").as_deref(),
                    header("retry-after").as_deref()
                ),
                (503, Some("false"), Some("60")),
                "{}",
                answer.text()
            );
            assert!(
                answer.json().pointer(pointer).is_some(),
                "{}",
                answer.text()
            );
            assert!(answer.text().contains("control plane"), "{}", answer.text());
        }
        assert!(upstream.seen().is_empty());
    });
}
