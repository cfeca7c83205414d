//! Timeouts and periods of connections and commands.

use std::time::Duration;

/// Maximum time to open a connection, authentication included.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Maximum time of a command, including the wait for a connection and redirections.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(3);

/// Period of PINGs, and of asking the Sentinels for the current master.
pub(crate) const HEARTBEAT_PERIOD: Duration = Duration::from_secs(1);

/// Time without a byte from the server after a PING, after which the connection is closed.
pub(crate) const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3);

/// Maximum pause between two attempts to connect. The number of attempts is unlimited.
pub(crate) const MAX_RECONNECT_BACKOFF: Duration = Duration::from_secs(1);
