//! What each action does; `None` where it cannot happen.

use super::{
    Action, EPOCHS, Epoch, Id, Message, Protocol, Record, State, Weakening,
    node::{Entry, Hold, Journal, Node},
};

impl Protocol {
    pub(super) fn act(&self, state: &mut State, action: Action) -> Option<()> {
        match action {
            Action::Start(node) => self.start(state, node),
            Action::Ask(node) => self.ask(state, node),
            Action::Deliver(message) => self.deliver(state, message),
            Action::DecideLate(message) => self.decide_late(state, &message),
            Action::CommitLate => self.commit_late(state),
            Action::Elect => elect(state),
            Action::Request { node, costs } => self.request(state, node, costs),
            Action::Settle { node, hold } => settle(state, node, hold),
            Action::Return { node, lease } => give_back(state, node, lease),
            Action::Crash(node) => crash(state, node),
            Action::LoseDisk(node) => lose_disk(state, node),
            Action::Seal { node, epoch } => self.seal(state, node, epoch),
            Action::Forget(node) => self.forget(state, node),
            Action::Timer => {
                state.store.release(|_| true);
                Some(())
            }
            Action::Narrow => {
                spend(&mut state.left.narrowings)?;
                state.store.limit = state.store.limit.checked_sub(1)?;
                Some(())
            }
            Action::Expire => {
                spend(&mut state.left.expiries)?;
                state.store.over = true;
                Some(())
            }
            Action::Backup => {
                let wanted = state.left.restores > 0 && state.backup.is_none();
                wanted.then(|| state.backup = Some(Box::new(state.store.clone())))
            }
            Action::Restore => self.restore(state),
            Action::Report(node) => report(state, node),
        }
    }

    fn start(&self, state: &mut State, id: Id) -> Option<()> {
        let node = &mut state.nodes[usize::from(id)];
        if node.running.is_some() || state.late.as_ref().is_some_and(|(_, _, deposed)| !deposed) {
            return None;
        }
        let anew = self.lacks(Weakening::NumbersWithoutEpoch) && node.boots > 0;
        node.boots += 1;
        let epoch = if anew {
            1
        } else {
            state
                .store
                .register(id, node.wal, node.boots, state.generation)
        };
        if self.lacks(Weakening::RegistrationReleases) {
            state
                .store
                .release(|(of, earlier, _)| *of == id && *earlier < epoch);
        }
        for (earlier, journal) in node
            .journals
            .iter_mut()
            .filter(|(earlier, _)| anew || **earlier < epoch)
        {
            if self.lacks(Weakening::RecoveryRewrites) {
                rewrite(journal);
            } else {
                let open = journal.open();
                journal.entries.extend(open.into_iter().map(Entry::Record));
            }
            for (number, record) in (1..).zip(journal.records()) {
                state.network.insert(Message::Record {
                    node: id,
                    epoch: *earlier,
                    number,
                    record,
                });
            }
        }
        if anew {
            node.journals.clear();
        }
        node.journals.entry(epoch).or_default();
        node.running = Some(epoch);
        Some(())
    }

    fn ask(&self, state: &mut State, id: Id) -> Option<()> {
        let node = &mut state.nodes[usize::from(id)];
        let epoch = node
            .running
            .filter(|_| node.asked < self.bounds.leases_per_epoch)?;
        node.asked += 1;
        state.network.insert(Message::Ask {
            node: id,
            epoch,
            lease: node.asked,
        });
        Some(())
    }

    fn acquire(
        &self,
        store: &mut super::Store,
        (node, epoch, lease): (Id, Epoch, u8),
        generation: u8,
    ) -> Option<Message> {
        let (want, min) = (self.bounds.lease, self.bounds.hold);
        let waits = !self.lacks(Weakening::RestoreDoesNotWait);
        let amount = store.acquire((node, epoch, lease), generation, want, min, waits)?;
        Some(Message::Granted {
            node,
            epoch,
            lease,
            amount,
        })
    }

    fn deliver(&self, state: &mut State, message: Message) -> Option<()> {
        let leader_waits = state.late.as_ref().is_some_and(|(_, _, deposed)| !deposed);
        match message {
            Message::Ask { node, epoch, lease } if !leader_waits => {
                let answer =
                    self.acquire(&mut state.store, (node, epoch, lease), state.generation)?;
                state.network.insert(answer);
                Some(())
            }
            Message::Record {
                node,
                epoch,
                number,
                record,
            } if !leader_waits => {
                let waits = !self.lacks(Weakening::RecordsBeforeReport);
                state.store.apply(node, epoch, number, record, waits)
            }
            Message::Granted {
                node,
                epoch,
                lease,
                amount,
            } => {
                let refills = self.lacks(Weakening::RepeatedGrantRefills);
                let at = &mut state.nodes[usize::from(node)];
                let new = at.known & (1 << lease) == 0;
                if at.running != Some(epoch) || !(new || refills) {
                    return None;
                }
                at.known |= 1 << lease;
                at.leases.insert(lease, amount);
                if new {
                    at.journals
                        .get_mut(&epoch)?
                        .entries
                        .push(Entry::Granted { lease, amount });
                }
                Some(())
            }
            Message::Ask { .. } | Message::Record { .. } => None,
        }
    }

    fn decide_late(&self, state: &mut State, message: &Message) -> Option<()> {
        let Message::Ask { node, epoch, lease } = *message else {
            return None;
        };
        if state.late.is_some() || state.left.elections == 0 {
            return None;
        }
        let mut store = state.store.clone();
        let answer = self.acquire(&mut store, (node, epoch, lease), state.generation)?;
        state.late = Some((Box::new(store), answer, false));
        Some(())
    }

    /// The write of a deposed leader compares its fence, and is refused.
    fn commit_late(&self, state: &mut State) -> Option<()> {
        let (store, answer, deposed) = state.late.take()?;
        if !deposed || self.lacks(Weakening::NoFence) {
            state.store = *store;
            state.network.insert(answer);
        }
        Some(())
    }

    fn request(&self, state: &mut State, id: Id, costs: u8) -> Option<()> {
        let amount = self.bounds.hold;
        let node = &mut state.nodes[usize::from(id)];
        let epoch = node.running?;
        let (lease, unheld) = node
            .leases
            .iter_mut()
            .find(|(_, unheld)| **unheld >= amount)?;
        spend(&mut state.left.requests)?;
        *unheld -= amount;
        let (lease, hold) = (*lease, node.next_hold);
        node.next_hold += 1;
        node.holds.insert(
            hold,
            Hold {
                lease,
                amount,
                costs,
            },
        );
        if !self.lacks(Weakening::NoIntent) {
            node.journals.get_mut(&epoch)?.entries.push(Entry::Intent {
                hold,
                lease,
                amount,
            });
        }
        state.real += costs;
        Some(())
    }

    fn seal(&self, state: &mut State, id: Id, epoch: Epoch) -> Option<()> {
        let node = &state.nodes[usize::from(id)];
        let any = self.lacks(Weakening::SealByAnyJournal);
        node.running.filter(|running| *running > epoch)?;
        let last = match node.journals.get(&epoch) {
            Some(journal) if journal.open().is_empty() => journal.last(),
            None if any => 0,
            Some(_) | None => return None,
        };
        state
            .store
            .seal(id, epoch, (!any).then_some(node.wal), last)
    }

    fn forget(&self, state: &mut State, id: Id) -> Option<()> {
        state.store.nodes[usize::from(id)]?;
        spend(&mut state.left.forgets)?;
        state
            .store
            .forget(id, !self.lacks(Weakening::ForgetReleases));
        Some(())
    }

    fn restore(&self, state: &mut State) -> Option<()> {
        let backup = state.backup.take()?;
        spend(&mut state.left.restores)?;
        let lost = std::mem::replace(&mut state.store, *backup);
        state.store.bring_forward(&lost);
        state.late = None;
        state.generation += 1;
        let known = self
            .ids()
            .filter(|id| state.store.nodes[usize::from(*id)].is_some());
        state.store.waiting = known.collect();
        Some(())
    }
}

fn elect(state: &mut State) -> Option<()> {
    let (_, _, deposed) = state.late.as_mut().filter(|(_, _, deposed)| !deposed)?;
    spend(&mut state.left.elections)?;
    *deposed = true;
    Some(())
}

fn settle(state: &mut State, id: Id, hold: u8) -> Option<()> {
    let node = &mut state.nodes[usize::from(id)];
    let Hold {
        lease,
        amount,
        costs,
    } = node.holds.remove(&hold)?;
    *node.leases.entry(lease).or_default() += amount - costs;
    append(
        state,
        id,
        Record::Settle {
            hold,
            lease,
            amount: costs,
        },
    )
}

fn give_back(state: &mut State, id: Id, lease: u8) -> Option<()> {
    let amount = state.nodes[usize::from(id)]
        .leases
        .remove(&lease)
        .filter(|unheld| *unheld > 0)?;
    append(state, id, Record::Return { lease, amount })
}

fn append(state: &mut State, id: Id, record: Record) -> Option<()> {
    let node = &mut state.nodes[usize::from(id)];
    let epoch = node.running?;
    let journal = node.journals.get_mut(&epoch)?;
    journal.entries.push(Entry::Record(record));
    let number = journal.last();
    state.network.insert(Message::Record {
        node: id,
        epoch,
        number,
        record,
    });
    Some(())
}

fn crash(state: &mut State, id: Id) -> Option<()> {
    let node = &mut state.nodes[usize::from(id)];
    node.running?;
    spend(&mut state.left.crashes)?;
    node.stop();
    Some(())
}

fn lose_disk(state: &mut State, id: Id) -> Option<()> {
    let node: &mut Node = &mut state.nodes[usize::from(id)];
    if node.running.is_some() || node.boots == 0 {
        return None;
    }
    spend(&mut state.left.lost_disks)?;
    node.wal += 1;
    node.journals.clear();
    Some(())
}

/// A node that has registered in the new generation tells what its earlier epochs have.
fn report(state: &mut State, id: Id) -> Option<()> {
    let node = &state.nodes[usize::from(id)];
    let current = node
        .running
        .filter(|epoch| epoch / EPOCHS == state.generation)?;
    if !state.store.waiting.contains(&id) {
        return None;
    }
    let earlier: Vec<Epoch> = state
        .store
        .epochs_of(id)
        .filter(|epoch| *epoch < current)
        .collect();
    for epoch in earlier {
        let journal = node.journals.get(&epoch)?;
        let after = state.store.applied(id, epoch);
        state.store.report(id, epoch, &journal.leases_after(after));
    }
    state.store.waiting.remove(&id);
    Some(())
}

/// What recovery must not do: each open intent becomes its settlement where it stands.
fn rewrite(journal: &mut Journal) {
    let open = journal.open();
    for entry in &mut journal.entries {
        let Entry::Intent { hold: of, .. } = *entry else {
            continue;
        };
        let settled = open
            .iter()
            .find(|record| matches!(record, Record::Settle { hold, .. } if *hold == of));
        if let Some(record) = settled {
            *entry = Entry::Record(*record);
        }
    }
}

fn spend(left: &mut u8) -> Option<()> {
    *left = left.checked_sub(1)?;
    Some(())
}
