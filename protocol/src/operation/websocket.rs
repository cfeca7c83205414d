//! Encoding of operations in WebSocket frames: path and input as one map of parameters, and the
//! output as the result of a reply.

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
    ser::SerializeMap,
};

use super::{Operation, Reply};
use crate::{
    codec::Encoding,
    frame::{encode_request, encode_result},
};

/// Encodes a request for an operation. The path is `None` if it is always the caller's, see
/// [`Operation::own_path`].
pub fn encode_call<O: Operation>(
    encoding: Encoding,
    id: u32,
    path: Option<&O::Path>,
    input: &O::Input,
) -> Vec<u8> {
    #[derive(Serialize)]
    struct Params<'a, P, I> {
        #[serde(flatten)]
        path: Option<&'a P>,
        #[serde(flatten)]
        input: &'a I,
    }
    encode_request(encoding, id, O::NAME, &Params { path, input })
}

/// Encodes the reply of an operation that succeeded.
pub fn encode_output<O: Operation>(encoding: Encoding, id: u32, output: &O::Output) -> Vec<u8> {
    match O::WEBSOCKET.map(|websocket| websocket.reply) {
        Some(Reply::Field(name)) => encode_result(encoding, id, &Field(name, output)),
        Some(Reply::Output) | None => encode_result(encoding, id, output),
    }
}

/// A map with one field.
struct Field<'a, T>(&'static str, &'a T);

impl<T: Serialize> Serialize for Field<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0, self.1)?;
        map.end()
    }
}

/// The result of a reply, decoded as an operation's output.
#[derive(Debug)]
pub struct CallResult<O: Operation>(pub O::Output);

impl<'de, O: Operation> Deserialize<'de> for CallResult<O> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match O::WEBSOCKET.map(|websocket| websocket.reply) {
            Some(Reply::Field(name)) => deserializer
                .deserialize_map(FieldVisitor {
                    name,
                    kind: PhantomData,
                })
                .map(Self),
            Some(Reply::Output) | None => O::Output::deserialize(deserializer).map(Self),
        }
    }
}

/// Decodes one field of a map and ignores the others.
struct FieldVisitor<T> {
    name: &'static str,
    kind: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for FieldVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a map with `{}`", self.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let mut value = None;
        while let Some(name) = map.next_key::<String>()? {
            if name == self.name {
                value = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        value.ok_or_else(|| A::Error::missing_field(self.name))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operation::{channel::ChannelUpdate, session::Ping, user::UserUpdate};

    fn result<O: Operation>(encoding: Encoding, result: &serde_json::Value) -> Option<O::Output> {
        let bytes = encoding.encode(result);
        encoding
            .decode::<CallResult<O>>(&bytes)
            .ok()
            .map(|CallResult(output)| output)
    }

    #[test]
    fn output_is_read_from_its_field_and_other_fields_are_ignored() {
        let channel = json!({ "id": "general", "type": "open", "metadata": {}, "created_at": 1, "participant_count": 0 });
        for encoding in Encoding::ALL {
            let found = result::<ChannelUpdate>(
                encoding,
                &json!({ "later": [1], "channel": channel, "other": null }),
            );
            assert_eq!(
                found.map(|channel| channel.id.to_string()).as_deref(),
                Some("general")
            );
            assert_eq!(
                result::<ChannelUpdate>(encoding, &json!({ "user": channel })),
                None
            );
            assert_eq!(result::<UserUpdate>(encoding, &json!({ "user": 1 })), None);
            assert_eq!(
                result::<Ping>(encoding, &json!({ "at": 7, "later": true })).map(|pong| pong.at),
                Some(7)
            );
        }
    }
}
