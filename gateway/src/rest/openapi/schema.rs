//! Schemas of the types that operations carry.

use std::collections::{BTreeMap, BTreeSet};

use protocol::bounds::{Bound, URL_CHARS, URL_PATTERN, bound};
use serde_json::{Map, Value, json};
use utoipa::{
    ToSchema,
    openapi::{RefOr, Schema},
};

/// Returns the name of a type's schema in references: `Channel`, and `List_Channel` for
/// `List<Channel>`.
pub(super) fn schema_name<T: ToSchema>() -> String {
    let path = std::any::type_name::<T>();
    let plain = |path: &str| {
        path.trim_end_matches('>')
            .rsplit("::")
            .next()
            .unwrap_or(path)
            .to_owned()
    };
    path.split('<').map(plain).collect::<Vec<_>>().join("_")
}

pub(super) fn as_json(schema: &RefOr<Schema>) -> Value {
    serde_json::to_value(schema).expect("a schema is JSON")
}

pub(super) fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// Returns the names of these schemas and of all that they refer to.
pub(super) fn reachable(
    names: BTreeSet<String>,
    schemas: &BTreeMap<String, Value>,
) -> BTreeSet<String> {
    let (mut found, mut waiting) = (BTreeSet::new(), Vec::from_iter(names));
    while let Some(name) = waiting.pop() {
        if let Some(schema) = schemas.get(&name)
            && found.insert(name)
        {
            references(schema, &mut waiting);
        }
    }
    found
}

/// Adds the names of the schemas that a schema refers to.
pub(super) fn references(schema: &Value, names: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            let name = fields
                .get("$ref")
                .and_then(Value::as_str)
                .and_then(|path| path.rsplit('/').next());
            names.extend(name.map(str::to_owned));
            fields.values().for_each(|field| references(field, names));
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, names)),
        _ => {}
    }
}

/// Returns the schema of a field, with its bound.
pub(super) fn bounded(of: &str, field: &str, schema: &Value) -> Value {
    let mut schema = schema["properties"][field].clone();
    constrain(of, field, &mut schema);
    schema
}

/// Adds the bound of a field to its schema.
pub(super) fn constrain(of: &str, field: &str, schema: &mut Value) {
    let keywords = match bound(of, field) {
        None => return,
        Some(Bound::Chars(0, most)) => json!({ "maxLength": most }),
        Some(Bound::Chars(least, most)) => json!({ "minLength": least, "maxLength": most }),
        Some(Bound::Url) => json!({ "maxLength": URL_CHARS, "pattern": URL_PATTERN }),
        Some(Bound::Items(most)) => json!({ "maxItems": most }),
        Some(Bound::AtLeast(least)) => json!({ "minimum": least }),
        Some(Bound::Between(least, most)) => json!({ "minimum": least, "maximum": most }),
    };
    let keywords = keywords.as_object().into_iter().flatten();
    keywords.for_each(|(keyword, value)| schema[keyword] = value.clone());
}

/// Removes `null` from the types that a schema allows.
pub(super) fn without_null(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Array(types)) = fields.get_mut("type") {
                types.retain(|name| name != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    fields.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(choices)) = fields.get_mut("oneOf") {
                choices.retain(|choice| choice["type"] != "null");
                if let [only] = choices.as_slice() {
                    let only = only.as_object().cloned().unwrap_or_default();
                    fields.remove("oneOf");
                    let described: Map<String, Value> = std::mem::take(fields);
                    fields.extend(only);
                    fields.extend(described);
                }
            }
            fields.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}
