//! The JSON Schema of a file, for editors and checks: made of the types that read it.

use serde_json::Value;

use super::file::File;

/// The schema, as it stands in `docs/schema/manifest.schema.json`.
pub fn schema() -> Value {
    let mut schema = schemars::schema_for!(File).to_value();
    if let Some(fields) = schema.as_object_mut() {
        fields.insert("title".to_owned(), Value::from("ProxyXAI manifest"));
    }
    schema
}
