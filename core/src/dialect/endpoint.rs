//! Which path speaks which dialect. The path decides: current SDKs of both families send the same credential header.

/// The API that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dialect {
    /// OpenAI's chat completions, embeddings and models.
    OpenaiChat,
    /// OpenAI's responses.
    OpenaiResponses,
    /// Anthropic's messages and models.
    AnthropicMessages,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Self; 3] = [
        Self::OpenaiChat,
        Self::OpenaiResponses,
        Self::AnthropicMessages,
    ];

    /// The word for it, everywhere.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OpenaiChat => "openai_chat",
            Self::OpenaiResponses => "openai_responses",
            Self::AnthropicMessages => "anthropic_messages",
        }
    }
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    /// `POST /v1/chat/completions`.
    ChatCompletions,
    /// `POST /v1/embeddings`.
    Embeddings,
    /// `POST /v1/responses`.
    Responses,
    /// `POST /v1/messages`.
    Messages,
    /// `POST /v1/messages/count_tokens`, which costs nothing.
    CountTokens,
    /// `GET /v1/models` and `GET /v1/models/{id}`, which both dialects have.
    Models,
}

impl Endpoint {
    /// Every endpoint.
    pub const ALL: [Self; 6] = [
        Self::ChatCompletions,
        Self::Embeddings,
        Self::Responses,
        Self::Messages,
        Self::CountTokens,
        Self::Models,
    ];

    /// The word for it in metrics, usage events and lists of what is allowed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "chat.completions",
            Self::Embeddings => "embeddings",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::CountTokens => "messages.count_tokens",
            Self::Models => "models",
        }
    }

    /// Its path, without what differs between requests.
    pub fn route(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Responses => "/v1/responses",
            Self::Messages => "/v1/messages",
            Self::CountTokens => "/v1/messages/count_tokens",
            Self::Models => "/v1/models",
        }
    }

    /// The endpoint with this word.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|endpoint| endpoint.as_str() == word)
    }

    /// The dialect of a request; models are told apart by a header that only Anthropic's clients send.
    pub fn dialect(self, anthropic_header: impl FnOnce() -> bool) -> Dialect {
        match self {
            Self::ChatCompletions | Self::Embeddings => Dialect::OpenaiChat,
            Self::Responses => Dialect::OpenaiResponses,
            Self::Messages | Self::CountTokens => Dialect::AnthropicMessages,
            Self::Models if anthropic_header() => Dialect::AnthropicMessages,
            Self::Models => Dialect::OpenaiChat,
        }
    }

    /// The one method that it answers.
    pub fn method(self) -> &'static str {
        match self {
            Self::ChatCompletions
            | Self::Embeddings
            | Self::Responses
            | Self::Messages
            | Self::CountTokens => "POST",
            Self::Models => "GET",
        }
    }

    /// Whether providers ask nothing for it: its answers report no usage that is charged.
    pub fn is_free(self) -> bool {
        match self {
            Self::CountTokens | Self::Models => true,
            Self::ChatCompletions | Self::Embeddings | Self::Responses | Self::Messages => false,
        }
    }
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoEndpoint {
    /// Nothing is there.
    UnknownPath,
    /// Something is there, for another method.
    MethodNotAllowed(Endpoint),
    /// The provider has something there that is not passed on: what is said is what to do instead.
    NotPassedOn(&'static str),
}

/// Of the paths below `/v1/responses`.
const STORED_RESPONSES: &str = "responses are created here, streamed or not (POST /v1/responses), and not read, listed, cancelled, deleted or compacted afterwards: keep what the first answer says, and go on from it with `previous_response_id`";
/// Of the other paths below `/v1/messages`.
const BATCHES: &str = "messages are created and counted here (POST /v1/messages, POST /v1/messages/count_tokens); batches of messages are not passed on: send each message by itself";

/// Finds the endpoint of a request line.
///
/// # Errors
/// Tells an unknown path from a wrong method.
pub fn find(method: &str, path: &str) -> Result<Endpoint, NoEndpoint> {
    let endpoint = match path.strip_suffix('/').unwrap_or(path) {
        "/v1/chat/completions" => Endpoint::ChatCompletions,
        "/v1/embeddings" => Endpoint::Embeddings,
        "/v1/messages" => Endpoint::Messages,
        "/v1/responses" => Endpoint::Responses,
        "/v1/messages/count_tokens" => Endpoint::CountTokens,
        "/v1/models" => Endpoint::Models,
        other
            if other
                .strip_prefix("/v1/models/")
                .is_some_and(|id| !id.is_empty()) =>
        {
            Endpoint::Models
        }
        other if other.starts_with("/v1/responses/") => {
            return Err(NoEndpoint::NotPassedOn(STORED_RESPONSES));
        }
        other if other.starts_with("/v1/messages/") => {
            return Err(NoEndpoint::NotPassedOn(BATCHES));
        }
        _ => return Err(NoEndpoint::UnknownPath),
    };
    if method == endpoint.method() {
        Ok(endpoint)
    } else {
        Err(NoEndpoint::MethodNotAllowed(endpoint))
    }
}

/// The dialect to speak about a path that leads nowhere.
pub fn dialect_of_path(path: &str, anthropic_header: bool) -> Dialect {
    if anthropic_header || path.starts_with("/v1/messages") {
        Dialect::AnthropicMessages
    } else if path.starts_with("/v1/responses") {
        Dialect::OpenaiResponses
    } else {
        Dialect::OpenaiChat
    }
}
