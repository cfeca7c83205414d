//! One example of every type that requests name and replies carry, made from its schema.

use protocol::{ChannelId, MessageId, UserId};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    NOW,
    replies::{channel, entry, message, participant, user},
};
use crate::schema::{id_prefix, named, properties, reference, schema_of, type_of};

/// Returns the example of a type.
pub(super) fn of<T: ToSchema + DeserializeOwned>() -> T {
    let json = known(&T::name()).unwrap_or_else(|| value("", &schema_of::<T>()));
    serde_json::from_value(json)
        .unwrap_or_else(|error| panic!("the example of {} is none: {error}", T::name()))
}

/// Returns the example of a type that has one written by hand.
fn known(type_name: &str) -> Option<Value> {
    Some(match type_name {
        "Channel" => json!(channel()),
        "Entry" | "EntryResult" => json!(entry()),
        "Message" => json!(message()),
        "Participant" => json!(participant()),
        "User" => json!(user()),
        "Cursor" => json!([42, NOW]),
        "Metadata" => json!({}),
        _ => return None,
    })
}

/// Returns a value of a schema; `field` is the name of the field that holds it.
fn value(field: &str, schema: &Value) -> Value {
    if let Some(name) = reference(schema) {
        return known(name).unwrap_or_else(|| value(field, named(name)));
    }
    if let Some(words) = schema["enum"].as_array() {
        return words[0].clone();
    }
    if !schema["example"].is_null() {
        return schema["example"].clone();
    }
    match type_of(schema) {
        Some("boolean") => json!(true),
        Some("integer") if field == "at" || field.ends_with("_at") => json!(NOW),
        Some("integer") => json!(1),
        Some("string") => match id_prefix(schema) {
            Some(prefix) => json!(id(prefix)),
            None if field == "emoji" => json!("👍"),
            None => json!("text"),
        },
        Some("array") => match schema["prefixItems"].as_array() {
            Some(items) => items.iter().map(|item| value(field, item)).collect(),
            None => json!([value(field, &schema["items"])]),
        },
        Some("object") if schema["additionalProperties"].is_object() => {
            let key = id_prefix(&schema["propertyNames"]).map_or_else(|| "name".to_owned(), id);
            let entry = (key, value(field, &schema["additionalProperties"]));
            Value::Object(Map::from_iter([entry]))
        }
        Some("object") => properties(schema)
            .map(|property| {
                let name = property.name.to_owned();
                (name, value(property.name, property.schema))
            })
            .collect(),
        other => panic!("{field} has a schema of type {other:?}: {schema}"),
    }
}

/// Returns an id with this prefix.
fn id(prefix: &str) -> String {
    match prefix {
        ChannelId::PREFIX => "general".to_owned(),
        UserId::PREFIX => "bob".to_owned(),
        MessageId::PREFIX => "msg_00000000000000a1".to_owned(),
        other => format!("{other}0000000000000001"),
    }
}
