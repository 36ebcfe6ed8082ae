//! Kinds of providers: which dialects they speak, and how a kind is guessed from an address.

use proxyxai_proto::config::v1 as proto;

use super::base_url::BaseUrl;
use crate::{account::key, dialect::Dialect};

/// The API family that an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProviderKind {
    /// api.openai.com.
    Openai,
    /// api.anthropic.com.
    Anthropic,
    /// Any other server that speaks OpenAI's dialect.
    OpenaiCompatible,
    /// A parent ProxyXAI gateway; speaks every dialect.
    Gateway,
}

impl ProviderKind {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::Openai,
        Self::Anthropic,
        Self::OpenaiCompatible,
        Self::Gateway,
    ];

    /// The word for it, everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::OpenaiCompatible => "openai_compatible",
            Self::Gateway => "gateway",
        }
    }

    /// The kind with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Whether requests of this dialect can be sent there unchanged.
    pub fn speaks(self, dialect: Dialect) -> bool {
        match self {
            Self::Openai | Self::OpenaiCompatible => {
                matches!(dialect, Dialect::OpenaiChat | Dialect::OpenaiResponses)
            }
            Self::Anthropic => dialect == Dialect::AnthropicMessages,
            Self::Gateway => true,
        }
    }

    /// Guesses the kind: a ProxyXAI key means a gateway, a known host its provider, all else is compatible with OpenAI.
    pub fn guess(base: &BaseUrl, secret: &str) -> Self {
        if secret.starts_with(key::PREFIX) {
            return Self::Gateway;
        }
        of_host(base.host()).unwrap_or(Self::OpenaiCompatible)
    }

    /// From the wire.
    pub fn from_proto(kind: proto::ProviderKind) -> Option<Self> {
        match kind {
            proto::ProviderKind::Unspecified => None,
            proto::ProviderKind::Openai => Some(Self::Openai),
            proto::ProviderKind::Anthropic => Some(Self::Anthropic),
            proto::ProviderKind::OpenaiCompatible => Some(Self::OpenaiCompatible),
            proto::ProviderKind::Gateway => Some(Self::Gateway),
        }
    }

    /// To the wire.
    pub fn to_proto(self) -> proto::ProviderKind {
        match self {
            Self::Openai => proto::ProviderKind::Openai,
            Self::Anthropic => proto::ProviderKind::Anthropic,
            Self::OpenaiCompatible => proto::ProviderKind::OpenaiCompatible,
            Self::Gateway => proto::ProviderKind::Gateway,
        }
    }
}

/// Whether the address is listed as one of the providers themselves: no gateway is behind it, so it is not told the way of a request.
pub fn is_official(base: &BaseUrl) -> bool {
    of_host(base.host()).is_some()
}

fn of_host(host: &str) -> Option<ProviderKind> {
    match host {
        "api.anthropic.com" => Some(ProviderKind::Anthropic),
        host if host == "api.openai.com" || host.ends_with(".api.openai.com") => {
            Some(ProviderKind::Openai)
        }
        _ => None,
    }
}
