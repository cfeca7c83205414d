//! The two encodings, and the conversion from MessagePack to JSON.

use std::io;

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK,
    input::{self, ClientInput, Findings, Misfit},
};

pub use crate::decode_error::DecodeError;

/// The encoding of a connection's frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// MessagePack in binary messages.
    MessagePack,
    /// JSON in text messages.
    Json,
}

impl Encoding {
    /// All encodings.
    pub const ALL: [Self; 2] = [Self::MessagePack, Self::Json];

    /// Returns the name of the WebSocket sub-protocol.
    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::MessagePack => SUBPROTOCOL_MSGPACK,
            Self::Json => SUBPROTOCOL_JSON,
        }
    }

    /// Encodes a value of this crate.
    pub fn encode<T: Serialize>(self, value: &T) -> Vec<u8> {
        match self {
            Self::MessagePack => to_msgpack(value),
            Self::Json => serde_json::to_vec(value)
                .expect("types of the wire have string keys and finite numbers"),
        }
    }

    /// Decodes a value; trailing bytes are an error.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, DecodeError> {
        match self {
            Self::MessagePack => from_msgpack(bytes),
            Self::Json => serde_json::from_slice(bytes).map_err(|e| DecodeError(e.to_string())),
        }
    }
}

/// Encodes a value as MessagePack with field names.
pub fn to_msgpack<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value)
        .expect("types of the wire can be encoded, and a Vec takes what it is given")
}

/// Returns the length of a value in the longer of the two encodings, which bounds a reply in
/// either.
///
/// Text is longer in JSON, up to six times where it has to be escaped; numbers can be longer in
/// MessagePack.
pub fn longest<T: Serialize>(value: &T) -> usize {
    #[derive(Default)]
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (mut json, mut msgpack) = (Count::default(), Count::default());
    serde_json::to_writer(&mut json, value)
        .expect("types of the wire have string keys and finite numbers");
    rmp_serde::encode::write_named(&mut msgpack, value)
        .expect("types of the wire can be encoded, and counting takes anything");
    json.0.max(msgpack.0)
}

/// Decodes MessagePack. Trailing bytes are an error; rmp-serde alone accepts them.
pub fn from_msgpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut rest = bytes;
    let value = rmp_serde::from_read(&mut rest).map_err(|e| DecodeError(e.to_string()))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(DecodeError("bytes follow the value".into()))
    }
}

/// Decodes a map of parameters that a client encoded. Stricter than [`Encoding::decode`], see
/// [`ClientInput`].
pub(crate) fn from_client<T: DeserializeOwned>(
    encoding: Encoding,
    bytes: &[u8],
) -> Result<T, Misfit> {
    let findings = Findings::default();
    match encoding {
        Encoding::MessagePack => {
            let reader = |rest| rmp_serde::Deserializer::new(rest);
            T::deserialize(ClientInput::new(&mut reader(bytes), &findings)).or_else(|_| {
                // Decoded again to find the path of the field: tracking it costs more than
                // decoding.
                input::read(ClientInput::new(&mut reader(bytes), &findings))
            })
        }
        Encoding::Json => {
            let reader = || serde_json::Deserializer::from_slice(bytes);
            let value = T::deserialize(ClientInput::new(&mut reader(), &findings))
                .or_else(|_| input::read(ClientInput::new(&mut reader(), &findings)))?;
            findings.check_integers(bytes).map_err(|error| Misfit {
                field: Some("metadata".into()),
                parent: String::new(),
                why: error.to_string(),
            })?;
            Ok(value)
        }
    }
}

/// Converts one MessagePack value to JSON.
pub fn transcode(msgpack: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let value: serde_json::Value = from_msgpack(msgpack)?;
    Ok(serde_json::to_vec(&value).expect("a JSON value can be written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longest_is_the_length_in_the_longer_encoding() {
        let escaped = "\u{1}".repeat(100);
        assert_eq!(longest(&escaped), Encoding::Json.encode(&escaped).len());
        let numbers = [0.5; 100];
        assert_eq!(
            longest(&numbers.as_slice()),
            Encoding::MessagePack.encode(&numbers.as_slice()).len()
        );
    }
}
