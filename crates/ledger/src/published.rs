//! The JSON Schemas of an export's lines, for those who read records with tools of their own. Printed from the types.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::entry::Entry;
use crate::root::Statement;

/// JSON Schema (2020-12) of an exported line: a record, or a signed root.
///
/// Fields that are not listed may come with any version; a reader skips what it does not know.
#[must_use]
pub fn line_schema() -> Value {
    let record = with::<Entry>("hash", &["format", "id", "seq", "time", "org", "kind", "prev", "epoch", "hash"]);
    let root = with::<Statement>(
        "signature",
        &["kind", "format", "installation", "org", "segment", "first", "last", "lastHash", "previous", "keyId", "publicKey", "signature"],
    );
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "https://polity.dev/schemas/ledger-line.v1.json",
        "title": "A line of an exported chain",
        "if": {"properties": {"kind": {"const": "root"}}, "required": ["kind"]},
        "then": root,
        "else": record,
    })
}

/// The schema of a type, with the member that an exported line has besides, and what is always there.
fn with<T: JsonSchema>(member: &str, required: &[&str]) -> Value {
    let schema: Schema = SchemaSettings::draft2020_12().with(|s| s.inline_subschemas = true).into_generator().into_root_schema_for::<T>();
    let mut schema = schema.to_value();
    if let Some(object) = schema.as_object_mut() {
        object.remove("$schema");
        object.insert("required".to_owned(), json!(required));
        if let Some(Value::Object(properties)) = object.get_mut("properties") {
            properties.insert(member.to_owned(), json!({"type": "string", "pattern": "^[0-9a-f]+$"}));
        }
    }
    schema
}
