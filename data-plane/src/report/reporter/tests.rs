//! A node that reports to a faithful control plane over a bad line, from a bad disk, through crashes.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use prost::Message as _;
use proxyxai_proto::usage::v1::{
    Registered, ReportResponse, UsageAck, UsageBatch, UsageEvent, UsageGap, report_request,
    report_response,
};
use tokio::{sync::mpsc, task::JoinHandle};
use tonic::Status;

use super::*;
use crate::{
    fakes::{Line, ReportStream, Still, usage_plane},
    report::{EventSender, MemoryDisk},
};

mod set_aside;

/// What happens to one batch on its way.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Applied,
    AcknowledgedTwice,
    AcknowledgementLost,
    CutBefore,
    CutAfter,
    Dropped,
}

/// A control plane that applies every batch once, in order, and never forgets.
#[derive(Default)]
struct Books {
    applied: BTreeMap<(String, u64), u64>,
    events: Vec<String>,
    seen: BTreeMap<(String, u64, u64), Vec<u8>>,
    fates: Vec<Fate>,
    /// No batch is ever taken that holds an event whose id begins with this.
    refused: Option<String>,
    /// Nobody may report the epochs of this node.
    denied: Option<String>,
}

type Shared = Arc<Mutex<Books>>;

impl Books {
    /// The answer to a batch.
    fn apply(&mut self, batch: &UsageBatch) -> report_response::Message {
        let through = self
            .applied
            .entry((batch.node_id.clone(), batch.epoch))
            .or_default();
        let next = through.saturating_add(1);
        if batch.sequence > next {
            return report_response::Message::Gap(UsageGap {
                epoch: batch.epoch,
                expected: next,
            });
        }
        if batch.sequence == next {
            *through = batch.sequence;
            self.events
                .extend(batch.events.iter().map(|event| event.request_id.clone()));
        }
        report_response::Message::Ack(UsageAck {
            epoch: batch.epoch,
            applied_through: *through,
        })
    }

    /// Whether a batch is one that is never taken.
    fn refuses(&self, batch: &UsageBatch) -> bool {
        let holds = |id: &String| {
            batch
                .events
                .iter()
                .any(|event| event.request_id.starts_with(id))
        };
        self.refused.as_ref().is_some_and(holds)
    }

    fn check_bytes(&mut self, batch: &UsageBatch) {
        let (name, bytes) = (
            (batch.node_id.clone(), batch.epoch, batch.sequence),
            batch.encode_to_vec(),
        );
        let first = self.seen.entry(name).or_insert_with(|| bytes.clone());
        assert_eq!(*first, bytes, "law 5: a batch never changes");
        assert!(batch.events.len() <= crate::report::sender::FULL);
    }
}

async fn serve(books: Shared, line: Line, mut streams: mpsc::UnboundedReceiver<ReportStream>) {
    while let Some(stream) = streams.recv().await {
        tokio::spawn(serve_one(Arc::clone(&books), line.clone(), stream));
    }
}

async fn serve_one(books: Shared, line: Line, mut stream: ReportStream) {
    while let Ok(Some(request)) = stream.from_node.message().await {
        let mut answers = Vec::new();
        match request.message.unwrap() {
            report_request::Message::Register(register) => {
                if books.lock().unwrap().denied.as_ref() == Some(&register.node_id) {
                    let refusal = Status::permission_denied("that is another node");
                    let _node_may_be_gone = stream.to_node.send(Err(refusal)).await;
                    return;
                }
                let name = (register.node_id, register.epoch);
                let applied_through = books
                    .lock()
                    .unwrap()
                    .applied
                    .get(&name)
                    .copied()
                    .unwrap_or(0);
                answers.push(report_response::Message::Registered(Registered {
                    applied_through,
                }));
            }
            report_request::Message::Batch(batch) => {
                let batch = UsageBatch::decode(batch).unwrap();
                if books.lock().unwrap().refuses(&batch) {
                    let refusal = Status::invalid_argument("too odd to be booked");
                    let _node_may_be_gone = stream.to_node.send(Err(refusal)).await;
                    return;
                }
                let mut books = books.lock().unwrap();
                books.check_bytes(&batch);
                let fate = books.fates.pop().unwrap_or(Fate::Applied);
                match fate {
                    Fate::Applied => answers.push(books.apply(&batch)),
                    Fate::AcknowledgedTwice => {
                        answers.extend([books.apply(&batch), books.apply(&batch)])
                    }
                    Fate::AcknowledgementLost => drop(books.apply(&batch)),
                    Fate::Dropped => {}
                    Fate::CutBefore => line.cut(),
                    Fate::CutAfter => {
                        books.apply(&batch);
                        line.cut();
                    }
                }
            }
        }
        for answer in answers {
            if stream
                .to_node
                .send(Ok(ReportResponse {
                    message: Some(answer),
                }))
                .await
                .is_err()
            {
                return;
            }
        }
    }
}

/// One start of a node.
struct Node {
    sender: EventSender<UsageEvent>,
    pushed: Vec<String>,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

fn boot(disk: &Arc<MemoryDisk>, line: &Line) -> Node {
    boot_on(disk.clone(), line)
}

fn boot_on(disk: Arc<dyn Disk>, line: &Line) -> Node {
    let ports = Ports {
        disk,
        work: FileWork::Inline,
        planes: line.planes(),
        clock: Arc::new(Still),
        random: Arc::new(Still),
    };
    let (sender, reporter) = open("node-1", EVENTS_KEEP, ports).unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(reporter.run(shutdown.clone()));
    Node {
        sender,
        pushed: Vec::new(),
        shutdown,
        task,
    }
}

impl Node {
    fn push(&mut self, events: usize, all: &mut Vec<String>) {
        for _ in 0..events {
            let id = format!("r{}", all.len());
            let account_id = format!("a{}", all.len() % 90);
            self.sender.push(UsageEvent {
                request_id: id.clone(),
                account_id,
                ..UsageEvent::default()
            });
            self.pushed.push(id.clone());
            all.push(id);
        }
    }

    /// Ends in good order: nothing that was handed in is lost.
    async fn stop(self) -> Vec<String> {
        self.shutdown.cancel();
        self.task.await.unwrap();
        self.pushed
    }

    /// Ends at once: what was durable is not lost.
    async fn kill(self) -> Vec<String> {
        self.task.abort();
        let _aborted = self.task.await;
        let durable = usize::try_from(
            self.sender
                .counters()
                .durable
                .load(std::sync::atomic::Ordering::Relaxed),
        )
        .unwrap();
        self.pushed.into_iter().take(durable).collect()
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push(usize),
    Wait(u64),
    Cut,
    Down(bool),
    Full(bool),
    SyncFails(bool),
    Restart,
    Crash(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        5 => (1_usize..300).prop_map(Step::Push),
        5 => (0_u64..3_000).prop_map(Step::Wait),
        2 => Just(Step::Cut),
        1 => any::<bool>().prop_map(Step::Down),
        1 => any::<bool>().prop_map(Step::Full),
        1 => any::<bool>().prop_map(Step::SyncFails),
        1 => Just(Step::Restart),
        2 => (0_usize..5_000).prop_map(Step::Crash),
    ];
    prop::collection::vec(step, 1..25)
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        6 => Just(Fate::Applied),
        1 => Just(Fate::AcknowledgedTwice),
        1 => Just(Fate::AcknowledgementLost),
        1 => Just(Fate::CutBefore),
        1 => Just(Fate::CutAfter),
        1 => Just(Fate::Dropped),
    ];
    prop::collection::vec(fate, 0..60)
}

/// Plays a schedule, heals everything, and compares what the control plane counted with what it had to.
async fn play(steps: Vec<Step>, fates: Vec<Fate>) {
    let (line, disk, books) = (
        Line::default(),
        Arc::new(MemoryDisk::default()),
        Shared::default(),
    );
    let server = tokio::spawn(serve(books.clone(), line.clone(), usage_plane(&line)));
    books.lock().unwrap().fates = fates;
    let (mut all, mut owed, mut kept) = (Vec::new(), Vec::new(), None);
    let (mut is_full, mut is_failing) = (false, false);
    let mut node = boot(&disk, &line);
    for step in steps {
        match step {
            Step::Push(events) => node.push(events, &mut all),
            Step::Wait(millis) => sleep(Duration::from_millis(millis)).await,
            Step::Cut => line.cut(),
            Step::Down(down) => line.set_down(&mut kept, down),
            Step::Full(full) => {
                disk.set_full(full);
                is_full = full;
            }
            Step::SyncFails(fails) => {
                disk.set_sync_fails(fails);
                is_failing = fails;
            }
            Step::Restart if !is_full && !is_failing => {
                owed.extend(node.stop().await);
                node = boot(&disk, &line);
            }
            Step::Restart | Step::Crash(_) => {
                owed.extend(node.kill().await);
                disk.crash(if let Step::Crash(kept) = step {
                    kept
                } else {
                    0
                });
                disk.set_full(false);
                disk.set_sync_fails(false);
                (is_full, is_failing) = (false, false);
                node = boot(&disk, &line);
            }
        }
    }
    disk.set_full(false);
    disk.set_sync_fails(false);
    line.set_down(&mut kept, false);
    books.lock().unwrap().fates.clear();
    sleep(Duration::from_secs(600)).await;
    let counters = node.sender.counters();
    let load =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(
        load(&counters.acknowledged),
        u64::try_from(node.pushed.len()).unwrap(),
        "all is acknowledged at last"
    );
    assert_eq!(
        (
            load(&counters.oldest_unacknowledged_unix_ms),
            load(&counters.lost),
            node.sender.waiting()
        ),
        (0, 0, 0)
    );
    owed.extend(node.stop().await);
    let books = books.lock().unwrap();
    let applied: BTreeSet<&String> = books.events.iter().collect();
    assert_eq!(
        applied.len(),
        books.events.len(),
        "law 4: no event is counted twice"
    );
    assert!(
        applied.iter().all(|id| all.contains(id)),
        "nothing is made up"
    );
    let missing: Vec<_> = owed.iter().filter(|id| !applied.contains(id)).collect();
    assert!(
        missing.is_empty(),
        "law 5: durable events are never lost: {missing:?}"
    );
    server.abort();
}

fn simulate(steps: Vec<Step>, fates: Vec<Fate>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(play(steps, fates));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn law_4_every_durable_event_is_counted_once(steps in steps(), fates in fates()) {
        simulate(steps, fates);
    }
}

#[test]
fn a_lost_acknowledgement_and_a_gap_are_made_good() {
    let fates = vec![
        Fate::Applied,
        Fate::Dropped,
        Fate::Applied,
        Fate::AcknowledgementLost,
        Fate::CutAfter,
    ];
    simulate(
        vec![
            Step::Push(10_000),
            Step::Wait(100),
            Step::Crash(0),
            Step::Push(300),
            Step::Wait(60),
            Step::Cut,
            Step::Restart,
        ],
        fates,
    );
}

#[test]
fn a_full_disk_delays_and_loses_nothing() {
    simulate(
        vec![
            Step::Full(true),
            Step::Push(500),
            Step::Wait(5_000),
            Step::Push(10),
            Step::Full(false),
        ],
        vec![],
    );
}

#[tokio::test(start_paused = true)]
async fn shutdown_without_a_control_plane_takes_ten_seconds_and_leaves_the_rest_on_disk() {
    let (line, disk) = (Line::default(), Arc::new(MemoryDisk::default()));
    let mut node = boot(&disk, &line);
    node.push(10, &mut Vec::new());
    let begun = tokio::time::Instant::now();
    let owed = node.stop().await;
    assert!((LAST_ACK..LAST_ACK + Duration::from_secs(1)).contains(&begun.elapsed()));
    let books = Shared::default();
    let server = tokio::spawn(serve(books.clone(), line.clone(), usage_plane(&line)));
    let node = boot(&disk, &line);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        node.sender
            .counters()
            .replayed_batches
            .load(std::sync::atomic::Ordering::Relaxed),
        1
    );
    node.stop().await;
    assert_eq!(books.lock().unwrap().events, owed);
    server.abort();
}
