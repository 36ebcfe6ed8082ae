//! What attempts came to, by provider: added up where their events are written, so that no core pays for it.
//!
//! Invariants: an attempt counts once it is settled; a provider is one that an administrator made, and beyond [`PROVIDERS`] of them they
//! count together, so labels are bounded.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use proxyxai_core::exposition::{Histogram, Kind, Number, Page};
use proxyxai_proto::usage::v1::{Tokens, UsageEvent};

/// Providers that are told apart.
const PROVIDERS: usize = 256;
/// The name of the others.
const OTHERS: &str = "(others)";
/// Upper bounds of times, in milliseconds.
const BOUNDS_MS: [u64; 12] = [
    25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000,
];

/// Adds attempts up.
#[derive(Debug, Default)]
pub struct Tally(Mutex<BTreeMap<String, Sums>>);

/// What one provider's attempts came to.
#[derive(Debug)]
struct Sums {
    reasons: BTreeMap<String, u64>,
    first_byte: Histogram,
    duration: Histogram,
    tokens: Tokens,
    cost_nano_usd: u64,
    unpriced: u64,
}

impl Sums {
    fn new() -> Self {
        Self {
            reasons: BTreeMap::new(),
            first_byte: Histogram::new(&BOUNDS_MS),
            duration: Histogram::new(&BOUNDS_MS),
            tokens: Tokens::default(),
            cost_nano_usd: 0,
            unpriced: 0,
        }
    }

    fn add(&mut self, event: &UsageEvent) {
        match self.reasons.get_mut(&event.reason) {
            Some(count) => *count = count.saturating_add(1),
            None => drop(self.reasons.insert(event.reason.clone(), 1)),
        }
        let ms = |ms: u32| Duration::from_millis(ms.into());
        if event.status > 0 {
            self.first_byte.observe(ms(event.first_byte_ms));
        }
        self.duration.observe(ms(event.duration_ms));
        if let Some(tokens) = &event.tokens {
            for (sum, more) in [
                (&mut self.tokens.input, tokens.input),
                (&mut self.tokens.cache_read, tokens.cache_read),
                (&mut self.tokens.cache_write_5m, tokens.cache_write_5m),
                (&mut self.tokens.cache_write_1h, tokens.cache_write_1h),
                (&mut self.tokens.output, tokens.output),
            ] {
                *sum = sum.saturating_add(more);
            }
        }
        let cost = u64::try_from(event.cost_nano_usd).unwrap_or(0);
        self.cost_nano_usd = self.cost_nano_usd.saturating_add(cost);
        self.unpriced = self.unpriced.saturating_add(u64::from(event.unpriced));
    }
}

impl Tally {
    /// Counts an attempt.
    pub(super) fn add(&self, event: &UsageEvent) {
        let mut all = self.lock();
        if let Some(sums) = all.get_mut(&event.provider_id) {
            return sums.add(event);
        }
        let name = if all.len() < PROVIDERS {
            event.provider_id.clone()
        } else {
            OTHERS.to_owned()
        };
        all.entry(name).or_insert_with(Sums::new).add(event);
    }

    /// Writes the sums.
    pub(crate) fn metrics(&self, page: &mut Page<'_>) {
        let all = self.lock();
        let name = "xai_upstream_attempts_total";
        page.family(
            name,
            Kind::Counter,
            "Attempts that were settled, by provider and by why they ended.",
        );
        for (provider, sums) in &*all {
            for (reason, count) in &sums.reasons {
                page.sample(name, &[("provider", provider), ("reason", reason)], *count);
            }
        }
        type Times = fn(&Sums) -> &Histogram;
        let times: [(&str, &str, Times); 2] = [
            (
                "xai_upstream_first_byte_seconds",
                "From the beginning of an attempt to the head of its answer, by provider.",
                |sums| &sums.first_byte,
            ),
            (
                "xai_upstream_duration_seconds",
                "From the beginning of an attempt to its end, by provider.",
                |sums| &sums.duration,
            ),
        ];
        for (name, help, which) in times {
            page.family(name, Kind::Histogram, help);
            for (provider, sums) in &*all {
                which(sums).show(page, name, &[("provider", provider)]);
            }
        }
        let name = "xai_tokens_total";
        page.family(
            name,
            Kind::Counter,
            "Tokens of settled attempts, estimates included, by provider and class.",
        );
        for (provider, sums) in &*all {
            let Tokens {
                input,
                cache_read,
                cache_write_5m,
                cache_write_1h,
                output,
            } = sums.tokens;
            for (class, count) in [
                ("input", input),
                ("cache_read", cache_read),
                ("cache_write_5m", cache_write_5m),
                ("cache_write_1h", cache_write_1h),
                ("output", output),
            ] {
                page.sample(name, &[("provider", provider), ("class", class)], count);
            }
        }
        let name = "xai_cost_usd_total";
        let help = "List cost of settled attempts in US dollars, by provider.";
        page.family(name, Kind::Counter, help);
        for (provider, sums) in &*all {
            let cost = Number::Nano(sums.cost_nano_usd);
            page.sample(name, &[("provider", provider)], cost);
        }
        let name = "xai_unpriced_attempts_total";
        let help = "Settled attempts that no price was found for, by provider.";
        page.family(name, Kind::Counter, help);
        for (provider, sums) in &*all {
            page.sample(name, &[("provider", provider)], sums.unpriced);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Sums>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_beyond_a_bound_count_together() {
        let tally = Tally::default();
        for number in 0..PROVIDERS.saturating_add(9) {
            let event = UsageEvent {
                provider_id: format!("p{number:04}"),
                reason: "ok".to_owned(),
                status: 200,
                cost_nano_usd: 5,
                ..UsageEvent::default()
            };
            tally.add(&event);
        }
        let mut out = String::new();
        tally.metrics(&mut Page::new(&mut out));
        let line = |line: &str| assert!(out.lines().any(|one| one == line), "{line}\n{out}");
        line("xai_upstream_attempts_total{provider=\"p0000\",reason=\"ok\"} 1");
        line("xai_upstream_attempts_total{provider=\"(others)\",reason=\"ok\"} 9");
        line("xai_cost_usd_total{provider=\"(others)\"} 0.000000045");
        assert!(!out.contains("p0256"));
    }
}
