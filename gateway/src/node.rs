//! The composition: a node made of its parts from a configuration, served until it is told to stop.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use fanout::{
    Hub,
    bus::{Bus, Ear, Local, redis::RedisBus},
    hub,
    redis::Deployment,
};
use protocol::{CloseCode, Limits, WEBSOCKET_PATH};
use tokio::{net::TcpListener, sync::SetOnce, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    auth::{AdminKey, Authenticator, SecretKey},
    config::{Config, Demo as DemoSetting, StoreConfig, secret_key},
    demo::Demo,
    drain::spread,
    limit::{Gate, Keyed, Rate},
    listen,
    metrics::{Metrics, Readings},
    pulse::Pulse,
    rest::{self, RestState},
    service::{
        Services,
        ended::{Ended, Follower},
    },
    session::Timing,
    sessions::{Parts, Presences, Sessions},
    socket::{Connections, Upgrades, upgrade},
    source::Source,
    start::{Folder, StartError},
    store::{Keep, Store, embedded::Embedded, metered::Metered, redis::Redis},
};

/// How often a node looks for deletions that nobody finished.
const CLEARING: Duration = Duration::from_secs(30);
/// How often an unreachable Redis is asked again at the start.
const RECHECK: Duration = Duration::from_secs(1);
/// How often a drain looks whether everybody is gone.
const LOOK: Duration = Duration::from_millis(50);
/// What each step of a drain has at least.
const MOMENT: Duration = Duration::from_secs(1);

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Where it listens.
    pub address: SocketAddr,
    /// Where it listens for operators alone, if asked to.
    pub ops_address: Option<SocketAddr>,
    /// Its services, for whoever runs it in the same process.
    pub services: Services,
    /// The admin key.
    pub admin_key: crate::config::Secret,
    /// Whether the demo is there.
    pub has_demo: bool,
    sessions: Arc<Sessions>,
    presences: Arc<Presences>,
    embedded: Option<Arc<Embedded>>,
    draining: Arc<AtomicBool>,
    unfit: Arc<SetOnce<StartError>>,
    /// Cancelled when a drain begins: nothing is accepted from then on.
    accepting: CancellationToken,
    /// Cancelled when it ends.
    stop: CancellationToken,
    tasks: TaskTracker,
    window: Duration,
}

/// The engine, the bus over it, and the keys that go with it.
struct Ground {
    store: Arc<dyn Store>,
    bus: Arc<dyn Bus>,
    ear: Arc<Ear>,
    embedded: Option<Arc<Embedded>>,
    redis: Option<Arc<Redis>>,
    folder: Option<Folder>,
    admin_key: crate::config::Secret,
    secret: [u8; 32],
}

impl Node {
    /// Starts a node. When this returns it listens.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_over(config, |store| store).await
    }

    /// The same with what the caller puts between the node and its store: defects, say, that a test plants.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub async fn start_over(
        config: Config,
        between: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Result<Self, StartError> {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        let listener = bind(config.listen, "--listen")?;
        let ops = config
            .ops_listen
            .map(|address| bind(address, "--ops-listen"))
            .transpose()?;
        let metrics = Arc::new(Metrics::new());
        let mut ground = ground(&config, &metrics).await?;
        ground.store = between(ground.store);
        let name = format!("node-{:016x}", crate::service::random::bits());
        let services = Services::new(
            ground.store.clone(),
            config.limits.clone(),
            SecretKey::new(ground.secret),
            name.clone(),
        );
        let admin = AdminKey::new(ground.admin_key.expose());
        let authenticator = Arc::new(Authenticator::new(services.clone(), admin));

        let source = Source::new(services.clone(), metrics.clone());
        let apps = Arc::new(Keyed::new(Rate::per_second(
            services.limits.app_requests_per_second,
        )));
        let hub = Hub::new(ground.bus.clone(), source.clone(), hub::Config::default());
        ground.ear.attach(&hub);
        let presences = Presences::new(services.clone(), name);
        let limits = services.limits.clone();
        let sessions = Sessions::new(Parts {
            services: services.clone(),
            hub: hub.clone(),
            authenticator: authenticator.clone(),
            limits: limits.clone(),
            presences: presences.clone(),
            metrics: metrics.clone(),
            heartbeat: config.heartbeat,
            apps: apps.clone(),
        });
        source.attach(&sessions);

        let accepting = CancellationToken::new();
        let outboxes = outbox_limits(&limits);
        let draining = Arc::new(AtomicBool::new(false));
        let is_draining = draining.clone();
        let pulse = Pulse::new(ground.store.clone());
        let rest = RestState {
            services: Arc::new(services.clone()),
            authenticator,
            metrics: metrics.clone(),
            origins: Arc::new(config.allowed_origins.clone()),
            proxies: config.trusted_proxies.clone().into(),
            apps,
            addresses: Arc::new(Keyed::new(Rate::per_second(limits.unauthenticated_per_ip))),
            pulse: pulse.clone(),
            draining: Arc::new(move || is_draining.load(Ordering::Relaxed)),
        };
        let gate = Gate::new(limits.connects_at_once, limits.connects_waiting);
        // Weak, since the hub's source and the pulse's store hold the metrics.
        let counted = (
            Arc::downgrade(&hub),
            outboxes.clone(),
            gate.clone(),
            Arc::downgrade(&pulse),
            draining.clone(),
        );
        metrics.watch(move || {
            let (hub, outboxes, gate, pulse, draining) = &counted;
            let (Some(hub), Some(pulse)) = (hub.upgrade(), pulse.upgrade()) else {
                return Readings::default();
            };
            let bus_connected = hub.bus().is_connected();
            let ready = pulse.is_reachable() && !draining.load(Ordering::Relaxed);
            Readings {
                hub: hub.stats(),
                outboxes: outboxes.counts(),
                gate: gate.counts(),
                bus_connected,
                ready,
            }
        });
        let connections = Connections {
            sessions: sessions.clone(),
            gate,
            outboxes,
            timing: Timing {
                heartbeat: config.heartbeat,
                requests_per_second: limits.requests_per_second,
            },
            stop: accepting.clone(),
            frame_bytes: limits.frame_bytes as usize,
        };
        let upgrades = Upgrades {
            connections: Arc::new(connections),
            rest: rest.clone(),
            count: Arc::new(AtomicUsize::new(0)),
            waiting: Arc::default(),
        };

        let is_fresh = ground.folder.as_ref().is_some_and(|folder| folder.is_fresh);
        let wants_demo = match config.demo {
            DemoSetting::Auto => config.listen.ip().is_loopback(),
            DemoSetting::On => true,
            DemoSetting::Off => false,
        };
        if let (Some(folder), true) = (&ground.folder, is_fresh && wants_demo) {
            Demo::make(&services, folder).await?;
        }
        let has_demo = ground
            .folder
            .as_ref()
            .is_some_and(|folder| folder.file(crate::start::DEMO).exists());

        let follower = Follower::start(services.clone(), sessions.clone())
            .await
            .ok();
        let node = Self {
            address: listener.local_addr().map_err(StartError::of)?,
            ops_address: ops
                .as_ref()
                .map(TcpListener::local_addr)
                .transpose()
                .map_err(StartError::of)?,
            services: services.clone(),
            admin_key: ground.admin_key,
            has_demo,
            sessions: sessions.clone(),
            presences: presences.clone(),
            embedded: ground.embedded,
            draining,
            unfit: Arc::default(),
            accepting,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            window: config.drain_window,
        };
        if let Some(redis) = ground.redis {
            node.background(watch_redis(redis, node.unfit.clone()));
        }
        if let Some(embedded) = node.embedded.clone() {
            node.background(watch_disk(embedded, node.unfit.clone()));
        }
        node.background(pulse.keep());
        node.background(presences.keep());
        node.background(follow(follower, services.clone(), sessions));
        node.background(finish_clearings(services));
        let websocket = Router::new()
            .route(WEBSOCKET_PATH, get(upgrade))
            .with_state(Arc::new(upgrades));
        let router = rest::router(rest.clone()).merge(websocket);
        node.tasks
            .spawn(listen::accept(listener, router, node.accepting.clone()));
        if let Some(ops) = ops {
            node.tasks.spawn(listen::accept(
                ops,
                rest::ops_router(rest),
                node.stop.clone(),
            ));
        }
        Ok(node)
    }

    /// Waits until the store proves to be one that a node must not run on: a Redis that came after the start, and may evict
    /// keys, say, or an embedded one whose disk failed.
    pub async fn unfit(&self) -> StartError {
        self.unfit.wait().await.clone()
    }

    /// Says goodbye to every session, spread over the window, finishes what is under way, and ends.
    pub async fn drain(self) {
        let end = Instant::now() + self.window;
        self.draining.store(true, Ordering::Relaxed);
        self.accepting.cancel();
        let sessions = self.sessions.all();
        tracing::info!(sessions = sessions.len(), "draining");
        let reconnect_after_ms = (self.window / 2).as_millis() as u64;
        for session in &sessions {
            session.say_goodbye(reconnect_after_ms);
        }
        spread(sessions, self.window / 2, |session| {
            session.close(CloseCode::GoingAway, None)
        })
        .await;
        let gone = async {
            while self.sessions.count() > 0 {
                for session in self.sessions.all() {
                    session.close(CloseCode::GoingAway, None);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        // Each that follows has what is left of the window, and a moment where nothing is.
        let left = || (end - Instant::now()).max(MOMENT);
        if tokio::time::timeout(left(), gone).await.is_err() {
            tracing::warn!(
                sessions = self.sessions.count(),
                "some sessions did not go in time"
            );
        }
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(left(), self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!("some requests did not end in time");
        }
        if let Some(embedded) = &self.embedded {
            self.presences.close(left()).await;
            embedded.close().await;
        } else {
            self.presences.leave(left()).await;
        }
    }

    fn background(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = work => {}
            }
        });
    }
}

fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, StartError> {
    listen::bind(address)
        .map_err(|error| StartError(format!("{address} cannot be listened on: {error}; end what uses it, or choose another with {flag}")))
}

fn outbox_limits(limits: &Limits) -> Arc<fanout::outbox::Limits> {
    let bound = |limit: u64| {
        if limit == 0 {
            usize::MAX
        } else {
            limit as usize
        }
    };
    let age = if limits.outbox_seconds == 0 {
        Duration::MAX
    } else {
        Duration::from_secs(limits.outbox_seconds)
    };
    fanout::outbox::Limits::new(
        bound(limits.outbox_bytes),
        age,
        bound(limits.outbox_total_bytes),
    )
}

async fn ground(config: &Config, metrics: &Arc<Metrics>) -> Result<Ground, StartError> {
    let keep = Keep {
        events: config.limits.log_events,
        bytes: config.limits.log_bytes,
    };
    let ear = Ear::new();
    match &config.store {
        StoreConfig::Embedded { data } => {
            let folder = Folder::at(data)?;
            let secret = match &config.secret_key_file {
                Some(file) => secret_key(file).map_err(StartError)?,
                None => folder.secret_key()?,
            };
            let admin_key = match &config.admin_key {
                Some(key) => key.clone(),
                None => folder.admin_key()?,
            };
            let bus = Local::new(ear.clone());
            let embedded =
                Arc::new(Embedded::open(data, keep, bus.clone()).map_err(StartError::of)?);
            let store = Metered::over(embedded.clone(), metrics.clone());
            Ok(Ground {
                store,
                bus,
                ear,
                embedded: Some(embedded),
                redis: None,
                folder: Some(folder),
                admin_key,
                secret,
            })
        }
        StoreConfig::Redis { url, replicas } => {
            let deployment: Deployment = url.parse().map_err(StartError::of)?;
            let file = config
                .secret_key_file
                .as_ref()
                .ok_or_else(|| StartError("--redis needs --secret-key-file".into()))?;
            let secret = secret_key(file).map_err(StartError)?;
            let admin_key = config
                .admin_key
                .clone()
                .ok_or_else(|| StartError("--redis needs --admin-key-file".into()))?;
            let redis = Arc::new(Redis::open_with(&deployment, keep, *replicas));
            // One that is not there yet does not end the start; one that is not fit does.
            match redis.check().await {
                Ok(warnings) => warnings
                    .iter()
                    .for_each(|warning| tracing::warn!("{warning}")),
                Err(crate::store::redis::Unfit::Settings(sentence)) => {
                    return Err(StartError(sentence));
                }
                Err(error) => {
                    tracing::warn!(%error, "Redis cannot be reached yet: the node is not ready until it can")
                }
            }
            let bus = RedisBus::open(&deployment, ear.clone());
            let store = Metered::over(redis.clone(), metrics.clone());
            Ok(Ground {
                store,
                bus,
                ear,
                embedded: None,
                redis: Some(redis),
                folder: None,
                admin_key,
                secret,
            })
        }
    }
}

/// Tells when the disk under the embedded store failed for good.
async fn watch_disk(embedded: Arc<Embedded>, unfit: Arc<SetOnce<StartError>>) {
    embedded.broken().await;
    let sentence = "the disk failed in the midst of a commit, and the store can do no more in this process: start it again, nothing acknowledged is lost; if that fails too, see to the disk";
    let _: Result<(), _> = unfit.set(StartError(sentence.into()));
}

/// Checks a Redis that was not there at the start, as soon as it is.
async fn watch_redis(redis: Arc<Redis>, unfit: Arc<SetOnce<StartError>>) {
    loop {
        match redis.check().await {
            Ok(warnings) => {
                warnings
                    .iter()
                    .for_each(|warning| tracing::debug!("{warning}"));
                return;
            }
            Err(crate::store::redis::Unfit::Settings(sentence)) => {
                let _: Result<(), _> = unfit.set(StartError(sentence));
                return;
            }
            Err(_) => tokio::time::sleep(RECHECK).await,
        }
    }
}

/// Hears of what ends elsewhere.
async fn follow(follower: Option<Follower>, services: Services, sessions: Arc<Sessions>) {
    if let Some(follower) = follower {
        return follower.run().await;
    }
    loop {
        match Follower::start(services.clone(), sessions.clone()).await {
            Ok(follower) => {
                // The store came late. What ended before this position was read is not told: whoever is here by now comes back.
                Ended::all(&*sessions);
                return follower.run().await;
            }
            Err(_) => tokio::time::sleep(RECHECK).await,
        }
    }
}

async fn finish_clearings(services: Services) {
    loop {
        match services.finish_clearing().await {
            Ok(0) => {}
            Ok(finished) => tracing::info!(finished, "what others left was cleared away"),
            Err(error) => tracing::debug!(%error, "deletions could not be finished"),
        }
        tokio::time::sleep(CLEARING).await;
    }
}
