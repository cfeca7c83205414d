//! The settings of a node: flags, then the environment, then a TOML file, then defaults, parsed
//! once into a checked `Config`.
//!
//! Owns which settings there are (`settings`), where a value came from (`layers`), what it means
//! and what goes together (`check`). Leaves out acting on them: nothing here listens, connects or
//! makes files.

mod check;
mod cli;
mod given;
mod layers;
mod memory;
mod moving;
mod origins;
mod secret;
mod setting;
mod settings;
mod show;

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use protocol::Limits;

pub use domain::redacted::Secret;

pub(crate) use self::secret::hidden_in_url;
pub use self::{
    check::secret_key,
    cli::{CHAT_URL, Chat, Command, Failure, from_process, parse},
    layers::Environment,
    moving::{Export, Import, StoreSettings},
    origins::Origins,
    secret::without_password,
    settings::{DATA_FOLDER, Flags, Otherwise, SETTINGS, Setting},
    show::sample,
};

/// Everything that a node is told at its start, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the WebSocket and the HTTP API are. Default 127.0.0.1:7400; port 0 takes a free one.
    pub listen: SocketAddr,
    /// A second address for metrics and health alone. Default none.
    pub ops_listen: Option<SocketAddr>,
    /// Where everything is kept. Default embedded, in `./chaos-data`.
    pub store: StoreConfig,
    /// The admin key, from a flag or a file. Always present with Redis; without it the embedded
    /// store makes one.
    pub admin_key: Option<Secret>,
    /// The file that the admin key is from, if it is from one that was given.
    pub admin_key_file: Option<PathBuf>,
    /// The file of the secret key, found to be readable and well formed; `secret_key` reads it.
    /// Always present with Redis; without it the embedded store makes one.
    pub secret_key_file: Option<PathBuf>,
    /// The web pages that may open a WebSocket or call the API. Default the own host and localhost.
    pub allowed_origins: Origins,
    /// Peers whose `X-Forwarded-For` is believed. Default none.
    pub trusted_proxies: Vec<ipnet::IpNet>,
    /// How long an HTTP connection may rest between two requests. Default 75 s.
    pub http_idle: Duration,
    /// Whether to make the demo tenant. Never `On` with Redis.
    pub demo: Demo,
    /// The limits; unless given, `outbox_total_bytes` is a quarter of the memory and
    /// `incoming_total_bytes` an eighth.
    pub limits: Limits,
    /// How long a drain spreads its goodbyes over. Default 10 s; may be zero.
    pub drain_window: Duration,
    /// Silence after which a client is pinged. Default 25 s.
    pub heartbeat: Duration,
    /// What is logged, as `tracing_subscriber::EnvFilter` reads it. Default `info`.
    pub log_filter: String,
    /// How it is logged. Default text.
    pub log_format: LogFormat,
    /// The settings that differ from their defaults, as `name=value` separated by spaces, secrets
    /// hidden.
    pub changed: String,
    /// What is usable but unwise, in sentences to be logged at the start.
    pub warnings: Vec<String>,
}

/// Where everything is kept.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// On this machine's disk.
    Embedded {
        /// The folder; made when it is not there.
        data: PathBuf,
    },
    /// In Redis, Valkey or another compatible server.
    Redis {
        /// `redis://`, `redis+sentinel://…` or `redis+cluster://…`, with its password: never print
        /// it, see `without_password`.
        url: String,
        /// How its keys and channels begin.
        prefix: String,
        /// How many replicas a write waits for, and how long; none if it waits for none.
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

/// Whether a node makes an organization, an app, users and a channel to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demo {
    /// In a fresh embedded folder, while listening on loopback.
    Auto,
    /// In an embedded folder that has none yet, wherever it listens.
    On,
    /// Never.
    Off,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why the settings cannot be used: one sentence that says what is wrong and how to mend it. Ends
/// the start with exit code 2.
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

    /// How the node would have logged, as far as that was known when the error was found.
    pub fn log_format(&self) -> LogFormat {
        self.log_format
    }

    fn in_format(self, log_format: LogFormat) -> Self {
        Self { log_format, ..self }
    }
}
