//! One leader's desk for tests of single answers: amounts are in cents of a cent, accounts are named by one word.

use std::sync::Arc;

use proxyxai_core::money::{
    amounts::Amounts,
    lease::grant::{Ask, Denied, Granted, acquire},
    ledger::{
        account::AccountRow,
        budget::{Limit, Line},
        draft::{Draft, Ledger},
        fault::Fault,
        fund::{self, FundRefusal, Funded},
        id::{AccountId, Epoch, NodeId, RowKey, Scope, WalId},
        limit::{self, Standing, Widening},
        node,
        now::Now,
        wallet::Wallet,
    },
    nano::NanoUsd,
    window::{Calendar, Period, Stamp, Window},
};

pub(crate) struct Desk {
    pub(crate) ledger: Ledger,
    pub(crate) calendar: Calendar,
    pub(crate) at: i64,
}

pub(crate) const WAL: WalId = WalId([7; 16]);

impl Desk {
    pub(crate) fn new() -> Self {
        Self {
            ledger: Ledger::complete(),
            calendar: Calendar::of_zone("UTC").unwrap(),
            at: 1_795_600_000_000,
        }
    }

    /// Commits what is decided, unless it is refused.
    pub(crate) fn transact<T, E>(
        &mut self,
        decide: impl FnOnce(&mut Draft<'_>, Now<'_>) -> Result<Result<T, E>, Fault>,
    ) -> Result<T, E> {
        let mut draft = Draft::new(&self.ledger);
        let answer = decide(
            &mut draft,
            Now {
                calendar: &self.calendar,
                at: Stamp(self.at),
                generation: 1,
            },
        )
        .unwrap();
        let changes = draft.into_changes();
        if answer.is_ok() {
            self.ledger.commit(changes);
        }
        answer
    }

    pub(crate) fn register(&mut self, node: &str, boot: u8) -> Epoch {
        self.transact(|draft, now| {
            node::register(draft, &Arc::from(node), WAL, [boot; 16], now.generation)
                .map(Ok::<_, ()>)
        })
        .unwrap()
    }

    pub(crate) fn limit(
        &mut self,
        account: &str,
        above: &[&str],
        period: Period,
        amount: i64,
    ) -> Result<Standing, Widening> {
        let above: Vec<AccountId> = above.iter().map(|id| Arc::from(*id)).collect();
        let limit = Limit {
            amount: NanoUsd(amount),
            hard: true,
            alert_at: None,
        };
        self.transact(|draft, now| {
            limit::set(draft, &key(account), &above, (period, Some(limit)), now)
        })
    }

    pub(crate) fn fund(
        &mut self,
        from: Option<&str>,
        to: &str,
        amount: i64,
        lives: i64,
    ) -> Result<Vec<Funded>, FundRefusal> {
        let from: Option<AccountId> = from.map(Arc::from);
        let expires = Stamp(self.at + lives);
        self.transact(|draft, now| {
            fund::fund(
                draft,
                from.as_ref(),
                &Arc::from(to),
                NanoUsd(amount),
                expires,
                now,
            )
        })
    }

    /// Asks for a lease of a path, the same at each level; the wallet pays as much.
    pub(crate) fn ask(
        &mut self,
        epoch: Epoch,
        number: u64,
        path: &[&str],
        (min, want): (i64, i64),
        pays: bool,
    ) -> Result<Granted, Denied> {
        let amounts = |amount: i64| {
            Amounts::even(
                path.len(),
                NanoUsd(amount),
                NanoUsd(if pays { amount } else { 0 }),
            )
            .unwrap()
        };
        let scope = Scope::Path(path.iter().map(|id| Arc::from(*id)).collect());
        let ask = Ask {
            number,
            scope,
            min: amounts(min),
            want: amounts(want),
        };
        let node: NodeId = Arc::from("n");
        self.transact(|draft, now| acquire(draft, &node, epoch, &[ask], now))
            .map(|mut granted| granted.remove(0))
    }

    pub(crate) fn account(&self, account: &str) -> AccountRow {
        Draft::new(&self.ledger)
            .get::<AccountRow>(&key(account))
            .unwrap()
            .unwrap()
            .clone()
    }

    pub(crate) fn wallet(&self, account: &str) -> Wallet {
        self.account(account).wallet.unwrap()
    }

    pub(crate) fn total(&self, account: &str) -> Line {
        *self.account(account).budget.line(Window::TOTAL).unwrap()
    }
}

pub(crate) fn key(account: &str) -> RowKey {
    RowKey::Account(Arc::from(account))
}
