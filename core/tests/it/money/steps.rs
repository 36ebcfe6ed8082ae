//! What can happen.

use std::time::Duration;

use proptest::prelude::{Just, Strategy, prop_oneof};
use proxyxai_core::money::{
    lease::{grant::Ask, recall},
    ledger::{
        account::AccountRow,
        budget::Limit,
        draft::Draft,
        fund,
        id::{Epoch, RowKey},
        limit,
        mark::NodeRow,
        node::{self, Forget, Step as More},
        restore::{self, Reported},
    },
    nano::NanoUsd,
    record::{Entry, Record},
    window::{Period, Stamp},
};

use super::{
    node::{Open, holds},
    world::{ACCOUNT_COUNT, Message, NODES, Outside, Truth, World},
};

#[derive(Debug, Clone)]
pub(crate) enum Step {
    Request {
        node: usize,
        account: usize,
        nano: i64,
    },
    Dispatch {
        node: usize,
        which: usize,
        part: i64,
    },
    End {
        node: usize,
        which: usize,
    },
    Returns {
        node: usize,
    },
    Recall {
        account: usize,
    },
    Send {
        node: usize,
        back: u64,
        most: usize,
    },
    Deliver {
        which: usize,
        twice: bool,
    },
    Lose {
        which: usize,
    },
    Crash {
        node: usize,
    },
    Start {
        node: usize,
    },
    Suspend {
        node: usize,
    },
    Seal {
        node: usize,
    },
    Limit {
        account: usize,
        period: Period,
        amount: Option<i64>,
    },
    Fund {
        from: Option<usize>,
        to: usize,
        amount: i64,
        lives: i64,
    },
    Refund {
        account: usize,
        amount: i64,
    },
    Clock {
        ms: i64,
    },
    Backup,
    Restore,
    Report {
        node: usize,
    },
    Forget {
        node: usize,
        released: bool,
    },
    LoseDisk {
        node: usize,
    },
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
    let node = 0..usize::from(NODES);
    let account = 0..ACCOUNT_COUNT;
    let which = 0_usize..16;
    let period = proptest::sample::select(Period::ALL.to_vec());
    prop_oneof![
        30 => (node.clone(), account.clone(), 1_i64..60).prop_map(|(node, account, nano)| Step::Request { node, account, nano }),
        20 => (node.clone(), which.clone(), 0_i64..=100).prop_map(|(node, which, part)| Step::Dispatch { node, which, part }),
        16 => (node.clone(), which.clone()).prop_map(|(node, which)| Step::End { node, which }),
        4 => node.clone().prop_map(|node| Step::Returns { node }),
        2 => account.clone().prop_map(|account| Step::Recall { account }),
        14 => (node.clone(), 0_u64..4, 1_usize..8).prop_map(|(node, back, most)| Step::Send { node, back, most }),
        50 => (which.clone(), proptest::bool::weighted(0.1)).prop_map(|(which, twice)| Step::Deliver { which, twice }),
        2 => which.clone().prop_map(|which| Step::Lose { which }),
        2 => node.clone().prop_map(|node| Step::Crash { node }),
        6 => node.clone().prop_map(|node| Step::Start { node }),
        2 => node.clone().prop_map(|node| Step::Suspend { node }),
        4 => node.clone().prop_map(|node| Step::Seal { node }),
        6 => (account.clone(), period, proptest::option::weighted(0.9, 0_i64..2_000)).prop_map(|(account, period, amount)| Step::Limit { account, period, amount }),
        5 => (proptest::option::weighted(0.7, account.clone()), account.clone(), 1_i64..400, 1_i64..90_000_000)
            .prop_map(|(from, to, amount, lives)| Step::Fund { from, to, amount, lives }),
        2 => (account, 1_i64..200).prop_map(|(account, amount)| Step::Refund { account, amount }),
        5 => prop_oneof![8 => 0_i64..20_000, 1 => -100_000_i64..0, 1 => 0_i64..100_000_000].prop_map(|ms| Step::Clock { ms }),
        1 => Just(Step::Backup),
        1 => Just(Step::Restore),
        6 => node.clone().prop_map(|node| Step::Report { node }),
        1 => (node.clone(), proptest::bool::weighted(0.2)).prop_map(|(node, released)| Step::Forget { node, released }),
        1 => node.prop_map(|node| Step::LoseDisk { node }),
    ]
}

impl World {
    pub(crate) fn step(&mut self, step: &Step) {
        match *step {
            Step::Request {
                node,
                account,
                nano,
            } => self.request(node, account, nano),
            Step::Dispatch { node, which, part } => self.dispatch(node, which, part),
            Step::End { node, which } => self.end(node, which),
            Step::Returns { node } => self.returns(node),
            Step::Recall { account } => self.recall(account),
            Step::Send { node, back, most } => self.send(node, back, most),
            Step::Deliver { which, twice } => {
                if let Some(at) = which.checked_rem(self.network.len()) {
                    let message = if twice {
                        self.network[at].clone()
                    } else {
                        self.network.swap_remove(at)
                    };
                    self.deliver(message);
                }
            }
            Step::Lose { which } => {
                if let Some(at) = which.checked_rem(self.network.len()) {
                    self.network.swap_remove(at);
                }
            }
            Step::Crash { node } => self.crash(node),
            Step::Start { node } => self.start(node),
            Step::Suspend { node } => self.suspend(node),
            Step::Seal { node } => self.seal(node),
            Step::Limit {
                account,
                period,
                amount,
            } => self.limit(account, period, amount),
            Step::Fund {
                from,
                to,
                amount,
                lives,
            } => self.fund(from, to, amount, lives),
            Step::Refund { account, amount } => self.refund(account, amount),
            Step::Clock { ms } => {
                self.clock += ms;
                self.mono += Duration::from_millis(u64::try_from(ms).unwrap_or(0));
            }
            Step::Backup => self.backup = Some((self.ledger.clone(), Vec::new())),
            Step::Restore => self.restore(),
            Step::Report { node } => self.report(node),
            Step::Forget { node, released } => self.forget(
                node,
                if released {
                    Forget::Released
                } else {
                    Forget::Charged
                },
            ),
            Step::LoseDisk { node } => self.lose_disk(node),
        }
    }

    fn request(&mut self, at: usize, account: usize, nano: i64) {
        let multipliers = self.multipliers(account);
        let (now, scopes) = (self.mono, Self::scopes(account, &multipliers, nano));
        let Some(running) = self.nodes[at].running.as_mut() else {
            return;
        };
        let asks: Vec<_> = scopes
            .iter()
            .map(|(scope, amounts)| (running.pool(scope), *amounts))
            .collect();
        let epoch = running.epoch;
        match running.book.hold(&asks, now) {
            Ok(id) => {
                let hold = running.next_hold;
                running.next_hold += 1;
                let entry = Entry::Intent {
                    hold,
                    holds: holds(running.book.held(&id)),
                };
                running.open.push(Open {
                    number: hold,
                    id,
                    account,
                    multipliers,
                    nano,
                    cost: None,
                });
                self.nodes[at].journal(epoch).entries.push(entry);
            }
            Err(_) => {
                let mut message = Vec::new();
                for ((pool, min), (scope, _)) in asks.iter().zip(&scopes) {
                    let want = running.book.ask(*pool, min, now).unwrap_or(*min);
                    running.book.asked(*pool, running.next_lease);
                    message.push(Ask {
                        number: running.next_lease,
                        scope: scope.clone(),
                        min: *min,
                        want: want.checked_add(min).unwrap(),
                    });
                    running.next_lease += 1;
                }
                self.network.push(Message::Ask {
                    node: at,
                    epoch,
                    sent: now,
                    asks: message,
                });
            }
        }
    }

    fn dispatch(&mut self, at: usize, which: usize, part: i64) {
        let node = &mut self.nodes[at];
        let Some(running) = node.running.as_mut() else {
            return;
        };
        let Some(place) = which.checked_rem(running.open.len()) else {
            return;
        };
        let open = &mut running.open[place];
        if open.cost.is_some() {
            return;
        }
        let (hold, cost) = (open.number, open.nano * part / 100);
        open.cost = Some(cost);
        let scopes = Self::scopes(open.account, &open.multipliers, cost);
        let rows = scopes.iter().flat_map(|(scope, amounts)| {
            scope
                .rows()
                .into_iter()
                .zip(amounts.levels().map(|level| level.0))
        });
        let truth = Truth {
            rows: rows.collect(),
            record: None,
        };
        let epoch = running.epoch;
        node.journal(epoch).entries.push(Entry::Dispatch { hold });
        self.truth
            .insert((self.nodes[at].id.clone(), epoch, hold), truth);
    }

    fn end(&mut self, at: usize, which: usize) {
        let now = self.mono;
        let node = &mut self.nodes[at];
        let Some(running) = node.running.as_mut() else {
            return;
        };
        let Some(place) = which.checked_rem(running.open.len()) else {
            return;
        };
        let open = running.open.swap_remove(place);
        let (hold, epoch) = (open.number, running.epoch);
        let costs: Vec<_> = open.cost.map_or(Vec::new(), |cost| {
            let scopes = Self::scopes(open.account, &open.multipliers, cost);
            scopes
                .iter()
                .map(|(scope, amounts)| (running.pool(scope), *amounts, NanoUsd(cost)))
                .collect()
        });
        let record = running.settle(open, &costs, now);
        let number = node.journal(epoch).append(record);
        if let Some(truth) = self
            .truth
            .get_mut(&(self.nodes[at].id.clone(), epoch, hold))
        {
            truth.record = Some(number);
        }
    }

    fn returns(&mut self, at: usize) {
        let node = &mut self.nodes[at];
        let Some(running) = node.running.as_mut() else {
            return;
        };
        let (mut returns, epoch) = (Vec::new(), running.epoch);
        running.book.returns(self.mono, &mut returns);
        for back in returns {
            node.journal(epoch).append(Record::Return(Box::new(back)));
        }
    }

    fn recall(&mut self, account: usize) {
        for id in recall::candidates(&self.ledger, &RowKey::Account(Self::account(account))) {
            let node = self
                .nodes
                .iter_mut()
                .find(|node| node.id == id.node)
                .unwrap();
            if let Some(running) = node
                .running
                .as_mut()
                .filter(|running| running.epoch == id.epoch)
            {
                running.book.recall(id.number);
            }
        }
    }

    fn send(&mut self, at: usize, back: u64, most: usize) {
        for (epoch, journal) in &self.nodes[at].journals {
            let next = self
                .mark(&self.nodes[at].id, *epoch)
                .map_or(1, |mark| mark.applied_through + 1);
            let first = next
                .min(journal.acknowledged + 1)
                .saturating_sub(back)
                .max(1);
            let records = journal.from(first, most);
            if !records.is_empty() {
                self.network.push(Message::Batch {
                    node: at,
                    epoch: *epoch,
                    first,
                    records,
                });
            }
        }
    }

    pub(crate) fn crash(&mut self, at: usize) {
        self.nodes[at].running = None;
    }

    pub(crate) fn start(&mut self, at: usize) {
        if self.nodes[at].running.is_some() {
            return;
        }
        let node = &mut self.nodes[at];
        node.boots += 1;
        let (id, wal_id, boot) = (node.id.clone(), node.wal_id, [node.boots; 16]);
        let generation = self.generation;
        let epoch = self.transact(|draft, now| {
            (
                node::register(draft, &id, wal_id, boot, now.generation).unwrap(),
                true,
            )
        });
        let again = self.transact(|draft, now| {
            (
                node::register(draft, &id, wal_id, boot, now.generation).unwrap(),
                true,
            )
        });
        assert_eq!(epoch, again, "a repeated registration gets the same epoch");
        self.outside(Outside::Registered {
            node: id.clone(),
            wal_id,
            boot,
            generation,
        });
        let node = &mut self.nodes[at];
        for (earlier, journal) in node
            .journals
            .iter_mut()
            .filter(|(earlier, _)| **earlier < epoch)
        {
            journal.close();
            for (number, record) in journal.records() {
                if let Record::Settle(settle) = record
                    && let Some(truth) = self.truth.get_mut(&(id.clone(), *earlier, settle.hold))
                {
                    truth.record = Some(number);
                }
            }
        }
        node.start(epoch);
    }

    fn suspend(&mut self, at: usize) {
        let id = self.nodes[at].id.clone();
        for epoch in self.epochs(at) {
            self.transact(|draft, now| (node::suspend(draft, &id, epoch, now).unwrap(), true));
        }
    }

    pub(crate) fn epochs(&self, at: usize) -> Vec<Epoch> {
        self.nodes[at].journals.keys().copied().collect()
    }

    pub(crate) fn seal(&mut self, at: usize) {
        let (id, wal_id) = (self.nodes[at].id.clone(), self.nodes[at].wal_id);
        for epoch in self.epochs(at) {
            let journal = self.nodes[at].journal(epoch);
            let last = journal.last();
            if !journal.closed {
                continue;
            }
            let sealed = self.transact(|draft, now| {
                let sealed = node::seal(draft, &id, epoch, (wal_id, last), now).unwrap();
                let commit = sealed.is_ok();
                (sealed, commit)
            });
            if let Ok((More::Done, _)) = sealed {
                let journal = self.nodes[at].journal(epoch);
                journal.sealed = true;
                journal.acknowledged = last;
            }
        }
    }

    fn limit(&mut self, account: usize, period: Period, amount: Option<i64>) {
        let path = Self::path(account);
        let (own, above) = path.split_last().unwrap();
        let keys = match account {
            5 => vec![RowKey::Account(own.clone()), RowKey::Key("key-1".into())],
            3 => vec![
                RowKey::Account(own.clone()),
                RowKey::Model(own.clone(), "model-1".into()),
            ],
            _ => vec![RowKey::Account(own.clone())],
        };
        for key in keys {
            let limit = amount.map(|amount| Limit {
                amount: NanoUsd(amount),
                hard: true,
                alert_at: None,
            });
            let set = self.transact(|draft, now| {
                let set = limit::set(draft, &key, above, (period, limit), now).unwrap();
                let commit = set.is_ok();
                (set, commit)
            });
            if set.is_ok_and(|standing| standing.free.is_some_and(|free| free.0 < 0)) {
                self.narrowed.insert(key);
            }
        }
    }

    fn fund(&mut self, from: Option<usize>, to: usize, amount: i64, lives: i64) {
        let path = Self::path(to);
        let from = from
            .map(|at| path[at % path.len()].clone())
            .filter(|from| *from != path[path.len() - 1]);
        let to = Self::account(to);
        let funded = self.transact(|draft, now| {
            let expires = Stamp(now.at.0 + lives);
            let funded =
                fund::fund(draft, from.as_ref(), &to, NanoUsd(amount), expires, now).unwrap();
            let commit = funded.is_ok();
            (funded, commit)
        });
        for funded in funded.unwrap_or_default() {
            self.issued += if funded.source.is_none() {
                funded.amount.0
            } else {
                0
            };
            self.outside(Outside::Funded {
                to: to.clone(),
                funded,
            });
        }
    }

    fn refund(&mut self, account: usize, amount: i64) {
        let account = Self::account(account);
        let (before, id) = (self.ledger.clone(), account.clone());
        let refunded = self.transact(|draft, now| {
            let refunded = fund::refund(draft, &id, NanoUsd(amount), now).unwrap();
            let commit = refunded.is_ok();
            (refunded, commit)
        });
        for refunded in refunded.unwrap_or_default() {
            let draft = Draft::new(&before);
            let row = draft.get::<AccountRow>(&RowKey::Account(account.clone()));
            let wallet = row.unwrap().unwrap().wallet.as_ref().unwrap();
            if wallet.grant(refunded.grant).unwrap().source.is_none() {
                self.issued -= refunded.amount.0;
            }
            self.outside(Outside::Refunded {
                account: account.clone(),
                refunded,
            });
        }
    }

    fn outside(&mut self, outside: Outside) {
        if let Some((_, since)) = &mut self.backup {
            since.push(outside);
        }
    }

    fn restore(&mut self) {
        let Some((ledger, since)) = self.backup.take() else {
            return;
        };
        self.ledger = ledger;
        self.restored = true;
        let nodes = self
            .nodes
            .iter()
            .filter(|node| !node.journals.is_empty() || !node.gone.is_empty())
            .map(|node| node.id.clone())
            .collect();
        self.transact(|draft, _| (restore::begin(draft, nodes).unwrap(), true));
        for outside in since {
            self.transact(|draft, _| {
                match &outside {
                    Outside::Registered {
                        node,
                        wal_id,
                        boot,
                        generation,
                    } => drop(node::register(draft, node, *wal_id, *boot, *generation).unwrap()),
                    Outside::Funded { to, funded } => fund::funded(draft, to, funded).unwrap(),
                    Outside::Refunded { account, refunded } => {
                        fund::refunded(draft, account, *refunded).unwrap()
                    }
                }
                ((), true)
            });
        }
        self.generation += 1;
        // The backup may not know what was sealed or forgotten since.
        let gone = |node: &super::node::Node| {
            node.gone
                .keys()
                .map(|epoch| (node.id.clone(), *epoch))
                .collect::<Vec<_>>()
        };
        self.lost = self.nodes.iter().flat_map(gone).collect();
        for (node, epoch) in self.lost.clone() {
            self.excuse(node, epoch);
        }
        self.to_report = (0..usize::from(NODES))
            .filter(|at| !self.nodes[*at].journals.is_empty())
            .collect();
    }

    /// What an epoch spent beyond what is booked now is not looked for any more.
    fn excuse(&mut self, node: std::sync::Arc<str>, epoch: Epoch) {
        let through = self
            .mark(&node, epoch)
            .map_or(0, |mark| mark.applied_through);
        let least = self.unbooked.entry((node, epoch)).or_insert(through);
        *least = through.min(*least);
    }

    pub(crate) fn report(&mut self, at: usize) {
        if !self.to_report.remove(&at) {
            return;
        }
        self.crash(at);
        self.start(at);
        let id = self.nodes[at].id.clone();
        for epoch in self.epochs(at) {
            let journal = self.nodes[at].journal(epoch);
            let (_, booked) = journal.replay_through(journal.acknowledged);
            while self
                .transact(|draft, _| (restore::book(draft, &id, epoch, 1, &booked).unwrap(), true))
                < u64::try_from(booked.len()).unwrap()
            {}
            let through = self.mark(&id, epoch).unwrap().applied_through;
            let journal = self.nodes[at].journal(epoch);
            let (replay, _) = journal.replay_through(through);
            let sealed = journal.sealed;
            let leases = replay
                .leases()
                .filter(|_| !sealed)
                .map(|(number, lease)| (number, lease.clone()))
                .collect();
            loop {
                match self.transact(|draft, _| {
                    (
                        restore::report(draft, &id, epoch, through, &leases).unwrap(),
                        true,
                    )
                }) {
                    Reported::More => {}
                    Reported::Done => break,
                    Reported::Of { applied_through } => panic!("{applied_through} after {through}"),
                }
            }
        }
        if !self.lost.iter().any(|(node, _)| *node == id) {
            self.transact(|draft, _| (restore::reported(draft, &id).unwrap(), true));
        }
    }

    pub(crate) fn forget(&mut self, at: usize, how: Forget) {
        let id = self.nodes[at].id.clone();
        let key = RowKey::Node(id.clone());
        let known =
            self.transact(|draft, _| (draft.get::<NodeRow>(&key).unwrap().is_some(), false));
        if !known {
            return;
        }
        let recovering = self.transact(|draft, _| (restore::is_recovering(draft).unwrap(), false));
        let epochs: Vec<Epoch> = self.nodes[at]
            .journals
            .keys()
            .chain(self.nodes[at].gone.keys())
            .copied()
            .collect();
        if how == Forget::Released || (recovering && self.to_report.contains(&at)) {
            for epoch in epochs {
                self.excuse(id.clone(), epoch);
            }
        }
        while self.transact(|draft, now| (node::forget(draft, &id, how, now).unwrap().0, true))
            == More::More
        {}
        self.to_report.remove(&at);
        self.lost.retain(|(node, _)| *node != id);
    }

    fn lose_disk(&mut self, at: usize) {
        self.crash(at);
        let node = &mut self.nodes[at];
        let gone = std::mem::take(&mut node.journals);
        node.wal_id.0[15] = node.wal_id.0[15].wrapping_add(1);
        let lost: Vec<_> = gone
            .iter()
            .filter(|(_, journal)| !journal.sealed)
            .map(|(epoch, _)| (node.id.clone(), *epoch))
            .collect();
        node.gone.extend(gone);
        self.lost.extend(lost);
        // Whoever reports now has nothing to say of what was on the disk.
        if self.to_report.remove(&at) {
            for (epoch, _) in self.nodes[at]
                .gone
                .iter()
                .map(|(epoch, journal)| (*epoch, journal.sealed))
                .collect::<Vec<_>>()
            {
                let id = self.nodes[at].id.clone();
                self.excuse(id.clone(), epoch);
                self.lost.insert((id, epoch));
            }
        }
    }
}
