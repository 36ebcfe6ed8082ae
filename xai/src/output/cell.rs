//! One value of an object as a cell of a table. What a number means follows from the end of its field's name.

use jiff::Timestamp;
use proxyxai_core::money::nano::NanoUsd;
use serde_json::Value;

/// The text of what stands at `place` in an object.
pub fn text(item: &Value, place: &str) -> String {
    let value = place
        .split('.')
        .try_fold(item, |value, field| value.get(field))
        .unwrap_or(&Value::Null);
    match value {
        Value::Null => String::new(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => match number.as_i64() {
            Some(ms) if place.ends_with("unix_ms") => time(ms),
            Some(nano) if place.ends_with("_nano_usd") => NanoUsd(nano).to_string(),
            _ => number.to_string(),
        },
        Value::String(text) => text.clone(),
        Value::Array(items) => items
            .iter()
            .map(|item| {
                item.as_str()
                    .map_or_else(|| item.to_string(), str::to_owned)
            })
            .collect::<Vec<_>>()
            .join(", "),
        Value::Object(_) => value.to_string(),
    }
}

fn time(unix_ms: i64) -> String {
    Timestamp::from_millisecond(unix_ms).map_or_else(
        |_| unix_ms.to_string(),
        |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string(),
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::text;

    #[test]
    fn cells_say_what_the_fields_mean() {
        let item = json!({
            "id": "a", "disabled": false, "models": ["x", "y*"], "created_unix_ms": 1_795_521_600_123_i64,
            "cost_nano_usd": 10_500, "tokens": { "input": 7 }, "nothing": null,
        });
        let check = |place: &str, shown: &str| assert_eq!(text(&item, place), shown);
        check("id", "a");
        check("disabled", "no");
        check("models", "x, y*");
        check("created_unix_ms", "2026-11-24 12:00:00Z");
        check("cost_nano_usd", "0.0000105");
        check("tokens.input", "7");
        check("nothing", "");
        check("missing.deeper", "");
    }
}
