//! What accounts say of the age of what a node holds, at a node that starts from an old copy while no control plane can be reached.

use std::time::Duration;

use proxyxai_core::account::key::Pepper;
use proxyxai_data_plane::{config::NodeState, context::Settings};
use proxyxai_proto::config::v1::{Account, ServeExpired, VirtualKey, resource::Kind};

use crate::{
    harness::{CHAT, COMPLETION, Setup, Upstream, core, key_of, plain, post_as, run},
    outages::copied_with,
    plane::PEPPER,
};

/// An account below the root, and its key.
fn account(id: &str, serve_expired: ServeExpired, suspended: bool) -> [Kind; 2] {
    let key = key_of(id);
    let account = Account {
        id: id.into(),
        parent_id: "root".into(),
        name: id.into(),
        suspended,
        serve_expired: serve_expired.into(),
        ..Account::default()
    };
    let key = VirtualKey {
        digest: Pepper::new(PEPPER).digest_of(&key).0.to_vec(),
        id: key.id,
        account_id: id.into(),
        name: id.into(),
        ..VirtualKey::default()
    };
    [Kind::Account(account), Kind::VirtualKey(key)]
}

#[test]
fn a_node_whose_copy_is_too_old_serves_accounts_with_serve_expired_alone() {
    run(|| async {
        let upstream = Upstream::start(vec![plain("200 OK", "", COMPLETION)]).await;
        let more = [
            account("goes-on", ServeExpired::Allowed, false),
            account("forbidden", ServeExpired::Forbidden, false),
            account("suspended1", ServeExpired::Allowed, true),
        ];
        let disk = copied_with(&upstream, more.into_iter().flatten().collect()).await;
        let core = core(Setup {
            settings: Settings {
                max_stale: Duration::from_millis(1),
                ..Settings::default()
            },
            copy: Some(disk),
            alone: true,
            ..Setup::default()
        })
        .await;
        assert_eq!(core.handle.state(), NodeState::Expired);
        assert!(
            core.handle.is_ready(),
            "it is worth something to one account"
        );
        for (account, status, words) in [
            ("goes-on", 200, "chat.completion"),
            ("root", 503, "control plane"),
            ("forbidden", 503, "control plane"),
            // What is held is enforced for those that it serves, and tells nothing of others.
            ("suspended1", 403, "suspended"),
            ("gone99", 503, "control plane"),
            ("unknown to the snapshot", 503, "control plane"),
        ] {
            let path = "/v1/chat/completions";
            let answer = core.send(&post_as(account, path, CHAT)).await;
            assert_eq!(answer.status, status, "{account}: {}", answer.text());
            assert!(
                answer.text().contains(words),
                "{account}: {}",
                answer.text()
            );
            let wait = (status == 503).then_some("60");
            assert_eq!(answer.header("retry-after").as_deref(), wait, "{account}");
        }
        assert_eq!(upstream.seen().len(), 1);
    });
}
