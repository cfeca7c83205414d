//! Digests: what a node tells others about its commits, so that they notice records that the bus
//! lost.
//!
//! A record that is lost without any other sign is noticed by its successor, but the last record of
//! a conversation has none. So each node publishes a [digest](Digest) every [`INTERVAL`]: the
//! positions of the topics to which it committed lately. A node compares them with the positions of
//! the topics that it listens to, and reads the heads of those that are behind. The cost follows
//! commits and nodes, not topics: nodes² records in an interval.
//!
//! Owned here: the [recorder](DigestRecorder) of a node's commits and the
//! [receiver](DigestReceiver) of the digests of all nodes. Both are state machines that take time
//! as an argument. Left out: publishing, which the user of the recorder does, and comparing, which
//! the hub does.
//!
//! - A position is first published [`HOLD`] after its commit, when the record should have arrived,
//!   and in [`REPEATS`] rounds. So each of them may be lost except one.
//! - A commit whose answer was lost is *uncertain*: its topic is in every round, without a
//!   position, until a head that is read [`SETTLE_AFTER`] after the failure shows the outcome.
//! - Rounds are numbered from 1 by each start of a node, and published without lines too. If
//!   [`REPEATS`] rounds in succession are incomplete, or a node is silent for so long, a receiver
//!   has to doubt the positions of all topics, and again for as long as the node is silent
//!   and its lease has not ended.
//! - A node that ends in order says so in its last round.
//!
//! Round *n* travels on bucket topic *n* mod [`BUCKETS`]: on a Cluster the repeats of a line go
//! through different shards, and one shard that is unavailable hides none. All parts of a round are
//! on one topic, which keeps them in order.

mod format;
mod receiver;
mod recorder;
#[cfg(all(test, not(shuttle)))]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

use std::time::Duration;

use crate::Topic;

pub use self::format::{Digest, DigestLine, MalformedDigest};
pub use self::receiver::{DigestReceiver, Doubt};
pub use self::recorder::{DigestRecorder, UncertainCommit};

/// Period of a node's digests.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Time between a commit and its first digest.
pub const HOLD: Duration = Duration::from_millis(500);

/// Number of rounds in which a commit is published.
pub const REPEATS: u64 = 4;

/// Time without a complete round after which a node counts as silent: about as long as its lines
/// are repeated.
pub const SILENCE: Duration = Duration::from_millis(4_500);

/// Time after which a receiver asks whether a silent node lives; longer than the lease of a dead
/// node, so that one question is enough.
pub const LIFE_CHECK_AFTER: Duration = Duration::from_secs(20);

/// Time after which a commit whose answer was lost can no longer run: its connection was closed for
/// lack of heartbeats before.
pub const SETTLE_AFTER: Duration = Duration::from_secs(10);

/// Number of topics that carry digests, in turns.
pub const BUCKETS: u64 = 8;

const BUCKET_PREFIX: &str = "digests:";

/// Returns the topic that carries this round.
pub fn bucket_topic(round: u64) -> Topic {
    format!("{BUCKET_PREFIX}{}", round % BUCKETS).into()
}

/// Returns the topics that carry digests.
pub fn bucket_topics() -> Vec<Topic> {
    (0..BUCKETS).map(bucket_topic).collect()
}

/// Returns whether the topic carries digests.
pub(crate) fn is_bucket(topic: &str) -> bool {
    topic.starts_with(BUCKET_PREFIX)
}

/// Returns the hash by which digests name a topic. The same in every process and build. Topics
/// that share a hash are compared without need, which costs a read.
pub fn topic_hash(topic: &str) -> u64 {
    // FNV-1a with the finalizer of MurmurHash3, so that all bits are well distributed.
    let mut hash = topic
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
    for factor in [0xff51_afd7_ed55_8ccd, 0xc4ce_b9fe_1a85_ec53] {
        hash = (hash ^ (hash >> 33)).wrapping_mul(factor);
    }
    hash ^ (hash >> 33)
}
