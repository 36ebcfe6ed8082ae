//! Grants leases, at the leader.
//!
//! Invariants: what is leased was free at every level, in every window, and in the wallet (law 1); all kinds that a request needs are
//! granted or none (law 14); only the epoch that a node registered last is granted anything, and a number never twice (law 6). A
//! repeated ask is answered as before and takes nothing more.

use super::{
    row::{Lease, Terms},
    size,
};
use crate::money::{
    amounts::Amounts,
    ledger::{
        account::{AccountRow, AccountState},
        budget::{BudgetRow, Place},
        draft::Draft,
        fault::Fault,
        id::{AccountId, Epoch, LeaseId, NodeId, RowKey, Scope},
        mark::{Fate, Mark, NodeRow},
        now::Now,
        parts::Parts,
        restore,
    },
    nano::NanoUsd,
    window::{Stamp, Window, Windows},
};

/// What a node asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The lease's number, given by the node.
    pub number: u64,
    /// On what it will be spent.
    pub scope: Scope,
    /// What the request that waits needs.
    pub min: Amounts,
    /// What the node would like.
    pub want: Amounts,
}

/// A lease that a node may spend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// Its number.
    pub number: u64,
    /// What it was given for.
    pub terms: Terms,
    /// From which grants, in the order in which they are consumed.
    pub parts: Parts,
    /// For how long the node makes new holds, counted by its own clock from before it asked.
    pub lifetime_ms: u64,
}

/// Why nothing was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// Another epoch of the node is the one that gets leases, or the epoch was forgotten: register.
    Epoch,
    /// The number was given to a lease that is over, or was passed over: ask under a new one.
    Number(u64),
    /// The ledger was restored and waits for nodes.
    Recovering,
    /// The account is being deleted.
    Closing(AccountId),
    /// The path's wallet is at another level than the node thinks: it has an old snapshot.
    Wallet(Option<usize>),
    /// The ask is for nothing, or does not have as many levels as its path.
    Shape,
    /// Money is nearly out, and no request waits that needs some: what is left is given request by request.
    Nearly,
    /// There is not enough.
    Short(Short),
}

/// What ran out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Short {
    /// Where.
    pub row: RowKey,
    /// In which window; `None` is the wallet.
    pub window: Option<Window>,
    /// What is free there; negative after a narrowing.
    pub free: NanoUsd,
    /// When there will be more by itself; [`Stamp::NEVER`] when there will not.
    pub refills: Stamp,
}

/// Grants all asks, or none.
///
/// # Errors
/// When a row is not loaded. `Ok(Err(_))` says why nothing was granted; the draft must be dropped then.
pub fn acquire(
    draft: &mut Draft<'_>,
    node: &NodeId,
    epoch: Epoch,
    asks: &[Ask],
    now: Now<'_>,
) -> Result<Result<Vec<Granted>, Denied>, Fault> {
    let current = draft
        .get::<NodeRow>(&RowKey::Node(node.clone()))?
        .map(|row| row.epoch);
    let mark_key = RowKey::Mark(node.clone(), epoch);
    let mark = draft.get::<Mark>(&mark_key)?.cloned();
    let Some(mut mark) = mark.filter(|mark| {
        mark.fate == Fate::Live && current == Some(epoch) && epoch.generation == now.generation
    }) else {
        return Ok(Err(Denied::Epoch));
    };
    let keys: Vec<RowKey> = asks.iter().flat_map(|ask| ask.scope.rows()).collect();
    let (at, windows) = now.of(draft, &keys)?;
    let recovering = restore::is_recovering(draft)?;
    let mut granted = Vec::new();
    for ask in asks {
        let id = LeaseId {
            node: node.clone(),
            epoch,
            number: ask.number,
        };
        if let Some(lease) = draft.get::<Lease>(&RowKey::Lease(id.clone()))? {
            granted.push(Granted::of(ask.number, lease, at));
            continue;
        }
        if ask.number <= mark.leases_through {
            return Ok(Err(Denied::Number(ask.number)));
        }
        match one(draft, ask, recovering, at, &windows)? {
            Ok(lease) => {
                granted.push(Granted::of(ask.number, &lease, at));
                draft.put(RowKey::Lease(id), lease);
                mark.leases_through = ask.number;
            }
            Err(denied) => return Ok(Err(denied)),
        }
    }
    draft.put(mark_key, mark);
    Ok(Ok(granted))
}

impl Granted {
    fn of(number: u64, lease: &Lease, at: Stamp) -> Self {
        Self {
            number,
            terms: lease.terms.clone(),
            parts: lease.parts.clone(),
            lifetime_ms: at.ms_until(lease.terms.ends).min(size::LIFETIME_MS),
        }
    }
}

fn one(
    draft: &mut Draft<'_>,
    ask: &Ask,
    recovering: bool,
    at: Stamp,
    windows: &Windows,
) -> Result<Result<Lease, Denied>, Fault> {
    let rows = ask.scope.rows();
    for key in &rows {
        draft.roll(key, windows, at)?;
    }
    let path = Path::read(draft, &ask.scope, &rows)?;
    if let Some(account) = path.closing {
        return Ok(Err(Denied::Closing(account)));
    }
    if recovering && path.hard {
        return Ok(Err(Denied::Recovering));
    }
    let want = ask.want.most(&ask.min);
    if ask.min.depth() != rows.len() || ask.want.depth() != rows.len() || want.is_zero() {
        return Ok(Err(Denied::Shape));
    }
    if path.wallet.is_some() != (want.credit().0 > 0) {
        return Ok(Err(Denied::Wallet(path.wallet)));
    }
    let room = match room(draft, &rows, path.wallet, &ask.min, at, windows)? {
        Ok(room) => room,
        Err(short) => return Ok(Err(Denied::Short(short))),
    };
    let (granted, single) = size::grant(&ask.min, &want, &room);
    if granted.is_zero() {
        return Ok(Err(Denied::Nearly));
    }
    let (mut parts, mut ends) = (Parts::default(), windows.first_end());
    for (level, (key, amount)) in rows.iter().zip(granted.levels()).enumerate() {
        draft.budget(key, |row| {
            windows.iter().try_for_each(|window| {
                let line = row
                    .line_mut(window)
                    .ok_or(Fault::Broken("a row has no line for the window of now"))?;
                line.shift(amount, Place::Free, Place::Leased)
            })
        })?;
        if path.wallet == Some(level) {
            (parts, ends) = draft.account(key, |row| {
                let wallet = row
                    .wallet
                    .as_mut()
                    .ok_or(Fault::Broken("the wallet of a path is none"))?;
                let parts = wallet.take(granted.credit(), Place::Leased, at)?;
                let end = wallet.first_end(&parts);
                Ok((parts, ends.min(end)))
            })?;
        }
    }
    let terms = Terms {
        scope: ask.scope.clone(),
        windows: *windows,
        wallet: path.wallet,
        ends,
        granted,
        single,
    };
    Ok(Ok(Lease {
        terms,
        left: granted,
        parts,
        place: Place::Leased,
    }))
}

/// What the rows of a path say besides amounts.
struct Path {
    /// The nearest wallet at or above the account; only a path lease has one.
    wallet: Option<usize>,
    hard: bool,
    closing: Option<AccountId>,
}

impl Path {
    fn read(draft: &Draft<'_>, scope: &Scope, rows: &[RowKey]) -> Result<Self, Fault> {
        let mut path = Self {
            wallet: None,
            hard: false,
            closing: None,
        };
        for (level, key) in rows.iter().enumerate() {
            if let (Scope::Path(_), RowKey::Account(account)) = (scope, key) {
                let Some(row) = draft.get::<AccountRow>(key)? else {
                    continue;
                };
                path.hard |= row.is_hard();
                path.wallet = row.wallet.as_ref().map(|_| level).or(path.wallet);
                if row.state != AccountState::Open {
                    path.closing = Some(account.clone());
                }
            } else if let Some(row) = draft.get::<BudgetRow>(key)? {
                path.hard |= row.is_hard();
            }
        }
        Ok(path)
    }
}

/// What is free at each level and in the wallet, when it is enough.
fn room(
    draft: &mut Draft<'_>,
    rows: &[RowKey],
    wallet: Option<usize>,
    min: &Amounts,
    at: Stamp,
    windows: &Windows,
) -> Result<Result<Amounts, Short>, Fault> {
    let mut levels = Vec::new();
    for (key, need) in rows.iter().zip(min.levels()) {
        let tightest = draft.budget(key, |row| row.tightest(windows))?;
        if let Some((window, free)) = tightest.filter(|(_, free)| *free < need) {
            return Ok(Err(Short {
                row: key.clone(),
                window: Some(window),
                free,
                refills: window.to,
            }));
        }
        levels.push(tightest.map_or(NanoUsd(i64::MAX), |(_, free)| NanoUsd(free.0.max(0))));
    }
    let mut credit = NanoUsd(0);
    if let Some(key) = wallet.and_then(|level| rows.get(level)) {
        credit = draft.account(key, |row| {
            row.wallet
                .as_ref()
                .map_or(Ok(NanoUsd(0)), |wallet| wallet.free(at))
        })?;
        if credit < min.credit() {
            return Ok(Err(Short {
                row: key.clone(),
                window: None,
                free: credit,
                refills: Stamp::NEVER,
            }));
        }
    }
    let room = Amounts::new(&levels, NanoUsd(credit.0.max(0)));
    Ok(Ok(room.ok_or(Fault::Broken(
        "a path is deeper than a path may be",
    ))?))
}
