//! Connections to Redis: addresses, names of keys and channels, and connections that are
//! re-established after every fault.
//!
//! Owned here: addressing ([`Deployment`]), naming ([`Names`]), the slot map ([`Topology`]) and
//! command connections ([`Commands`]). Left out: the commands themselves.

mod admin;
mod backoff;
mod commands;
mod connection_error;
mod deployment;
mod dial;
mod heartbeat;
mod managed;
mod names;
mod replicas;
mod resp;
mod slot;
mod subscriber;
mod supervise;
mod target;
mod timing;
mod topology;

pub use admin::{AdminConnection, connect_to_masters, connect_to_replica};
pub use backoff::jittered;
pub use commands::{CommandReply, Commands};
pub use connection_error::ConnectionError;
pub use deployment::{Address, BadUrl, Credentials, Deployment};
pub use dial::unfitness;
pub use heartbeat::ConnectionHeartbeat;
pub use names::{DEFAULT_PREFIX, Names, check_prefix};
pub use replicas::{ReplicaAck, Replicas, Unconfirmed};
pub use resp::{ProtocolError, RespReply};
pub use slot::{SLOTS, slot};
pub use subscriber::{SubscriberConnection, refused_subscription};
pub use supervise::{Dialer, supervise};
pub use target::Target;
pub use timing::{CONNECT_TIMEOUT, RESPONSE_TIMEOUT};
pub use topology::Topology;
