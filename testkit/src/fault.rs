//! What goes wrong, and when: a queue for each upstream key, or a share of all requests.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

/// One fault; its parts may be combined. The default is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// Answer with this status and the provider's own words for it.
    pub status: Option<u16>,
    /// Words instead of the provider's own.
    pub body: Option<String>,
    /// Headers to add, such as `retry-after`.
    pub headers: BTreeMap<String, String>,
    /// Wait so long before the head of the answer.
    pub delay_ms: u64,
    /// End the connection after so many bytes of the body.
    pub cut_at_byte: Option<usize>,
    /// Send nothing more after so many bytes of the body, for ever.
    pub stall_at_byte: Option<usize>,
    /// End the connection before any byte of an answer.
    pub close: bool,
    /// Say 200, then an error as the first event of the stream.
    pub first_event_error: bool,
    /// Answer with something that is not what it should be.
    pub malformed: bool,
    /// Leave the usage out.
    pub no_usage: bool,
}

impl Fault {
    /// A status.
    pub fn status(status: u16) -> Self {
        Self {
            status: Some(status),
            ..Self::default()
        }
    }
}

/// Faults for a share of all requests, the same for the same seed.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Chaos {
    /// Where the dice begin.
    pub seed: u64,
    /// Each fault and in how many of a thousand requests it happens.
    pub per_mille: Vec<(u16, Fault)>,
}

/// All faults that are to come.
#[derive(Debug, Default)]
pub(crate) struct Script {
    queues: BTreeMap<String, VecDeque<Fault>>,
    chaos: Option<(Chaos, u64)>,
}

impl Script {
    /// The next requests of this key meet these faults, one each; `*` means the next requests of any key.
    pub(crate) fn push(&mut self, key: &str, faults: impl IntoIterator<Item = Fault>) {
        self.queues
            .entry(key.to_owned())
            .or_default()
            .extend(faults);
    }

    /// From now on, a share of all requests.
    pub(crate) fn set_chaos(&mut self, chaos: Chaos) {
        let state = chaos.seed | 1;
        self.chaos = Some((chaos, state));
    }

    /// The fault of this request.
    pub(crate) fn next(&mut self, key: &str) -> Fault {
        for queue in [key, "*"] {
            if let Some(fault) = self.queues.get_mut(queue).and_then(VecDeque::pop_front) {
                return fault;
            }
        }
        let Some((chaos, state)) = &mut self.chaos else {
            return Fault::default();
        };
        let mut roll = u16::try_from(random(state) % 1000).unwrap_or(0);
        for (share, fault) in &chaos.per_mille {
            if roll < *share {
                return fault.clone();
            }
            roll = roll.saturating_sub(*share);
        }
        Fault::default()
    }
}

/// xorshift64*: good enough for dice, and the same everywhere.
fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
}
