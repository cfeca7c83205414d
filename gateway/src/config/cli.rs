//! The command line: subcommands, their flags and their help.

use std::{ffi::OsString, path::PathBuf};

use clap::{Parser, Subcommand};
use protocol::Limits;

use super::{
    Config, ConfigError, Environment, Export, Flags, Import, Secret, check, layers,
    moving::{ExportFlags, ImportFlags},
    settings::LIMITS,
    show,
};
use crate::keep::{Backup, Check, Restore};

/// What the command line asks for.
#[derive(Debug)]
pub enum Command {
    /// Run a node.
    Serve(Box<Config>),
    /// Print this, the effective settings, and end.
    Config(String),
    /// Chat from the terminal.
    Chat(Chat),
    /// Copy a data folder.
    Backup(Backup),
    /// Make a data folder from a backup.
    Restore(Restore),
    /// Check a data folder.
    Check(Check),
    /// Write an app as lines of JSON.
    Export(Export),
    /// Read an app from such lines.
    Import(Import),
}

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line itself: wrong usage, or a wish for help or version. `clap::Error::exit` prints it and chooses the exit code.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// A setting.
    #[error(transparent)]
    Setting(#[from] ConfigError),
}

/// Reads the process's own arguments and environment. Ends the process when they ask for help or are no command line.
///
/// # Errors
/// A setting that cannot be used.
pub fn from_process() -> Result<Command, ConfigError> {
    match parse(std::env::args_os(), &|name| std::env::var(name).ok()) {
        Ok(command) => Ok(command),
        Err(Failure::Setting(error)) => Err(error),
        Err(Failure::Usage(error)) => error.exit(),
    }
}

/// Reads a command line, the program's name first, and the files that it names.
///
/// # Errors
/// The command line or a setting cannot be used.
pub fn parse(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    env: Environment<'_>,
) -> Result<Command, Failure> {
    let cli = Cli::try_parse_from(args)?;
    let (flags, shown) = match cli.command {
        None => (cli.flags, false),
        Some(Sub::Serve(flags)) => (flags.or(cli.flags), false),
        Some(Sub::Config(flags)) => (flags.or(cli.flags), true),
        Some(Sub::Chat(_)) if !cli.flags.is_empty() => {
            return Err(ConfigError::new("a node's flags stand before `chat`, which is a client: give its own flags after it").into());
        }
        Some(Sub::Chat(chat)) => return Ok(Command::Chat(chat)),
        Some(
            Sub::Backup(_) | Sub::Restore(_) | Sub::Check(_) | Sub::Export(_) | Sub::Import(_),
        ) if !cli.flags.is_empty() => {
            return Err(ConfigError::new("a node's flags stand before a command that runs no node: give its own flags after it").into());
        }
        Some(Sub::Backup(backup)) => return Ok(Command::Backup(backup)),
        Some(Sub::Restore(restore)) => return Ok(Command::Restore(restore)),
        Some(Sub::Check(check)) => return Ok(Command::Check(check)),
        Some(Sub::Export(flags)) => return Ok(Command::Export(flags.read(env)?)),
        Some(Sub::Import(flags)) => return Ok(Command::Import(flags.read(env)?)),
    };
    let settings = layers::gather(flags, env)?;
    let config = check::check(&settings)?;
    Ok(if shown {
        Command::Config(show::effective(&settings, &config.limits))
    } else {
        Command::Serve(Box::new(config))
    })
}

/// CHAOS, a chat backend: runs a node.
///
/// Started bare it keeps everything in ./chaos-data and is complete: `chaos`, then `chaos chat` in another terminal.
/// Settings come from flags, then the environment, then the file given by --config, then the defaults.
#[derive(Parser)]
#[command(
    name = "chaos", version, subcommand_precedence_over_arg = true, disable_help_subcommand = true,
    override_usage = "chaos [serve] [FLAGS]\n       chaos config [FLAGS]\n       chaos chat [CHAT FLAGS]\n       \
        chaos backup [--data FOLDER] --to FOLDER\n       chaos restore --from FOLDER [--data FOLDER]\n       chaos check [--data FOLDER]\n       \
        chaos export --app APP [--to FILE] [STORE FLAGS]\n       chaos import [--from FILE] [STORE FLAGS]",
    after_help = "`chaos --help` tells more, with examples and every limit.", after_long_help = after_help()
)]
struct Cli {
    #[command(flatten)]
    flags: Flags,
    #[command(subcommand)]
    command: Option<Sub>,
}

#[derive(Subcommand)]
enum Sub {
    /// Run a node (what `chaos` alone does)
    Serve(Flags),
    /// Print the effective settings and where each came from, secrets hidden
    Config(Flags),
    /// Chat from the terminal: a real client over the wire
    Chat(Chat),
    /// Copy the data folder of the embedded store, also while its node runs
    Backup(Backup),
    /// Make a data folder from a backup
    Restore(Restore),
    /// Check whether a data folder or a backup is whole; exit code 1 if it is not
    Check(Check),
    /// Write an app, with all that belongs to it, as lines of JSON, for another store
    ///
    /// The nodes that serve it must be stopped: an app that changes meanwhile is refused.
    Export(ExportFlags),
    /// Read an app that `chaos export` wrote into a store that does not have it
    ///
    /// The store needs the same secret key. What was interrupted is never served, and is begun again with the same command.
    Import(ImportFlags),
}

/// The flags of the terminal client. Without a credential it takes the demo's from the data folder.
#[derive(Debug, Clone, clap::Args)]
pub struct Chat {
    /// The node's WebSocket
    #[arg(long, default_value = "ws://127.0.0.1:7400/v1/ws")]
    pub url: String,
    /// Who to be: a user id
    #[arg(long, default_value = "alice")]
    pub user: String,
    /// Where to talk: a channel id
    #[arg(long, default_value = "general")]
    pub channel: String,
    /// A user token (seen in the process list: prefer --token-file)
    #[arg(long, conflicts_with_all = ["token_file", "app_key"])]
    pub token: Option<Secret>,
    /// A file with a user token
    #[arg(long, value_name = "FILE", conflicts_with = "app_key")]
    pub token_file: Option<PathBuf>,
    /// An app key, with which a token for --user is minted
    #[arg(long, value_name = "KEY")]
    pub app_key: Option<Secret>,
    /// The node's data folder, for the demo's credentials
    #[arg(long, value_name = "FOLDER", default_value = "./chaos-data")]
    pub data: PathBuf,
}

fn after_help() -> String {
    let mut help = format!(
        "{LIMITS}, by default (0 means none; each is per node unless it says otherwise):\n"
    );
    for (name, default, about) in Limits::ALL {
        let default = if *name == "outbox_total_bytes" {
            "memory / 4".to_owned()
        } else {
            default.to_string()
        };
        help.push_str(&format!("  {name:<26} {default:>10}  {about}\n"));
    }
    help.push_str(
        "
Examples:
  chaos                                             a complete node with a demo to chat in
  chaos --listen 0.0.0.0:7400 --demo off --allowed-origins self,https://app.example.com
  chaos --redis redis://10.0.0.5:6379 --admin-key-file admin.key --secret-key-file secret.key
  CHAOS_LIMITS=connections=50000,page=100 chaos --log-format json
  chaos config --config deploy/chaos.toml           what would be in force, and why
  chaos backup --to backups/monday                  a copy of ./chaos-data, whether its node runs or not
  chaos export --app app_… --to app.jsonl           an app on its way to another store
  chaos import --from app.jsonl --redis redis://10.0.0.5:6379 --secret-key-file secret.key

A setting that cannot be used ends the start with exit code 2 and a sentence that says how to mend it.",
    );
    help
}
