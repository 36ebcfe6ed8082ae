//! Options for how old a node's configuration may become before it refuses an account.

use proxyxai_proto::config::v1::ServeExpired;

use super::settings::whole_seconds;

/// What an account says of it.
#[derive(Debug, clap::Args)]
pub struct Staleness {
    /// Refuse it and all below it by a node that had no contact with its control plane for so long, from 60s to 365d; at most what accounts above say, and `inherit` says nothing.
    #[arg(long, value_name = "SPAN", value_parser = seconds)]
    max_stale: Option<u64>,
    /// Serve it and all below it also past the `max_stale` of the deployment: yes, no, or `inherit` to say nothing [default when given alone: yes].
    #[arg(long, value_name = "YES_OR_NO", value_parser = serve_expired, num_args = 0..=1, require_equals = true, default_missing_value = "yes")]
    serve_expired: Option<ServeExpired>,
}

impl Staleness {
    /// Seconds, 0 for nothing, if anything was said of them.
    pub fn max_stale_seconds(&self) -> Option<u64> {
        self.max_stale
    }

    /// What was said of serving past the limit of the deployment.
    pub fn serve_expired(&self) -> Option<i32> {
        self.serve_expired.map(i32::from)
    }
}

fn seconds(word: &str) -> Result<u64, String> {
    match word {
        "inherit" => Ok(0),
        span => whole_seconds(span),
    }
}

fn serve_expired(word: &str) -> Result<ServeExpired, String> {
    match word {
        "yes" | "true" => Ok(ServeExpired::Allowed),
        "no" | "false" => Ok(ServeExpired::Forbidden),
        "inherit" => Ok(ServeExpired::Unspecified),
        _ => Err("say yes, no or inherit".to_owned()),
    }
}

/// Whether it is allowed or forbidden; `None` when nothing is said.
pub fn said(serve_expired: ServeExpired) -> Option<bool> {
    match serve_expired {
        ServeExpired::Unspecified => None,
        ServeExpired::Allowed => Some(true),
        ServeExpired::Forbidden => Some(false),
    }
}
