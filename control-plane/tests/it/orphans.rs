//! A credential that is made while its account is deleted: one of the two is refused, whoever is asked.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use proxyxai_proto::{
    admin::v1::{CreateAccountRequest, CreateCredentialRequest, DeleteAccountRequest, Role},
    store::v1::StoredCredential,
};
use tokio::time::sleep;

use crate::{
    harness::{World, ok},
    usage_replicas::Slow,
};

#[tokio::test(start_paused = true)]
async fn no_credential_is_left_without_its_account() {
    let world = World::new();
    let slow = || Arc::new(Slow(world.store.clone()));
    let (a, b) = (world.start_on(slow()).await, world.start_on(slow()).await);
    let (mut made, mut deleted) = (0, 0);
    for round in 0..60_u64 {
        let create = CreateAccountRequest {
            parent: "root".into(),
            name: format!("team-{round}"),
            ..CreateAccountRequest::default()
        };
        let account = ok(a.accounts().create_account(create).await)
            .account
            .unwrap();
        let id = account.account.unwrap().id;
        sleep(Duration::from_millis(100)).await;
        let grant = CreateCredentialRequest {
            role: Role::Viewer.into(),
            account: id.clone(),
            name: "late".into(),
            expires_unix_ms: 0,
        };
        let delete = DeleteAccountRequest {
            account: id.clone(),
            ..DeleteAccountRequest::default()
        };
        let (mut credentials, mut accounts) = (a.credentials(), b.accounts());
        let (granted, gone) = tokio::join!(
            async {
                sleep(Duration::from_millis(10 + round % 15)).await;
                credentials.create_credential(grant).await
            },
            async {
                sleep(Duration::from_millis(17)).await;
                accounts.delete_account(delete).await
            },
        );
        let entries = world.entries().await.into_iter();
        let left = entries.filter(|(key, _)| key.starts_with("credential/"));
        let left = left.map(|(_, value)| StoredCredential::decode(&*value).unwrap());
        let left = left.filter(|stored| stored.account_id == id).count();
        assert_eq!(left, usize::from(granted.is_ok()), "round {round}");
        assert!(
            granted.is_err() || gone.is_err(),
            "round {round}: both were done"
        );
        made += u32::from(granted.is_ok());
        deleted += u32::from(gone.is_ok());
    }
    assert!(made > 5 && deleted > 5, "{made} made, {deleted} deleted");
}
