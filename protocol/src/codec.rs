//! The two encodings, and the one way from MessagePack to JSON.

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
            Self::Json => serde_json::to_vec(value).expect("types of the wire have string keys and finite numbers"),
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
    rmp_serde::to_vec_named(value).expect("types of the wire can be encoded, and a Vec takes what it is given")
}

/// Reads the whole of the bytes; trailing bytes are an error (rmp-serde alone would accept them silently).
pub fn from_msgpack<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut rest = bytes;
    let value = rmp_serde::from_read(&mut rest).map_err(|e| DecodeError(e.to_string()))?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError("bytes follow the value".into())) }
}

/// Rewrites one MessagePack value that this product made as JSON.
pub fn transcode(msgpack: &[u8]) -> Result<Vec<u8>, DecodeError> {
    let value: serde_json::Value = from_msgpack(msgpack)?;
    Ok(serde_json::to_vec(&value).expect("a JSON value can be written"))
}
