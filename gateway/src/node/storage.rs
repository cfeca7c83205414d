//! The store, the bus over it, and the keys that belong to them.

use std::{sync::Arc, time::Duration};

use chaos_redis::{Deployment, Names};
use domain::{credential::SecretKey, secret_check};
use fanout::{
    HubListener,
    bus::{Bus, Local, redis::RedisBus},
    digest::DigestRecorder,
};
use store::{
    CommitRecording, Keep, Store, StoreError,
    embedded::Embedded,
    redis::{Redis, Unfit, Warnings},
};
use tokio::sync::SetOnce;

use crate::{
    config::{Config, Secret, StoreConfig, secret_key},
    metered::Metered,
    metrics::Metrics,
    start::{CommandError, Folder},
};

/// Period of attempts to reach a Redis that was not reachable at the start.
pub(super) const RECHECK_PERIOD: Duration = Duration::from_secs(1);

/// An opened store with its bus and keys.
pub(super) struct Storage {
    pub(super) store: Arc<dyn Store>,
    pub(super) bus: Arc<dyn Bus>,
    pub(super) hub_listener: Arc<HubListener>,
    pub(super) embedded: Option<Arc<Embedded>>,
    /// The commits of this node, if the bus may lose records of them.
    pub(super) digests: Option<Arc<DigestRecorder>>,
    /// A Redis that could not be reached yet and still has to be checked.
    pub(super) unchecked: Option<Arc<Redis>>,
    pub(super) folder: Option<Folder>,
    pub(super) admin_key: Secret,
    pub(super) secret: [u8; 32],
}

/// Opens the configured store. `node` identifies this start of the node.
pub(super) async fn open(
    config: &Config,
    metrics: &Arc<Metrics>,
    node: u64,
) -> Result<Storage, CommandError> {
    let keep = Keep {
        events: config.limits.log_events,
        bytes: config.limits.log_bytes,
    };
    let hub_listener = HubListener::new();
    match &config.store {
        StoreConfig::Embedded { data } => {
            let folder = Folder::at(data)?;
            let secret = match &config.secret_key_file {
                Some(file) => secret_key(file).map_err(CommandError)?,
                None => folder.secret_key()?,
            };
            let admin_key = match &config.admin_key {
                Some(key) => key.clone(),
                None => folder.admin_key()?,
            };
            let bus = Local::new(hub_listener.clone());
            let embedded =
                Arc::new(Embedded::open(data, keep, bus.clone()).map_err(CommandError::of)?);
            match secret_check::seal_under(&*embedded, &SecretKey::new(secret)).await {
                Ok(true) => {}
                Ok(false) => return Err(CommandError(secret_check::OTHER_SECRET_KEY.to_owned())),
                Err(error) => return Err(CommandError(secret_check::not_compared(&error))),
            }
            let store = Metered::over(embedded.clone(), metrics.clone());
            Ok(Storage {
                store,
                bus,
                hub_listener,
                embedded: Some(embedded),
                digests: None,
                unchecked: None,
                folder: Some(folder),
                admin_key,
                secret,
            })
        }
        StoreConfig::Redis {
            url,
            prefix,
            replicas,
        } => {
            let deployment: Deployment = url.parse().map_err(CommandError::of)?;
            let file = config
                .secret_key_file
                .as_ref()
                .ok_or_else(|| CommandError("--redis needs --secret-key-file".into()))?;
            let secret = secret_key(file).map_err(CommandError)?;
            let admin_key = config
                .admin_key
                .clone()
                .ok_or_else(|| CommandError("--redis needs --admin-key-file".into()))?;
            let names = Names::with_prefix(prefix, &deployment).map_err(CommandError::of)?;
            let redis = Arc::new(Redis::open_with(
                &deployment,
                names.clone(),
                keep,
                *replicas,
            ));
            // An unreachable Redis does not fail the start; an unsuitable one does.
            let unchecked = match fitness(&redis, &secret).await {
                Ok(warnings) => {
                    warnings
                        .iter()
                        .for_each(|warning| tracing::warn!("{warning}"));
                    None
                }
                Err(Unfit::Settings(sentence)) => return Err(CommandError(sentence)),
                Err(error) => {
                    tracing::warn!(%error, "cannot reach Redis yet, the node is not ready until it can");
                    Some(redis.clone())
                }
            };
            let bus = RedisBus::open(&deployment, names, hub_listener.clone());
            let recorder = Arc::new(DigestRecorder::new(node));
            let recording = CommitRecording::over(redis, recorder.clone());
            let store = Metered::over(recording, metrics.clone());
            Ok(Storage {
                store,
                bus,
                hub_listener,
                embedded: None,
                digests: Some(recorder),
                unchecked,
                folder: None,
                admin_key,
                secret,
            })
        }
    }
}

/// Reports a permanent failure of the disk under the embedded store.
pub(super) async fn watch_disk(embedded: Arc<Embedded>, unfit: Arc<SetOnce<CommandError>>) {
    embedded.broken().await;
    let sentence = "the disk failed in the midst of a commit, and the store can do no more in this process: start it again, nothing acknowledged is lost; if that fails too, see to the disk";
    let _: Result<(), _> = unfit.set(CommandError(sentence.into()));
}

/// Checks that a Redis is suitable and that its secrets are encrypted with this key.
pub(super) async fn fitness(redis: &Redis, secret: &[u8; 32]) -> Result<Warnings, Unfit> {
    let warnings = redis.check().await?;
    match secret_check::seal_under(redis, &SecretKey::new(*secret)).await {
        Ok(true) => Ok(warnings),
        Ok(false) => Err(Unfit::Settings(secret_check::OTHER_SECRET_KEY.to_owned())),
        Err(error) => Err(Unfit::Store(StoreError::Unavailable(
            secret_check::not_compared(&error),
        ))),
    }
}

/// Checks a Redis that was not reachable at the start, as soon as it is.
pub(super) async fn watch_redis(
    redis: Arc<Redis>,
    secret: [u8; 32],
    unfit: Arc<SetOnce<CommandError>>,
) {
    loop {
        match fitness(&redis, &secret).await {
            Ok(warnings) => {
                warnings
                    .iter()
                    .for_each(|warning| tracing::warn!("{warning}"));
                return;
            }
            Err(Unfit::Settings(sentence)) => {
                let _: Result<(), _> = unfit.set(CommandError(sentence));
                return;
            }
            Err(_) => tokio::time::sleep(RECHECK_PERIOD).await,
        }
    }
}
