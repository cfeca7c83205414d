//! The store that an app leaves or comes to.

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
    start::{Folder, SECRET_KEY, StartError},
    terminal::complain,
};

/// How far the clocks of Redis servers may be apart.
const APART: Duration = Duration::from_secs(1);

/// The file that makes a folder a store.
const DATA: &str = "data.mdb";

/// How long aborted tasks are waited for.
const RELEASE_POLL: Duration = Duration::from_millis(10);
const RELEASE_POLLS: u32 = 100;

/// Nothing is appended here, so nothing is trimmed.
const KEEP: Keep = Keep {
    events: 0,
    bytes: 0,
};

/// An open store.
pub(super) struct Ground {
    pub(super) store: Arc<dyn Transfer>,
    pub(super) settle: Duration,
    embedded: Option<Arc<Embedded>>,
}

impl Ground {
    /// One that is there.
    pub(super) async fn to_read(settings: &StoreSettings) -> Result<Self, StartError> {
        let ground = match &settings.store {
            StoreConfig::Embedded { data } if !data.join(DATA).exists() => {
                Err(StartError(format!("{} holds no store: name its folder with --data", data.display())))
            }
            StoreConfig::Embedded { data } => Self::embedded(data).map_err(|error| match error {
                OpenError::InUse { path } => StartError(format!(
                    "the data folder {} is in use by a node: stop it, or export from a copy that `chaos backup` made",
                    path.display()
                )),
                error => StartError::of(error),
            }),
            StoreConfig::Redis { url, prefix, replicas } => Self::redis(url, prefix, *replicas).await,
        }?;
        let secret = match settings.secret_key() {
            Ok(secret) => secret,
            Err(error) => {
                ground.close().await;
                return Err(error);
            }
        };
        let other =
            secret_check::is_sealed_under_another(&*ground.store, &SecretKey::new(secret)).await;
        ground.if_same_key(other.map(|other| !other)).await
    }

    /// One that may be new. `secret` becomes the key of a folder that is.
    pub(super) async fn to_write(
        settings: &StoreSettings,
        secret: &[u8; 32],
    ) -> Result<Self, StartError> {
        let ground = match &settings.store {
            StoreConfig::Embedded { data } => {
                let folder = Folder::at(data)?;
                if !folder.file(SECRET_KEY).exists() && !folder.file(DATA).exists() {
                    folder.keep(SECRET_KEY, &credential::hex(secret))?;
                }
                Self::embedded(data).map_err(StartError::of)
            }
            StoreConfig::Redis {
                url,
                prefix,
                replicas,
            } => Self::redis(url, prefix, *replicas).await,
        }?;
        let same = secret_check::seal_under(&*ground.store, &SecretKey::new(*secret)).await;
        ground.if_same_key(same).await
    }

    /// The store, if its secrets are sealed under the key that was given.
    async fn if_same_key(self, same: Result<bool, Error>) -> Result<Self, StartError> {
        let error = match same {
            Ok(true) => return Ok(self),
            Ok(false) => secret_check::OTHER_SECRET_KEY.to_owned(),
            Err(error) => secret_check::not_compared(&error),
        };
        self.close().await;
        Err(StartError(error))
    }

    fn embedded(data: &Path) -> Result<Self, OpenError> {
        let embedded = Arc::new(Embedded::open(data, KEEP, Local::new(Arc::new(Nobody)))?);
        Ok(Self {
            store: embedded.clone(),
            settle: Duration::ZERO,
            embedded: Some(embedded),
        })
    }

    async fn redis(
        url: &str,
        prefix: &str,
        replicas: Option<Replicas>,
    ) -> Result<Self, StartError> {
        let deployment: Deployment = url.parse().map_err(StartError::of)?;
        let names = Names::with_prefix(prefix, &deployment).map_err(StartError::of)?;
        let redis = Redis::open_with(&deployment, names, KEEP, replicas);
        match redis.check().await {
            Ok(warnings) => warnings
                .iter()
                .for_each(|warning| complain!("chaos: {warning}")),
            Err(Unfit::Settings(sentence)) => return Err(StartError(sentence)),
            Err(error) => return Err(StartError(format!("{deployment} does not answer: {error}"))),
        }
        Ok(Self {
            store: Arc::new(redis),
            settle: APART,
            embedded: None,
        })
    }

    /// Lets the store go. Of what failed, tasks that were aborted may hold it for a moment longer.
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
    /// The store's secret key.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(super) fn secret_key(&self) -> Result<[u8; 32], StartError> {
        let read = |path: &Path| config::secret_key(path).map_err(StartError);
        let own = match &self.store {
            StoreConfig::Embedded { data } => {
                Some(data.join(SECRET_KEY)).filter(|file| file.exists())
            }
            StoreConfig::Redis { .. } => None,
        };
        match (&self.secret_key_file, own) {
            (Some(file), Some(own)) if read(file)? != read(&own)? => Err(StartError(format!(
                "{} is not the key in {}, with which nodes open this folder: leave --secret-key-file out, or name another folder",
                file.display(),
                own.display()
            ))),
            (Some(file), _) => read(file),
            (None, Some(own)) => read(&own),
            (None, None) => Err(StartError(match &self.store {
                StoreConfig::Embedded { data } => {
                    format!("{} has no {SECRET_KEY}: give that of the store that the app is from by --secret-key-file", data.display())
                }
                StoreConfig::Redis { .. } => {
                    "nodes on Redis share one secret key: give it by --secret-key-file or CHAOS_SECRET_KEY_FILE".to_owned()
                }
            })),
        }
    }
}

/// Hears what nobody tells.
#[derive(Debug)]
struct Nobody;

impl Listener for Nobody {
    fn record(&self, _: &str, _: bytes::Bytes) {}
    fn missed(&self, _: Option<&[Topic]>) {}
}
