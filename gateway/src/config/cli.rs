//! The command line: subcommands, their flags and their help.

use std::{
    ffi::OsString,
    io::{self, Write},
    path::PathBuf,
};

use clap::{
    CommandFactory, Parser, Subcommand,
    error::{ContextKind, ContextValue, ErrorKind},
};
use domain::nearest::nearest;
use protocol::Limits;

use super::{
    Config, ConfigError, EnvironmentReader, Export, Flags, Import, LogFormat, Secret, check,
    layers,
    settings::{DATA_FOLDER, LIMITS},
    show,
    transfer::{ExportFlags, ImportFlags},
};
use crate::{
    backup::{Backup, CheckArgs, Restore},
    health::HealthArgs,
    listen::{SocketBudget, max_descriptor_limit},
    log::scrub,
    terminal::print_error,
};

/// A parsed command line.
#[derive(Debug)]
pub enum Command {
    /// Run a node.
    Serve(Box<Config>),
    /// Print the effective settings: this text.
    Config(String),
    /// Chat from the terminal.
    Chat(Chat),
    /// Copy a data folder.
    Backup(Backup),
    /// Create a data folder from a backup.
    Restore(Restore),
    /// Check a data folder.
    Check(CheckArgs),
    /// Query a node's health.
    Health(HealthArgs),
    /// Write an app as lines of JSON.
    Export(Export),
    /// Load an app from such lines.
    Import(Import),
}

impl Command {
    /// Returns the log format of the command.
    pub fn log_format(&self) -> LogFormat {
        match self {
            Self::Serve(config) => config.log_format,
            _ => LogFormat::Text,
        }
    }
}

/// URL of the WebSocket of a node with the default address.
pub const CHAT_URL: &str = "ws://127.0.0.1:7400/v1/ws";

/// A command line that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CommandLineError {
    /// Wrong usage, or a request for help or version. `clap::Error::exit` prints it and chooses the
    /// exit code.
    #[error(transparent)]
    Usage(#[from] clap::Error),
    /// A setting that cannot be used.
    #[error(transparent)]
    Setting(#[from] ConfigError),
}

/// Parses the arguments and environment of the process. Exits on wrong usage and on requests for
/// help or version.
///
/// # Errors
/// Fails if a setting cannot be used.
pub fn from_process() -> Result<Command, ConfigError> {
    match parse(std::env::args_os(), &|name| std::env::var(name).ok()) {
        Ok(command) => Ok(with_unknown_variables(command)),
        Err(CommandLineError::Setting(error)) => Err(error),
        Err(CommandLineError::Usage(error)) if error.use_stderr() => {
            // It quotes the arguments, which may contain a misplaced secret.
            let _ = write!(io::stderr(), "{}", scrub(&error.render().to_string()));
            std::process::exit(2)
        }
        Err(CommandLineError::Usage(error)) => error.exit(),
    }
}

/// Adds warnings about `CHAOS_` variables that are not settings. Empty variables count as absent.
fn with_unknown_variables(mut command: Command) -> Command {
    let variables = std::env::vars_os().filter(|(_, value)| !value.is_empty());
    let unknown =
        layers::unknown_variables(variables.filter_map(|(name, _)| name.into_string().ok()));
    match &mut command {
        Command::Serve(config) => config.warnings.extend(unknown),
        Command::Config(_) => {
            for sentence in unknown {
                print_error!("chaos: {sentence}");
            }
        }
        _ => {}
    }
    command
}

/// Parses a command line, whose first argument is the program's name, and the files that it names.
///
/// # Errors
/// [`CommandLineError::Usage`] for wrong usage, help and version; [`CommandLineError::Setting`] if a setting cannot
/// be used.
pub fn parse(
    args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    env: EnvironmentReader<'_>,
) -> Result<Command, CommandLineError> {
    let cli = Cli::try_parse_from(args).map_err(with_nearest_command)?;
    let (flags, shown) = match cli.command {
        None => (cli.flags, false),
        Some(Sub::Serve(flags)) => (flags.or(cli.flags), false),
        Some(Sub::Config(flags)) => (flags.or(cli.flags), true),
        Some(Sub::Chat(_)) if !cli.flags.is_empty() => {
            return Err(ConfigError::new(
                "a node's flags precede `chat`, which is a client: put the client's flags after it",
            )
            .into());
        }
        Some(Sub::Chat(chat)) => return Ok(Command::Chat(chat)),
        Some(
            Sub::Backup(_)
            | Sub::Restore(_)
            | Sub::Check(_)
            | Sub::Health(_)
            | Sub::Export(_)
            | Sub::Import(_),
        ) if !cli.flags.is_empty() => {
            return Err(ConfigError::new("a node's flags precede a command that runs no node: put the command's flags after it").into());
        }
        Some(Sub::Backup(backup)) => return Ok(Command::Backup(backup)),
        Some(Sub::Restore(restore)) => return Ok(Command::Restore(restore)),
        Some(Sub::Check(check)) => return Ok(Command::Check(check)),
        Some(Sub::Health(health)) => return Ok(Command::Health(health)),
        Some(Sub::Export(flags)) => return Ok(Command::Export(flags.read(env)?)),
        Some(Sub::Import(flags)) => return Ok(Command::Import(flags.read(env)?)),
    };
    let early_format = flags.log_format.clone().or_else(|| env("CHAOS_LOG_FORMAT"));
    let log_format = |text: Option<&str>| {
        if !shown && text == Some("json") {
            LogFormat::Json
        } else {
            LogFormat::Text
        }
    };
    let settings = layers::gather(flags, env)
        .map_err(|error| error.in_format(log_format(early_format.as_deref())))?;
    let config = check::check(&settings)
        .map_err(|error| error.in_format(log_format(settings.log_format.text.as_deref())))?;
    Ok(if shown {
        Command::Config(show::effective(
            &settings,
            &with_actual_sockets(config.limits),
        ))
    } else {
        Command::Serve(Box::new(config))
    })
}

/// Returns the limits with the number of sockets that a node started here would have.
fn with_actual_sockets(limits: Limits) -> Limits {
    let budget = SocketBudget::new(&limits, max_descriptor_limit());
    Limits {
        sockets: budget.sockets,
        ..limits
    }
}

/// Adds the subcommand that is nearest to an unknown one to the error.
fn with_nearest_command(mut error: clap::Error) -> clap::Error {
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidSubcommand)
    {
        let command = Cli::command();
        if let Some(name) = nearest(word, command.get_subcommands().map(clap::Command::get_name)) {
            error.insert(
                ContextKind::SuggestedSubcommand,
                ContextValue::Strings(vec![name.to_owned()]),
            );
        }
    }
    error
}

/// CHAOS, a chat backend: runs a node.
///
/// Started bare it keeps everything in ./chaos-data and is complete: `chaos`, then `chaos chat` in
/// another terminal. Settings come from flags, then the environment, then the file given by
/// --config, then the defaults.
#[derive(Parser)]
#[command(
    name = "chaos", version, subcommand_precedence_over_arg = true,
    override_usage = "chaos [serve] [FLAGS]\n       chaos config [FLAGS]\n       chaos chat [CHAT FLAGS]\n       \
        chaos backup [--data FOLDER] --to FOLDER\n       chaos restore --from FOLDER [--data FOLDER]\n       chaos check [--data FOLDER]\n       chaos health [--url URL] [--ready]\n       \
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
    Check(CheckArgs),
    /// Ask a running node whether it is alive, or ready; exit code 1 if it is not
    Health(HealthArgs),
    /// Write an app, with all that belongs to it, as lines of JSON, for another store
    ///
    /// The nodes that serve it must be stopped: an app that changes meanwhile is refused.
    Export(ExportFlags),
    /// Read an app that `chaos export` wrote into a store that does not have it
    ///
    /// The store needs the same secret key. What was interrupted is never served, and is begun
    /// again with the same command.
    Import(ImportFlags),
}

/// The flags of the terminal client. Without a credential it takes the demo's from the data folder.
#[derive(Debug, Clone, clap::Args)]
pub struct Chat {
    /// The node's address: ws://HOST:PORT, or as a browser shows it, http://HOST:PORT
    #[arg(long, default_value = CHAT_URL)]
    pub url: String,
    /// Who to be: a user id
    #[arg(long, default_value = "alice")]
    pub user: String,
    /// Where to talk: a channel id
    #[arg(long, default_value = "general")]
    pub channel: String,
    /// A user token, which says who to be (seen in the process list: prefer --token-file)
    #[arg(long, conflicts_with_all = ["token_file", "app_key", "user"])]
    pub token: Option<Secret>,
    /// A file with a user token
    #[arg(long, value_name = "FILE", conflicts_with = "app_key")]
    pub token_file: Option<PathBuf>,
    /// An app key, with which a token for --user is minted
    #[arg(long, value_name = "KEY")]
    pub app_key: Option<Secret>,
    /// The node's data folder, for the demo's credentials
    #[arg(long, value_name = "FOLDER", default_value = DATA_FOLDER)]
    pub data: PathBuf,
}

fn after_help() -> String {
    let mut help = format!(
        "{LIMITS}, by default (0 means none; each is per node unless it says otherwise):\n"
    );
    for (name, default, about) in Limits::ALL {
        let default = match *name {
            "outbox_total_bytes" => "memory / 4".to_owned(),
            "requests_total_bytes" => "memory / 8".to_owned(),
            "sockets" => "open files".to_owned(),
            _ => default.to_string(),
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
