//! Who is let in, who is not, and how often.

use std::time::Duration;

use proxyxai_core::secret::{fingerprint::Fingerprint, seal::SealKey};
use rcgen::{CertificateParams, KeyPair};

use super::*;
use crate::{
    bootstrap,
    publish::{Publisher, ViewKey},
    store::embedded::EmbeddedStore,
};

const NOW: i64 = 1_800_000_000_000;
const DAY_MS: i64 = 24 * 3_600_000;

struct Still(std::sync::atomic::AtomicI64);

impl Clock for Still {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn unix_ms(&self) -> i64 {
        self.0.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// Never the same twice, and the same in every run.
struct Counting(std::sync::atomic::AtomicU64);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        let next = self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        bytes.fill(next.to_le_bytes()[0]);
    }
}

async fn door() -> (Arc<Door>, Arc<Still>) {
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::in_memory().unwrap());
    let clock = Arc::new(Still(NOW.into()));
    let random = Arc::new(Counting(1.into()));
    let kek = SealKey::new([5; 32]);
    let deployment = bootstrap::deployment(&store, &*random, &*clock, kek.into()).await;
    let deployment = deployment.unwrap();
    let (generation, keyring) = (deployment.generation, deployment.keyring);
    let authority = authority(&store, &*random, &*clock, &keyring, "dep", None)
        .await
        .unwrap();
    let again = super::authority(&store, &*random, &*clock, &keyring, "dep", None)
        .await
        .unwrap();
    assert_eq!(again.fingerprint(), authority.fingerprint(), "made once");
    let trail = Arc::new(Trail::new(Arc::clone(&store), Arc::clone(&clock) as _).unwrap());
    let (own_clock, own_random) = (Arc::clone(&clock) as _, Arc::clone(&random) as _);
    let own_trail = Arc::clone(&trail);
    let config = ConfigStore::load(
        Arc::clone(&store),
        own_random,
        own_clock,
        keyring,
        generation,
        own_trail,
        Arc::new(Publisher::new(ViewKey::new(Arc::clone(&random) as _))),
    );
    let door = Door {
        config: Arc::new(config.await.unwrap()),
        store,
        random,
        clock: Arc::clone(&clock) as _,
        pepper: Pepper::new([9; 32]),
        authority: Arc::new(authority),
        trail,
    };
    (Arc::new(door), clock)
}

fn root() -> Caller {
    Caller {
        credential: "admin".to_owned(),
        role: Role::Root,
        account: ROOT.to_owned(),
        expires_unix_ms: None,
    }
}

async fn admits(door: &Door, node: &str) -> bool {
    door.caller(node).await.is_ok()
}

fn request() -> Vec<u8> {
    let key = KeyPair::generate().unwrap();
    CertificateParams::default()
        .serialize_request(&key)
        .unwrap()
        .der()
        .to_vec()
}

async fn refused(door: &Door, token: &str, node: &str, words: &str) {
    let refusal = door
        .join(token, node, &request())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(refusal.contains(words), "{refusal}");
}

#[tokio::test]
async fn a_token_lets_in_as_many_as_it_says() {
    let (door, clock) = door().await;
    let (once, _) = door.create_token(&root(), 0, 1).await.unwrap();
    let joined = door
        .join(once.expose(), "node-1", &request())
        .await
        .unwrap();
    let leaf = &joined.certificate.chain[0];
    assert_eq!(door.authority.node_of(leaf).as_deref(), Some("node-1"));
    assert!(admits(&door, "node-1").await);
    refused(&door, once.expose(), "node-2", "as many nodes as it may").await;

    let (reusable, _) = door.create_token(&root(), DAY_MS, 0).await.unwrap();
    for node in ["node-3", "node-4"] {
        door.join(reusable.expose(), node, &request())
            .await
            .unwrap();
    }
    refused(&door, reusable.expose(), "node-3", "has joined before").await;
    refused(&door, reusable.expose(), "Node 5", "the node's id").await;
    clock
        .0
        .store(NOW + DAY_MS, std::sync::atomic::Ordering::Relaxed);
    refused(&door, reusable.expose(), "node-5", "has run out").await;

    let (revoked, _) = door.create_token(&root(), 0, 0).await.unwrap();
    door.revoke_token(&root(), &revoked.id).await.unwrap();
    refused(&door, revoked.expose(), "node-5", "was revoked").await;
    let uses: Vec<u32> = door
        .tokens()
        .await
        .unwrap()
        .iter()
        .map(|(_, row)| row.uses)
        .collect();
    assert_eq!(uses.iter().sum::<u32>(), 3);
}

#[tokio::test]
async fn what_is_forged_lets_nobody_in() {
    let (door, _) = door().await;
    let (token, _) = door.create_token(&root(), 0, 0).await.unwrap();
    let forged = JoinToken::make(&[99; 64], Fingerprint::of(b"x"));
    refused(&door, forged.expose(), "node-1", "not valid here").await;
    let mut text = token.expose().to_owned();
    let secret_at = "pxai-join-".len() + 12 + 1;
    let other = if text.as_bytes()[secret_at] == b'a' {
        "b"
    } else {
        "a"
    };
    text.replace_range(secret_at..=secret_at, other);
    refused(&door, &text, "node-1", "not valid here").await;
    refused(&door, "sk-pxai-x", "node-1", "no join token").await;
    assert!(
        door.join(token.expose(), "node-1", b"no request")
            .await
            .is_err()
    );
    assert!(!admits(&door, "node-1").await, "nothing was written");
}

#[tokio::test]
async fn a_node_renews_with_its_secret_until_it_is_removed() {
    let (door, _) = door().await;
    let (token, _) = door.create_token(&root(), 0, 0).await.unwrap();
    let joined = door
        .join(token.expose(), "node-1", &request())
        .await
        .unwrap();
    let renewed = door
        .renew("node-1", &joined.renewal_secret, &request())
        .await
        .unwrap();
    assert_eq!(
        door.authority.node_of(&renewed.chain[0]).as_deref(),
        Some("node-1")
    );
    assert!(door.renew("node-1", "another", &request()).await.is_err());
    assert!(
        door.renew("node-2", &joined.renewal_secret, &request())
            .await
            .is_err()
    );
    let roster = Key::Roster("node-1".to_owned()).to_string();
    let served = Txn {
        compares: Vec::new(),
        then: vec![Op::Put(
            roster.clone(),
            stored::RosterRow::default().encode_to_vec(),
        )],
    };
    door.store.txn(served).await.unwrap();
    let removed = door.remove_node(&root(), "node-1").await;
    assert!(removed.unwrap());
    assert_eq!(door.store.get(&roster).await.unwrap(), None);
    let again = door.remove_node(&root(), "node-1").await;
    assert!(!again.unwrap(), "it is gone already");
    assert!(
        door.renew("node-1", &joined.renewal_secret, &request())
            .await
            .is_err()
    );
    assert!(!admits(&door, "node-1").await);
    refused(&door, token.expose(), "node-1", "has joined before").await;
}

#[tokio::test]
async fn many_at_once_do_not_exceed_a_token() {
    let (door, _) = door().await;
    let (token, _) = door.create_token(&root(), 0, 3).await.unwrap();
    let mut joins = tokio::task::JoinSet::new();
    for number in 0..12 {
        let (door, text) = (Arc::clone(&door), token.expose().to_owned());
        joins.spawn(async move {
            door.join(&text, &format!("node-{number}"), &request())
                .await
                .is_ok()
        });
    }
    let let_in = joins
        .join_all()
        .await
        .into_iter()
        .filter(|joined| *joined)
        .count();
    assert_eq!(let_in, 3);
}
