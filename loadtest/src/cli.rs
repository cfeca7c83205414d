//! What can be asked for.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use protocol::Encoding;
use serde::Serialize;

use crate::arena::{fault::Fault, store::Kind};

/// Drives CHAOS nodes with real clients, verifies every delivery, and measures.
///
/// It makes an organization of its own with the admin key, with users, channels and tokens, and deletes it afterwards.
/// Start a node with `chaos` and run `chaos-loadtest chat` beside it, in the same folder.
///
/// With the limits that a node has by default: a client sends at most 50 messages per second (`requests_per_second`). What
/// the node refuses for that is counted and raises nothing.
///
/// Exit code: 0 if every promise was kept; 1 if a message was lost, doubled, out of order, foreign, altered or left out,
/// with the first evidence of each; 2 if the run could not be made.
#[derive(Debug, Parser)]
#[command(name = "chaos-loadtest", version, max_term_width = 110)]
pub struct Cli {
    /// The scenario.
    #[command(subcommand)]
    pub scenario: Scenario,
}

/// The scenarios.
#[derive(Debug, Subcommand)]
pub enum Scenario {
    /// Many channels, everybody talks: messages at a fixed rate, latencies from the instant each was due.
    ///
    /// The schedule is open loop: it is fixed before the run, and a server that stalls does not slow it, so that the wait
    /// counts for every message that was due meanwhile. Afterwards each channel is listed, and has to have every
    /// acknowledged message exactly once. A connection that ends is made again and resumed; a message whose reply never
    /// came is sent again under its id.
    Chat(Chat),
    /// One channel with many subscribers: what a delivery costs the node, beside a bare `send()` in the same run.
    ///
    /// A message is in flight until every subscriber has it. With one in flight the node cannot merge frames; where many
    /// leave together it can. Give `--pid` of the node to have its CPU time and memory measured.
    Fanout(Fanout),
    /// `chat` through faults: nodes, Redis and connections end, hang and come back, and every promise is checked over all of it.
    ///
    /// Every sixteenth message is deleted again, and in each channel a guest is removed and added again and again.
    ///
    /// It starts nodes and a store of its own, with a path to each node that can be cut, delayed, slowed and stalled. What
    /// goes wrong when follows from --seed, so that a run can be repeated. Needs redis-server, except for the embedded store.
    Verify(Verify),
}

impl Scenario {
    /// What all have.
    pub fn common(&self) -> &Common {
        match self {
            Self::Chat(chat) => &chat.common,
            Self::Fanout(fanout) => &fanout.common,
            Self::Verify(verify) => &verify.chat.common,
        }
    }

    /// How many connections are open at once.
    pub fn connections(&self) -> usize {
        match self {
            Self::Chat(chat) => chat.channels * chat.members,
            Self::Fanout(fanout) => fanout.subscribers + fanout.publishers,
            // And a guest in each channel.
            Self::Verify(Verify { chat, .. }) => chat.channels * (chat.members + 1),
        }
    }

    /// How many sockets this process needs: the floor has two for each subscriber, a path two for each connection.
    pub fn sockets(&self) -> usize {
        self.connections()
            + match self {
                Self::Chat(_) => 0,
                Self::Fanout(fanout) => 2 * fanout.subscribers,
                Self::Verify(_) => 2 * self.connections(),
            }
    }

    /// Whether what was asked for makes sense together.
    pub fn check(&self) -> Result<()> {
        let common = self.common();
        ensure!(
            common.seconds > 0.0 && common.seconds.is_finite(),
            "--seconds is more than 0"
        );
        ensure!(
            common.payload >= MIN_PAYLOAD,
            "--payload is at least {MIN_PAYLOAD}: a text begins with its message's number"
        );
        ensure!(common.connecting >= 1, "--connecting is at least 1");
        ensure!(common.token_seconds >= 1, "--token-seconds is at least 1");
        match self {
            Self::Chat(Chat {
                rate,
                channels,
                members,
                ..
            })
            | Self::Verify(Verify {
                chat:
                    Chat {
                        rate,
                        channels,
                        members,
                        ..
                    },
                ..
            }) => {
                ensure!(
                    *channels >= 1 && *members >= 1,
                    "--channels and --members are at least 1"
                );
                ensure!(*rate > 0.0 && rate.is_finite(), "--rate is more than 0");
            }
            Self::Fanout(Fanout {
                subscribers,
                publishers,
                in_flight,
                passing,
                ..
            }) => {
                ensure!(
                    *subscribers >= 1 && *publishers >= 1 && *in_flight >= 1,
                    "--subscribers, --publishers and --in-flight are at least 1"
                );
                ensure!(
                    !passing || in_flight <= publishers,
                    "--passing needs a publisher for each event in flight: they carry no id, so that one publisher has one under way"
                );
            }
        }
        if let Self::Verify(verify) = self {
            ensure!(verify.nodes >= 1, "--nodes is at least 1");
            ensure!(
                verify
                    .minutes
                    .is_none_or(|minutes| minutes > 0.0 && minutes.is_finite()),
                "--minutes is more than 0"
            );
            verify.faults()?;
        }
        Ok(())
    }
}

/// `verify`.
#[derive(Debug, Args, Serialize)]
pub struct Verify {
    /// What may go wrong, separated by commas: `all` that apply to the store, `none`, or some of kill, term, stop, cut, delay,
    /// stall, slow, clock (needs libfaketime), disk (needs root), store-kill, store-stop, failover, migrate.
    #[arg(
        long,
        value_name = "FAULTS",
        default_value = "all",
        value_delimiter = ','
    )]
    pub faults: Vec<String>,
    /// The store of the nodes.
    #[arg(long, value_enum, default_value_t = Kind::Embedded)]
    pub store: Kind,
    /// How many nodes share it; the embedded store has one.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub nodes: usize,
    /// What the sequence of faults follows from; another one each time, if none is given. The report tells it.
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// How long, in minutes; in place of --seconds.
    #[arg(long, value_name = "MINUTES", conflicts_with = "seconds")]
    pub minutes: Option<f64>,
    /// The node's program; if none is given, the `chaos` beside this one.
    #[arg(long, value_name = "FILE", conflicts_with = "running")]
    #[serde(skip)]
    pub chaos: Option<PathBuf>,
    /// A setting for the nodes, as they take it on the command line (`--node-flag=--redis-wait=1`). Repeat it for several.
    #[arg(
        long = "node-flag",
        value_name = "FLAG",
        conflicts_with = "running",
        allow_hyphen_values = true
    )]
    pub node_flags: Vec<String>,
    /// Use the nodes that run at --url: only connections are made bad then.
    #[arg(long)]
    pub running: bool,
    /// What a chat has.
    #[command(flatten)]
    #[serde(flatten)]
    pub chat: Chat,
}

impl Verify {
    /// The store of the run's own nodes; none where it has none of its own.
    pub fn store(&self) -> Option<Kind> {
        (!self.running).then_some(self.store)
    }

    /// What may go wrong.
    pub fn faults(&self) -> Result<Vec<Fault>> {
        let store = self.store();
        let mut faults = Vec::new();
        for word in &self.faults {
            match word.as_str() {
                "all" => faults.extend(
                    Fault::value_variants()
                        .iter()
                        .filter(|fault| fault.applies(store)),
                ),
                "none" => {}
                word => match Fault::from_str(word, false) {
                    Ok(fault) if fault.applies(store) => faults.push(fault),
                    Ok(_) => bail!(
                        "--faults {word} does not befall such nodes: see --store and --running"
                    ),
                    Err(_) => bail!("--faults {word} is none: see --help"),
                },
            }
        }
        Ok(faults)
    }

    /// How long, in seconds.
    pub fn seconds(&self) -> f64 {
        self.minutes
            .map_or(self.chat.common.seconds, |minutes| minutes * 60.0)
    }
}

/// `chat`.
#[derive(Debug, Args, Serialize)]
pub struct Chat {
    /// How many channels.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub channels: usize,
    /// How many members each has: users of their own, each with one connection.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub members: usize,
    /// Messages per second over all channels.
    #[arg(long, value_name = "PER_SECOND", default_value_t = 200.0)]
    pub rate: f64,
    /// What every scenario has.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

/// `fanout`.
#[derive(Debug, Args, Serialize)]
pub struct Fanout {
    /// How many subscribers the channel has.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub subscribers: usize,
    /// How many messages leave together, the next ones when every subscriber has them.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub in_flight: usize,
    /// How many sessions send, in turn; they do not subscribe.
    #[arg(long, value_name = "N", default_value_t = 64)]
    pub publishers: usize,
    /// Passing events (`typing`) instead of stored messages: the fan-out without the store.
    #[arg(long)]
    pub passing: bool,
    /// What every scenario has.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
}

/// What every scenario has.
#[derive(Debug, Clone, Args, Serialize)]
pub struct Common {
    /// A node. Repeat it for several: clients are spread over them. `http://` and a path are taken too.
    #[arg(
        long = "url",
        value_name = "URL",
        default_value = "ws://127.0.0.1:7400"
    )]
    pub urls: Vec<String>,
    /// The deployment's admin key.
    #[arg(
        long,
        value_name = "KEY",
        env = "CHAOS_ADMIN_KEY",
        hide_env_values = true
    )]
    #[serde(skip)]
    pub admin_key: Option<String>,
    /// A file that holds it.
    #[arg(
        long,
        value_name = "FILE",
        env = "CHAOS_ADMIN_KEY_FILE",
        conflicts_with = "admin_key"
    )]
    #[serde(skip)]
    pub admin_key_file: Option<PathBuf>,
    /// The node's data folder, which holds it in `admin-key`; read where neither of the two above is given.
    #[arg(long, value_name = "FOLDER", default_value = "./chaos-data")]
    #[serde(skip)]
    pub data: PathBuf,
    /// How long messages are sent, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    pub seconds: f64,
    /// How long outstanding deliveries are waited for afterwards, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub wait: u64,
    /// How frames are encoded; with `both`, every other client has the other one.
    #[arg(long, value_enum, default_value_t = Encodings::Msgpack)]
    pub encoding: Encodings,
    /// Bytes of a message's text.
    #[arg(long, value_name = "BYTES", default_value_t = 128)]
    pub payload: usize,
    /// How long user tokens are valid, in seconds; a session gets a new one before its token ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 3_600)]
    pub token_seconds: u64,
    /// How many clients may be connecting at the same time. At first a node may not like many from one address at once; with as
    /// many as there are clients, those of a node that ends come to the others as they would.
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub connecting: usize,
    /// A node's process id, to measure its CPU time and memory. Repeat it for several.
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// Leave the organization behind, and say which it is.
    #[arg(long)]
    pub keep: bool,
    /// Write the report to this file, for machines.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub json: Option<PathBuf>,
    /// Write the distribution of delivery latencies to this file, for HDR histogram plotters.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub hgrm: Option<PathBuf>,
}

/// Eight digits and a space.
pub const MIN_PAYLOAD: usize = 9;

/// How the frames of the clients are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Encodings {
    /// MessagePack.
    Msgpack,
    /// JSON.
    Json,
    /// Every other client.
    Both,
}

impl Encodings {
    /// The encoding of this client.
    pub fn of(self, client: usize) -> Encoding {
        match self {
            Self::Msgpack => Encoding::MessagePack,
            Self::Json => Encoding::Json,
            Self::Both => Encoding::ALL[client % 2],
        }
    }
}

impl Common {
    /// The admin key, from wherever it is given.
    pub fn admin_key(&self) -> Result<String> {
        if let Some(key) = &self.admin_key {
            return Ok(key.trim().to_owned());
        }
        let path = self
            .admin_key_file
            .clone()
            .unwrap_or_else(|| self.data.join("admin-key"));
        let key = fs::read_to_string(&path).with_context(|| {
            format!(
                "There is no admin key in {}: give --admin-key, --admin-key-file, or --data with the node's data folder",
                path.display()
            )
        })?;
        Ok(key.trim().to_owned())
    }

    /// Where the HTTP API of each node is: scheme, host and port of its address.
    pub fn http_bases(&self) -> Result<Vec<String>> {
        self.urls.iter().map(|url| http_base(url)).collect()
    }
}

fn http_base(url: &str) -> Result<String> {
    let Some(rest) = url
        .strip_prefix("ws://")
        .or_else(|| url.strip_prefix("http://"))
    else {
        bail!(
            "--url {url} is not an address that this client can use: it begins with ws:// or http://"
        );
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    ensure!(!authority.is_empty(), "--url {url} names no host");
    Ok(format!("http://{authority}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(arguments: &str) -> Scenario {
        Cli::parse_from(
            ["chaos-loadtest"]
                .into_iter()
                .chain(arguments.split_whitespace()),
        )
        .scenario
    }

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_http_base_is_derived_from_any_form_of_address() {
        for url in ["ws://h:1", "ws://h:1/v1/ws", "http://h:1/", "http://h:1?x"] {
            assert_eq!(http_base(url).expect(url), "http://h:1");
        }
        assert!(
            http_base("wss://h").is_err()
                && http_base("ws:///x").is_err()
                && http_base("h:1").is_err()
        );
    }

    #[test]
    fn several_nodes_and_defaults_are_taken() {
        let scenario = parsed("chat --url ws://a:1 --url ws://b:2 --encoding both");
        let Scenario::Chat(Chat {
            channels: 20,
            members: 10,
            common,
            ..
        }) = &scenario
        else {
            panic!("{scenario:?}")
        };
        assert_eq!(
            common.http_bases().expect("addresses"),
            ["http://a:1", "http://b:2"]
        );
        assert_eq!(
            (common.encoding.of(0), common.encoding.of(3)),
            (Encoding::MessagePack, Encoding::Json)
        );
        assert_eq!((scenario.connections(), scenario.sockets()), (200, 200));
        scenario.check().expect("the defaults are fine");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_a_sentence() {
        for arguments in [
            "chat --channels 0",
            "chat --rate 0",
            "chat --payload 8",
            "fanout --passing --in-flight 65",
            "chat --seconds 0",
        ] {
            assert!(parsed(arguments).check().is_err(), "{arguments}");
        }
    }

    #[test]
    fn the_admin_key_is_read_from_the_data_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("admin-key"), "adm_x\n").expect("written");
        let scenario = parsed(&format!("fanout --data {}", folder.path().display()));
        assert_eq!(scenario.common().admin_key().expect("a key"), "adm_x");
        let error = parsed("chat --data /nowhere")
            .common()
            .admin_key()
            .expect_err("no key")
            .to_string();
        assert!(error.contains("--admin-key"), "{error}");
    }
}
