//! Writes whose answer is lost: what was made is shown, also when nobody changes anything after it, and stands in the audit trail.

use super::*;
use crate::store::{
    keyspace::AUDIT_RECORD_PREFIX,
    sim::{Faults, SimStore},
};

#[tokio::test(start_paused = true)]
async fn a_change_without_an_answer_is_shown_if_it_was_made() {
    let sim = SimStore::new(5);
    let store: Arc<dyn Store> = Arc::new(sim.clone());
    let random: Arc<dyn Random> = Arc::new(Sequence(AtomicU64::new(7)));
    let clock: Arc<dyn Clock> = Arc::new(TestClock(tokio::time::Instant::now()));
    let deployment = crate::bootstrap::deployment(&store, &*random, &*clock, kek().into());
    let keyring = deployment.await.unwrap().keyring;
    let trail = Arc::new(Trail::new(Arc::clone(&store), Arc::clone(&clock)).unwrap());
    let publisher = Arc::new(Publisher::new(ViewKey::new(Arc::clone(&random))));
    let config = ConfigStore::load(
        Arc::clone(&store),
        random,
        clock,
        keyring,
        1,
        trail,
        publisher,
    )
    .await
    .unwrap();
    sim.set_faults(Faults {
        ambiguous: 1000,
        ..Faults::default()
    });
    let mut made = [0, 0];
    for number in 0..20 {
        let id = format!("a{number}");
        let edit = |_: &super::super::State| {
            Ok((vec![Edit::Put(stored(account(&id, "root", false)))], ()))
        };
        let answer = config.edit(&root(), "Test", edit).await;
        assert!(matches!(
            answer,
            Err(Fault::Store(StoreError::Ambiguous { .. }))
        ));
        let key = Key::Config(name(ResourceKind::Account, &id)).to_string();
        let stands = store.get(&key).await.unwrap().is_some();
        let shown = async {
            while config.state().get(ResourceKind::Account, &id).is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let within = if stands {
            PATIENCE
        } else {
            Duration::from_secs(1)
        };
        let shown = tokio::time::timeout(within, shown).await.is_ok();
        assert_eq!(shown, stands, "{id}");
        made[usize::from(stands)] += 1_u32;
    }
    assert!(made.iter().all(|count| *count > 0), "{made:?}");
    // What was made is in the audit trail, and nothing else is.
    let page = store.range(Range::prefix(AUDIT_RECORD_PREFIX)).await;
    assert_eq!(u32::try_from(page.unwrap().entries.len()), Ok(made[1]));
}
