//! What a store keeps as bytes, as JSON that people can read, and exactly those bytes back.
//!
//! Nearly everything is MessagePack and becomes the JSON of the same value, bytes in it
//! `{"$bytes": base64}`. What would not come back bit for bit (a number in more bytes than it
//! needs, say, or no MessagePack at all) is `{"$raw": base64}`: each is tried before it is written.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use protocol::codec;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
    ser::{SerializeMap, SerializeSeq},
};
use serde_json::value::RawValue;

const BYTES: &str = "$bytes";
const RAW: &str = "$raw";

/// The JSON of a document's value.
pub(super) fn value(bytes: &[u8]) -> Box<RawValue> {
    exactly(bytes, value_of(bytes), value_back)
}

/// The bytes of a document's value.
pub(super) fn value_back(json: &RawValue) -> Option<Vec<u8>> {
    match serde_json::from_str(json.get()).ok()? {
        Value::Map(entries) => match &entries[..] {
            [(name, Value::Text(text))] if name == RAW => STANDARD.decode(text).ok(),
            _ => Some(codec::to_msgpack(&Value::Map(entries))),
        },
        value => Some(codec::to_msgpack(&value)),
    }
}

/// The JSON of what an entry of the log refers to. Most are a key, and plain text.
pub(super) fn reference(bytes: &[u8]) -> Box<RawValue> {
    let text = std::str::from_utf8(bytes)
        .ok()
        .filter(|text| !text.contains(char::is_control));
    exactly(
        bytes,
        text.map_or_else(|| value_of(bytes), |text| json(&text)),
        reference_back,
    )
}

/// The bytes of a reference.
pub(super) fn reference_back(json: &RawValue) -> Option<Vec<u8>> {
    match serde_json::from_str::<String>(json.get()) {
        Ok(text) => Some(text.into_bytes()),
        Err(_) => value_back(json),
    }
}

/// The JSON if it comes back as these bytes, and otherwise the bytes themselves.
fn exactly(
    bytes: &[u8],
    read: Option<Box<RawValue>>,
    back: fn(&RawValue) -> Option<Vec<u8>>,
) -> Box<RawValue> {
    let exact = read.filter(|json| back(json).as_deref() == Some(bytes));
    exact
        .or_else(|| {
            json(&Value::Map(vec![(
                RAW.to_owned(),
                Value::Text(STANDARD.encode(bytes)),
            )]))
        })
        .expect("text is JSON")
}

fn value_of(bytes: &[u8]) -> Option<Box<RawValue>> {
    codec::from_msgpack::<Value>(bytes)
        .ok()
        .and_then(|value| json(&value))
}

fn json<T: Serialize>(value: &T) -> Option<Box<RawValue>> {
    serde_json::value::to_raw_value(value).ok()
}

/// A value of both encodings, its maps in their own order.
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
                map.serialize_entry(BYTES, &STANDARD.encode(bytes))?;
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
        deserializer.deserialize_any(Reader { is_json })
    }
}

struct Reader {
    is_json: bool,
}

impl<'de> Visitor<'de> for Reader {
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
            [(name, Value::Text(text))] if self.is_json && name == BYTES => STANDARD
                .decode(text)
                .map(Value::Bytes)
                .map_err(|_| A::Error::custom("bytes are no base64")),
            _ => Ok(Value::Map(entries)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use proptest::prelude::*;

    use super::*;

    /// That a value is read as this, and comes back.
    fn reads(bytes: &[u8], expected: &str) {
        assert_eq!(
            (value(bytes).get(), value_back(&value(bytes)).unwrap()),
            (expected, bytes.to_vec())
        );
    }

    #[test]
    fn what_is_stored_is_read_as_what_it_means() {
        reads(
            &codec::to_msgpack(&serde_json::json!({"a": [1, -1, 0.5, null, true, "x"]})),
            r#"{"a":[1,-1,0.5,null,true,"x"]}"#,
        );
        reads(b"\x82\xa1z\x01\xa1a\x02", r#"{"z":1,"a":2}"#);
        reads(
            b"\x81\xa6Sealed\xc4\x02hi",
            r#"{"Sealed":{"$bytes":"aGk="}}"#,
        );
        reads(
            b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
            "18446744073709551615",
        );
        reads(b"\xc0", "null");
        reads(b"\xcb\x3f\xf0\0\0\0\0\0\0", "1.0");
    }

    #[test]
    fn what_would_not_come_back_is_kept_as_it_is() {
        reads(b"", r#"{"$raw":""}"#);
        // A one in two bytes, a float of four, no number, a key that is no text, a map that looks
        // like bytes.
        for odd in [
            &b"\xcc\x01"[..],
            b"\xca\x3f\x80\0\0",
            b"\xcb\x7f\xf8\0\0\0\0\0\0",
            b"\x81\x01\x02",
            b"\x81\xa6$bytes\xa4aGk=",
        ] {
            assert!(value(odd).get().starts_with(r#"{"$raw":"#), "{odd:x?}");
            assert_eq!(value_back(&value(odd)).unwrap(), odd);
        }
        let mut deep = vec![0x91; 200];
        deep.push(1);
        assert_eq!(value_back(&value(&deep)).unwrap(), deep);
    }

    #[test]
    fn a_reference_is_the_key_that_it_is() {
        for (bytes, expected) in [
            (&b"msg_1"[..], r#""msg_1""#),
            (b"", r#""""#),
            (b"a", r#""a""#),
            (b"\x81\xa1u\x01", r#"{"u":1}"#),
        ] {
            assert_eq!(
                (
                    reference(bytes).get(),
                    reference_back(&reference(bytes)).unwrap()
                ),
                (expected, bytes.to_vec())
            );
        }
    }

    #[test]
    fn nonsense_is_no_content() {
        for wrong in [r#"{"$raw":"?"}"#, r#"{"$bytes":"?"}"#] {
            assert_eq!(
                value_back(&serde_json::from_str::<Box<RawValue>>(wrong).unwrap()),
                None
            );
        }
    }

    fn anything() -> impl Strategy<Value = Value> {
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
            Just(BYTES.to_owned()),
            Just(RAW.to_owned())
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
        fn every_value_comes_back_bit_for_bit(it in anything()) {
            let bytes = codec::to_msgpack(&it);
            prop_assert_eq!(value_back(&value(&bytes)).unwrap(), bytes.clone());
            prop_assert_eq!(reference_back(&reference(&bytes)).unwrap(), bytes);
        }

        #[test]
        fn any_bytes_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(value_back(&value(&bytes)).unwrap(), bytes.clone());
            prop_assert_eq!(reference_back(&reference(&bytes)).unwrap(), bytes);
        }
    }
}
