//! The wire contract of CHAOS, version 1: ids, entities, operations, events, error and close codes,
//! limits, and both encodings.
//!
//! This crate owns the frames and the rules that need no store (the form of an id, the depth of
//! free data). It has no sockets, clock, storage or permissions.
//!
//! The specification for people is `protocol/README.md`; `protocol/vectors/` holds frames in both
//! encodings.

pub mod bounds;
pub mod close;
pub mod codec;
mod cursor;
mod decode_error;
pub mod entity;
pub mod error;
pub mod event;
pub mod frame;
pub mod id;
pub mod input;
pub mod limits;
pub mod operation;
pub mod patch;
pub mod splice;
pub mod value;
mod wire;

pub use close::CloseCode;
pub use codec::Encoding;
pub use cursor::Cursor;
pub use error::{ErrorBody, ErrorCode};
pub use event::{EventKind, EventMessage};
pub use id::{
    AppId, ChannelId, KeyId, MessageId, OrganizationId, ParticipantId, SessionId, TokenKeyId,
    UploadId, UserId,
};
pub use limits::Limits;
pub use patch::Patch;
pub use value::Metadata;

/// WebSocket sub-protocol with binary MessagePack messages; the default if a client names none.
pub const SUBPROTOCOL_MSGPACK: &str = "chaos.v1.msgpack";
/// WebSocket sub-protocol with JSON text messages.
pub const SUBPROTOCOL_JSON: &str = "chaos.v1.json";
/// Path of the WebSocket.
pub const WEBSOCKET_PATH: &str = "/v1/ws";
/// The largest integer that every client decodes exactly: 2⁵³ in JavaScript.
pub const MAX_INTEGER: u64 = 1 << 53;
