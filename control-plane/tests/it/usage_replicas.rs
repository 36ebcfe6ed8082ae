//! Usage through two replicas on one store, with contention: each batch counts once, whoever applies it, however often it comes.

use std::{sync::Arc, time::Duration};

use proxyxai_control_plane::store::{
    Entry, Leadership, Page, Range, Reply, Store, Txn, TxnResult, Watch, embedded::EmbeddedStore,
};
use proxyxai_proto::usage::v1::{UsageBatch, report_response::Message};

use crate::{
    editor::Dice,
    harness::{Plane, World},
    usage::{Report, event, total},
};

const NODES: usize = 6;
const BATCHES: u64 = 12;

/// A store that takes a moment for everything, so that calls get between one another.
pub(crate) struct Slow(pub(crate) EmbeddedStore);

async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

impl Store for Slow {
    fn get<'a>(&'a self, key: &'a str) -> Reply<'a, Option<Entry>> {
        Box::pin(async move {
            a_moment().await;
            self.0.get(key).await
        })
    }
    fn range(&self, range: Range) -> Reply<'_, Page> {
        Box::pin(async move {
            a_moment().await;
            self.0.range(range).await
        })
    }
    fn txn(&self, txn: Txn) -> Reply<'_, TxnResult> {
        Box::pin(async move {
            a_moment().await;
            self.0.txn(txn).await
        })
    }
    fn watch<'a>(&'a self, prefix: &'a str, from: u64) -> Reply<'a, Watch> {
        self.0.watch(prefix, from)
    }
    fn campaign<'a>(&'a self, name: &'a str) -> Reply<'a, Leadership> {
        self.0.campaign(name)
    }
}

fn batch_of(node: &str, sequence: u64) -> UsageBatch {
    UsageBatch {
        node_id: node.to_owned(),
        epoch: 1,
        sequence,
        // The same rows from all nodes: they contend for them.
        events: vec![event("root", "k", "m"), event("root", "k", "other")],
    }
}

/// Sends all batches of a node, now here, now there, some twice, some too early, some at both replicas at once.
async fn report(planes: &[Plane; 2], node: &str, seed: u64) {
    let mut dice = Dice::new(seed);
    let (mut reports, mut through) = (Vec::new(), 0);
    for plane in planes {
        let (report, applied) = Report::open(plane, node, 1).await;
        assert_eq!(applied, 0);
        reports.push(report);
    }
    while through < BATCHES {
        let sequence = match dice.roll(4) {
            0 => through.max(1),
            1 => through + 2,
            _ => through + 1,
        };
        if dice.roll(3) == 0 {
            let [a, b] = reports.as_mut_slice() else {
                panic!("two replicas")
            };
            let both = tokio::join!(
                a.send(batch_of(node, sequence)),
                b.send(batch_of(node, sequence))
            );
            for answer in [both.0, both.1] {
                note(answer.unwrap(), sequence, &mut through);
            }
        } else {
            let answer = reports[dice.roll(2)].send(batch_of(node, sequence)).await;
            note(answer.unwrap(), sequence, &mut through);
        }
    }
}

fn note(answer: Message, sequence: u64, through: &mut u64) {
    match answer {
        Message::Ack(ack) => {
            assert!(
                ack.applied_through >= sequence,
                "an acknowledgement means durable"
            );
            *through = ack.applied_through.max(*through);
        }
        Message::Gap(gap) => assert!(gap.expected < sequence),
        Message::Registered(_) => panic!("registered twice"),
    }
}

#[tokio::test(start_paused = true)]
async fn law_4_each_batch_counts_once_over_two_replicas() {
    for seed in 1..=3 {
        let world = World::new();
        let slow = || Arc::new(Slow(world.store.clone()));
        let planes = [world.start_on(slow()).await, world.start_on(slow()).await];
        let nodes: Vec<String> = (0..NODES).map(|n| format!("n{n}")).collect();
        let all = nodes
            .iter()
            .zip(1_u64..)
            .map(|(node, n)| report(&planes, node, seed * 100 + n));
        futures_join(all.collect()).await;
        let count = u64::try_from(NODES).unwrap() * BATCHES * 2;
        for plane in &planes {
            let sum = total(plane).await;
            assert_eq!(sum.attempts, count, "seed {seed}: law 4");
            assert_eq!(
                sum.cost_nano_usd,
                i64::try_from(count * 7).unwrap(),
                "seed {seed}"
            );
        }
    }
}

/// Runs all at once, on this task.
async fn futures_join<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut running: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|context| {
        running.retain_mut(|future| future.as_mut().poll(context).is_pending());
        if running.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}
