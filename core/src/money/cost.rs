//! What a usage costs at a price: a pure function, monotone in the usage (law 8).
//!
//! Tokens are multiplied with pico-USD in 128 bits and rounded up to nano-USD once, so no class of tokens is rounded by itself.

use super::{
    charge::PicoUsd,
    nano::NanoUsd,
    price::{Price, Rates},
};
use crate::dialect::usage::Usage;

/// Why a usage has no cost that can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CostError {
    /// A class of tokens was used that the price book knows nothing of.
    #[error("the price book has no price for {0}")]
    NoPrice(&'static str),
    /// More than an amount can hold.
    #[error("the cost is more than an amount can hold")]
    Overflow,
}

/// List cost of a usage, rounded up.
///
/// # Errors
/// When something was used that has no price: such a cost is unknown, never zero.
pub fn cost(price: &Price, usage: &Usage) -> Result<NanoUsd, CostError> {
    list_cost(price, usage)?
        .round_up()
        .ok_or(CostError::Overflow)
}

/// List cost of a usage before it is rounded: what charges are made of.
///
/// # Errors
/// When something was used that has no price: such a cost is unknown, never zero.
pub fn list_cost(price: &Price, usage: &Usage) -> Result<PicoUsd, CostError> {
    let tokens = &usage.tokens;
    let rates = price
        .rates(tokens.input_total(), usage.tier.as_deref())
        .ok_or(CostError::NoPrice("this service tier"))?;
    let Rates {
        input,
        cache_read,
        cache_write_5m,
        cache_write_1h,
        output,
    } = *rates;
    let parts = [
        (tokens.input, input, "input"),
        (tokens.cache_read, cache_read, "cached input"),
        (tokens.cache_write_5m, cache_write_5m, "cache writes"),
        (
            tokens.cache_write_1h,
            cache_write_1h,
            "cache writes of one hour",
        ),
        (tokens.output, output, "output"),
        (usage.web_searches, price.web_search, "web searches"),
    ];
    let mut pico = 0_u128;
    for (count, rate, what) in parts {
        if count > 0 {
            let rate = rate.ok_or(CostError::NoPrice(what))?;
            let part = u128::from(count)
                .checked_mul(u128::from(rate))
                .ok_or(CostError::Overflow)?;
            pico = pico.checked_add(part).ok_or(CostError::Overflow)?;
        }
    }
    Ok(PicoUsd(pico))
}
