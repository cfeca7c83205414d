//! The two encodings, and the one way from MessagePack to JSON.

use std::io;

use serde::{Serialize, de::DeserializeOwned};

use crate::{SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK};

/// How the frames of a connection are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// MessagePack in binary messages.
    MessagePack,
    /// JSON in text messages.
    Json,
}

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct DecodeError(pub String);

impl Encoding {
    /// Both.
    pub const ALL: [Self; 2] = [Self::MessagePack, Self::Json];

    /// The WebSocket sub-protocol.
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

    /// Decodes the whole of the bytes; trailing bytes are an error.
    pub fn decode<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, DecodeError> {
        match self {
            Self::MessagePack => from_msgpack(bytes),
            Self::Json => serde_json::from_slice(bytes).map_err(|e| DecodeError(e.to_string())),
        }
    }
}

/// MessagePack with field names.
pub fn to_msgpack<T: Serialize>(value: &T) -> Vec<u8> {
    rmp_serde::to_vec_named(value)
        .expect("types of the wire can be encoded, and a Vec takes what it is given")
}

/// How many bytes a value takes in the encoding in which it takes more: what a reply of either kind may be bounded by.
///
/// Text is longer in JSON, up to six times where it has to be escaped; numbers can be longer in MessagePack.
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

/// Reads the whole of the bytes; trailing bytes are an error (rmp-serde alone would accept them silently).
pub fn from_msgpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut rest = bytes;
    let value = rmp_serde::from_read(&mut rest).map_err(|e| DecodeError(e.to_string()))?;
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(DecodeError("bytes follow the value".into()))
    }
}

/// Rewrites one MessagePack value that this product made as JSON.
pub fn transcode(msgpack: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let value: serde_json::Value = from_msgpack(msgpack)?;
    Ok(serde_json::to_vec(&value).expect("a JSON value can be written"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_encoding_is_that_of_the_value_at_hand() {
        let escaped = "\u{1}".repeat(100);
        assert_eq!(longest(&escaped), Encoding::Json.encode(&escaped).len());
        let numbers = [0.5; 100];
        assert_eq!(
            longest(&numbers.as_slice()),
            Encoding::MessagePack.encode(&numbers.as_slice()).len()
        );
    }
}
