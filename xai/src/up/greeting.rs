//! What a person reads when a gateway has started: where it is, and lines to paste.

use super::sockets::Addresses;
use crate::{process::say, settings::Line};

/// What there is to say.
pub(super) struct Greeting {
    pub(super) addresses: Addresses,
    pub(super) first_key: Option<String>,
    pub(super) demo: bool,
    pub(super) lines: Vec<Line>,
    pub(super) has_upstream: bool,
}

impl Greeting {
    /// Says it.
    pub(super) fn print(&self) {
        for line in &self.lines {
            say(&line.to_string());
        }
        let client = self.addresses.client;
        say("");
        say(&format!(
            "Gateway      http://{client}    for OpenAI clients http://{client}/v1"
        ));
        say(&format!(
            "Admin API    {}    gRPC over TLS; `xai --help` lists the commands",
            self.addresses.grpc
        ));
        say(&format!("Authority    {}", self.addresses.authority));
        say(&format!(
            "Operations   http://{}/ready, /metrics",
            self.addresses.ops
        ));
        match &self.first_key {
            Some(key) => self.print_calls(key),
            None => say(
                "The first virtual key was deleted or rotated; `xai key create` makes another one.",
            ),
        }
        if !self.has_upstream {
            say("");
            say(
                "There is no upstream key yet, so requests are refused. Start with XAI_KEYS=sk-…, or add one:",
            );
            say("  xai provider create openai --base https://api.openai.com");
            say("  xai upstream-key create --provider openai --secret-file -");
        }
        say("");
        say("Ctrl-C stops it: requests in flight may end; a second Ctrl-C does not wait.");
    }

    fn print_calls(&self, key: &str) {
        let client = self.addresses.client;
        say(&format!("Virtual key  {key}"));
        if self.demo {
            say(
                "             (two simulated providers answer; no real key is used, nothing costs anything)",
            );
        }
        say("");
        say("Try it:");
        say(&format!(
            "  curl http://{client}/v1/chat/completions -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' -d '{{\"model\": \"gpt-4o-mini\", \"messages\": [{{\"role\": \"user\", \"content\": \"Hello\"}}]}}'"
        ));
        say("");
        say("From Python (pip install openai):");
        say(&format!(
            "  python3 -c \"import openai; print(openai.OpenAI(base_url='http://{client}/v1', api_key='{key}').chat.completions.create(model='gpt-4o-mini', messages=[{{'role': 'user', 'content': 'Hello'}}]).choices[0].message.content)\""
        ));
    }
}
