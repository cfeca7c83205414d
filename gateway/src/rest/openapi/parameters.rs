//! Parameters in paths, queries and headers.

use protocol::operation::{Conditions, HttpMethod, path_field};
use serde_json::{Value, json};
use utoipa::{PartialSchema, ToSchema};

use super::schema::{as_json, bounded, schema_name, without_null};

/// Returns the placeholders of a path as parameters, in order.
pub(super) fn path_parameters<T: PartialSchema>(path: &str) -> Vec<Value> {
    let schema = as_json(&T::schema());
    let placeholders = path.split(['{', '}']).skip(1).step_by(2);
    placeholders
        .map(|name| parameter(name, "path", true, bounded("", &path_field(name), &schema)))
        .collect()
}

/// Returns the fields of a type as query parameters.
pub(super) fn query_parameters<T: ToSchema>() -> Vec<Value> {
    let (of, schema) = (schema_name::<T>(), as_json(&T::schema()));
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let fields = schema["properties"].as_object().into_iter().flatten();
    fields
        .map(|(name, _)| {
            parameter(
                name,
                "query",
                required.contains(&name.as_str()),
                bounded(&of, name, &schema),
            )
        })
        .collect()
}

pub(super) fn parameter(name: &str, place: &str, is_required: bool, mut schema: Value) -> Value {
    without_null(&mut schema);
    let description = schema
        .as_object_mut()
        .and_then(|fields| fields.remove("description"));
    let mut parameter =
        json!({ "name": name, "in": place, "required": is_required, "schema": schema });
    if let Some(description) = description {
        parameter["description"] = description;
    }
    parameter
}

/// Returns the request header that the operation evaluates, besides the credential.
pub(super) fn headers(method: HttpMethod, conditions: Conditions) -> Option<Value> {
    let header = |name: &str, description: &str, mut schema: Value| {
        schema["type"] = "string".into();
        json!({ "name": name, "in": "header", "required": false, "description": description, "schema": schema })
    };
    match (method, conditions) {
        (HttpMethod::Post, _) => Some(header(
            "Idempotency-Key",
            "The same request with the same key, within 24 hours, is answered as the first one was, without secrets that are shown once; of a sent message, as it is now.",
            json!({ "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" }),
        )),
        (_, Conditions::Read) => Some(header(
            "If-None-Match",
            "Tags that the caller has: if the entity still has one of them, the answer is 304.",
            json!({}),
        )),
        (_, Conditions::Write) => Some(header(
            "If-Match",
            "The `ETag` that the entity must still have, or `*`: it must exist.",
            json!({ "example": "*" }),
        )),
        (_, Conditions::None) => None,
    }
}
