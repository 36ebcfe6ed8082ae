//! JSON with its members in the order in which the providers write them. Clients do not care, but whoever reads a stream by its bytes
//! meets no other order in the field, so neither must it here.

use serde_json::Value;

/// Names in their order, apart by spaces.
pub(crate) type Order = [&'static str; 2];

/// OpenAI, answers in one piece.
pub(crate) const OPENAI: Order = [
    "id object created model choices usage service_tier system_fingerprint",
    OPENAI_PARTS,
];
/// OpenAI, the last chunk of a stream.
pub(crate) const OPENAI_CHUNK: Order = [
    "id object created model service_tier system_fingerprint choices usage",
    OPENAI_PARTS,
];
/// OpenAI, what is new in a chunk; the place of a tool's call comes before its id.
pub(crate) const OPENAI_DELTA: Order = ["index id", OPENAI_PARTS];
const OPENAI_PARTS: &str = "index role content message delta type function name arguments tool_calls refusal annotations param code \
    logprobs finish_reason prompt_tokens completion_tokens total_tokens prompt_tokens_details completion_tokens_details cached_tokens \
    reasoning_tokens audio_tokens";
/// OpenAI, responses.
pub(crate) const RESPONSE: Order = [RESPONSE_PARTS, RESPONSE_MORE];
/// OpenAI, the events of responses.
pub(crate) const RESPONSE_EVENT: Order = [
    "type sequence_number item_id output_index content_index delta item part text logprobs arguments code message param response",
    "",
];
const RESPONSE_PARTS: &str = "id object type created_at status arguments call_id name background error incomplete_details instructions \
    max_output_tokens model output content role annotations logprobs text";
const RESPONSE_MORE: &str = "parallel_tool_calls previous_response_id reasoning service_tier store temperature format tool_choice tools \
    top_p truncation usage user metadata input_tokens input_tokens_details cached_tokens output_tokens output_tokens_details \
    reasoning_tokens total_tokens";
/// OpenAI, embeddings.
pub(crate) const OPENAI_LIST: Order = ["object data index embedding model usage", ""];
/// OpenAI, models.
pub(crate) const OPENAI_MODEL: Order = ["id object created owned_by data", ""];
/// Anthropic, all but whole messages.
pub(crate) const ANTHROPIC: Order = [
    "type index id name message delta content_block error usage request_id display_name created_at data has_more first_id last_id",
    ANTHROPIC_PARTS,
];
/// Anthropic, what has a role.
const ANTHROPIC_MESSAGE: Order = ["model id type role content", ANTHROPIC_PARTS];
const ANTHROPIC_PARTS: &str = "stop_reason stop_sequence input_tokens cache_creation_input_tokens cache_read_input_tokens cache_creation \
    ephemeral_5m_input_tokens output_tokens service_tier";

/// The text of a value, its members in this order; those that it does not name come last.
pub(crate) fn text(value: &Value, order: Order) -> String {
    let mut out = String::new();
    write(value, order, &mut out);
    out
}

fn write(value: &Value, order: Order, out: &mut String) {
    match value {
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                write(item, order, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let message = order == ANTHROPIC && members.contains_key("role");
            // What stands within an event of a response has the order of a response.
            let part = order == RESPONSE_EVENT && !members.contains_key("sequence_number");
            let own = match (message, part) {
                (true, _) => ANTHROPIC_MESSAGE,
                (false, true) => RESPONSE,
                (false, false) => order,
            };
            let rank = |name: &str| {
                let mut names = own.iter().flat_map(|part| part.split_whitespace());
                names.position(|known| known == name).unwrap_or(usize::MAX)
            };
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by_key(|(name, _)| rank(name));
            out.push('{');
            for (at, (name, value)) in sorted.into_iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write(value, order, out);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.push_str(&value.to_string());
        }
    }
}
