//! `chaos serve`: runs a node, and prints its addresses.
//!
//! With the text log format, the addresses and the next steps are printed to standard output. With
//! JSON, there is only the log.

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Instant,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    config::{self, Config, LogFormat, StoreConfig},
    log,
    node::Node,
    start::{ADMIN_KEY, CommandError},
    terminal::print_line,
};

/// Runs a node until a signal or a failure of its store ends it. `program` is the name of this
/// program on the command line.
///
/// # Errors
/// Fails if the node cannot start, or if its store has failed permanently. With the JSON format,
/// the error is logged already.
pub async fn serve(config: Config, program: &str) -> Result<(), CommandError> {
    log::init(config.log_format, &config.log_filter).map_err(CommandError::of)?;
    run(config, program).await
}

async fn run(config: Config, program: &str) -> Result<(), CommandError> {
    let began = Instant::now();
    let mut signals = Signals::new().map_err(CommandError::of)?;
    let about = StartupInfo::of(&config);
    let node = Node::start(config).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        store = about.store,
        listen = %node.address,
        ops_listen = node.ops_address.map(tracing::field::display),
        settings = about.settings,
        "node started"
    );
    if about.log_format == LogFormat::Text {
        about.introduce(&node, program);
    }
    let (reason, ended) = tokio::select! {
        name = signals.next() => (name.to_owned(), Ok(())),
        error = node.unfit() => (error.to_string(), Err(error)),
    };
    let sessions = node.drain().await;
    let uptime_seconds = began.elapsed().as_secs();
    match ended {
        Ok(()) => tracing::info!(reason, uptime_seconds, sessions, "node ended"),
        Err(_) => tracing::error!(reason, uptime_seconds, sessions, "node ended"),
    }
    ended
}

/// The signals that stop a node.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

/// The information printed about a node in addition to its addresses.
struct StartupInfo {
    log_format: LogFormat,
    store: String,
    settings: String,
    /// The folder of the embedded store.
    data: Option<PathBuf>,
    /// The file with the admin key.
    admin_key: Option<PathBuf>,
}

impl StartupInfo {
    fn of(config: &Config) -> Self {
        let (store, data) = match &config.store {
            StoreConfig::Embedded { data } => (
                format!("embedded in {}", data.display()),
                Some(data.clone()),
            ),
            StoreConfig::Redis { url, .. } => (config::without_password(url), None),
        };
        let made = || {
            data.as_ref()
                .filter(|_| config.admin_key.is_none())
                .map(|data| data.join(ADMIN_KEY))
        };
        Self {
            log_format: config.log_format,
            store,
            settings: config.changed.clone(),
            admin_key: config.admin_key_file.clone().or_else(made),
            data,
        }
    }

    fn introduce(&self, node: &Node, program: &str) {
        let address = node.address;
        print_line!("WebSocket  ws://{address}/v1/ws");
        print_line!("HTTP API   http://{address}/v1/openapi.json");
        if let Some(address) = node.ops_address {
            print_line!("Operations http://{address}/metrics");
        }
        if let Some(file) = &self.admin_key {
            print_line!("Admin key  {}", file.display());
        }
        if let (true, Some(data)) = (node.has_demo, &self.data) {
            let [alice, bob] =
                ["alice", "bob"].map(|user| chat_command(program, user, address, data));
            print_line!("Chat now   {alice}");
            print_line!("           {bob}      in another terminal");
        }
    }
}

/// Returns the command to chat as a user of the demo from this machine.
fn chat_command(program: &str, user: &str, address: SocketAddr, data: &Path) -> String {
    let mut command = format!("{} chat --user {user}", quoted(program));
    let url = format!("ws://{}/v1/ws", reachable(address));
    if url != config::CHAT_URL {
        command.push_str(&format!(" --url {url}"));
    }
    if data != Path::new(config::DATA_FOLDER) {
        let data = std::path::absolute(data).unwrap_or_else(|_| data.to_owned());
        command.push_str(&format!(" --data {}", quoted(&data.to_string_lossy())));
    }
    command
}

/// Returns an address at which this machine reaches a listener on `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Quotes a word for a shell.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%=".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Returns the name of this program on the command line.
pub fn program_name() -> String {
    std::env::args_os()
        .next()
        .as_deref()
        .unwrap_or(OsStr::new("chaos"))
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test")]

    use super::*;

    #[test]
    fn chat_command_omits_defaults() {
        let command = |address: &str, data: &str| {
            chat_command("chaos", "bob", address.parse().unwrap(), Path::new(data))
        };
        assert_eq!(
            command("127.0.0.1:7400", "./chaos-data"),
            "chaos chat --user bob"
        );
        assert_eq!(
            command("0.0.0.0:7400", "./chaos-data"),
            "chaos chat --user bob"
        );
        assert_eq!(
            command("[::]:1", "/tmp/a b"),
            "chaos chat --user bob --url ws://[::1]:1/v1/ws --data '/tmp/a b'"
        );
        assert_eq!(
            command("10.0.0.1:1", "/it's"),
            r"chaos chat --user bob --url ws://10.0.0.1:1/v1/ws --data '/it'\''s'"
        );
    }
}
