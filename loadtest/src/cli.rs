//! The command line.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use protocol::Encoding;
use serde::Serialize;

use crate::fault_kind::{FaultKind, StoreKind};

/// Load test for CHAOS: drives nodes with real clients, verifies every delivery and measures
/// latency and cost.
///
/// Creates an organization with users, channels and tokens of its own by the admin key, and deletes
/// it afterwards. Start a node with `chaos` and run `chaos-loadtest chat` in the same folder.
///
/// By default a node accepts 50 requests per second from a client (`requests_per_second`). Messages
/// refused for that are counted, and are no failure.
///
/// Exit code: 0 if every promise was kept; 1 if one was broken (a message was lost, duplicated, out
/// of order, altered, or delivered where it does not belong), with the first evidence of each kind;
/// 2 if the run could not be made or proved nothing.
#[derive(Debug, Parser)]
#[command(name = "chaos-loadtest", version, max_term_width = 110)]
pub struct CommandLine {
    /// The scenario to run.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Many channels in which every member sends: messages at a fixed rate, latencies from when
    /// each was due.
    ///
    /// The schedule is open loop: it is fixed before the run, and a node that stalls does not slow
    /// it down, so the stall counts for every message that was due meanwhile. Afterwards each
    /// channel is listed and must contain every acknowledged message exactly once. Clients
    /// reconnect and resume; a message without a reply is sent again with the same id.
    Chat(ChatArgs),
    /// One channel with many subscribers: the cost of a delivery for the node, compared to a bare
    /// `send()`.
    ///
    /// A message is in flight until every subscriber has received it. With one in flight the node
    /// cannot merge frames into one write, with several it can. Give `--pid` of the node to measure
    /// its CPU time and memory.
    Fanout(FanoutArgs),
    /// `chat` beside users who are online and do nothing: what they cost, and what they do to the
    /// latencies of others.
    ///
    /// For each number of `--idle`, connects users up to it who are in no channel, measures the node
    /// and Redis while nobody sends (with --pid and --redis-server), and runs `chat`.
    IdleUsers(IdleUsersArgs),
    /// `chat` under faults: nodes, Redis and connections fail and recover, and every promise is
    /// checked throughout.
    ///
    /// Every sixteenth message is deleted, and each channel has a guest that is removed and added
    /// repeatedly.
    ///
    /// Starts its own nodes and store, with a proxy before each node that cuts, delays, slows and
    /// stalls connections. The sequence of faults follows from --seed. Needs redis-server, except
    /// for the embedded store.
    Verify(VerifyArgs),
}

impl Scenario {
    /// Returns the options that all scenarios share.
    pub fn common(&self) -> &CommonArgs {
        match self {
            Self::Chat(chat) => &chat.common,
            Self::Fanout(fanout) => &fanout.common,
            Self::IdleUsers(args) => &args.chat.common,
            Self::Verify(verify) => &verify.chat.common,
        }
    }

    /// Number of connections that are open at the same time.
    pub fn connections(&self) -> usize {
        match self {
            Self::Chat(chat) => chat.channels * chat.members,
            Self::Fanout(fanout) => fanout.subscribers + fanout.publishers,
            Self::IdleUsers(IdleUsersArgs { chat, idle, .. }) => {
                chat.channels * chat.members + idle.iter().max().copied().unwrap_or(0)
            }
            // The members, and a guest in each channel.
            Self::Verify(VerifyArgs { chat, .. }) => chat.channels * (chat.members + 1),
        }
    }

    /// Number of sockets that this process needs: the floor has two for each subscriber, a proxy
    /// two for each connection.
    pub fn sockets(&self) -> usize {
        self.connections()
            + match self {
                Self::Chat(_) | Self::IdleUsers(_) => 0,
                Self::Fanout(fanout) => 2 * fanout.subscribers,
                Self::Verify(_) => 2 * self.connections(),
            }
    }

    /// Returns an error for values that are out of range or contradict each other.
    pub fn check(&self) -> Result<()> {
        let common = self.common();
        ensure!(
            common.seconds > 0.0 && common.seconds.is_finite(),
            "--seconds must be greater than 0"
        );
        ensure!(
            common.payload >= MIN_PAYLOAD,
            "--payload must be at least {MIN_PAYLOAD}: a text begins with the number of its message"
        );
        ensure!(common.connecting >= 1, "--connecting must be at least 1");
        ensure!(
            common.token_seconds >= 1,
            "--token-seconds must be at least 1"
        );
        match self {
            Self::Chat(ChatArgs {
                rate,
                channels,
                members,
                ..
            })
            | Self::Verify(VerifyArgs {
                chat:
                    ChatArgs {
                        rate,
                        channels,
                        members,
                        ..
                    },
                ..
            })
            | Self::IdleUsers(IdleUsersArgs {
                chat:
                    ChatArgs {
                        rate,
                        channels,
                        members,
                        ..
                    },
                ..
            }) => {
                ensure!(
                    *channels >= 1 && *members >= 1,
                    "--channels and --members must be at least 1"
                );
                ensure!(
                    *rate > 0.0 && rate.is_finite(),
                    "--rate must be greater than 0"
                );
            }
            Self::Fanout(FanoutArgs {
                subscribers,
                publishers,
                in_flight,
                passing,
                ..
            }) => {
                ensure!(
                    *subscribers >= 1 && *publishers >= 1 && *in_flight >= 1,
                    "--subscribers, --publishers and --in-flight must be at least 1"
                );
                ensure!(
                    !passing || in_flight <= publishers,
                    "--passing needs as many --publishers as --in-flight: passing events have no id, so each publisher has one in flight"
                );
            }
        }
        if let Self::IdleUsers(args) = self {
            ensure!(
                args.idle.is_sorted(),
                "--idle must name numbers in ascending order: idle users stay connected"
            );
            ensure!(
                args.idle_seconds > 0.0 && args.idle_seconds.is_finite(),
                "--idle-seconds must be greater than 0"
            );
        }
        if let Self::Verify(verify) = self {
            ensure!(verify.nodes >= 1, "--nodes must be at least 1");
            ensure!(
                verify
                    .minutes
                    .is_none_or(|minutes| minutes > 0.0 && minutes.is_finite()),
                "--minutes must be greater than 0"
            );
            verify.faults()?;
        }
        Ok(())
    }
}

/// Options of `verify`.
#[derive(Debug, Args, Serialize)]
pub struct VerifyArgs {
    /// Faults to inject, separated by commas: `all` that apply to the store, `none`, or any of
    /// kill, term, stop, cut, delay, stall, slow, drop, clock (needs libfaketime), disk (needs
    /// root), store-kill, store-stop, failover, migrate.
    #[arg(
        long,
        value_name = "FAULTS",
        default_value = "all",
        value_delimiter = ','
    )]
    pub faults: Vec<String>,
    /// Store of the nodes.
    #[arg(long, value_enum, default_value_t = StoreKind::Embedded)]
    pub store: StoreKind,
    /// Number of nodes; always one with the embedded store.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub nodes: usize,
    /// Seed of the sequence of faults, random by default. The report contains it.
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// How long messages are sent, in minutes; instead of --seconds.
    #[arg(long, value_name = "MINUTES", conflicts_with = "seconds")]
    pub minutes: Option<f64>,
    /// Path of the node's binary; by default `chaos` in the folder of this binary.
    #[arg(long, value_name = "FILE", conflicts_with = "running")]
    #[serde(skip)]
    pub chaos: Option<PathBuf>,
    /// A flag for the nodes, for example `--node-flag=--redis-wait=1`. May be repeated.
    #[arg(
        long = "node-flag",
        value_name = "FLAG",
        conflicts_with = "running",
        allow_hyphen_values = true
    )]
    pub node_flags: Vec<String>,
    /// Use the nodes at --url instead of starting nodes. Only connections fail then.
    #[arg(long)]
    pub running: bool,
    /// Options of `chat`.
    #[command(flatten)]
    #[serde(flatten)]
    pub chat: ChatArgs,
}

impl VerifyArgs {
    /// Store of the nodes that the run starts; `None` if it starts none.
    pub fn store(&self) -> Option<StoreKind> {
        (!self.running).then_some(self.store)
    }

    /// Faults to inject.
    pub fn faults(&self) -> Result<Vec<FaultKind>> {
        let store = self.store();
        let mut faults = Vec::new();
        for word in &self.faults {
            match word.as_str() {
                "all" => faults.extend(
                    FaultKind::value_variants()
                        .iter()
                        .filter(|fault| fault.applies(store)),
                ),
                "none" => {}
                word => match FaultKind::from_str(word, false) {
                    Ok(fault) if fault.applies(store) => faults.push(fault),
                    Ok(_) => bail!(
                        "--faults {word} does not apply to these nodes, see --store and --running"
                    ),
                    Err(_) => bail!("--faults {word} is unknown, see --help"),
                },
            }
        }
        Ok(faults)
    }

    /// How long messages are sent, in seconds.
    pub fn seconds(&self) -> f64 {
        self.minutes
            .map_or(self.chat.common.seconds, |minutes| minutes * 60.0)
    }
}

/// Options of `chat`.
#[derive(Debug, Args, Serialize)]
pub struct ChatArgs {
    /// Number of channels.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub channels: usize,
    /// Members per channel: each is a user with one connection.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub members: usize,
    /// Messages per second in all channels together.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 200.0)]
    pub rate: f64,
    /// Common options.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: CommonArgs,
}

/// Options of `idle-users`.
#[derive(Debug, Args, Serialize)]
pub struct IdleUsersArgs {
    /// Numbers of idle users, ascending, separated by commas.
    #[arg(
        long,
        value_name = "NUMBERS",
        default_value = "0,5000,15000",
        value_delimiter = ','
    )]
    pub idle: Vec<usize>,
    /// How long to measure while nobody sends, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0)]
    pub idle_seconds: f64,
    /// Options of `chat`.
    #[command(flatten)]
    #[serde(flatten)]
    pub chat: ChatArgs,
}

/// Options of `fanout`.
#[derive(Debug, Args, Serialize)]
pub struct FanoutArgs {
    /// Number of subscribers of the channel.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub subscribers: usize,
    /// Number of messages that are sent together; the next ones follow when every subscriber has
    /// received them.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub in_flight: usize,
    /// Number of sessions that send, in turn. They do not subscribe.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub publishers: usize,
    /// Send passing events (`typing`) instead of messages: the fan-out without the store. A node
    /// sends at most two of them per second for each publisher, and only in channels of at most
    /// `read_audience` participants.
    #[arg(long)]
    pub passing: bool,
    /// Common options.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: CommonArgs,
}

/// Options that all scenarios share.
#[derive(Debug, Clone, Args, Serialize)]
pub struct CommonArgs {
    /// Address of a node. May be repeated: clients are spread over the nodes. `http://` and a path
    /// are accepted.
    #[arg(
        long = "url",
        value_name = "URL",
        default_value = "ws://127.0.0.1:7400"
    )]
    pub urls: Vec<String>,
    /// Admin key of the deployment.
    #[arg(
        long,
        value_name = "KEY",
        env = "CHAOS_ADMIN_KEY",
        hide_env_values = true
    )]
    #[serde(skip)]
    pub admin_key: Option<String>,
    /// File that contains the admin key.
    #[arg(
        long,
        value_name = "FILE",
        env = "CHAOS_ADMIN_KEY_FILE",
        conflicts_with = "admin_key"
    )]
    #[serde(skip)]
    pub admin_key_file: Option<PathBuf>,
    /// Data folder of the node, whose file `admin-key` is read if the key is not given otherwise. If
    /// the folder is on this machine, the disk under it is measured.
    #[arg(long, value_name = "FOLDER", default_value = "./chaos-data")]
    #[serde(skip)]
    pub data: PathBuf,
    /// How long messages are sent, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub seconds: f64,
    /// How long to wait for outstanding deliveries afterwards, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub wait: u64,
    /// Encoding of frames; with `both`, clients alternate.
    #[arg(long, value_enum, default_value_t = EncodingChoice::Msgpack)]
    pub encoding: EncodingChoice,
    /// Length of a message's text, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub payload: usize,
    /// Validity of user tokens, in seconds. Sessions refresh their token before it expires.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    pub token_seconds: u64,
    /// Number of clients that may be connecting at the same time. A node limits connection attempts
    /// per address; set this to the number of clients to let all clients of a node that ended
    /// reconnect at the same time.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub connecting: usize,
    /// Process id of a node, to measure its CPU time and memory. May be repeated.
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// How long to wait after all clients have left, in seconds, before the memory of the nodes is
    /// measured once more. Needs --pid.
    #[arg(long, value_name = "SECONDS", requires = "pids")]
    pub left_seconds: Option<u64>,
    /// Address of a Redis server of the nodes (`redis://…`), to measure its CPU time and commands
    /// beside idle users. May be repeated.
    #[arg(long = "redis-server", value_name = "URL")]
    #[serde(skip)]
    pub redis_servers: Vec<String>,
    /// Keep the organization, and print its id.
    #[arg(long)]
    pub keep: bool,
    /// File to write the report to, as JSON.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub json: Option<PathBuf>,
    /// File to write the distribution of delivery latencies to, for HDR histogram plotters.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub hgrm: Option<PathBuf>,
}

/// Minimum length of a text: the index of its message as eight hexadecimal digits, and a space.
pub const MIN_PAYLOAD: usize = 9;

/// Encoding of the frames of all clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EncodingChoice {
    /// MessagePack.
    Msgpack,
    /// JSON.
    Json,
    /// MessagePack and JSON, alternating from client to client.
    Both,
}

impl EncodingChoice {
    /// The encoding of a client.
    pub fn of(self, client: usize) -> Encoding {
        match self {
            Self::Msgpack => Encoding::MessagePack,
            Self::Json => Encoding::Json,
            Self::Both => Encoding::ALL[client % 2],
        }
    }
}

impl CommonArgs {
    /// Returns the admin key from the flag, the file or the data folder.
    pub fn admin_key(&self) -> Result<String> {
        if let Some(key) = &self.admin_key {
            return Ok(key.trim().to_owned());
        }
        let path = self
            .admin_key_file
            .clone()
            .unwrap_or_else(|| self.data.join("admin-key"));
        let key = fs::read_to_string(&path).with_context(|| {
            format!("no admin key in {}: give --admin-key, --admin-key-file, or --data with the node's data folder", path.display())
        })?;
        Ok(key.trim().to_owned())
    }

    /// Base addresses of the nodes' HTTP APIs: `http://`, host and port.
    pub fn http_bases(&self) -> Result<Vec<String>> {
        self.urls.iter().map(|url| http_base(url)).collect()
    }
}

fn http_base(url: &str) -> Result<String> {
    let Some(rest) = url
        .strip_prefix("ws://")
        .or_else(|| url.strip_prefix("http://"))
    else {
        bail!("--url {url} cannot be used: it must begin with ws:// or http://");
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    ensure!(!authority.is_empty(), "--url {url} has no host");
    Ok(format!("http://{authority}"))
}

#[cfg(test)]
mod tests;
