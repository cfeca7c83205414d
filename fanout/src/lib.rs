//! Topics and bytes: the hub of subscribers, the bounded outbox of a connection, and the bus between nodes.
//!
//! Owned here: who listens to what on this node, in which order they are told, and what a connection may hold.
//! Left out: every chat entity. A record's body is opaque; whoever uses the hub gives it a way to frame records.
//!
//! A node makes an [`Ear`](bus::Ear), a [`Bus`](bus::Bus) around it and a [`Hub`] around that, and attaches the hub to the ear. Each
//! connection has one [`Outbox`], which its task [drives](Outbox::drive). To listen: [join](Hub::join_all), read who may listen and the
//! topic's head, push the reply, [start](Joining::start). What a delivery costs is measured by `examples/measure.rs`.

pub mod bus;
pub mod hub;
pub mod outbox;
pub mod record;
pub mod redis;
mod source;
mod sync;
mod topic;

pub use hub::{Errand, Hub, Joining, Kind, Subscription};
pub use outbox::{Class, Encoding, Outbox};
pub use source::{Continuity, Gap, Replay, Source, SourceError};
pub use topic::{Position, Topic};
