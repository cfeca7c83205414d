//! Opening the store that an export reads or an import writes.

use std::{path::Path, sync::Arc, time::Duration};

use chaos_redis::{Deployment, Names, Replicas};
use domain::{
    credential::{self, SecretKey},
    error::Error,
    secret_check,
};
use fanout::{
    Topic,
    bus::{Listener, Local},
};
use store::{
    Keep,
    embedded::{Embedded, OpenError},
    redis::{Redis, Unfit},
    transfer::Transfer,
};

use crate::{
    config::{self, StoreConfig, StoreSettings},
    start::{CommandError, Folder, SECRET_KEY},
    terminal::print_error,
};

/// Assumed maximum difference between the clocks of Redis servers.
const MAX_CLOCK_SKEW: Duration = Duration::from_secs(1);

/// The embedded store's data file.
const DATA: &str = "data.mdb";

/// Interval and number of checks whether aborted tasks have released the store.
const RELEASE_POLL: Duration = Duration::from_millis(10);
const RELEASE_POLLS: u32 = 100;

/// Retention has no effect, since a transfer appends nothing.
const KEEP: Keep = Keep {
    events: 0,
    bytes: 0,
};

/// An open store.
pub(super) struct OpenStore {
    pub(super) store: Arc<dyn Transfer>,
    pub(super) clock_skew: Duration,
    embedded: Option<Arc<Embedded>>,
}

impl OpenStore {
    /// Opens a store that exists, for an export.
    ///
    /// # Errors
    /// Fails if the folder holds no store or is in use, if Redis does not answer or its settings
    /// are unfit, or if the store's secrets are encrypted under another key than the settings name.
    pub(super) async fn open_existing(settings: &StoreSettings) -> Result<Self, CommandError> {
        let open = match &settings.store {
            StoreConfig::Embedded { data } if !data.join(DATA).exists() => {
                Err(CommandError(format!("{} holds no store: pass the store's folder with --data", data.display())))
            }
            StoreConfig::Embedded { data } => Self::embedded(data).map_err(|error| match error {
                OpenError::InUse { path } => CommandError(format!(
                    "the data folder {} is in use by a node: stop it, or export from a copy that `chaos backup` made",
                    path.display()
                )),
                error => CommandError::of(error),
            }),
            StoreConfig::Redis { url, prefix, replicas } => Self::redis(url, prefix, *replicas).await,
        }?;
        let secret = match settings.secret_key() {
            Ok(secret) => secret,
            Err(error) => {
                open.close().await;
                return Err(error);
            }
        };
        let other =
            secret_check::is_sealed_under_another(&*open.store, &SecretKey::new(secret)).await;
        open.require_same_key(other.map(|other| !other)).await
    }

    /// Opens a store for an import. A folder without a store becomes one, with `secret` as its key.
    ///
    /// # Errors
    /// Fails if the folder cannot be used or is in use, if Redis does not answer or its settings
    /// are unfit, or if the store's secrets are encrypted under another key.
    pub(super) async fn open_or_create(
        settings: &StoreSettings,
        secret: &[u8; 32],
    ) -> Result<Self, CommandError> {
        let open = match &settings.store {
            StoreConfig::Embedded { data } => {
                let folder = Folder::at(data)?;
                if !folder.file(SECRET_KEY).exists() && !folder.file(DATA).exists() {
                    folder.keep(SECRET_KEY, &credential::hex(secret))?;
                }
                Self::embedded(data).map_err(CommandError::of)
            }
            StoreConfig::Redis {
                url,
                prefix,
                replicas,
            } => Self::redis(url, prefix, *replicas).await,
        }?;
        let same = secret_check::seal_under(&*open.store, &SecretKey::new(*secret)).await;
        open.require_same_key(same).await
    }

    /// Closes the store and fails unless its secrets are encrypted under the given key.
    async fn require_same_key(self, is_same: Result<bool, Error>) -> Result<Self, CommandError> {
        let error = match is_same {
            Ok(true) => return Ok(self),
            Ok(false) => secret_check::OTHER_SECRET_KEY.to_owned(),
            Err(error) => secret_check::not_compared(&error),
        };
        self.close().await;
        Err(CommandError(error))
    }

    fn embedded(data: &Path) -> Result<Self, OpenError> {
        let embedded = Arc::new(Embedded::open(
            data,
            KEEP,
            Local::new(Arc::new(IgnoreRecords)),
        )?);
        Ok(Self {
            store: embedded.clone(),
            clock_skew: Duration::ZERO,
            embedded: Some(embedded),
        })
    }

    async fn redis(
        url: &str,
        prefix: &str,
        replicas: Option<Replicas>,
    ) -> Result<Self, CommandError> {
        let deployment: Deployment = url.parse().map_err(CommandError::of)?;
        let names = Names::with_prefix(prefix, &deployment).map_err(CommandError::of)?;
        let redis = Redis::open_with(&deployment, names, KEEP, replicas);
        match redis.check().await {
            Ok(warnings) => warnings
                .iter()
                .for_each(|warning| print_error!("chaos: {warning}")),
            Err(Unfit::Settings(sentence)) => return Err(CommandError(sentence)),
            Err(error) => {
                return Err(CommandError(format!(
                    "{deployment} does not answer: {error}"
                )));
            }
        }
        Ok(Self {
            store: Arc::new(redis),
            clock_skew: MAX_CLOCK_SKEW,
            embedded: None,
        })
    }

    /// Closes the store. After a failure, waits until the aborted tasks have released it.
    pub(super) async fn close(self) {
        let Self {
            store, embedded, ..
        } = self;
        drop(store);
        let Some(embedded) = embedded else { return };
        embedded.close().await;
        for _ in 0..RELEASE_POLLS {
            if Arc::strong_count(&embedded) == 1 {
                return;
            }
            tokio::time::sleep(RELEASE_POLL).await;
        }
    }
}

impl StoreSettings {
    /// Reads the store's secret key: from the data folder, or from `--secret-key-file`.
    ///
    /// # Errors
    /// Fails if neither has a key, if the key cannot be read, or if the two differ.
    pub(super) fn secret_key(&self) -> Result<[u8; 32], CommandError> {
        let read = |path: &Path| config::secret_key(path).map_err(CommandError);
        let own = match &self.store {
            StoreConfig::Embedded { data } => {
                Some(data.join(SECRET_KEY)).filter(|file| file.exists())
            }
            StoreConfig::Redis { .. } => None,
        };
        match (&self.secret_key_file, own) {
            (Some(file), Some(own)) if read(file)? != read(&own)? => Err(CommandError(format!(
                "the key in {} differs from {}, which nodes use for this folder: leave --secret-key-file out, or pass another folder",
                file.display(),
                own.display()
            ))),
            (Some(file), _) => read(file),
            (None, Some(own)) => read(&own),
            (None, None) => Err(CommandError(match &self.store {
                StoreConfig::Embedded { data } => {
                    format!("{} has no {SECRET_KEY}: pass the key of the store that the app is from with --secret-key-file", data.display())
                }
                StoreConfig::Redis { .. } => {
                    "nodes on Redis share one secret key: pass it with --secret-key-file or CHAOS_SECRET_KEY_FILE".to_owned()
                }
            })),
        }
    }
}

/// A listener for a bus that nothing is published on.
#[derive(Debug)]
struct IgnoreRecords;

impl Listener for IgnoreRecords {
    fn record(&self, _: &str, _: bytes::Bytes) {}
    fn missed(&self, _: Option<&[Topic]>) {}
}
