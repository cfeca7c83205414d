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

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::Duration,
};

pub use hub::{Errand, Hub, Joining, Kind, Subscription};
pub use outbox::{Class, Encoding, Outbox};
pub use source::{Continuity, Gap, Replay, Source, SourceError};
pub use topic::{Position, Topic};

/// A pause of which a random part, up to a half, is taken off: who was cut off at the same time does not come back in step.
fn jittered(full: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish();
    full - (full / 2).mul_f64(random as f64 / u64::MAX as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_differ_and_lie_between_the_half_and_the_whole() {
        let full = Duration::from_secs(1);
        let pauses: std::collections::BTreeSet<_> = (0..100).map(|_| jittered(full)).collect();
        assert!(
            pauses.len() > 90 && pauses.iter().all(|pause| (full / 2..=full).contains(pause)),
            "{pauses:?}"
        );
        assert!(
            pauses.iter().any(|pause| *pause < full.mul_f64(0.65))
                && pauses.iter().any(|pause| *pause > full.mul_f64(0.85))
        );
    }
}
