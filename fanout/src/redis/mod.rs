//! What a node needs to know of Redis before it says anything to it: where it is, how keys and channels are named,
//! and connections that mend themselves.
//!
//! Owned here: addressing ([`Deployment`]), naming ([`channel`], [`key`]), and the command connections ([`Commands`])
//! that the store and the tests share. Left out: what is said over them. Listening is [`crate::bus::redis`].

mod commands;
mod deployment;
mod dial;
mod line;
mod replicas;
#[cfg(feature = "testing")]
pub mod testing;
mod topology;

use std::time::Duration;

pub use commands::{Answer, Commands};
pub use deployment::{Address, BadUrl, Credentials, Deployment};
pub(crate) use dial::{connect, current_master};
pub use replicas::{Replicas, Unconfirmed, Witness};
pub(crate) use topology::Topology;

/// How long opening a connection may take, greeting included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest that a command takes, waiting for a connection and redirections included.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a connection is asked whether it still answers, and how often a Sentinel whether the master is still the same.
pub(crate) const WATCH_PERIOD: Duration = Duration::from_secs(1);

/// A connection that has said nothing for this long after it was asked is given up.
pub(crate) const WATCH_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest pause between two attempts to connect. Attempts never end.
pub(crate) const RECONNECT_DELAY: Duration = Duration::from_secs(1);

/// The pub/sub channel of a topic. The braces make the topic the hash tag: on a Cluster the channel lies in the slot of the topic's keys.
pub fn channel(topic: &str) -> String {
    format!("chaos:{{{topic}}}")
}

/// A key of a partition, in the slot of the channel of the same name.
pub fn key(partition: &str, rest: &str) -> String {
    format!("chaos:{{{partition}}}:{rest}")
}

/// The topic of a channel; `None` if [`channel`] never made it.
pub fn topic(channel: &str) -> Option<&str> {
    channel.strip_prefix("chaos:{")?.strip_suffix('}')
}

/// The slot of a key or channel on a Cluster.
pub fn slot(name: &str) -> u16 {
    // The rule of the Cluster specification: what stands between the first `{` and the next `}`, if anything does.
    let hashed = name
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'))
        .map(|(tag, _)| tag)
        .filter(|tag| !tag.is_empty())
        .unwrap_or(name);
    // CRC16/XMODEM, as the specification names it.
    let crc = hashed.bytes().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(byte) << 8), |crc, _| {
            if crc & 0x8000 != 0 {
                (crc << 1) ^ 0x1021
            } else {
                crc << 1
            }
        })
    });
    crc % SLOTS
}

/// How many slots a Cluster has.
pub const SLOTS: u16 = 16_384;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_gives_its_topic_back() {
        assert_eq!(topic(&channel("app_1:chn_2")), Some("app_1:chn_2"));
        assert_eq!(topic("chaos:{a}:head"), None);
        assert_eq!(topic("other"), None);
    }

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(slot("123456789"), 0x31c3);
        assert_eq!(slot("foo{hash_tag}"), slot("hash_tag"));
        assert_eq!(slot("{}whole"), slot("{}whole"));
        assert_ne!(slot("{}whole"), 0, "an empty tag is no tag");
    }

    #[test]
    fn channel_and_keys_of_a_partition_share_a_slot() {
        assert_eq!(slot(&channel("t")), slot(&key("t", "log")));
    }
}
