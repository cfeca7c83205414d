//! Lossless conversion of stored bytes to readable JSON and back.
//!
//! MessagePack becomes the JSON of the same value, with binary data as `{"$bytes": base64}`. Bytes
//! that would not survive the round trip (a number in more bytes than it needs, or no MessagePack
//! at all) become `{"$raw": base64}`. Every value is converted back before it is written.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::codec;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};
use serde_json::value::RawValue;

const BYTES_KEY: &str = "$bytes";
const RAW_KEY: &str = "$raw";

/// Returns the value of a document as JSON.
pub(super) fn value_to_json(bytes: &[u8]) -> Box<RawValue> {
    json_or_raw(bytes, msgpack_to_json(bytes), value_from_json)
}

/// Returns the value of a document as stored bytes; `None` if the JSON is no such value.
pub(super) fn value_from_json(json: &RawValue) -> Option<Vec<u8>> {
    match serde_json::from_str(json.get()).ok()? {
        Value::Map(entries) => match &entries[..] {
            [(name, Value::Text(text))] if name == RAW_KEY => STANDARD.decode(text).ok(),
            _ => Some(codec::to_msgpack(&Value::Map(entries))),
        },
        value => Some(codec::to_msgpack(&value)),
    }
}

/// Returns the reference of a log entry as JSON. Most references are a key in plain text.
pub(super) fn reference_to_json(bytes: &[u8]) -> Box<RawValue> {
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains(char::is_control));
    json_or_raw(
        bytes,
        text.map_or_else(|| msgpack_to_json(bytes), |text| to_raw_json(&text)),
        reference_from_json,
    )
}

/// Returns the reference of a log entry as stored bytes; `None` if the JSON is no such value.
pub(super) fn reference_from_json(json: &RawValue) -> Option<Vec<u8>> {
    match serde_json::from_str::<String>(json.get()) {
        Ok(text) => Some(text.into_bytes()),
        Err(_) => value_from_json(json),
    }
}

/// Returns `json` if it converts back to exactly `bytes`, and `{"$raw": …}` otherwise.
fn json_or_raw(
    bytes: &[u8],
    json: Option<Box<RawValue>>,
    from_json: fn(&RawValue) -> Option<Vec<u8>>,
) -> Box<RawValue> {
    json.filter(|json| from_json(json).as_deref() == Some(bytes))
        .or_else(|| {
            to_raw_json(&Value::Map(vec![(
                RAW_KEY.to_owned(),
                Value::Text(STANDARD.encode(bytes)),
            )]))
        })
        .expect("text is JSON")
}

fn msgpack_to_json(bytes: &[u8]) -> Option<Box<RawValue>> {
    codec::from_msgpack::<Value>(bytes)
        .ok()
        .and_then(|value| to_raw_json(&value))
}

fn to_raw_json<T: Serialize>(value: &T) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(value).ok()
}

/// A value that both encodings can express. Maps keep the order of their entries.
#[derive(Clone)]
enum Value {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    Bytes(Vec<u8>),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nil => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Unsigned(value) => serializer.serialize_u64(*value),
            Self::Signed(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) if serializer.is_human_readable() => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(BYTES_KEY, &STANDARD.encode(bytes))?;
                map.end()
            }
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(items) => {
                let mut list = serializer.serialize_seq(Some(items.len()))?;
                items
                    .iter()
                    .try_for_each(|item| list.serialize_element(item))?;
                list.end()
            }
            Self::Map(entries) => {
                let mut map = serializer.serialize_map(Some(entries.len()))?;
                entries
                    .iter()
                    .try_for_each(|(name, value)| map.serialize_entry(name, value))?;
                map.end()
            }
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let is_json = deserializer.is_human_readable();
        deserializer.deserialize_any(ValueVisitor { is_json })
    }
}

struct ValueVisitor {
    is_json: bool,
}

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with text for keys")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Unsigned(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Signed(value))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry::<String, Value>()? {
            entries.push(entry);
        }
        match &entries[..] {
            [(name, Value::Text(text))] if self.is_json && name == BYTES_KEY => STANDARD
                .decode(text)
                .map(Value::Bytes)
                .map_err(|_| A::Error::custom("$bytes is not base64")),
            _ => Ok(Value::Map(entries)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;

    fn assert_converts(bytes: &[u8], expected: &str) {
        let json = value_to_json(bytes);
        assert_eq!(
            (json.get(), value_from_json(&json).unwrap()),
            (expected, bytes.to_vec())
        );
    }

    #[test]
    fn msgpack_becomes_json_of_the_same_value() {
        assert_converts(
            &codec::to_msgpack(&serde_json::json!({"a": [1, -1, 0.5, null, true, "x"]})),
            r#"{"a":[1,-1,0.5,null,true,"x"]}"#,
        );
        assert_converts(b"\x82\xa1z\x01\xa1a\x02", r#"{"z":1,"a":2}"#);
        assert_converts(
            b"\x81\xa6Sealed\xc4\x02hi",
            r#"{"Sealed":{"$bytes":"aGk="}}"#,
        );
        assert_converts(
            b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
            "18446744073709551615",
        );
        assert_converts(b"\xc0", "null");
        assert_converts(b"\xcb\x3f\xf0\0\0\0\0\0\0", "1.0");
    }

    #[test]
    fn bytes_that_json_would_change_stay_raw() {
        assert_converts(b"", r#"{"$raw":""}"#);
        // A one in two bytes, a float of four bytes, NaN, a map key that is not text, and a map
        // that looks like `$bytes`.
        for odd in [
            &b"\xcc\x01"[..],
            b"\xca\x3f\x80\0\0",
            b"\xcb\x7f\xf8\0\0\0\0\0\0",
            b"\x81\x01\x02",
            b"\x81\xa6$bytes\xa4aGk=",
        ] {
            assert!(
                value_to_json(odd).get().starts_with(r#"{"$raw":"#),
                "{odd:x?}"
            );
            assert_eq!(value_from_json(&value_to_json(odd)).unwrap(), odd);
        }
        let mut deep = vec![0x91; 200];
        deep.push(1);
        assert_eq!(value_from_json(&value_to_json(&deep)).unwrap(), deep);
    }

    #[test]
    fn reference_that_is_a_key_becomes_text() {
        for (bytes, expected) in [
            (&b"msg_1"[..], r#""msg_1""#),
            (b"", r#""""#),
            (b"a", r#""a""#),
            (b"\x81\xa1u\x01", r#"{"u":1}"#),
        ] {
            assert_eq!(
                (
                    reference_to_json(bytes).get(),
                    reference_from_json(&reference_to_json(bytes)).unwrap()
                ),
                (expected, bytes.to_vec())
            );
        }
    }

    #[test]
    fn invalid_base64_is_refused() {
        for wrong in [r#"{"$raw":"?"}"#, r#"{"$bytes":"?"}"#] {
            assert_eq!(
                value_from_json(&serde_json::from_str::<Box<RawValue>>(wrong).unwrap()),
                None
            );
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::Bool),
            any::<u64>().prop_map(Value::Unsigned),
            any::<i64>().prop_map(Value::Signed),
            any::<f64>().prop_map(Value::Float),
            any::<String>().prop_map(Value::Text),
            proptest::collection::vec(any::<u8>(), 0..9).prop_map(Value::Bytes),
        ];
        let name = prop_oneof![
            any::<String>(),
            Just(BYTES_KEY.to_owned()),
            Just(RAW_KEY.to_owned())
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                proptest::collection::vec((name.clone(), inner), 0..4).prop_map(Value::Map),
            ]
        })
    }

    impl fmt::Debug for Value {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "{:x?}", codec::to_msgpack(self))
        }
    }

    proptest! {
        #[test]
        fn every_value_survives_the_round_trip(value in any_value()) {
            let bytes = codec::to_msgpack(&value);
            prop_assert_eq!(value_from_json(&value_to_json(&bytes)).unwrap(), bytes.clone());
            prop_assert_eq!(reference_from_json(&reference_to_json(&bytes)).unwrap(), bytes);
        }

        #[test]
        fn any_bytes_survive_the_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(value_from_json(&value_to_json(&bytes)).unwrap(), bytes.clone());
            prop_assert_eq!(reference_from_json(&reference_to_json(&bytes)).unwrap(), bytes);
        }
    }
}
