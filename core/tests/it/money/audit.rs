//! Looks at every row after every step.

use std::collections::BTreeMap;

use proxyxai_core::money::{
    lease::grant::Granted,
    ledger::{
        account::AccountRow,
        budget::{BudgetRow, Place},
        draft::{Draft, Kind as _, Row},
        id::{GrantId, RowKey, Scope},
        mark::Fate,
        wallet::Wallet,
    },
    record::{Entry, Record, Target},
    window::{Period, Window},
};

use super::world::{ACCOUNT_COUNT, World};

/// Law 1: what was just leased was within the limits that are in force.
pub(crate) fn leased_within_limits(world: &World, granted: &[Granted]) {
    for granted in granted {
        for (key, amount) in granted
            .terms
            .scope
            .rows()
            .iter()
            .zip(granted.terms.granted.levels())
        {
            let row = budget(world, key).unwrap();
            for window in granted.terms.windows.iter() {
                let line = row.line(window).unwrap();
                let limit = line.limit.map_or(i64::MAX, |limit| limit.amount.0);
                // An answer that is repeated after a narrowing names money that was leased before.
                let fresh = row.limit(window.period).is_some()
                    && amount.0 > 0
                    && !world.narrowed.contains(key);
                assert!(
                    !fresh || line.used().unwrap().0 <= limit,
                    "law 1: {key:?} {line:?}"
                );
            }
        }
    }
}

/// Laws 2, 4 and 7, and that money is counted before it is spent.
pub(crate) fn audit(world: &World) {
    equations(world);
    credits(world);
    records(world);
    truth(world);
}

fn budget<'a>(world: &'a World, key: &RowKey) -> Option<&'a BudgetRow> {
    let (_, row) = world.ledger.rows().find(|(at, _)| *at == key)?;
    windows_of(row)
}

fn windows_of(row: &Row) -> Option<&BudgetRow> {
    let account = AccountRow::of(row).map(|row| &row.budget);
    account.or_else(|| BudgetRow::of(row))
}

fn wallets(world: &World) -> impl Iterator<Item = (&RowKey, &Wallet)> {
    let rows = world.ledger.rows();
    rows.filter_map(|(key, row)| Some((key, AccountRow::of(row)?.wallet.as_ref()?)))
}

fn index(place: Place) -> usize {
    match place {
        Place::Leased => 0,
        Place::Suspense => 1,
        Place::Charged => 2,
        Place::Free | Place::Settled => panic!("no lease is {place:?}"),
    }
}

/// What rows have leased, in suspense and charged is what the leases have left.
fn equations(world: &World) {
    let mut lines: BTreeMap<(RowKey, Window), [i64; 3]> = BTreeMap::new();
    let mut grants: BTreeMap<(RowKey, GrantId), [i64; 3]> = BTreeMap::new();
    for (id, lease) in world.ledger.leases() {
        assert!(lease.terms.granted.covers(&lease.left), "law 3: {id:?}");
        assert_eq!(lease.parts.sum().unwrap(), lease.left.credit(), "{id:?}");
        for (key, amount) in lease
            .terms
            .scope
            .rows()
            .into_iter()
            .zip(lease.left.levels())
        {
            for window in lease.terms.windows.iter() {
                lines.entry((key.clone(), window)).or_default()[index(lease.place)] += amount.0;
            }
        }
        for (grant, amount) in lease.parts.iter() {
            let key = lease.terms.wallet_row().unwrap();
            grants.entry((key, grant)).or_default()[index(lease.place)] += amount.0;
        }
    }
    for (key, row) in world.ledger.rows() {
        let Some(row) = windows_of(row) else { continue };
        for line in row.lines() {
            let want = lines
                .remove(&(key.clone(), line.window))
                .unwrap_or_default();
            assert_eq!(
                [line.leased.0, line.suspense.0, line.charged.0],
                want,
                "law 2: {key:?} {line:?}"
            );
            line.free().unwrap();
        }
    }
    assert!(
        lines.values().all(|sums| *sums == [0; 3]),
        "law 2: {lines:?}"
    );
    for (key, wallet) in wallets(world) {
        for grant in wallet.grants() {
            let want = grants.remove(&(key.clone(), grant.id)).unwrap_or_default();
            assert_eq!(
                [grant.leased.0, grant.suspense.0, grant.charged.0],
                want,
                "law 2: {key:?} {grant:?}"
            );
            assert!(
                world.restored || grant.free().unwrap().0 >= 0,
                "law 2: {key:?} {grant:?}"
            );
        }
    }
    assert!(grants.is_empty(), "law 2: {grants:?}");
}

/// Credit is nowhere twice and nowhere missing, and no grant outlives its source.
fn credits(world: &World) {
    let mut there = 0;
    for (key, wallet) in wallets(world) {
        let closed = wallet.closed();
        let spent = closed.funded_down.0 + closed.settled.0 + closed.expired.0 + closed.refunded.0;
        assert_eq!(closed.amount.0, spent, "law 2: {key:?}");
        there += closed.amount.0 - closed.funded_down.0 - closed.refunded.0;
        assert!(wallet.grants().len() <= 32 || world.restored);
        for grant in wallet.grants() {
            there += grant.amount.0 - grant.funded_down.0 - grant.refunded.0;
            let Some(source) = &grant.source else {
                continue;
            };
            let above = world.row(&source.account).unwrap().wallet.as_ref().unwrap();
            if let Some(above) = above.grant(source.grant) {
                assert!(
                    grant.expires <= above.expires,
                    "{grant:?} outlives {above:?}"
                );
            }
        }
    }
    assert_eq!(there, world.issued, "credit that was issued");
}

/// Every record up to the watermark is in the balances once, and none beyond (law 4); a parent's list cost is that of its children and
/// its own (law 7).
fn records(world: &World) {
    let (mut settled, mut own): (BTreeMap<RowKey, i64>, BTreeMap<RowKey, i64>) = Default::default();
    for node in &world.nodes {
        for (epoch, journal) in node.journals.iter().chain(&node.gone) {
            let applied = world
                .mark(&node.id, *epoch)
                .map_or(0, |mark| mark.applied_through);
            let leases: BTreeMap<u64, &Scope> = journal
                .entries
                .iter()
                .filter_map(|entry| {
                    if let Entry::Granted { lease, terms, .. } = entry {
                        Some((*lease, &terms.scope))
                    } else {
                        None
                    }
                })
                .collect();
            for (_, record) in journal.records().filter(|(number, _)| *number <= applied) {
                let Record::Settle(settle) = record else {
                    continue;
                };
                for charge in &settle.charges {
                    let Target::Lease(lease) = charge.target else {
                        panic!("no unlimited charges here")
                    };
                    let rows = leases[&lease].rows();
                    for (key, amount) in rows.iter().zip(charge.amounts.levels()) {
                        *settled.entry(key.clone()).or_default() += amount.0;
                    }
                    *own.entry(rows.last().unwrap().clone()).or_default() += charge.listed.0;
                }
            }
        }
    }
    if !world.unbooked.is_empty() {
        return;
    }
    let total = |key: &RowKey| {
        budget(world, key)
            .and_then(|row| row.line(Window::TOTAL))
            .copied()
    };
    for (key, want) in &settled {
        assert_eq!(total(key).unwrap().settled.0, *want, "law 4: {key:?}");
    }
    for index in 0..ACCOUNT_COUNT {
        let key = RowKey::Account(World::account(index));
        let listed = |key: &RowKey| total(key).map_or(0, |line| line.listed.0);
        let below: i64 = World::children(index)
            .map(|child| listed(&RowKey::Account(child)))
            .sum();
        assert_eq!(
            listed(&key),
            below + own.get(&key).copied().unwrap_or(0),
            "law 7: {key:?}"
        );
    }
}

/// Money is counted before it can be spent: what attempts really cost is leased, in suspense, charged or settled.
fn truth(world: &World) {
    let draft = Draft::new(&world.ledger);
    if proxyxai_core::money::ledger::restore::is_recovering(&draft).unwrap() {
        return;
    }
    let mut real: BTreeMap<&RowKey, i64> = BTreeMap::new();
    for ((node, epoch, _), truth) in &world.truth {
        let excused = world.unbooked.get(&(node.clone(), *epoch));
        if excused.is_some_and(|through| truth.record.is_none_or(|record| record > *through)) {
            continue;
        }
        for (key, amount) in &truth.rows {
            *real.entry(key).or_default() += amount;
        }
    }
    for (key, spent) in real {
        let used = budget(world, key)
            .and_then(|row| row.line(Window::TOTAL))
            .unwrap()
            .used()
            .unwrap();
        assert!(
            used.0 >= spent,
            "law 1: {key:?} counts {used} and {spent} nano are spent"
        );
    }
}

/// At the end nothing is held anywhere.
pub(crate) fn nothing_is_out(world: &World) {
    for (id, lease) in world.ledger.leases() {
        assert_eq!(lease.place, Place::Charged, "{id:?} {lease:?}");
        let fate = world.mark(&id.node, id.epoch).unwrap().fate;
        assert_eq!(fate, Fate::Charged, "{id:?}");
    }
    for (key, row) in world.ledger.rows() {
        if let Row::Account(row) = row {
            for line in row.budget.lines() {
                assert_eq!((line.leased.0, line.suspense.0), (0, 0), "{key:?} {line:?}");
                assert!(line.window.period != Period::Total || line.window == Window::TOTAL);
            }
        }
    }
}
