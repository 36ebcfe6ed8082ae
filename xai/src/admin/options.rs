//! Options that several nouns share: what something may be used for, and how a write is guarded.

use proxyxai_proto::admin::v1::StringList;

/// Lists for something new.
#[derive(Debug, clap::Args)]
pub struct Allow {
    /// A model that it may use, `*` standing for any characters; may be given several times [default: all that is allowed above].
    #[arg(long, value_name = "PATTERN")]
    pub allow_model: Vec<String>,
    /// An endpoint that it may call (chat.completions, embeddings, responses, messages, messages.count_tokens, models); may be given several times [default: all that is allowed above].
    #[arg(long, value_name = "ENDPOINT")]
    pub allow_endpoint: Vec<String>,
    /// An address or block of addresses that it may be used from, such as 192.0.2.0/24; may be given several times [default: all that is allowed above].
    #[arg(long, value_name = "CIDR")]
    pub allow_from: Vec<String>,
}

/// Lists in place of those that there are.
#[derive(Debug, clap::Args)]
pub struct SetAllow {
    /// The models that it may use from now on; may be given several times.
    #[arg(long, value_name = "PATTERN")]
    allow_model: Vec<String>,
    /// It may use all models that are allowed above.
    #[arg(long, conflicts_with = "allow_model")]
    allow_all_models: bool,
    /// The endpoints that it may call from now on; may be given several times.
    #[arg(long, value_name = "ENDPOINT")]
    allow_endpoint: Vec<String>,
    /// It may call all endpoints that are allowed above.
    #[arg(long, conflicts_with = "allow_endpoint")]
    allow_all_endpoints: bool,
    /// The addresses and blocks that it may be used from, from now on; may be given several times.
    #[arg(long, value_name = "CIDR")]
    allow_from: Vec<String>,
    /// It may be used from all addresses that are allowed above.
    #[arg(long, conflicts_with = "allow_from")]
    allow_from_anywhere: bool,
}

impl SetAllow {
    /// The models, if anything was said of them.
    pub fn models(&self) -> Option<StringList> {
        list(&self.allow_model, self.allow_all_models)
    }

    /// The endpoints, if anything was said of them.
    pub fn endpoints(&self) -> Option<StringList> {
        list(&self.allow_endpoint, self.allow_all_endpoints)
    }

    /// The addresses, if anything was said of them.
    pub fn networks(&self) -> Option<StringList> {
        list(&self.allow_from, self.allow_from_anywhere)
    }
}

fn list(values: &[String], all: bool) -> Option<StringList> {
    (all || !values.is_empty()).then(|| StringList {
        values: values.to_vec(),
    })
}

/// For writes that must not undo what others wrote meanwhile.
#[derive(Debug, clap::Args)]
pub struct IfVersion {
    /// Only if the object still has this `resource_version`, as `show --output json` prints it.
    #[arg(
        long,
        value_name = "VERSION",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub if_version: u64,
}

/// For calls that may be repeated.
#[derive(Debug, clap::Args)]
pub struct Once {
    /// A text of your choice that names this call: repeated within 24 hours, it does nothing again.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub idempotency_key: String,
}

/// Reads yes or no.
pub fn yes_or_no(word: &str) -> Result<bool, String> {
    match word {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err("say yes or no".to_owned()),
    }
}
