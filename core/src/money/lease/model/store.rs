//! The rows of the store, and the leader's transactions on them.

use std::collections::{BTreeMap, BTreeSet};

use super::{EPOCHS, Epoch, Id, Record};

/// Where the rest of a lease is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Leased,
    Suspense,
    Charged,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Lease {
    pub(super) granted: u8,
    pub(super) left: u8,
    pub(super) place: Place,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Mark {
    pub(super) wal: u8,
    pub(super) applied_through: u8,
    pub(super) leases_through: u8,
    /// It may get leases as far as this goes: not forgotten, not sealed.
    pub(super) live: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Store {
    /// What the grant was given, and the limit that may be narrower.
    pub(super) amount: u8,
    pub(super) limit: u8,
    /// Its end is past.
    pub(super) over: bool,
    pub(super) settled: u8,
    pub(super) leases: BTreeMap<(Id, Epoch, u8), Lease>,
    pub(super) marks: BTreeMap<(Id, Epoch), Mark>,
    /// The epoch of each node, and the start that registered it.
    pub(super) nodes: Vec<Option<(Epoch, u8)>>,
    /// Nodes that a restored ledger waits for.
    pub(super) waiting: BTreeSet<Id>,
    pub(super) operator_loss: u8,
}

impl Store {
    pub(super) fn new(amount: u8, nodes: u8) -> Self {
        Self {
            amount,
            limit: amount,
            over: false,
            settled: 0,
            leases: BTreeMap::new(),
            marks: BTreeMap::new(),
            nodes: (0..nodes).map(|_| None).collect(),
            waiting: BTreeSet::new(),
            operator_loss: 0,
        }
    }

    fn out(&self) -> u8 {
        self.leases.values().map(|lease| lease.left).sum()
    }

    /// Leased, in suspense, charged and settled.
    pub(super) fn used(&self) -> u8 {
        self.settled + self.out()
    }

    /// What counts as spent.
    pub(super) fn settled(&self) -> u8 {
        let charged = self
            .leases
            .values()
            .filter(|lease| lease.place == Place::Charged);
        self.settled + charged.map(|lease| lease.left).sum::<u8>()
    }

    /// What may be leased: of the grant, and within the limit, which may be below what is used.
    fn free(&self) -> u8 {
        self.amount.min(self.limit).saturating_sub(self.used())
    }

    pub(super) fn applied(&self, node: Id, epoch: Epoch) -> u8 {
        self.marks
            .get(&(node, epoch))
            .map_or(0, |mark| mark.applied_through)
    }

    pub(super) fn epochs_of(&self, node: Id) -> impl Iterator<Item = Epoch> + '_ {
        self.marks
            .keys()
            .filter(move |(of, _)| *of == node)
            .map(|(_, epoch)| *epoch)
    }

    pub(super) fn register(&mut self, node: Id, wal: u8, boot: u8, generation: u8) -> Epoch {
        let place = &mut self.nodes[usize::from(node)];
        let first = generation * EPOCHS + 1;
        let epoch = match *place {
            Some((epoch, last)) if last == boot && epoch >= first => return epoch,
            Some((epoch, _)) => first.max(epoch + 1),
            None => first,
        };
        *place = Some((epoch, boot));
        self.marks.insert(
            (node, epoch),
            Mark {
                wal,
                applied_through: 0,
                leases_through: 0,
                live: true,
            },
        );
        for ((of, earlier, _), lease) in &mut self.leases {
            if *of == node && *earlier < epoch && lease.place == Place::Leased {
                lease.place = Place::Suspense;
            }
        }
        epoch
    }

    /// Grants a lease, or repeats the answer; `None` denies.
    pub(super) fn acquire(
        &mut self,
        (node, epoch, number): (Id, Epoch, u8),
        generation: u8,
        want: u8,
        min: u8,
        waits: bool,
    ) -> Option<u8> {
        let current = self.nodes[usize::from(node)].map(|(epoch, _)| epoch);
        let mark = *self
            .marks
            .get(&(node, epoch))
            .filter(|mark| mark.live && current == Some(epoch))?;
        if let Some(lease) = self.leases.get(&(node, epoch, number)) {
            return Some(lease.granted);
        }
        let free = self.free();
        if number <= mark.leases_through
            || epoch / EPOCHS != generation
            || self.over
            || free < min
            || (waits && !self.waiting.is_empty())
        {
            return None;
        }
        // Near exhaustion a request gets what it needs.
        let granted = if want * 2 <= free { want } else { min };
        self.leases.insert(
            (node, epoch, number),
            Lease {
                granted,
                left: granted,
                place: Place::Leased,
            },
        );
        self.marks.insert(
            (node, epoch),
            Mark {
                leases_through: number,
                ..mark
            },
        );
        Some(granted)
    }

    /// Applies a record once, in its turn.
    pub(super) fn apply(
        &mut self,
        node: Id,
        epoch: Epoch,
        number: u8,
        record: Record,
        waits: bool,
    ) -> Option<()> {
        let mark = self.marks.get_mut(&(node, epoch))?;
        if number != mark.applied_through + 1 || (waits && self.waiting.contains(&node)) {
            return None;
        }
        mark.applied_through = number;
        let (lease, amount, spent) = match record {
            Record::Settle { lease, amount, .. } => (lease, amount, true),
            Record::Return { lease, amount } => (lease, amount, false),
        };
        let key = (node, epoch, lease);
        let fits = self
            .leases
            .get(&key)
            .map_or(0, |lease| lease.left.min(amount));
        if let Some(lease) = self.leases.get_mut(&key) {
            lease.left -= fits;
        }
        self.leases.retain(|_, lease| lease.left > 0);
        if spent {
            self.settled += fits;
            self.operator_loss += amount - fits;
        }
        Some(())
    }

    /// What a restore replays from outside the store: registrations since the backup.
    pub(super) fn bring_forward(&mut self, lost: &Self) {
        for ((node, epoch), mark) in &lost.marks {
            let unknown = Mark {
                applied_through: 0,
                leases_through: 0,
                ..*mark
            };
            self.marks.entry((*node, *epoch)).or_insert(unknown);
        }
        self.nodes.clone_from(&lost.nodes);
        for ((of, epoch, _), lease) in &mut self.leases {
            let current = self.nodes[usize::from(*of)].map(|(epoch, _)| epoch);
            if current > Some(*epoch) && lease.place == Place::Leased {
                lease.place = Place::Suspense;
            }
        }
        self.over = lost.over;
    }

    /// Ends an epoch whose journal ends with this record.
    pub(super) fn seal(&mut self, node: Id, epoch: Epoch, wal: Option<u8>, last: u8) -> Option<()> {
        let (current, _) = self.nodes[usize::from(node)]?;
        let mark = self.marks.get(&(node, epoch))?;
        let own = wal.is_none_or(|wal| mark.wal == wal);
        if epoch >= current || !own || mark.applied_through != last || self.waiting.contains(&node)
        {
            return None;
        }
        self.release(|(of, in_epoch, _)| *of == node && *in_epoch == epoch);
        Some(())
    }

    pub(super) fn forget(&mut self, node: Id, charge: bool) {
        for ((of, _), mark) in &mut self.marks {
            mark.live &= *of != node;
        }
        for ((of, ..), lease) in &mut self.leases {
            if *of == node {
                lease.place = Place::Charged;
            }
        }
        if !charge {
            self.release(|(of, ..)| *of == node);
        }
        self.waiting.remove(&node);
    }

    /// Frees the rest of leases.
    pub(super) fn release(&mut self, which: impl Fn(&(Id, Epoch, u8)) -> bool) {
        self.leases.retain(|key, _| !which(key));
    }

    /// Replaces the leases of an epoch by what its node says they had left after the watermark.
    pub(super) fn report(&mut self, node: Id, epoch: Epoch, leases: &BTreeMap<u8, u8>) {
        let before = self.leases.clone();
        self.leases
            .retain(|(of, in_epoch, _), _| *of != node || *in_epoch != epoch);
        for (number, left) in leases {
            let key = (node, epoch, *number);
            let place = before
                .get(&key)
                .map_or(Place::Suspense, |lease| lease.place);
            self.leases.insert(
                key,
                Lease {
                    granted: *left,
                    left: *left,
                    place,
                },
            );
        }
    }
}
