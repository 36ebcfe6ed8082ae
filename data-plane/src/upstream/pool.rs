//! Connections of one core that wait between two answers: last in, first out, so that few stay warm and the others run out.
//!
//! Invariant: one that the provider closed meanwhile, or over which it said something, is never handed out.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use proxyxai_core::snapshot::Provider;

use super::{Connection, connection::Scratch};
use crate::net::{Dial, DialError};

/// Connections that are kept for one provider.
const KEPT: usize = 512;
/// How many sweeps one may wait for its next request; providers close theirs after a minute or more.
const IDLE_SWEEPS: u32 = 55;
/// Bytes read at a time.
const READ: usize = 32 << 10;

/// Connections that wait, by the origin of their provider.
pub(crate) struct Pool {
    origins: RefCell<BTreeMap<Box<str>, Rc<Origin>>>,
    scratch: Scratch,
}

/// Connections to one origin. Age is counted in sweeps, so that using a connection reads no clock.
#[derive(Default)]
pub(super) struct Origin {
    waiting: RefCell<Vec<Waiting>>,
    sweeps: Cell<u32>,
}

struct Waiting {
    connection: Box<Connection>,
    since: u32,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            origins: RefCell::default(),
            scratch: Rc::new(RefCell::new(vec![0; READ].into())),
        }
    }
}

impl Pool {
    /// A connection that waits, if there is one.
    pub(crate) fn take(&self, provider: &Provider) -> Option<Box<Connection>> {
        self.origins.borrow().get(provider.base.origin())?.take()
    }

    /// A new connection.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn connect(
        &self,
        dial: &dyn Dial,
        provider: &Provider,
    ) -> Result<Box<Connection>, DialError> {
        let io = dial.dial(&provider.base, provider.allow_private).await?;
        let mut origins = self.origins.borrow_mut();
        let origin = origins.entry(provider.base.origin().into()).or_default();
        Ok(Connection::new(io, Rc::clone(&self.scratch), origin))
    }

    /// Closes what waits for too long, or was closed; called once a second.
    pub(crate) fn sweep(&self) {
        self.origins.borrow_mut().retain(|_, origin| {
            origin.sweep();
            Rc::weak_count(origin) > 0
        });
    }
}

impl Origin {
    fn take(&self) -> Option<Box<Connection>> {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(Waiting { mut connection, .. }) = waiting.pop() {
            if connection.is_idle() {
                return Some(connection);
            }
        }
        None
    }

    pub(super) fn put(&self, connection: Box<Connection>) {
        let mut waiting = self.waiting.borrow_mut();
        if waiting.len() < KEPT {
            waiting.push(Waiting {
                connection,
                since: self.sweeps.get(),
            });
        }
    }

    fn sweep(&self) {
        let now = self.sweeps.get().wrapping_add(1);
        self.sweeps.set(now);
        self.waiting.borrow_mut().retain_mut(|one| {
            now.wrapping_sub(one.since) <= IDLE_SWEEPS && one.connection.is_idle()
        });
    }
}
