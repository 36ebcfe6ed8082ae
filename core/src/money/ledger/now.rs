//! When a transaction happens: the leader's time, and the calendar that cuts it into windows.

use super::{
    super::window::{Calendar, Stamp, Windows},
    draft::Draft,
    fault::Fault,
    id::RowKey,
};

/// The leader's time, and the generation that it leads.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    /// The deployment's calendar.
    pub calendar: &'a Calendar,
    /// max(the leader's clock, the last stamp that it gave).
    pub at: Stamp,
    /// Generation of the store: epochs of another one get no lease.
    pub generation: u64,
}

impl Now<'_> {
    /// The moment of a transaction on these rows, never before one that a row has seen under an earlier leader, and its windows.
    ///
    /// # Errors
    /// When a row is not loaded, or the time is in no calendar.
    pub(crate) fn of(&self, draft: &Draft<'_>, keys: &[RowKey]) -> Result<(Stamp, Windows), Fault> {
        let mut at = self.at;
        for key in keys {
            at = at.max(draft.stamped(key)?);
        }
        let windows = self.calendar.windows(at);
        windows
            .map(|windows| (at, windows))
            .map_err(|_| Fault::Broken("the time of the leader is outside the calendar"))
    }
}
