//! A WebSocket message as the client sends and receives it.

use bytes::Bytes;
use protocol::Encoding;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame as RawFrame,
        coding::{Data, OpCode},
    },
};

/// A WebSocket message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text message. Sent unchanged, even if it is not valid UTF-8.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
}

impl Frame {
    /// Creates the kind of message that this encoding uses.
    pub fn of(encoding: Encoding, bytes: impl Into<Bytes>) -> Self {
        match encoding {
            Encoding::MessagePack => Self::Binary(bytes.into()),
            Encoding::Json => Self::Text(bytes.into()),
        }
    }

    pub(crate) fn into_message(self) -> Message {
        match self {
            Self::Text(bytes) => {
                Message::Frame(RawFrame::message(bytes, OpCode::Data(Data::Text), true))
            }
            Self::Binary(bytes) => Message::Binary(bytes),
        }
    }
}
