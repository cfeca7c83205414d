//! The flags of `chaos export` and `chaos import`. The settings of the store come from the same
//! layers as a node's.

use std::path::PathBuf;

use protocol::AppId;

use super::{ConfigError, EnvironmentReader, Flags, StoreConfig, check, layers};

/// The settings of `chaos export`.
#[derive(Debug)]
pub struct Export {
    /// The app to export.
    pub app: AppId,
    /// The file to write; `None` for standard output.
    pub to: Option<PathBuf>,
    /// The store to read.
    pub store: StoreSettings,
}

/// The settings of `chaos import`.
#[derive(Debug)]
pub struct Import {
    /// The file to read; `None` for standard input.
    pub from: Option<PathBuf>,
    /// The store to load into.
    pub store: StoreSettings,
}

/// A store, used without a node.
#[derive(Debug)]
pub struct StoreSettings {
    /// The store.
    pub store: StoreConfig,
    /// The file of its secret key; `None` for the one in the data folder.
    pub secret_key_file: Option<PathBuf>,
}

/// The flags of `chaos export`.
#[derive(Debug, clap::Args)]
pub(super) struct ExportFlags {
    /// The app, by its id
    #[arg(long, value_name = "APP")]
    app: AppId,
    /// The file to write; - is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    to: PathBuf,
    #[command(flatten)]
    store: StoreFlags,
}

/// The flags of `chaos import`.
#[derive(Debug, clap::Args)]
pub(super) struct ImportFlags {
    /// The file that `chaos export` wrote; - is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    from: PathBuf,
    #[command(flatten)]
    store: StoreFlags,
}

#[derive(Debug, clap::Args)]
struct StoreFlags {
    /// A TOML file with a node's settings [env: CHAOS_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<String>,
    /// Folder of an embedded store [env: CHAOS_DATA] [default: ./chaos-data]
    #[arg(long, value_name = "FOLDER")]
    data: Option<String>,
    /// A Redis instead, as `chaos serve` takes it [env: CHAOS_REDIS]
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
    /// How keys in that Redis begin [env: CHAOS_REDIS_PREFIX] [default: chaos]
    #[arg(long, value_name = "NAME")]
    redis_prefix: Option<String>,
    /// File with the secret key [env: CHAOS_SECRET_KEY_FILE] [default: that of the data folder]
    #[arg(long, value_name = "FILE")]
    secret_key_file: Option<String>,
}

impl ExportFlags {
    pub(super) fn read(self, env: EnvironmentReader<'_>) -> Result<Export, ConfigError> {
        Ok(Export {
            app: self.app,
            to: unless_standard_stream(self.to),
            store: self.store.read(env)?,
        })
    }
}

impl ImportFlags {
    pub(super) fn read(self, env: EnvironmentReader<'_>) -> Result<Import, ConfigError> {
        Ok(Import {
            from: unless_standard_stream(self.from),
            store: self.store.read(env)?,
        })
    }
}

impl StoreFlags {
    fn read(self, env: EnvironmentReader<'_>) -> Result<StoreSettings, ConfigError> {
        let Self {
            config,
            data,
            redis,
            redis_prefix,
            secret_key_file,
        } = self;
        let settings = layers::gather(
            Flags {
                config,
                data,
                redis,
                redis_prefix,
                secret_key_file,
                ..Flags::default()
            },
            env,
        )?;
        Ok(StoreSettings {
            store: check::store(&settings)?,
            secret_key_file: check::secret_key_file(&settings)?,
        })
    }
}

/// Returns the file, or `None` for `-`.
fn unless_standard_stream(file: PathBuf) -> Option<PathBuf> {
    Some(file).filter(|file| file.as_os_str() != "-")
}
