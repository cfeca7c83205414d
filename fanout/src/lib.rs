//! Topics and bytes: the hub of subscribers, the bounded outbox of a connection, and the bus
//! between nodes.
//!
//! Owned here: subscriptions on this node, the order of delivery, and the bounds of what a
//! connection may queue. Left out: every chat entity. A record's body is opaque; the user of the
//! hub implements [`Source`] to frame records.
//!
//! A node makes a [`HubListener`], a [`Bus`](bus::Bus) with it, and a [`Hub`] with both. Each
//! connection has one [`Outbox`], which its task [drives](Outbox::drive). To subscribe:
//! [join](Hub::join_all), read whether the subject may subscribe and the topic's head, push the
//! reply, [start](Joining::start). `examples/measure.rs` measures the cost of a delivery.
//!
//! Modules, lowest first: `log_rate_limit`, `topic`, `record`, [`fair`], `sync`, [`outbox`],
//! [`bus`], `source`, [`digest`], [`hub`].

pub mod bus;
pub mod capacity;
pub mod digest;
pub mod fair;
pub mod hub;
mod log_rate_limit;
pub mod outbox;
pub mod record;
mod source;
mod sync;
mod topic;

pub use hub::{CatchUpPermit, Hub, HubListener, Joining, Subscription, TopicKind};
pub use log_rate_limit::LogRateLimit;
pub use outbox::{Class, FrameEncoding, Outbox};
pub use source::{Continuity, Gap, PageLimit, Replay, Source, SourceError};
pub use topic::{Position, Topic};
