//! Looks into a stream that passes by: finds its usage and its end, and hides usage that the client did not ask for.
//!
//! Invariants: when nothing is to be hidden, the bytes that come out are those that went in, at once. When usage is to be hidden, no
//! complete event is held back. What is kept is at most one incomplete event of at most [`MAX_EVENT`] bytes. How the bytes are
//! cut into chunks changes nothing (law 18: a cut stream never yields more usage than the whole one).

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use super::{
    Dialect, Endpoint, responses, scan,
    scan::NotAnObject,
    sse,
    usage::{AnthropicUsage, OpenaiUsage, Usage},
};

/// Largest event that is followed; a larger one ends the stream.
pub const MAX_EVENT: usize = 1 << 20;

/// An event grew past [`MAX_EVENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the stream is larger than 1 MiB")]
pub struct EventTooLarge;

/// Watches one stream.
#[derive(Debug)]
pub struct StreamMeter {
    dialect: Dialect,
    hides: bool,
    partial: BytesMut,
    found: Found,
    ended: bool,
    failed: bool,
    sizes: Sizes,
    /// Of a response: which one it is, until it is taken.
    response: Option<String>,
}

#[derive(Debug)]
enum Found {
    Nothing,
    Openai(Usage),
    Anthropic(Box<AnthropicUsage>),
}

/// Sizes of the data of events. All events of a stream share the same frame (ids, model, …), so what exceeds the smallest one is
/// the text that was generated, near enough for an estimate and at no cost.
#[derive(Debug, Default)]
struct Sizes {
    sum: u64,
    count: u64,
    least: u64,
}

impl StreamMeter {
    /// Watches the answer to a request; `hides` when the gateway asked for usage and the client did not.
    pub fn new(endpoint: Endpoint, hides: bool) -> Self {
        Self {
            dialect: endpoint.dialect(|| false),
            hides,
            partial: BytesMut::new(),
            found: Found::Nothing,
            ended: false,
            failed: false,
            sizes: Sizes::default(),
            response: None,
        }
    }

    /// Takes bytes from the provider; hands what the client may see to `out`, in order and in whole events.
    ///
    /// # Errors
    /// When an event is too large to follow.
    pub fn push(&mut self, chunk: Bytes, out: &mut dyn FnMut(Bytes)) -> Result<(), EventTooLarge> {
        let mut rest = if self.partial.is_empty() {
            chunk
        } else {
            self.partial.extend_from_slice(&chunk);
            std::mem::take(&mut self.partial).freeze()
        };
        let mut seen = 0_usize;
        while let Some(end) = rest.get(seen..).and_then(sse::event_end) {
            let to = seen.saturating_add(end);
            let verdict = self.look(rest.get(seen..to).unwrap_or_default());
            if self.hides {
                match verdict {
                    Show::Whole => {}
                    Show::Nothing => {
                        send(rest.split_to(seen), out);
                        let _hidden = rest.split_to(end);
                        seen = 0;
                        continue;
                    }
                    Show::Without(cut) => {
                        send(rest.split_to(seen.saturating_add(cut.start)), out);
                        let _hidden = rest.split_to(cut.len());
                        seen = end.saturating_sub(cut.end);
                        continue;
                    }
                }
            }
            seen = to;
        }
        send(rest.split_to(seen), out);
        if rest.len() > MAX_EVENT {
            return Err(EventTooLarge);
        }
        self.partial = BytesMut::from(rest);
        Ok(())
    }

    /// The provider sent its last byte: hands out what was kept, and looks at a last event that lacks its empty line.
    pub fn finish(&mut self, out: &mut dyn FnMut(Bytes)) {
        let rest = std::mem::take(&mut self.partial).freeze();
        let verdict = self.look(&rest);
        if !self.hides || !matches!(verdict, Show::Nothing) {
            send(rest, out);
        }
    }

    /// The stream broke off: an event that was cut is dropped, as no client can read it.
    pub fn abandon(&mut self) {
        self.partial.clear();
    }

    /// Whether the mark that ends a stream of this dialect was seen: nothing of value can follow.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Whether the provider itself reported an error in the stream.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// How many events with data came so far.
    pub fn events(&self) -> u64 {
        self.sizes.count
    }

    /// The id of the response that the stream tells of, once.
    pub fn take_response(&mut self) -> Option<String> {
        self.response.take()
    }

    /// The usage reported so far; final once [`Self::ended`].
    pub fn usage(&self) -> Option<Usage> {
        match &self.found {
            Found::Nothing => None,
            Found::Openai(usage) => Some(usage.clone()),
            Found::Anthropic(usage) => usage.usage(),
        }
    }

    /// About how many bytes of text were generated so far.
    pub fn output_bytes(&self) -> u64 {
        self.sizes
            .sum
            .saturating_sub(self.sizes.count.saturating_mul(self.sizes.least))
    }

    fn look(&mut self, event: &[u8]) -> Show {
        let Some(range) = sse::data_range(event) else {
            return Show::Whole;
        };
        let data = event.get(range.clone()).unwrap_or_default();
        self.sizes.add(data.len());
        match self.dialect {
            Dialect::OpenaiChat => self.look_openai(data).shifted(range.start),
            Dialect::AnthropicMessages => {
                self.look_anthropic(data);
                Show::Whole
            }
            Dialect::OpenaiResponses => {
                self.look_response(data);
                Show::Whole
            }
        }
    }

    fn look_openai(&mut self, data: &[u8]) -> Show {
        if data.starts_with(b"[DONE]") {
            self.ended = true;
            return Show::Whole;
        }
        if data.starts_with(b"{\"error\"") {
            self.failed = true;
        }
        let Some(at) = memchr::memmem::find(data, b"\"usage\"") else {
            return Show::Whole;
        };
        const NULL: &[u8] = b"\"usage\":null";
        let before = at.checked_sub(1);
        if data.get(at..).is_some_and(|tail| tail.starts_with(NULL))
            && before.and_then(|b| data.get(b)) == Some(&b',')
        {
            return Show::Without(before.unwrap_or(at)..at.saturating_add(NULL.len()));
        }
        let Ok(members) = Chunk::read(data) else {
            return Show::Whole;
        };
        if let Some(usage) = members.usage {
            self.found = Found::Openai(usage);
        }
        match members.usage_member {
            Some(_) if members.empty_choices && members.has_usage => Show::Nothing,
            Some(member) => Show::Without(member),
            None => Show::Whole,
        }
    }

    /// Only events that begin or end something hold the response, or an error; those with text are not parsed.
    fn look_response(&mut self, data: &[u8]) {
        let holds = |key: &[u8]| memchr::memmem::find(data, key).is_some();
        if !holds(b"\"response\":") && !holds(b"\"error\"") {
            return;
        }
        let Ok(event) = serde_json::from_slice::<responses::Event>(data) else {
            return;
        };
        if let Some(response) = &event.response {
            if let Some(usage) = response.usage() {
                self.found = Found::Openai(usage);
            }
            if event.kind == "response.created" {
                self.response.clone_from(&response.id);
            }
        }
        self.ended |= event.is_last();
        self.failed |= event.trouble().is_some();
    }

    fn look_anthropic(&mut self, data: &[u8]) {
        if memchr::memmem::find(data, b"\"message_").is_none() {
            self.failed |= data.starts_with(b"{\"type\":\"error\"");
            return;
        }
        #[derive(Deserialize)]
        struct Event {
            #[serde(rename = "type")]
            kind: String,
            message: Option<Message>,
            usage: Option<AnthropicUsage>,
        }
        #[derive(Deserialize)]
        struct Message {
            usage: Option<AnthropicUsage>,
        }
        let Ok(event) = serde_json::from_slice::<Event>(data) else {
            return;
        };
        match (
            event.kind.as_str(),
            event.message.and_then(|m| m.usage),
            event.usage,
        ) {
            ("message_start", Some(usage), _) => self.found = Found::Anthropic(Box::new(usage)),
            ("message_delta", _, Some(later)) => match &mut self.found {
                Found::Anthropic(usage) => usage.merge(later),
                Found::Nothing | Found::Openai(_) => self.found = Found::Anthropic(Box::new(later)),
            },
            ("message_stop", _, _) => self.ended = true,
            _ => {}
        }
    }
}

/// What the client may see of an event.
#[derive(Debug)]
enum Show {
    Whole,
    Nothing,
    /// All but these bytes.
    Without(std::ops::Range<usize>),
}

impl Show {
    fn shifted(self, by: usize) -> Self {
        match self {
            Self::Without(range) => {
                Self::Without(range.start.saturating_add(by)..range.end.saturating_add(by))
            }
            Self::Whole | Self::Nothing => self,
        }
    }
}

impl Sizes {
    fn add(&mut self, len: usize) {
        let len = u64::try_from(len).unwrap_or(u64::MAX);
        self.least = if self.count == 0 {
            len
        } else {
            self.least.min(len)
        };
        self.sum = self.sum.saturating_add(len);
        self.count = self.count.saturating_add(1);
    }
}

/// What matters of a chunk that has a `usage` somewhere.
#[derive(Default)]
struct Chunk {
    usage: Option<Usage>,
    /// The member with one of its commas, when it stands at the top level.
    usage_member: Option<std::ops::Range<usize>>,
    has_usage: bool,
    empty_choices: bool,
}

impl Chunk {
    fn read(data: &[u8]) -> Result<Self, NotAnObject> {
        #[derive(Deserialize)]
        struct Groq {
            usage: Option<OpenaiUsage>,
        }
        let mut chunk = Self::default();
        let (mut own, mut groq, mut tier) = (None, None, None);
        scan::members::<NotAnObject>(data, |member| {
            let value = data.get(member.value.clone()).unwrap_or_default();
            match data.get(member.key.clone()) {
                Some(b"usage") => {
                    own = serde_json::from_slice::<Option<OpenaiUsage>>(value)
                        .ok()
                        .flatten();
                    let key_quote = member.key.start.saturating_sub(1);
                    chunk.usage_member = Some(
                        match key_quote
                            .checked_sub(1)
                            .filter(|b| data.get(*b) == Some(&b','))
                        {
                            Some(comma) => comma..member.value.end,
                            None => {
                                key_quote
                                    ..member.value.end.saturating_add(usize::from(
                                        data.get(member.value.end) == Some(&b','),
                                    ))
                            }
                        },
                    );
                }
                Some(b"x_groq") => {
                    groq = serde_json::from_slice::<Groq>(value)
                        .ok()
                        .and_then(|g| g.usage)
                }
                Some(b"service_tier") => {
                    tier = serde_json::from_slice::<Option<String>>(value)
                        .ok()
                        .flatten()
                }
                Some(b"choices") => {
                    chunk.empty_choices = value.iter().all(|b| matches!(b, b'[' | b']' | b' '))
                }
                _ => {}
            }
            Ok(())
        })?;
        chunk.has_usage = own.is_some();
        chunk.usage = own.or(groq).and_then(|usage| usage.usage(tier));
        Ok(chunk)
    }
}

fn send(bytes: Bytes, out: &mut dyn FnMut(Bytes)) {
    if !bytes.is_empty() {
        out(bytes);
    }
}
