//! The wire of CHAOS, version 1: ids, entities, requests, replies, events, codes, limits, and both encodings of them.
//!
//! Owned here: what goes over the wire, and the rules that anyone can check without a store (the form of an id, the depth
//! of free data). Left out: sockets, time, storage, and who may do what.
//!
//! The specification for people is `protocol/README.md`; `protocol/vectors/` holds frames in both encodings.

pub mod close;
pub mod codec;
pub mod error;
pub mod event;
pub mod frame;
pub mod id;
pub mod limits;
pub mod model;
pub mod params;
pub mod patch;
pub mod results;
pub mod splice;
pub mod value;

pub use close::CloseCode;
pub use codec::Encoding;
pub use error::{ErrorBody, ErrorCode};
pub use event::{EventKind, EventMessage};
pub use frame::Method;
pub use id::{
    AppId, ChannelId, KeyId, MessageId, OrganizationId, ParticipantId, SessionId, TokenKeyId,
    UploadId, UserId,
};
pub use limits::Limits;
pub use patch::Patch;
pub use value::Metadata;

/// The WebSocket sub-protocol with binary MessagePack messages; also the default when a client names none.
pub const SUBPROTOCOL_MSGPACK: &str = "chaos.v1.msgpack";
/// The WebSocket sub-protocol with JSON text messages.
pub const SUBPROTOCOL_JSON: &str = "chaos.v1.json";
/// Where the WebSocket is.
pub const WEBSOCKET_PATH: &str = "/v1/ws";
/// The largest integer that every client reads exactly (JavaScript's 2⁵³).
pub const MAX_INTEGER: u64 = 1 << 53;
