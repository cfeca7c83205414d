//! Close codes of the WebSocket.

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident $code:literal $reason:literal,)*) => {
        /// Why the server closes a connection.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum CloseCode { $($(#[$doc])* $name,)* }

        impl CloseCode {
            /// Every code.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
            /// The number in the close frame.
            pub fn code(self) -> u16 {
                match self { $(Self::$name => $code,)* }
            }
            /// The reason in the close frame, to which ` retry_after_ms=N` may be added.
            pub fn reason(self) -> &'static str {
                match self { $(Self::$name => $reason,)* }
            }
            /// The code of a number, if it is one of these.
            pub fn of(code: u16) -> Option<Self> {
                match code { $($code => Some(Self::$name),)* _ => None }
            }
        }
    };
}

codes! {
    /// The node ends; reconnect at once, spread over `reconnect_after_ms`.
    GoingAway 1001 "node is going away",
    /// A frame that cannot be decoded, or is no request.
    BadFrame 4000 "frame not decodable, or no request",
    /// No `connect` in time.
    ConnectTimeout 4001 "no connect in time",
    /// The token was refused.
    TokenRefused 4002 "token refused",
    /// The token has expired; reconnect with a new one.
    TokenExpired 4003 "token expired",
    /// Revoked, banned or deleted.
    SessionEnded 4004 "session ended",
    /// Two pings were not answered.
    HeartbeatLost 4008 "heartbeat lost",
    /// The reader did not keep up; reconnect with resume.
    TooSlow 4009 "too slow",
    /// A frame beyond the limit.
    FrameTooLarge 4010 "frame too large",
    /// Requests went on in spite of `rate_limited`.
    TooManyRequests 4011 "too many requests",
    /// A limit on connections, or not admitted now.
    TooManyConnections 4012 "too many connections",
    /// A defect of the server.
    Internal 4500 "internal error",
}
