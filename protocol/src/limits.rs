//! The limits that an operator can set: name, default, description, and whether `connect` tells it
//! to clients.

use std::collections::BTreeMap;

macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident = $default:literal, $client:literal, $about:literal;)*) => {
        /// The limits of a node. 0 means no limit.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct Limits { $($(#[$doc])* #[doc = $about] pub $name: u64,)* }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default,)* }
            }
        }

        impl Limits {
            /// Name, default and description of each limit.
            pub const ALL: &[(&str, u64, &str)] = &[$((stringify!($name), $default, $about),)*];

            /// Sets a limit by its name. Returns whether the name is known.
            pub fn set(&mut self, name: &str, value: u64) -> bool {
                match name {
                    $(stringify!($name) => self.$name = value,)*
                    _ => return false,
                }
                true
            }

            /// Returns a limit by its name.
            pub fn get(&self, name: &str) -> Option<u64> {
                match name {
                    $(stringify!($name) => Some(self.$name),)*
                    _ => None,
                }
            }

            /// Returns the limits that `connect` tells to clients.
            pub fn for_clients(&self) -> BTreeMap<String, u64> {
                let mut map = BTreeMap::new();
                $(if $client { map.insert(stringify!($name).to_owned(), self.$name); })*
                map
            }
        }
    };
}

limits! {
    frame_bytes = 65_536, true, "bytes of one frame, and of an HTTP body";
    text_bytes = 16_384, true, "bytes of a message's text";
    requests_per_second = 50, true, "requests per second of a session, with a burst of twice that";
    key_requests_per_second = 1_000, false, "requests per second with one key";
    app_requests_per_second = 0, true, "requests per second of an app and environment";
    unauthenticated_per_ip = 20, true, "requests per second without a valid credential, and upgrades without a successful connect, per address";
    subscriptions = 1_000, true, "channels that a session is subscribed to";
    watched_channels = 200, true, "channels that a session is subscribed to by connect itself";
    connections = 0, true, "connections of the node";
    sockets = 0, false, "sockets of clients, HTTP and WebSocket together; by default and at most what the limit of open files leaves";
    http_connections_per_ip = 1_000, false, "HTTP connections of an address, at most a quarter of the sockets; none for trusted proxies";
    connections_per_app = 0, true, "connections of an app and environment";
    connections_per_user = 20, true, "connections of a user";
    connects_at_once = 64, false, "connects that are authenticated, read and replayed at the same time";
    connects_waiting = 1_000, false, "connects that wait for their turn";
    outbox_bytes = 1_048_576, true, "bytes that wait for a session's reader";
    outbox_seconds = 30, true, "seconds that a frame waits for a session's reader";
    outbox_total_bytes = 0, false, "bytes that wait for all readers of the node; by default a quarter of the machine's memory";
    requests_total_bytes = 0, false, "bytes of the requests of all clients of the node, until their answers are taken; an app alone gets at most half; by default an eighth of the machine's memory";
    channels_per_user = 10_000, true, "channels that a user is in";
    participants = 100_000, true, "participants of a channel";
    reactions = 50, true, "kinds of reactions to a message";
    read_audience = 200, true, "participants of a channel in which read positions and typing are told to all";
    token_seconds = 86_400, true, "seconds between a user token's iat and exp";
    page = 200, true, "items of a page";
    log_events = 1_000, true, "events kept in a channel's log";
    log_bytes = 1_048_576, true, "bytes kept in a channel's log";
}

impl Limits {
    /// Returns whether all participants of a channel of this size receive typing events and read
    /// positions.
    pub fn is_small_audience(&self, participants: u64) -> bool {
        self.read_audience == 0 || participants <= self.read_audience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_can_be_set_by_its_name() {
        let mut limits = Limits::default();
        for (name, default, _) in Limits::ALL {
            assert_eq!(limits.get(name), Some(*default));
            assert!(limits.set(name, 7));
            assert_eq!(limits.get(name), Some(7));
        }
        assert!(!limits.set("nonsense", 1));
    }
}
