//! Close codes of the WebSocket.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $code:literal $reason:literal,)*) => {
        /// Why the server closes a connection.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseCode { $($(#[$doc])* $name,)* }

        impl CloseCode {
            /// All close codes.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
            /// Returns the number in the close frame.
            pub fn code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }
            /// Returns the usual reason in the close frame. ` retry_after_ms=N` may be appended.
            pub fn reason(self) -> &'static str {
                match self { $(Self::$name => $reason,)* }
            }
            /// Returns the close code with this number.
            pub fn of(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// The node shuts down; reconnect at once, spread over `reconnect_after_ms`.
    GoingAway 1001 "node is going away",
    /// The frame cannot be decoded, or is not a request.
    BadFrame 4000 "frame not decodable, or no request",
    /// The client did not send `connect` in time.
    ConnectTimeout 4001 "no connect in time",
    /// The token was refused.
    TokenRefused 4002 "token refused",
    /// The token has expired; reconnect with a new one.
    TokenExpired 4003 "token expired",
    /// The credential was revoked, or the user, app or organization deleted.
    SessionEnded 4004 "session ended",
    /// The client did not answer two pings.
    HeartbeatLost 4008 "heartbeat lost",
    /// The client did not read fast enough; reconnect with resume.
    TooSlow 4009 "too slow",
    /// A frame exceeds the limit.
    FrameTooLarge 4010 "frame too large",
    /// The client continued to send requests after `rate_limited`.
    TooManyRequests 4011 "too many requests",
    /// A limit on connections is reached, or the node admits none at the moment.
    TooManyConnections 4012 "too many connections",
    /// A defect of the server.
    Internal 4500 "internal error",
}
