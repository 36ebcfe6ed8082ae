//! Rates over several nodes (design: §6): what is admitted in any window, and what is refused without need.

use std::{collections::VecDeque, sync::Arc};

use proptest::{collection::vec, prelude::any};
use proxyxai_core::rate::{
    chunk::{Chunks, ask, safe_share},
    counter::{Counter, Per, acquire},
    seats::{SEATS_LIFETIME_MS, Seats},
};

const NODES: usize = 3;

/// Three nodes, one limit. Each step is a time that passes, a node, and requests that come to it at once.
struct Run {
    counter: Counter,
    chunks: Vec<Chunks>,
    now: u64,
    /// When each unit was admitted.
    admitted: Vec<u64>,
    refused: u64,
}

impl Run {
    fn new(per: Per, limit: u64) -> Self {
        Self {
            counter: Counter::new(per, limit),
            chunks: vec![Chunks::default(); NODES],
            now: 0,
            admitted: Vec::new(),
            refused: 0,
        }
    }

    fn request(&mut self, node: usize, demand: u64, limit: u64) {
        let asked = self.now;
        for at in 0..NODES {
            let report = self.chunks[at].report(self.now);
            report
                .rests
                .into_iter()
                .for_each(|(slot, rest)| self.counter.refund(slot, rest));
            assert_eq!(report.debt, 0);
        }
        if self.chunks[node].take(1, self.now).is_none() {
            let want = ask(1, demand, limit, NODES as u64);
            let amount = want.min(self.counter.room(self.now)).max(1);
            if let Ok(slots) = acquire(&mut [&mut self.counter], amount, self.now) {
                self.chunks[node].put(slots[0], amount, asked);
            }
            if self.chunks[node].take(1, self.now).is_none() {
                self.refused += 1;
                return;
            }
        }
        self.admitted.push(self.now);
    }

    /// The most that was admitted in a window of this length.
    fn worst(&self, window_ms: u64) -> usize {
        let (mut inside, mut worst) = (VecDeque::new(), 0);
        for at in &self.admitted {
            inside.push_back(*at);
            while inside.front().is_some_and(|first| first + window_ms <= *at) {
                inside.pop_front();
            }
            worst = worst.max(inside.len());
        }
        worst
    }
}

proptest::proptest! {
    #[test]
    fn any_window_has_at_most_a_twentieth_more_than_its_limit(
        limit in 1_u64..400,
        steps in vec((0_u64..4_000, 0..NODES, 1_u64..60), 1..300),
    ) {
        let mut run = Run::new(Per::Minute, limit);
        for (passes, node, requests) in steps {
            run.now += passes;
            for _ in 0..requests {
                run.request(node, requests, limit);
            }
        }
        let worst = run.worst(Per::Minute.window_ms());
        proptest::prop_assert!(worst as u64 * 20 <= limit * 21, "{worst} of {limit}");
    }

    #[test]
    fn every_level_is_checked_before_any_is_charged(limits in vec(0_u64..50, 1..6), amounts in vec(1_u64..30, 1..20)) {
        let mut counters: Vec<Counter> = limits.iter().map(|limit| Counter::new(Per::Hour, *limit)).collect();
        for amount in amounts {
            let before: Vec<u64> = counters.iter_mut().map(|counter| counter.room(0)).collect();
            let given = acquire(&mut counters.iter_mut().collect::<Vec<_>>(), amount, 0).is_ok();
            let after: Vec<u64> = counters.iter_mut().map(|counter| counter.room(0)).collect();
            let want: Vec<u64> = before.iter().map(|room| if given { room - amount } else { *room }).collect();
            proptest::prop_assert_eq!(after, want);
            proptest::prop_assert_eq!(given, before.iter().all(|room| *room >= amount));
        }
    }

    #[test]
    fn seats_never_sum_to_more_than_the_limit(limit in 1_u64..20, steps in vec((0..NODES, 0_u64..12, 0_u64..3_000, any::<bool>()), 1..60)) {
        let mut seats = Seats::new(limit);
        let (mut now, mut held) = (0, [(0, 0); NODES]);
        for (node, wanted, passes, leaves) in steps {
            now += passes;
            let id = Arc::from(node.to_string());
            if leaves {
                seats.leave(&id);
                held[node] = (0, 0);
            } else {
                held[node] = (seats.renew(&id, 0, wanted, now), now + SEATS_LIFETIME_MS);
            }
            let sum: u64 = held.iter().filter(|(_, until)| *until > now).map(|(seats, _)| seats).sum();
            proptest::prop_assert!(sum <= limit);
        }
    }
}

#[test]
fn a_load_within_the_limit_is_not_refused() {
    // 50 a second for ten minutes, all that the limit allows, skewed over the nodes and shifting each minute.
    let mut run = Run::new(Per::Minute, 3_000);
    for tick in 0..30_000_u64 {
        run.now = tick * 20;
        let favourite = usize::try_from(tick / 3_000).unwrap() % NODES;
        let node = if tick % 10 < 8 {
            favourite
        } else {
            usize::try_from(tick).unwrap() % NODES
        };
        // A node asks for its own demand of a second.
        let demand = if node == favourite { 43 } else { 4 };
        run.request(node, demand, 3_000);
    }
    assert!(
        run.refused * 50 < 30_000,
        "{} of 30,000 are refused",
        run.refused
    );
    assert!(run.worst(60_000) <= 3_150);
}

#[test]
fn a_load_beyond_the_limit_gets_all_of_it() {
    let mut run = Run::new(Per::Minute, 3_000);
    for tick in 0..60_000_u64 {
        run.now = tick * 10;
        run.request(usize::try_from(tick).unwrap() % NODES, 100, 3_000);
    }
    let admitted = run.admitted.len();
    assert!(
        (29_400..=31_500).contains(&admitted),
        "{admitted} of 30,000 that the limit allows"
    );
    assert!(run.worst(60_000) <= 3_150);
}

#[test]
fn what_tokens_cost_beyond_their_estimate_is_a_debt() {
    let mut counter = Counter::new(Per::Minute, 100);
    let mut chunks = Chunks::default();
    let slot = counter.owe(60, 0);
    chunks.put(slot, 60, 0);
    assert_eq!(chunks.take(50, 10), Some(slot));
    chunks.settle(slot, 50, 90, 500);
    assert_eq!(
        chunks.take(1, 500),
        None,
        "the rest of the chunk pays 10 of the 40"
    );
    let report = chunks.report(500);
    assert_eq!((report.debt, report.rests.len()), (30, 0));
    counter.owe(report.debt, 500);
    assert_eq!(counter.room(500), 15);
    // What cost less is spent again while its chunk lives, and goes back after that.
    let slot = counter.owe(15, 500);
    chunks.put(slot, 15, 500);
    assert_eq!(chunks.take(15, 600), Some(slot));
    chunks.settle(slot, 15, 5, 700);
    assert_eq!(chunks.take(10, 700), Some(slot));
    chunks.settle(slot, 10, 0, 9_000);
    assert_eq!(chunks.report(9_000).rests, [(slot, 10)]);
}

#[test]
fn a_refusal_tells_when_to_come_back() {
    let mut counter = Counter::new(Per::Minute, 10);
    counter.owe(6, 1_500);
    counter.owe(4, 20_000);
    let wait = counter.check(3, 30_000).unwrap_err().retry_after_ms;
    assert!(
        counter.check(3, 30_000 + wait - 1).is_err() && counter.check(3, 30_000 + wait).is_ok(),
        "{wait}"
    );
    assert_eq!(
        counter.check(99, 30_000).unwrap_err().retry_after_ms,
        60_000
    );
}

#[test]
fn a_new_leader_counts_what_was_given_before() {
    let mut hours = Counter::new(Per::Hour, 100);
    hours.owe(40, 60_000);
    let mut resumed = Counter::resume(Per::Hour, 100, &hours.checkpoint(), 7, 120_000);
    assert_eq!(resumed.room(120_000), hours.room(120_000) - 7);
    let mut minutes = Counter::half_used(Per::Minute, 101, 5_000_000);
    assert_eq!(minutes.room(5_000_000), 106 - 51);
    assert_eq!(minutes.room(5_070_000), 106);
    assert_eq!(safe_share(100, 0, 0, 4), 25);
    assert_eq!(safe_share(100, 3, 10, 4), 30);
}
