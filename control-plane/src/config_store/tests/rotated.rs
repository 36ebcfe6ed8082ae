//! A large change and a rotation of the data keys at the same time: whatever is in force afterwards opens under the ring that is left.

use proxyxai_core::account::tree::AccountTree;

use super::{
    staged::{Dying, SECRET, is_in_force, large, load, prepared},
    *,
};
use crate::{
    audit::Deed,
    keyring::{asked::Asked, rotate},
};

/// The writer dies at its write of this number, and a key is rotated before and while another replica goes on; whether the writer came to its end before.
async fn check(writes: i64) -> bool {
    let sim = prepared(9).await;
    let dying = Arc::new(Dying::after(&sim, writes));
    let writer = load(Arc::clone(&dying) as Arc<dyn Store>, 3).await;
    let _it_may_die = writer.edit(&root(), "Large", large).await;
    let accounts = writer.state().snapshot.accounts.clone();
    drop(writer);

    let store: Arc<dyn Store> = Arc::new(sim.clone());
    let come_later = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        load(Arc::clone(&store), 4).await
    };
    let ((), late) = tokio::join!(rotated(&store, &accounts), come_later);
    if !is_in_force(&late.state()) {
        late.edit(&root(), "Large", large).await.unwrap();
    }
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while late.state().staged {
        assert!(tokio::time::Instant::now() < deadline, "at write {writes}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // What starts now knows the ring alone.
    let new = load(Arc::clone(&store), 5).await;
    assert!(is_in_force(&new.state()), "at write {writes}");
    assert!(new.state().withheld.is_empty(), "at write {writes}");
    let content = new.state().content.clone();
    let held = content.iter().any(|(_, resource)| match &resource.kind {
        Some(Kind::UpstreamKey(key)) => key.secret == SECRET.as_bytes(),
        _ => false,
    });
    assert!(held, "the secret opens, at write {writes}");
    !dying.is_dead()
}

/// Adds a data key, seals everything anew under it, and drops the one before.
async fn rotated(store: &Arc<dyn Store>, accounts: &AccountTree) {
    let random = Sequence(AtomicU64::new(11 << 40));
    let clock: Arc<dyn Clock> = Arc::new(TestClock(tokio::time::Instant::now()));
    let deployment = crate::bootstrap::deployment(store, &random, &*clock, kek().into());
    let keyring = deployment.await.unwrap().keyring;
    let trail = Trail::new(Arc::clone(store), clock).unwrap();
    let caller = root();
    let asked = Asked {
        trail: &trail,
        deed: Deed {
            caller: &caller,
            action: "RotateKeyring",
            accounts,
        },
    };
    rotate::add_data_key(&keyring, &random, 1, 1, &[], &asked)
        .await
        .unwrap();
    rotate::tidy(&keyring, &random).await.unwrap();
    keyring.refresh().await.unwrap();
    assert_eq!(keyring.now().ring.keys.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_beside_a_large_change_loses_no_secret() {
    let mut writes = 0;
    while !check(writes).await {
        writes += 1;
        assert!(writes < 100, "it does not come to an end");
    }
    assert!(writes > 6, "only {writes} writes were tried");
}
