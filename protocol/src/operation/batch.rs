//! Batches: up to 100 items, each decoded and performed separately.

use std::marker::PhantomData;

use serde::{Deserialize, Serialize};
use serde_json::{
    Value,
    value::{RawValue, to_raw_value},
};

/// `POST …/batch`: up to 100 items, each performed separately.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Batch<T> {
    /// The items.
    #[cfg_attr(feature = "schema", schema(value_type = Vec<T>))]
    pub items: Vec<Item<T>>,
}

impl<T: Serialize> Batch<T> {
    /// Returns a batch of these items.
    pub fn of(items: &[T]) -> Self {
        Self {
            items: items.iter().map(Item::of).collect(),
        }
    }
}

/// An item of a batch as received, in JSON. Each item is decoded separately, so that one that
/// cannot be decoded does not affect the others.
#[derive(Debug, Clone)]
pub struct Item<T> {
    json: Box<RawValue>,
    kind: PhantomData<fn() -> T>,
}

impl<T> Serialize for Item<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return self.json.serialize(serializer);
        }
        serde_json::from_str::<Value>(self.json.get())
            .map_err(serde::ser::Error::custom)?
            .serialize(serializer)
    }
}

impl<'de, T> Deserialize<'de> for Item<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = if deserializer.is_human_readable() {
            Box::<RawValue>::deserialize(deserializer)?
        } else {
            to_raw_value(&Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)?
        };
        Ok(Self {
            json,
            kind: PhantomData,
        })
    }
}

impl<T> PartialEq for Item<T> {
    fn eq(&self, other: &Self) -> bool {
        self.as_json() == other.as_json()
    }
}

impl<T: Serialize> Item<T> {
    /// Returns an item of this value.
    pub fn of(item: &T) -> Self {
        let json = serde_json::to_value(item).and_then(|value| to_raw_value(&value));
        Self {
            json: json.expect("parameters have string keys"),
            kind: PhantomData,
        }
    }
}

impl<T> Item<T> {
    /// Returns the JSON as received: well-formed, but not decoded.
    pub fn as_json(&self) -> &str {
        self.json.get()
    }
}
