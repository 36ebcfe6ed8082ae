//! Look-ups against a control plane whose every answer the test gives.

use proxyxai_core::{
    account::key::Pepper,
    snapshot::{Content, Snapshot},
};
use proxyxai_proto::config::v1::{ResolveKeysRequest, ResolveKeysResponse, ResolvedKey};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    config::{Pinned, sample},
    fakes::{Line, Lookup, config_plane},
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
    let config = ConfigHandle::new();
    let (resolver, asker) = KeyResolver::new(config.clone());
    tokio::spawn(asker.run(line.channel(), CancellationToken::new()));
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

/// Answers that even digests exist.
fn answer(request: &ResolveKeysRequest, revision: u64) -> ResolveKeysResponse {
    let keys = request.digests.iter().map(|bytes| {
        let exists = bytes[0] % 2 == 0;
        ResolvedKey {
            digest: bytes.clone(),
            virtual_key: exists.then(|| sample::virtual_key("k", bytes[0])),
            accounts: if exists { vec![sample::root()] } else { vec![] },
        }
    });
    ResolveKeysResponse {
        as_of: Some(
            Version {
                generation: 1,
                revision,
            }
            .into(),
        ),
        keys: keys.collect(),
    }
}

impl Bench {
    /// The configuration in force has this revision now.
    fn reach(&self, revision: u64) {
        let content: Content = sample::resources(&[]).into_iter().map(Arc::new).collect();
        let snapshot = Snapshot::compile(
            Version {
                generation: 1,
                revision,
            },
            &content,
        )
        .unwrap();
        self.config.install(
            Pinned::build(snapshot, Pepper::new([7; 32]), &self.config.current()).unwrap(),
        );
        self.config.set_state(NodeState::Current);
    }

    fn ask(&self, byte: u8) -> tokio::task::JoinHandle<Result<Option<Resolved>, ResolveError>> {
        let resolver = self.resolver.clone();
        tokio::spawn(async move { resolver.resolve(digest(byte)).await })
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
    let found = bench.resolver.resolve(digest(2)).await.unwrap().unwrap();
    assert_eq!(found.accounts.path(found.key.record.account), "root");
    assert!(bench.resolver.resolve(digest(3)).await.unwrap().is_none());
    assert!(
        bench.lookups.try_recv().is_err(),
        "both answers are remembered"
    );
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
            tokio::spawn(async move { resolver.resolve(KeyDigest(bytes)).await })
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
        never_heard.resolver.resolve(digest(1)).await.unwrap_err(),
        ResolveError::Unavailable
    );
    never_heard.reach(5);
    assert_eq!(
        never_heard.resolver.resolve(digest(1)).await.unwrap_err(),
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
async fn law_12_a_stale_node_does_not_trust_a_remembered_no() {
    let mut bench = start();
    let asked = [bench.ask(1), bench.ask(2)];
    bench.answer(5).await;
    for one in asked {
        one.await.unwrap().unwrap();
    }
    bench.config.set_state(NodeState::Stale);
    assert!(bench.resolver.resolve(digest(2)).await.unwrap().is_some());
    assert_eq!(
        bench.resolver.resolve(digest(1)).await.unwrap_err(),
        ResolveError::Unavailable
    );
}

#[tokio::test(start_paused = true)]
async fn law_11_an_answer_older_than_the_configuration_is_asked_again() {
    let mut bench = start();
    let asked = bench.ask(2);
    let (request, reply) = bench.question().await;
    bench.reach(6);
    reply.send(Ok(answer(&request, 5))).unwrap();
    let (request, reply) = bench.question().await;
    assert_eq!(
        request.at_least.map(Version::from),
        Some(Version {
            generation: 1,
            revision: 6
        })
    );
    let revoked = ResolvedKey {
        digest: vec![2; 16],
        ..ResolvedKey::default()
    };
    reply
        .send(Ok(ResolveKeysResponse {
            keys: vec![revoked],
            ..answer(&request, 6)
        }))
        .unwrap();
    assert!(
        asked.await.unwrap().unwrap().is_none(),
        "the fill that was in flight is not used"
    );
    assert!(bench.resolver.resolve(digest(2)).await.unwrap().is_none());
    bench.reach(7);
    let asked = bench.ask(2);
    bench.answer(7).await;
    assert!(
        asked.await.unwrap().unwrap().is_some(),
        "what is remembered ends with its version"
    );
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
                    .block_on(resolver.resolve(digest(byte)))
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
