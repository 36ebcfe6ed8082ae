//! Stores of format 1, whose authority and secrets the key-encryption key sealed itself: what was made there goes on.

use prost::Message as _;
use proxyxai_control_plane::store::{Range, Store as _};
use proxyxai_core::audit::chain::{Mark, Verifier};
use proxyxai_proto::{
    admin::v1::{
        AuditMark, AuditRecord, RotateKeyringRequest, WhoAmIRequest,
        credential_service_client::CredentialServiceClient,
    },
    store::v1::Counter,
};
use tonic::service::interceptor::InterceptedService;

use crate::{
    harness::{Bearer, Plane, World, ok},
    rotation::{as_made, sealing, secrets, store_of},
    secrets::value,
    veil::Veil,
};

const AUTHORITY: &str = "sha256:084ccb788bee34cd34ca9da12f1290f11c6c20b4f7349cdd4c1468a24026c7bf";
const CREDENTIAL: &str = "pxai-cred-msbsx3znheji-QiJxPj0SHL3lM4ZMUAHBkNk5SHFaExmANPtM4ENf";

async fn format_1() -> World {
    store_of(include_str!("../fixtures/format-1-authority.txt")).await
}

/// The number of records in the audit trail, which must hold.
async fn records(world: &World) -> u64 {
    let head = AuditMark::decode(value(world, "audit/head").await.as_slice()).unwrap();
    let mut verifier = Verifier::new(Mark::START, Mark::from_proto(&head).unwrap());
    let page = world.store.range(Range::prefix("audit/record/")).await;
    for entry in page.unwrap().entries {
        verifier.take(&AuditRecord::decode(entry.value.as_slice()).unwrap());
    }
    let verdict = verifier.finish();
    assert_eq!(verdict.faults, []);
    verdict.checked
}

async fn check(world: &World, plane: &Plane) {
    assert_eq!(plane.plane.authority().fingerprint().to_string(), AUTHORITY);
    assert_eq!(secrets(plane).await, as_made(&["u1", "u2"]));
    let shown = InterceptedService::new(plane.channel.clone(), Bearer(Some(CREDENTIAL.into())));
    let mut credentials = CredentialServiceClient::new(shown);
    let who = credentials.who_am_i(WhoAmIRequest {}).await;
    assert_eq!(ok(who).account_path, "root/team");
    let format = Counter::decode(value(world, "meta/format").await.as_slice());
    assert_eq!(format.unwrap().value, 2);
}

#[tokio::test(start_paused = true)]
async fn authority_credentials_and_trail_go_on_and_are_sealed_anew() {
    let world = format_1().await;
    assert_eq!(records(&world).await, 8);
    let pair = tokio::join!(
        world.start_on(Veil::interleaving(&world.store, 1)),
        world.start_on(Veil::interleaving(&world.store, 2))
    );
    check(&world, &pair.0).await;
    check(&world, &pair.1).await;
    assert_eq!(
        sealing(&world).await.len(),
        2,
        "upstream keys are sealed anew later"
    );
    let rotate = RotateKeyringRequest::default();
    ok(pair.0.secrets().rotate_keyring(rotate).await);
    assert_eq!(sealing(&world).await.len(), 1);
    check(&world, &pair.1).await;
    check(&world, &world.start().await).await;
    assert_eq!(records(&world).await, 9);
}

#[tokio::test(start_paused = true)]
async fn it_is_taken_over_after_a_crash_anywhere() {
    for answer_lost in [false, true] {
        for writes in 0.. {
            let world = format_1().await;
            let veil = Veil::crashing(&world.store, writes, answer_lost);
            let whole = world.build(veil).await.is_ok();
            check(&world, &world.start().await).await;
            if whole {
                break;
            }
        }
    }
}
