//! The settings of a node: flags, then the environment, then a TOML file, then defaults, parsed
//! once into a checked `Config`.
//!
//! `settings` is the table of settings, `layers` collects their texts, `check` parses and validates
//! them. Nothing here listens, connects or creates files.

mod check;
mod cli;
mod layers;
mod memory;
mod origins;
mod secret;
mod setting;
mod settings;
mod show;
mod transfer;
mod value;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use protocol::Limits;

pub use domain::redacted::Secret;

pub(crate) use self::secret::credential_length;
pub use self::{
    check::secret_key,
    cli::{CHAT_URL, Chat, Command, CommandLineError, from_process, parse},
    layers::EnvironmentReader,
    origins::Origins,
    secret::without_password,
    settings::{DATA_FOLDER, Flags, SETTINGS, Setting, SettingDefault},
    show::sample,
    transfer::{Export, Import, StoreSettings},
};

/// The checked settings of a node.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address of the WebSocket and the HTTP API. Default 127.0.0.1:7400; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Address of a second listener, for metrics and health only. Default none.
    pub ops_listen: Option<SocketAddr>,
    /// The store. Default embedded, in `./chaos-data`.
    pub store: StoreConfig,
    /// The admin key, from a flag or a file. Always present with Redis. Without it, the node
    /// creates one in the data folder.
    pub admin_key: Option<Secret>,
    /// The file that the admin key was read from, if the settings name one.
    pub admin_key_file: Option<PathBuf>,
    /// The file of the secret key, checked to be readable and well formed; `secret_key` reads it.
    /// Always present with Redis. Without it, the node creates one in the data folder.
    pub secret_key_file: Option<PathBuf>,
    /// Origins that may open a WebSocket or call the API. Default the request's host and localhost.
    pub allowed_origins: Origins,
    /// Peers whose `X-Forwarded-For` is trusted. Default none.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// Idle timeout of an HTTP connection between two requests. Default 75 s.
    pub http_idle: Duration,
    /// Whether to create the demo tenant. Never `On` with Redis.
    pub demo: DemoMode,
    /// The limits. `outbox_total_bytes` defaults to a quarter of the memory, `requests_total_bytes`
    /// to an eighth.
    pub limits: Limits,
    /// Period over which a drain spreads the end of its sessions. Default 10 s; may be zero.
    pub drain_window: Duration,
    /// Silence after which a client is pinged. Default 25 s.
    pub heartbeat: Duration,
    /// Log filter in the format of `tracing_subscriber::EnvFilter`. Default `info`.
    pub log_filter: String,
    /// Log format. Default text.
    pub log_format: LogFormat,
    /// The settings that differ from their defaults, as `name=value` separated by spaces, secrets
    /// hidden.
    pub changed: String,
    /// Warnings about the settings, logged at the start.
    pub warnings: Vec<String>,
}

/// The store that a node uses.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// On this machine's disk.
    Embedded {
        /// The data folder; created if it does not exist.
        data: PathBuf,
    },
    /// In Redis, Valkey or another compatible server.
    Redis {
        /// `redis://`, `redis+sentinel://…` or `redis+cluster://…`, with its password. Print it
        /// with `without_password` only.
        url: String,
        /// Prefix of its keys and channels.
        prefix: String,
        /// The replicas that a write waits for, if any.
        replicas: Option<chaos_redis::Replicas>,
    },
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Embedded { data } => f.debug_struct("Embedded").field("data", data).finish(),
            Self::Redis {
                url,
                prefix,
                replicas,
            } => {
                let url = without_password(url);
                f.debug_struct("Redis")
                    .field("url", &url)
                    .field("prefix", prefix)
                    .field("replicas", replicas)
                    .finish()
            }
        }
    }
}

/// When a node creates the demo: an organization, an app, users and a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemoMode {
    /// In a fresh data folder, if the node listens on loopback.
    Auto,
    /// In a data folder without a demo, whatever the address.
    On,
    /// Never.
    Off,
}

/// The format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Settings that cannot be used: one sentence with the cause and the remedy. The process exits with
/// code 2.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{sentence}")]
pub struct ConfigError {
    sentence: String,
    log_format: LogFormat,
}

impl ConfigError {
    fn new(sentence: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            log_format: LogFormat::Text,
        }
    }

    /// Returns the log format of the settings, as far as it was read before the error.
    pub fn log_format(&self) -> LogFormat {
        self.log_format
    }

    fn in_format(self, log_format: LogFormat) -> Self {
        Self { log_format, ..self }
    }
}
