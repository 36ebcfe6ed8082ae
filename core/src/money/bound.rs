//! The most that a request can cost: what is held before it is sent.
//!
//! Invariant (law 8): no usage that the forwarded request allows costs more than the bound. So nothing here is an estimate; what cannot
//! be bounded is refused, with the reason, and a soft request goes on by estimates instead.
//!
//! - Input: a token of a byte-level vocabulary is at least one byte, so text has at most as many tokens as bytes, and JSON never writes
//!   text shorter than it is. No model reads more than its context window at once.
//! - Rates: the dearest one that the request can reach, over all service tiers that may serve it, all context tiers up to its bound, and all
//!   ways in which input is read from and into caches.
//! - Server tools read the context again in each round, and may have a fee for each use.
//! - Output: the forwarded cap, for each choice, hidden reasoning included.

use super::{
    charge::PicoUsd,
    price::{Price, Rates},
};

/// Tokens that a provider may add to what it is sent: templates, and the system prompts of tools.
pub const TEMPLATE_TOKENS: u64 = 1_024;

/// What a request allows, as it will be forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance<'a> {
    /// What it reads.
    pub input: Input,
    /// The most output tokens of one choice; `None` when it is forwarded without a cap.
    pub output_cap: Option<u64>,
    /// How many answers it asks for.
    pub choices: u64,
    /// The tiers that may serve it; `None` is the usual one.
    pub tiers: &'a [Option<&'a str>],
    /// The most web searches; `None` when it allows them without a maximum. 0 when it does not allow any.
    pub web_searches: Option<u64>,
}

/// What bounds the input of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Bytes of the body, without those of media.
    pub text_bytes: u64,
    /// Tokens that its media make at most; `None` when it has some that are of no class with a bound.
    pub media_tokens: Option<u64>,
    /// It names input that is not in it: a previous response, a file, a URL, cached content.
    pub by_reference: bool,
    /// How often a server tool makes the model read the context again; `None` when there is no maximum that can be forwarded. 0 without
    /// server tools.
    pub tool_rounds: Option<u64>,
    /// The most that the model reads at once, when that is known.
    pub context_window: Option<u64>,
}

/// Why a request has no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unbounded {
    /// The price book lacks something.
    #[error(
        "the price book has no price for {0} of this model, so a hard limit cannot hold; add one with `xai price import`"
    )]
    NoPrice(&'static str),
    /// Nothing bounds the input.
    #[error(
        "the request reads what is not in it, and the context window of this model is not known; send the input itself"
    )]
    Input,
    /// Nothing bounds how often the context is read.
    #[error("the request allows a server tool without a maximum of uses; set one")]
    ToolRounds,
    /// Nothing bounds the output.
    #[error("the request has no output cap; set `max_tokens` or `max_completion_tokens`")]
    Output,
    /// The product is more than can be counted.
    #[error("the request allows more than can be counted; lower its caps")]
    Overflow,
}

/// The bound of a request, by its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// List cost of the input, and of fees.
    pub fixed: PicoUsd,
    /// List cost of one more token of the output cap.
    pub per_capped_token: PicoUsd,
    /// The output cap.
    pub output_cap: u64,
}

impl Bound {
    /// The bound of a request at a price.
    ///
    /// # Errors
    /// Why it has none.
    pub fn of(price: &Price, allowance: &Allowance<'_>) -> Result<Self, Unbounded> {
        let input = allowance.input.tokens()?;
        let output_cap = allowance.output_cap.ok_or(Unbounded::Output)?;
        let rates = Dearest::of(price, input, allowance.tiers, output_cap > 0)?;
        let searches = allowance.web_searches.ok_or(Unbounded::ToolRounds)?;
        let fee = match (searches, price.web_search) {
            (0, _) => 0,
            (_, Some(fee)) => product(searches, fee)?,
            (_, None) => return Err(Unbounded::NoPrice("web searches")),
        };
        let fixed = product(input, rates.input)?
            .checked_add(fee)
            .ok_or(Unbounded::Overflow)?;
        let bound = Self {
            fixed: PicoUsd(fixed),
            per_capped_token: PicoUsd(product(allowance.choices, rates.output)?),
            output_cap,
        };
        bound.cost().ok_or(Unbounded::Overflow).map(|_| bound)
    }

    /// What is held: the most that the request can cost at list price.
    pub fn cost(&self) -> Option<PicoUsd> {
        let output = self
            .per_capped_token
            .0
            .checked_mul(u128::from(self.output_cap))?;
        output.checked_add(self.fixed.0).map(PicoUsd)
    }

    /// The same with the greatest cap that costs no more than what can be afforded, so that the provider itself ends with `length`. `None`
    /// when that is less than the least cap that makes sense.
    #[must_use]
    pub fn lowered(self, affordable: PicoUsd, least_cap: u64) -> Option<Self> {
        let left = affordable.0.checked_sub(self.fixed.0)?;
        let most = left
            .checked_div(self.per_capped_token.0)
            .map_or(u64::MAX, |cap| u64::try_from(cap).unwrap_or(u64::MAX));
        let output_cap = self.output_cap.min(most);
        (output_cap >= least_cap.min(self.output_cap)).then_some(Self { output_cap, ..self })
    }
}

impl Input {
    /// The most input tokens, however they are read.
    ///
    /// # Errors
    /// When nothing bounds them.
    pub fn tokens(&self) -> Result<u64, Unbounded> {
        let text = self
            .text_bytes
            .checked_add(TEMPLATE_TOKENS)
            .ok_or(Unbounded::Overflow)?;
        let sent = match (self.by_reference, self.media_tokens) {
            (false, Some(media)) => Some(text.checked_add(media).ok_or(Unbounded::Overflow)?),
            _ => None,
        };
        let rounds = self.tool_rounds.ok_or(Unbounded::ToolRounds)?;
        if rounds == 0 {
            return sent
                .into_iter()
                .chain(self.context_window)
                .min()
                .ok_or(Unbounded::Input);
        }
        // What a tool finds comes on top of what was sent, in the first reading too.
        let window = self.context_window.ok_or(Unbounded::Input)?;
        let readings = rounds.checked_add(1).ok_or(Unbounded::Overflow)?;
        window.checked_mul(readings).ok_or(Unbounded::Overflow)
    }
}

/// The dearest rates that a request can reach, in pico-USD.
struct Dearest {
    input: u64,
    output: u64,
}

impl Dearest {
    fn of(
        price: &Price,
        most_input: u64,
        tiers: &[Option<&str>],
        writes: bool,
    ) -> Result<Self, Unbounded> {
        let mut dearest: Option<Self> = None;
        for tier in tiers {
            let reachable = price.reachable(most_input, *tier);
            for rates in reachable.ok_or(Unbounded::NoPrice("this service tier"))? {
                let (input, output) = Self::at(rates, writes)?;
                let last = dearest.unwrap_or(Self { input, output });
                dearest = Some(Self {
                    input: last.input.max(input),
                    output: last.output.max(output),
                });
            }
        }
        dearest.ok_or(Unbounded::NoPrice("this service tier"))
    }

    /// Classes without a price do not count here: a usage of one has no cost that could be told, and the hold is settled whole.
    fn at(rates: &Rates, writes: bool) -> Result<(u64, u64), Unbounded> {
        let Rates {
            input,
            cache_read,
            cache_write_5m,
            cache_write_1h,
            output,
        } = *rates;
        let plain = input.ok_or(Unbounded::NoPrice("input"))?;
        let cached = [cache_read, cache_write_5m, cache_write_1h]
            .into_iter()
            .flatten();
        // Embeddings write nothing, and have no price for it.
        let output = if writes {
            output.ok_or(Unbounded::NoPrice("output"))?
        } else {
            0
        };
        Ok((cached.fold(plain, u64::max), output))
    }
}

fn product(count: u64, rate: u64) -> Result<u128, Unbounded> {
    u128::from(count)
        .checked_mul(u128::from(rate))
        .ok_or(Unbounded::Overflow)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any};

    use super::*;
    use crate::{
        dialect::usage::{Tokens, Usage},
        money::{
            cost::list_cost,
            price::{PriceBook, SHIPPED},
        },
        route::provider::ProviderKind,
    };

    const INPUT: Input = Input {
        text_bytes: 1_000,
        media_tokens: Some(0),
        by_reference: false,
        tool_rounds: Some(0),
        context_window: None,
    };
    const ALLOWANCE: Allowance<'static> = Allowance {
        input: INPUT,
        output_cap: Some(10),
        choices: 1,
        tiers: &[None],
        web_searches: Some(0),
    };

    #[test]
    fn what_cannot_be_bounded_is_refused() {
        let book = PriceBook::parse(SHIPPED).unwrap();
        let check =
            |kind, model: &str, allowance: &Allowance<'_>, want: Result<u128, Unbounded>| {
                let bound = Bound::of(book.price(kind, model).unwrap(), allowance);
                assert_eq!(
                    bound.map(|bound| bound.cost().unwrap().0),
                    want,
                    "{model} {allowance:?}"
                );
            };
        use ProviderKind::{Anthropic, Openai};
        let with = |input: Input| Allowance { input, ..ALLOWANCE };
        let window = Some(128_000);
        // 0.15 and 0.60 USD per million tokens.
        check(
            Openai,
            "gpt-4o-mini",
            &ALLOWANCE,
            Ok(2_024 * 150_000 + 10 * 600_000),
        );
        check(
            Openai,
            "gpt-4o-mini",
            &Allowance {
                choices: 3,
                ..ALLOWANCE
            },
            Ok(2_024 * 150_000 + 30 * 600_000),
        );
        check(
            Openai,
            "gpt-4o-mini",
            &with(Input {
                media_tokens: Some(70),
                ..INPUT
            }),
            Ok(2_094 * 150_000 + 10 * 600_000),
        );
        check(
            Openai,
            "gpt-4o-mini",
            &with(Input {
                text_bytes: 1 << 30,
                context_window: window,
                ..INPUT
            }),
            Ok(128_000 * 150_000 + 10 * 600_000),
        );
        check(
            Openai,
            "gpt-4o-mini",
            &with(Input {
                media_tokens: None,
                ..INPUT
            }),
            Err(Unbounded::Input),
        );
        check(
            Openai,
            "gpt-4o-mini",
            &with(Input {
                by_reference: true,
                ..INPUT
            }),
            Err(Unbounded::Input),
        );
        check(
            Openai,
            "gpt-4o-mini",
            &with(Input {
                by_reference: true,
                context_window: window,
                ..INPUT
            }),
            Ok(128_000 * 150_000 + 10 * 600_000),
        );
        check(
            Openai,
            "gpt-4o-mini",
            &with(Input {
                tool_rounds: Some(2),
                context_window: window,
                ..INPUT
            }),
            Ok(3 * 128_000 * 150_000 + 10 * 600_000),
        );
        check(
            Openai,
            "gpt-4o-mini",
            &with(Input {
                tool_rounds: None,
                context_window: window,
                ..INPUT
            }),
            Err(Unbounded::ToolRounds),
        );
        check(
            Openai,
            "gpt-4o-mini",
            &Allowance {
                output_cap: None,
                ..ALLOWANCE
            },
            Err(Unbounded::Output),
        );
        check(
            Openai,
            "gpt-4o-mini",
            &Allowance {
                tiers: &[None, Some("unheard-of")],
                ..ALLOWANCE
            },
            Err(Unbounded::NoPrice("this service tier")),
        );
        check(
            Openai,
            "gpt-4o-mini",
            &Allowance {
                output_cap: Some(u64::MAX),
                choices: u64::MAX,
                ..ALLOWANCE
            },
            Err(Unbounded::Overflow),
        );
        // A write into a cache of one hour is dearer than input: 6 instead of 3 USD, and an hour's search fee is 0.01 USD.
        check(
            Anthropic,
            "claude-sonnet-4-5",
            &Allowance {
                web_searches: Some(2),
                ..ALLOWANCE
            },
            Ok(2_024 * 6_000_000 + 10 * 15_000_000 + 20_000_000_000),
        );
        check(
            Anthropic,
            "claude-sonnet-4-5",
            &Allowance {
                web_searches: None,
                ..ALLOWANCE
            },
            Err(Unbounded::ToolRounds),
        );
    }

    #[test]
    fn the_cap_is_lowered_to_what_can_be_afforded() {
        let bound = Bound {
            fixed: PicoUsd(100),
            per_capped_token: PicoUsd(7),
            output_cap: 50,
        };
        let check = |affordable, least, cap| {
            assert_eq!(
                bound
                    .lowered(PicoUsd(affordable), least)
                    .map(|bound| bound.output_cap),
                cap
            )
        };
        check(1_000, 16, Some(50));
        check(450, 16, Some(50));
        check(449, 16, Some(49));
        check(212, 16, Some(16));
        check(211, 16, None);
        check(99, 0, None);
        check(100, 0, Some(0));
        // A request may ask for less than makes sense otherwise.
        check(450, 99, Some(50));
        let free = Bound {
            per_capped_token: PicoUsd(0),
            ..bound
        };
        assert_eq!(free.lowered(PicoUsd(100), 16), Some(free));
    }

    fn parts(whole: u64) -> impl Strategy<Value = [u64; 4]> {
        proptest::array::uniform4(0..=whole).prop_map(move |mut cuts| {
            cuts.sort_unstable();
            let [a, b, c, d] = cuts;
            [
                a,
                b.saturating_sub(a),
                c.saturating_sub(b),
                d.saturating_sub(c),
            ]
        })
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig { cases: 2_000, ..proptest::prelude::ProptestConfig::default() })]

        #[test]
        fn law_8_the_bound_covers_every_usage_that_the_request_allows(
            (text_bytes, rounds, input) in (0_u64..600_000, 0_u64..3).prop_flat_map(|(bytes, rounds)| {
                let window = 400_000;
                let most = if rounds == 0 { window.min(bytes.saturating_add(TEMPLATE_TOKENS)) } else { window.saturating_mul(rounds.saturating_add(1)) };
                (proptest::strategy::Just(bytes), proptest::strategy::Just(rounds), parts(most))
            }),
            (cap, output) in (0_u64..200_000).prop_flat_map(|cap| (proptest::strategy::Just(cap), 0..=cap)),
            choices in 1_u64..4,
            searches in 0_u64..5,
            tier in proptest::option::of(proptest::sample::select(vec!["batch", "flex", "priority", "fast"])),
            model in any::<proptest::sample::Index>(),
        ) {
            let book = PriceBook::parse(SHIPPED).unwrap();
            let prices: Vec<&Price> = book.all().collect();
            let price = *model.get(&prices);
            let allowance = Allowance {
                input: Input { text_bytes, tool_rounds: Some(rounds), context_window: Some(400_000), ..INPUT },
                output_cap: Some(cap),
                choices,
                tiers: &[None, tier],
                web_searches: Some(searches),
            };
            let [input, cache_read, cache_write_5m, cache_write_1h] = input;
            for served in [None, tier] {
                let usage = Usage {
                    tokens: Tokens { input, cache_read, cache_write_5m, cache_write_1h, output: output.saturating_mul(choices) },
                    web_searches: searches,
                    tier: served.map(str::to_owned),
                };
                if let (Ok(bound), Ok(cost)) = (Bound::of(price, &allowance), list_cost(price, &usage)) {
                    proptest::prop_assert!(bound.cost().unwrap() >= cost, "{} {usage:?} {bound:?} {cost:?}", price.model);
                    let smaller = Allowance { input: Input { text_bytes: text_bytes / 2, ..allowance.input }, ..allowance.clone() };
                    proptest::prop_assert!(Bound::of(price, &smaller).unwrap().cost() <= bound.cost());
                }
            }
        }
    }
}
