//! The semantic conventions for generative AI (`gen_ai.*`), in the versions that can be chosen between.
//!
//! They are not stable: names are the same for a setting for ever, and a later version is another setting.

use std::{fmt, str::FromStr};

use super::Value;
use crate::{
    dialect::{Dialect, Endpoint, usage::Tokens},
    route::provider::ProviderKind,
};

/// A version of the conventions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conventions {
    /// 1.36: the provider is `gen_ai.system`.
    V1_36,
    /// 1.41, the last one before they moved to a repository of their own: the provider is `gen_ai.provider.name`.
    V1_41,
}

/// An attribute.
pub type Attribute = (&'static str, Value);

impl Conventions {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V1_36, Self::V1_41];

    /// As the setting calls it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1_36 => "1.36",
            Self::V1_41 => "1.41",
        }
    }

    /// Where its names are defined, for whoever reads spans.
    pub fn schema_url(self) -> &'static str {
        match self {
            Self::V1_36 => "https://opentelemetry.io/schemas/1.36.0",
            Self::V1_41 => "https://opentelemetry.io/schemas/1.41.0",
        }
    }

    /// Who answers. A gateway is told by the dialect that it is spoken to in.
    pub fn provider(self, kind: ProviderKind, dialect: Dialect) -> Attribute {
        let name = match (kind, dialect) {
            (ProviderKind::Anthropic, _) | (_, Dialect::AnthropicMessages) => "anthropic",
            (
                ProviderKind::Openai | ProviderKind::OpenaiCompatible | ProviderKind::Gateway,
                Dialect::OpenaiChat | Dialect::OpenaiResponses,
            ) => "openai",
        };
        let key = match self {
            Self::V1_36 => "gen_ai.system",
            Self::V1_41 => "gen_ai.provider.name",
        };
        (key, name.into())
    }

    /// What was consumed. All input is one number, caches included.
    pub fn usage(self, tokens: &Tokens) -> Vec<Attribute> {
        let written = tokens.cache_write_5m.saturating_add(tokens.cache_write_1h);
        let input = tokens
            .input
            .saturating_add(tokens.cache_read)
            .saturating_add(written);
        let mut all = vec![
            ("gen_ai.usage.input_tokens", input.into()),
            ("gen_ai.usage.output_tokens", tokens.output.into()),
        ];
        if self == Self::V1_41 {
            all.push((
                "gen_ai.usage.cache_read.input_tokens",
                tokens.cache_read.into(),
            ));
            all.push(("gen_ai.usage.cache_creation.input_tokens", written.into()));
        }
        all
    }
}

/// `gen_ai.operation.name`; `None` for what is no inference.
pub fn operation(endpoint: Endpoint) -> Option<&'static str> {
    match endpoint {
        Endpoint::ChatCompletions | Endpoint::Responses | Endpoint::Messages => Some("chat"),
        Endpoint::Embeddings => Some("embeddings"),
        Endpoint::CountTokens | Endpoint::Models => None,
    }
}

/// Why a text is no version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the conventions are of version 1.36 or 1.41")]
pub struct InvalidConventions;

impl FromStr for Conventions {
    type Err = InvalidConventions;

    fn from_str(text: &str) -> Result<Self, InvalidConventions> {
        let mut all = Self::ALL.into_iter();
        all.find(|one| one.as_str() == text)
            .ok_or(InvalidConventions)
    }
}

impl fmt::Display for Conventions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
