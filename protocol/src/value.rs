//! Free data: metadata that apps attach to entities. CHAOS stores it and does not interpret it.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, Visitor, value::MapAccessDeserializer},
};
use serde_json::{Map, Value};

use crate::{MAX_INTEGER, codec};

/// Maximum depth of free data. The map itself has depth 1.
pub const MAX_DEPTH: usize = 16;
/// Maximum size of free data, in bytes of MessagePack.
pub const MAX_BYTES: usize = 8192;

/// A map of JSON types with string keys, at most 16 levels deep and 8,192 bytes as MessagePack.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "schema", schema(value_type = Object))]
pub struct Metadata(pub Map<String, Value>);

impl<'de> Deserialize<'de> for Metadata {
    /// Reads a map. [`Map`] alone would take MessagePack's `nil` for an empty one.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MapVisitor;
        impl<'de> Visitor<'de> for MapVisitor {
            type Value = Metadata;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Metadata, A::Error> {
                Map::deserialize(MapAccessDeserializer::new(map)).map(Metadata)
            }
        }
        deserializer.deserialize_map(MapVisitor)
    }
}

/// The bound that free data exceeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutOfBounds {
    /// Deeper than [`MAX_DEPTH`].
    #[error("metadata is nested deeper than {MAX_DEPTH}")]
    Depth,
    /// Larger than [`MAX_BYTES`].
    #[error("metadata is larger than {MAX_BYTES} bytes")]
    Size,
    /// An integer beyond ±2⁵³.
    #[error("an integer in metadata is beyond ±2^53")]
    Integer,
}

impl Metadata {
    /// Returns whether the map is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Checks depth, size and the range of integers.
    pub fn check(&self) -> Result<(), OutOfBounds> {
        for value in self.0.values() {
            check(value, 2)?;
        }
        if codec::to_msgpack(self).len() > MAX_BYTES {
            Err(OutOfBounds::Size)
        } else {
            Ok(())
        }
    }

    /// Applies a JSON Merge Patch.
    pub fn merge(&mut self, patch: Map<String, Value>) {
        merge(&mut self.0, patch);
    }
}

fn check(value: &Value, depth: usize) -> Result<(), OutOfBounds> {
    match value {
        Value::Array(items) => {
            if depth > MAX_DEPTH {
                return Err(OutOfBounds::Depth);
            }
            items.iter().try_for_each(|v| check(v, depth + 1))
        }
        Value::Object(map) => {
            if depth > MAX_DEPTH {
                return Err(OutOfBounds::Depth);
            }
            map.values().try_for_each(|v| check(v, depth + 1))
        }
        Value::Number(n) => {
            let beyond = n.as_u64().is_some_and(|n| n > MAX_INTEGER)
                || n.as_i64().is_some_and(|n| n < -(MAX_INTEGER as i64));
            if beyond {
                Err(OutOfBounds::Integer)
            } else {
                Ok(())
            }
        }
        _ => Ok(()),
    }
}

fn merge(target: &mut Map<String, Value>, patch: Map<String, Value>) {
    for (key, value) in patch {
        match value {
            Value::Null => {
                target.remove(&key);
            }
            Value::Object(inner) => {
                let slot = target
                    .entry(key)
                    .or_insert_with(|| Value::Object(Map::new()));
                if !slot.is_object() {
                    *slot = Value::Object(Map::new());
                }
                if let Value::Object(map) = slot {
                    merge(map, inner);
                }
            }
            other => {
                target.insert(key, other);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{codec::Encoding, operation::message::SendMessage};

    fn metadata(value: Value) -> Metadata {
        Metadata(value.as_object().cloned().unwrap_or_default())
    }

    #[test]
    fn sixteen_levels_are_allowed_and_seventeen_are_not() {
        let nested = |levels: usize| (1..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert_eq!(metadata(nested(16)).check(), Ok(()));
        assert_eq!(metadata(nested(17)).check(), Err(OutOfBounds::Depth));
    }

    #[test]
    fn null_is_no_map_in_either_encoding() {
        for encoding in Encoding::ALL {
            for value in [json!({}), json!(null)] {
                let message = encoding.encode(&json!({ "metadata": value }));
                let attachment = json!({ "type": "image", "metadata": value });
                let attached = encoding.encode(&json!({ "attachments": [attachment] }));
                for bytes in [message, attached] {
                    let read = codec::from_client::<SendMessage>(encoding, &bytes);
                    assert_eq!(
                        read.is_ok(),
                        value.is_object(),
                        "{encoding:?} {value}: {read:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn size_and_integers_are_bounded() {
        assert_eq!(
            metadata(json!({ "a": "x".repeat(MAX_BYTES) })).check(),
            Err(OutOfBounds::Size)
        );
        assert_eq!(
            metadata(json!({ "a": MAX_INTEGER + 1 })).check(),
            Err(OutOfBounds::Integer)
        );
        assert_eq!(
            metadata(json!({ "a": MAX_INTEGER, "b": 1.5 })).check(),
            Ok(())
        );
    }

    #[test]
    fn a_merge_patch_sets_removes_and_goes_deep() {
        let mut target = metadata(json!({ "a": 1, "b": { "c": 1, "d": 2 } }));
        let patch = json!({ "a": null, "b": { "c": null, "e": { "f": null, "g": 1 } } });
        target.merge(patch.as_object().cloned().unwrap_or_default());
        assert_eq!(
            target,
            metadata(json!({ "b": { "d": 2, "e": { "g": 1 } } }))
        );
    }
}
