//! A store that was moved: credentials, nodes, the authority and the audit trail go on where they were, one generation higher.

use std::{io::Cursor, sync::Arc};

use proxyxai_control_plane::{
    app::Settings,
    store::embedded::EmbeddedStore,
    transfer::{Import, import, restored},
};
use proxyxai_core::{ports::Clock as _, secret::seal::SealKey};
use proxyxai_proto::{
    admin::v1::{
        BackupRequest, CreateCredentialRequest, CreateJoinTokenRequest, ListAuditRecordsRequest,
        RemoveNodeRequest, Role, WhoAmIRequest,
    },
    node::v1::{JoinRequest, JoinResponse, RenewRequest},
};
use rcgen::{CertificateParams, KeyPair};
use tonic::{Code, Status};

use crate::{
    audit::{records, verify},
    gateway::{ADMIN, Gateway, Seeded},
};

fn certificate_request() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    request.der().to_vec()
}

async fn join(gateway: &Gateway, token: &str, node: &str) -> Result<JoinResponse, Status> {
    let request = JoinRequest {
        token: token.to_owned(),
        node_id: node.to_owned(),
        certificate_request: certificate_request(),
    };
    Ok(gateway
        .anonymous()
        .joins()
        .join(request)
        .await?
        .into_inner())
}

async fn renew(gateway: &Gateway, node: &str, renewal_secret: &str) -> Result<Vec<u8>, Status> {
    let request = RenewRequest {
        node_id: node.to_owned(),
        renewal_secret: renewal_secret.to_owned(),
        certificate_request: certificate_request(),
    };
    let answer = gateway
        .anonymous()
        .joins()
        .renew(request)
        .await?
        .into_inner();
    Ok(answer.certificate.unwrap().chain.pop().unwrap())
}

#[tokio::test]
async fn who_was_let_in_is_let_in_and_the_trail_tells_of_the_move() {
    let gateway = Gateway::start(1).await;
    let root = gateway.with(ADMIN);
    let credential = CreateCredentialRequest {
        role: Role::Viewer.into(),
        account: "root".into(),
        name: "eve".into(),
        expires_unix_ms: 0,
    };
    let credential = root.credentials().create_credential(credential).await;
    let credential = credential.unwrap().into_inner().secret;
    let twice = CreateJoinTokenRequest {
        uses_max: 2,
        ..CreateJoinTokenRequest::default()
    };
    let token = root.join_tokens().create_join_token(twice).await;
    let token = token.unwrap().into_inner().token;
    let (one, two) = (
        join(&gateway, &token, "n-1").await.unwrap(),
        join(&gateway, &token, "n-2").await.unwrap(),
    );
    let id = "n-2".to_owned();
    let removed = root.nodes().remove_node(RemoveNodeRequest { id }).await;
    removed.unwrap();
    let mut chunks = root.backups().backup(BackupRequest {}).await.unwrap();
    let mut file = Vec::new();
    while let Some(more) = chunks.get_mut().message().await.unwrap() {
        file.extend(more.chunk);
    }
    let told = records(&root, ListAuditRecordsRequest::default()).await;
    assert_eq!(told.last().unwrap().action, "Backup");

    let store = EmbeddedStore::in_memory().unwrap();
    let options = Import {
        key: Arc::new(SealKey::new([7; 32])),
        replace: false,
        now_unix_ms: gateway.clock.unix_ms(),
    };
    let place = Arc::new(store.clone()) as _;
    let random = Seeded(9.into());
    let mut file = Cursor::new(file);
    let imported = import(&place, &mut file, options, &random);
    assert_eq!(imported.await.unwrap().generation, 2);
    let key = SealKey::new([7; 32]);
    let raised = restored(&place, key, &random, &*gateway.clock).await;
    assert_eq!(raised.unwrap().generation, 3);
    let there = Gateway::on(store, 2, Settings::default()).await;

    let mut as_eve = there.with(&credential).credentials();
    as_eve.who_am_i(WhoAmIRequest {}).await.unwrap();
    let authority = gateway.control.authority();
    let renewed = renew(&there, "n-1", &one.renewal_secret).await;
    assert_eq!(renewed.unwrap(), authority.certificate().to_vec());
    for secret in [&one.renewal_secret, &two.renewal_secret] {
        let refused = renew(&there, "n-2", secret).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
    }
    let refused = join(&there, &token, "n-3").await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");

    let after = records(&there.with(ADMIN), ListAuditRecordsRequest::default()).await;
    assert_eq!(after[..told.len()], told);
    let moves: Vec<_> = after[told.len()..]
        .iter()
        .map(|record| {
            let actor = record.actor.as_ref().unwrap();
            let change = &record.changes[0];
            (
                actor.credential_id.as_str(),
                record.action.as_str(),
                change.before.contains(r#""generation":1"#),
                change.after.contains(r#""generation":3"#),
            )
        })
        .collect();
    assert_eq!(
        moves,
        [
            ("store", "ImportStore", true, false),
            ("store", "RestoreStore", false, true)
        ]
    );
    assert_eq!(verify(&there).await.faults, []);
}
