//! Look-ups against a control plane whose every answer the test gives.

use proxyxai_core::{
    account::{key::Pepper, tree::AccountRefusal},
    freshness::Freshness,
    snapshot::{Content, ResourceKind, Snapshot},
};
use proxyxai_proto::config::v1::{
    Account, ResolveKeysRequest, ResolveKeysResponse, ResolvedKey, VirtualKey,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    config::{ControlPlanes, Pinned, held::View, sample},
    fakes::{Line, Lookup, Still, config_plane},
};

struct Bench {
    resolver: KeyResolver,
    config: ConfigHandle,
    lookups: mpsc::UnboundedReceiver<Lookup>,
}

fn start() -> Bench {
    let line = Line::default();
    let (_, lookups) = config_plane(&line);
    let bench = Bench {
        lookups,
        ..unconnected(&line)
    };
    bench.reach(5);
    bench
}

fn unconnected(line: &Line) -> Bench {
    let config = ConfigHandle::default();
    let (resolver, asker) = KeyResolver::new(config.clone(), 1_000);
    tokio::spawn(asker.run(line.planes(), CancellationToken::new()));
    Bench {
        resolver,
        config,
        lookups: mpsc::unbounded_channel().1,
    }
}

/// How long a test waits for a question.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
/// Longer than a question waits for more digests.
const LATER: std::time::Duration = std::time::Duration::from_millis(10);

fn digest(byte: u8) -> KeyDigest {
    KeyDigest([byte; 16])
}

fn key(byte: u8) -> VirtualKey {
    VirtualKey {
        account_id: format!("team{}", byte / 10),
        ..sample::virtual_key(&format!("k{byte}"), byte)
    }
}

fn id(byte: u8) -> KeyId {
    KeyId::new(&key(byte).id).unwrap()
}

fn version(revision: u64) -> Version {
    Version {
        generation: 1,
        revision,
    }
}

fn key_name(byte: u8) -> ResourceName {
    ResourceName {
        kind: ResourceKind::VirtualKey,
        id: key(byte).id,
    }
}

fn account_name(id: &str) -> ResourceName {
    ResourceName {
        kind: ResourceKind::Account,
        id: id.to_owned(),
    }
}

fn team(byte: u8, suspended: bool) -> Account {
    Account {
        id: format!("team{}", byte / 10),
        parent_id: "root".into(),
        name: "team".into(),
        suspended,
        ..Account::default()
    }
}

/// Answers that even digests exist.
fn answer(request: &ResolveKeysRequest, revision: u64) -> ResolveKeysResponse {
    answer_with(request, revision, false)
}

fn answer_with(
    request: &ResolveKeysRequest,
    revision: u64,
    suspended: bool,
) -> ResolveKeysResponse {
    let keys = request.digests.iter().map(|bytes| {
        let exists = bytes[0].is_multiple_of(2);
        let accounts = vec![team(bytes[0], suspended), sample::root()];
        ResolvedKey {
            digest: bytes.clone(),
            virtual_key: exists.then(|| VirtualKey {
                digest: bytes.clone(),
                ..key(bytes[0])
            }),
            accounts: if exists { accounts } else { vec![] },
        }
    });
    ResolveKeysResponse {
        as_of: Some(version(revision).into()),
        keys: keys.collect(),
    }
}

impl Bench {
    /// The configuration in force has this revision now.
    fn reach(&self, revision: u64) {
        let content: Content = sample::resources(&[]).into_iter().map(Arc::new).collect();
        let snapshot = Snapshot::compile(version(revision), &content).unwrap();
        let view = View {
            deployment: "d".into(),
            pepper: Pepper::new([7; 32]),
            keyed: true,
        };
        self.config
            .install(Pinned::build(snapshot, view, &self.config.current()).unwrap());
        self.resolver.advance(version(revision));
        self.config.note(|facts, now| {
            facts.greeted(Duration::ZERO, Duration::ZERO);
            facts.compared(now, true, true);
        });
    }

    /// Changes were heard of.
    fn invalidate(&self, from: u64, to: u64, names: impl IntoIterator<Item = ResourceName>) {
        self.resolver.take(version(from), version(to), names);
    }

    /// What is remembered, without a question.
    async fn remembered(&mut self, byte: u8) -> Result<Option<Resolved>, ResolveError> {
        let result = self.resolver.resolve(id(byte), digest(byte), None).await;
        assert!(self.lookups.try_recv().is_err(), "a question was asked");
        result
    }

    fn ask(&self, byte: u8) -> tokio::task::JoinHandle<Result<Option<Resolved>, ResolveError>> {
        let resolver = self.resolver.clone();
        tokio::spawn(async move { resolver.resolve(id(byte), digest(byte), None).await })
    }

    /// The next question.
    async fn question(&mut self) -> Lookup {
        let next = tokio::time::timeout(PATIENCE, self.lookups.recv());
        next.await.unwrap().unwrap()
    }

    /// Answers the next question; how many digests it had.
    async fn answer(&mut self, revision: u64) -> usize {
        let (request, reply) = self.question().await;
        reply.send(Ok(answer(&request, revision))).unwrap();
        request.digests.len()
    }
}

#[tokio::test(start_paused = true)]
async fn many_requests_make_one_question() {
    let mut bench = start();
    let asked: Vec<_> = [2, 2, 2, 3, 4, 2]
        .map(|byte| bench.ask(byte))
        .into_iter()
        .collect();
    assert_eq!(bench.answer(5).await, 3);
    for one in asked {
        one.await.unwrap().unwrap();
    }
    let found = bench.remembered(2).await.unwrap().unwrap();
    assert_eq!(found.accounts.path(found.key.record.account), "root/team");
    assert!(bench.remembered(3).await.unwrap().is_none());
    assert_eq!(bench.resolver.counters().hits.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_question_has_a_bounded_number_of_digests() {
    let mut bench = start();
    let asked: Vec<_> = (0..300_u16)
        .map(|n| {
            let resolver = bench.resolver.clone();
            let [low, high] = n.to_le_bytes();
            let mut bytes = [low; 16];
            bytes[1] = high;
            tokio::spawn(async move { resolver.resolve(id(low), KeyDigest(bytes), None).await })
        })
        .collect();
    assert_eq!((bench.answer(5).await, bench.answer(5).await), (256, 44));
    for one in asked {
        one.await.unwrap().unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn law_12_an_absent_control_plane_never_says_no() {
    let never_heard = unconnected(&Line::default());
    assert_eq!(
        never_heard
            .resolver
            .resolve(id(1), digest(1), None)
            .await
            .unwrap_err(),
        ResolveError::Unavailable
    );
    never_heard.reach(5);
    assert_eq!(
        never_heard
            .resolver
            .resolve(id(1), digest(1), None)
            .await
            .unwrap_err(),
        ResolveError::Unavailable
    );

    let mut bench = start();
    let asked = bench.ask(1);
    let (_, reply) = bench.question().await;
    reply
        .send(Err(tonic::Status::unavailable("behind")))
        .unwrap();
    assert_eq!(asked.await.unwrap().unwrap_err(), ResolveError::Unavailable);

    let (asked, begun) = (bench.ask(1), Instant::now());
    let _never_answered = bench.question().await;
    assert_eq!(asked.await.unwrap().unwrap_err(), ResolveError::Unavailable);
    assert!(begun.elapsed() <= DEADLINE + LATER);
    tokio::time::sleep(LATER).await;

    let asked = bench.ask(1);
    let (_, reply) = bench.question().await;
    reply
        .send(Ok(ResolveKeysResponse {
            as_of: Some(
                Version {
                    generation: 1,
                    revision: 5,
                }
                .into(),
            ),
            keys: vec![],
        }))
        .unwrap();
    assert_eq!(
        asked.await.unwrap().unwrap_err(),
        ResolveError::Unavailable,
        "an answer about other keys is none"
    );
}

#[tokio::test(start_paused = true)]
async fn law_12_a_node_out_of_touch_does_not_trust_a_remembered_no() {
    let mut bench = start();
    let asked = [bench.ask(1), bench.ask(2)];
    bench.answer(5).await;
    for one in asked {
        one.await.unwrap().unwrap();
    }
    let out_of_touch: [fn(&mut Freshness, Duration); 3] = [
        |facts, now| facts.compared(now, true, false),
        |facts, _| facts.lost(),
        |facts, now| facts.restored(now, Duration::ZERO, None),
    ];
    for change in out_of_touch {
        bench.config.note(change);
        assert!(bench.remembered(2).await.unwrap().is_some());
        let asked = bench.ask(1);
        let (_, unanswered) = bench.question().await;
        drop(unanswered);
        assert_eq!(asked.await.unwrap().unwrap_err(), ResolveError::Unavailable);
    }
}

#[tokio::test(start_paused = true)]
async fn law_11_a_fill_that_a_change_outran_is_asked_for_again() {
    let mut bench = start();
    let asked = bench.ask(2);
    let (request, reply) = bench.question().await;
    assert_eq!(request.at_least.map(Version::from), Some(version(5)));
    bench.invalidate(5, 6, [key_name(2)]);
    reply.send(Ok(answer(&request, 5))).unwrap();
    let (request, reply) = bench.question().await;
    assert_eq!(request.at_least.map(Version::from), Some(version(6)));
    let revoked = ResolvedKey {
        digest: vec![2; 16],
        ..ResolvedKey::default()
    };
    let keys = vec![revoked];
    reply
        .send(Ok(ResolveKeysResponse {
            keys,
            ..answer(&request, 6)
        }))
        .unwrap();
    assert!(
        asked.await.unwrap().unwrap().is_none(),
        "the fill that was in flight is not used"
    );
    assert!(bench.remembered(2).await.unwrap().is_none());
    assert_eq!(bench.resolver.counters().outrun.load(Ordering::Relaxed), 1);
    bench.invalidate(6, 7, [key_name(2)]);
    let asked = bench.ask(2);
    bench.answer(7).await;
    assert!(
        asked.await.unwrap().unwrap().is_some(),
        "a remembered no ends with the key's next change"
    );
    bench.invalidate(7, 8, [key_name(4), account_name("other")]);
    assert!(
        bench.remembered(2).await.unwrap().is_some(),
        "what others change takes nothing away"
    );
    assert_eq!(bench.resolver.through(), version(8));
}

#[tokio::test(start_paused = true)]
async fn law_11_a_fill_is_asked_for_again_when_an_account_above_changed() {
    let mut bench = start();
    let asked = bench.ask(2);
    let (request, reply) = bench.question().await;
    bench.invalidate(5, 6, [account_name("team0")]);
    reply.send(Ok(answer(&request, 5))).unwrap();
    let (request, reply) = bench.question().await;
    reply.send(Ok(answer_with(&request, 6, true))).unwrap();
    let found = asked.await.unwrap().unwrap().unwrap();
    assert!(found.accounts.active(found.key.record.account).is_err());
}

#[tokio::test(start_paused = true)]
async fn suspending_an_account_is_one_invalidation() {
    let mut bench = start();
    let asked = [2, 4, 12].map(|byte| bench.ask(byte));
    bench.answer(5).await;
    for one in asked {
        one.await.unwrap().unwrap();
    }
    assert!(bench.remembered(4).await.unwrap().is_some());
    bench.invalidate(5, 6, [account_name("team0")]);
    assert!(
        bench.remembered(12).await.unwrap().is_some(),
        "another account's keys are not touched"
    );
    let asked = bench.ask(2);
    let (request, reply) = bench.question().await;
    assert_eq!(request.digests.len(), 1);
    reply.send(Ok(answer_with(&request, 6, true))).unwrap();
    let path = "root/team".to_owned();
    let refused = Err(AccountRefusal::Suspended { path });
    let found = asked.await.unwrap().unwrap().unwrap();
    assert_eq!(found.accounts.active(found.key.record.account), refused);
    let other = bench.remembered(4).await.unwrap().unwrap();
    assert_eq!(
        other.accounts.active(other.key.record.account),
        refused,
        "what one key brought serves all"
    );
}

#[tokio::test(start_paused = true)]
async fn a_node_that_missed_changes_revalidates_what_it_holds() {
    let mut bench = start();
    let asked = bench.ask(2);
    bench.answer(5).await;
    asked.await.unwrap().unwrap();
    bench.invalidate(8, 9, []);
    let asked = bench.ask(2);
    let (request, unanswered) = bench.question().await;
    assert_eq!(request.at_least.map(Version::from), Some(version(9)));
    drop(unanswered);
    assert_eq!(asked.await.unwrap().unwrap_err(), ResolveError::Unavailable);
    let asked = bench.ask(2);
    bench.answer(9).await;
    assert!(asked.await.unwrap().unwrap().is_some());
    assert!(bench.remembered(2).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn another_secret_of_a_known_id_does_not_push_the_key_out() {
    let mut bench = start();
    let asked = bench.ask(2);
    bench.answer(5).await;
    asked.await.unwrap().unwrap();
    let resolver = bench.resolver.clone();
    let guess = tokio::spawn(async move { resolver.resolve(id(2), digest(3), None).await });
    bench.answer(5).await;
    assert!(guess.await.unwrap().unwrap().is_none());
    assert!(bench.remembered(2).await.unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn the_next_control_plane_is_asked_while_one_is_away() {
    let (dead, alive) = (Line::default(), Line::default());
    let (_, lookups) = config_plane(&alive);
    let planes = ControlPlanes::new(vec![dead.channel(), alive.channel()], &Still).unwrap();
    let config = ConfigHandle::default();
    let (resolver, asker) = KeyResolver::new(config.clone(), 10);
    tokio::spawn(asker.run(planes, CancellationToken::new()));
    let mut bench = Bench {
        resolver,
        config,
        lookups,
    };
    bench.reach(5);
    let asked = bench.ask(2);
    bench.answer(5).await;
    assert!(asked.await.unwrap().unwrap().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_remembered_outlives_the_process() {
    let mut bench = start();
    let asked = [2, 3, 12].map(|byte| bench.ask(byte));
    bench.answer(5).await;
    for one in asked {
        one.await.unwrap().unwrap();
    }
    let kept = bench.resolver.export();
    let mut next = unconnected(&Line::default());
    next.resolver.import(kept);
    next.config
        .note(|facts, now| facts.restored(now, Duration::ZERO, None));
    for byte in [2, 12] {
        let found = next.remembered(byte).await.unwrap().unwrap();
        assert_eq!(found.accounts.path(found.key.record.account), "root/team");
    }
    assert_eq!(next.resolver.through(), version(5));
    next.invalidate(5, 6, [account_name("team0")]);
    assert!(next.remembered(2).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn waiting_requests_are_bounded() {
    let bench = start();
    let asked: Vec<_> = (0..=WAITING).map(|_| bench.ask(1)).collect();
    let mut busy = 0;
    for one in asked {
        busy += usize::from(one.await.unwrap().unwrap_err() == ResolveError::Busy);
    }
    assert_eq!(busy, 1);
    assert_eq!(bench.resolver.shared.waiting.available_permits(), WAITING);
}

#[tokio::test]
async fn cores_with_runtimes_of_their_own_share_the_resolver() {
    let mut bench = start();
    let cores: Vec<_> = [2, 4]
        .map(|byte| {
            let resolver = bench.resolver.clone();
            tokio::task::spawn_blocking(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap();
                runtime
                    .block_on(resolver.resolve(id(byte), digest(byte), None))
                    .unwrap()
                    .is_some()
            })
        })
        .into_iter()
        .collect();
    let mut answered = 0;
    while answered < 2 {
        answered += bench.answer(5).await;
    }
    for core in cores {
        assert!(core.await.unwrap());
    }
}
