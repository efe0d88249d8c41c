//! Schema pieces that the derive cannot express: list-maps, free-form objects, bounded maps.

use schemars::{Schema, SchemaGenerator, json_schema};

/// `status.conditions`: a list-map keyed by `type`.
pub fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": {"type": "string", "maxLength": 316, "description": "What the condition is about."},
                "status": {"type": "string", "enum": ["True", "False", "Unknown"], "description": "Whether it holds."},
                "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0, "description": "The metadata.generation that this is about."},
                "reason": {"type": "string", "maxLength": 1024, "description": "One word for machines: why."},
                "message": {"type": "string", "maxLength": 32768, "description": "One sentence for people: why, and what to do."},
                "lastTransitionTime": {"type": "string", "format": "date-time", "description": "When status last changed."}
            }
        }
    })
}

/// Any JSON object.
pub fn free_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// Any JSON value.
pub fn free_value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

/// Resource name → quantity, as in a ResourceQuota: `requests.cpu: "4"`. A whole number may go unquoted.
pub fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {"type": "string", "maxLength": 64, "pattern": "^[0-9]+(\\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"}
    })
}
