//! A node: composed of its parts from a configuration, and served until it is stopped.

mod background;
mod digests;
mod storage;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{Router, routing::get};
use domain::{
    Services,
    credential::{AdminKey, SecretKey},
    ended::Follower,
    online::lease_name,
};
use fanout::{Hub, hub};
use protocol::{Limits, WEBSOCKET_PATH};
use store::{Store, embedded::Embedded};
use tokio::{net::TcpListener, sync::SetOnce, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::digests::DigestPublisher;
use crate::{
    auth::{Attempts, Authenticator},
    config::{Config, DemoMode},
    demo::Demo,
    limit::{Concurrent, Gate, Keyed, Rate, Room},
    listen::{self, Admission, HttpServer, SocketBudget},
    metrics::{JournalReadings, Metrics, Readings},
    readiness::Readiness,
    rest::{self, Proxies, RestState},
    sessions::{PresenceTracker, Registry, Sessions, SessionsParts},
    socket::{Connections, Upgrades, upgrade},
    source::GatewaySource,
    start::CommandError,
};

/// Period at which a drain checks whether all connections are closed.
const DRAIN_POLL_PERIOD: Duration = Duration::from_millis(50);
/// Minimum time of each step of a drain.
const MIN_DRAIN_STEP: Duration = Duration::from_secs(1);

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Address that it listens on.
    pub address: SocketAddr,
    /// Address for operators only, if configured.
    pub ops_address: Option<SocketAddr>,
    /// Its services, for code in the same process.
    pub services: Services,
    /// The admin key.
    pub admin_key: crate::config::Secret,
    /// Whether the demo exists.
    pub has_demo: bool,
    sessions: Arc<Sessions>,
    presences: Arc<PresenceTracker>,
    embedded: Option<Arc<Embedded>>,
    digests: Option<Arc<DigestPublisher>>,
    draining: Arc<AtomicBool>,
    unfit: Arc<SetOnce<CommandError>>,
    /// Cancelled when a drain begins: the node accepts no more connections.
    accepting: CancellationToken,
    /// Cancelled when the node stops.
    stop: CancellationToken,
    tasks: TaskTracker,
    window: Duration,
}

impl Node {
    /// Starts a node. It listens when this returns.
    ///
    /// # Errors
    /// Fails if the node cannot start.
    pub async fn start(config: Config) -> Result<Self, CommandError> {
        Self::start_over(config, |store| store).await
    }

    /// Starts a node with a wrapper around its store, for example to inject faults in tests.
    ///
    /// # Errors
    /// Fails if the node cannot start.
    pub async fn start_over(
        config: Config,
        between: impl FnOnce(Arc<dyn Store>) -> Arc<dyn Store>,
    ) -> Result<Self, CommandError> {
        for warning in &config.warnings {
            tracing::warn!("{warning}");
        }
        listen::raise_descriptor_limit();
        let budget = SocketBudget::new(&config.limits, listen::descriptor_limit());
        budget.log(&config.limits);
        let listener = bind(config.listen, "--listen")?;
        let ops = config
            .ops_listen
            .map(|address| bind(address, "--ops-listen"))
            .transpose()?;
        let metrics = Arc::new(Metrics::new());
        let node = domain::random::bits();
        let mut storage = storage::open(&config, &metrics, node).await?;
        storage.store = between(storage.store);
        let name = lease_name(node);
        let mut services = Services::new(
            storage.store.clone(),
            config.limits.clone(),
            SecretKey::new(storage.secret),
            name.clone(),
        );
        services.stored_messages = metrics.messages.clone();
        let admin = AdminKey::new(storage.admin_key.expose());
        let authenticator = Arc::new(Authenticator::new(services.clone(), admin));

        let registry = Arc::new(Registry::default());
        let source = GatewaySource::new(services.clone(), metrics.clone(), &registry);
        let apps = Arc::new(Keyed::new(Rate::per_second(
            services.limits.app_requests_per_second,
        )));
        let users = Arc::new(Keyed::new(Rate::per_second(
            services.limits.requests_per_second,
        )));
        let hub = Hub::new(
            storage.hub_listener.clone(),
            storage.bus.clone(),
            source.clone(),
            hub::HubConfig {
                has_digests: storage.digests.is_some(),
                ..hub::HubConfig::default()
            },
        );
        let presences = PresenceTracker::new(services.clone(), name);
        let limits = services.limits.clone();
        let requests = Room::new(limits.requests_total_bytes);
        let sessions = Sessions::new(SessionsParts {
            services: services.clone(),
            hub: hub.clone(),
            authenticator: authenticator.clone(),
            limits: limits.clone(),
            presences: presences.clone(),
            metrics: metrics.clone(),
            heartbeat: config.heartbeat,
            apps: apps.clone(),
            users: users.clone(),
            requests: requests.clone(),
            registry,
        });

        let accepting = CancellationToken::new();
        let outboxes = outbox_limits(&limits);
        let draining = Arc::new(AtomicBool::new(false));
        let is_draining = draining.clone();
        let pulse = Readiness::with_bus(
            storage.store.clone(),
            services.secret.clone(),
            storage.bus.clone(),
        );
        let rest = RestState {
            services: Arc::new(services.clone()),
            authenticator,
            metrics: metrics.clone(),
            origins: Arc::new(config.allowed_origins.clone()),
            proxies: Proxies::new(config.trusted_proxies.clone()),
            users,
            apps,
            attempts: Attempts::new(
                limits.unauthenticated_per_ip,
                services.clock.clone(),
                metrics.clone(),
            ),
            requests: requests.clone(),
            pulse: pulse.clone(),
            draining: Arc::new(move || is_draining.load(Ordering::Relaxed)),
        };
        let gate = Gate::new(limits.connects_at_once, limits.connects_waiting);
        // Weak, since the hub's source and the store hold the metrics.
        let counted = (
            Arc::downgrade(&hub),
            outboxes.clone(),
            gate.clone(),
            requests.clone(),
            Arc::downgrade(&pulse),
            draining.clone(),
        );
        let journal = storage
            .embedded
            .as_ref()
            .map(|embedded| embedded.journal().clone());
        metrics.watch(move || {
            let (hub, outboxes, gate, requests, pulse, draining) = &counted;
            let (Some(hub), Some(pulse)) = (hub.upgrade(), pulse.upgrade()) else {
                return Readings::default();
            };
            let bus_connected = hub.bus().is_connected();
            let ready = pulse.is_reachable() && !draining.load(Ordering::Relaxed);
            Readings {
                hub: hub.stats(),
                outboxes: outboxes.counts(),
                gate: gate.counts(),
                requests_bytes: requests.used() as u64,
                journal: journal.as_ref().map(|journal| JournalReadings {
                    bytes: journal.bytes(),
                    syncs: journal.sync_times(),
                }),
                bus_connected,
                ready,
            }
        });
        let connections = Connections {
            sessions: sessions.clone(),
            gate,
            outboxes,
            stop: accepting.clone(),
            frame_bytes: limits.frame_bytes as usize,
            requests,
        };
        let upgrades = Upgrades {
            connections: Arc::new(connections),
            rest: rest.clone(),
            count: Arc::new(AtomicUsize::new(0)),
            max: budget.websockets,
            unconnected: Concurrent::new(),
        };

        if let Some(folder) = &storage.folder {
            let wants_demo = match config.demo {
                DemoMode::Auto => folder.is_fresh && config.listen.ip().is_loopback(),
                DemoMode::On => !Demo::exists(&services, folder).await?,
                DemoMode::Off => false,
            };
            if wants_demo {
                Demo::create(&services, folder).await?;
            }
        }
        let has_demo = storage
            .folder
            .as_ref()
            .is_some_and(|folder| folder.file(crate::start::DEMO).exists());

        let follower = Follower::start(services.clone(), sessions.clone())
            .await
            .ok();
        let mut node = Self {
            address: listener.local_addr().map_err(CommandError::of)?,
            ops_address: ops
                .as_ref()
                .map(TcpListener::local_addr)
                .transpose()
                .map_err(CommandError::of)?,
            services: services.clone(),
            admin_key: storage.admin_key,
            has_demo,
            sessions: sessions.clone(),
            presences: presences.clone(),
            embedded: storage.embedded,
            digests: None,
            draining,
            unfit: Arc::default(),
            accepting,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            window: config.drain_window,
        };
        if let Some(redis) = storage.unchecked {
            node.background(storage::watch_redis(
                redis,
                storage.secret,
                node.unfit.clone(),
            ));
        }
        if let Some(embedded) = node.embedded.clone() {
            node.background(storage::watch_disk(embedded, node.unfit.clone()));
        }
        if let Some(recorder) = storage.digests {
            let publisher = Arc::new(DigestPublisher::new(recorder, storage.store));
            node.background(publisher.clone().run());
            node.digests = Some(publisher);
        }
        node.background(pulse.keep());
        node.background(presences.run());
        node.background(background::follow(follower, services.clone(), sessions));
        node.background(background::run_jobs(services));
        let websocket = Router::new()
            .route(WEBSOCKET_PATH, get(upgrade))
            .with_state(Arc::new(upgrades));
        let router = rest::router(rest.clone()).merge(websocket);
        let idle = config.http_idle;
        let admission = Admission::clients(&budget, rest.proxies.clone(), metrics.clone());
        node.tasks.spawn(listen::accept(
            listener,
            HttpServer {
                router,
                admission,
                idle,
            },
            node.accepting.clone(),
        ));
        if let Some(ops) = ops {
            let (router, admission) = (rest::ops_router(rest), Admission::operators(metrics));
            node.tasks.spawn(listen::accept(
                ops,
                HttpServer {
                    router,
                    admission,
                    idle,
                },
                node.stop.clone(),
            ));
        }
        Ok(node)
    }

    /// Waits until the store turns out to be unfit: a Redis that was unreachable at
    /// the start and may evict keys, for example, or an embedded store whose disk has failed.
    pub async fn unfit(&self) -> CommandError {
        self.unfit.wait().await.clone()
    }

    /// Closes all sessions, spread over the window, finishes requests in flight, and stops.
    /// Returns the number of sessions.
    pub async fn drain(self) -> usize {
        let end = Instant::now() + self.window;
        self.draining.store(true, Ordering::Relaxed);
        self.accepting.cancel();
        let (drained, closed_at) = self.sessions.drain(self.window / 2);
        tracing::info!(sessions = drained, "draining");
        let gone = async {
            while self.sessions.count() > 0 {
                tokio::time::sleep(DRAIN_POLL_PERIOD).await;
            }
        };
        let gone_by = end.max(Instant::from_std(closed_at) + MIN_DRAIN_STEP);
        // Each following step has the rest of the window, and a minimum time.
        let left = || (end - Instant::now()).max(MIN_DRAIN_STEP);
        if tokio::time::timeout_at(gone_by, gone).await.is_err() {
            tracing::warn!(
                sessions = self.sessions.count(),
                "some sessions did not go in time"
            );
        }
        self.stop.cancel();
        self.tasks.close();
        let are_finished = tokio::time::timeout(left(), self.tasks.wait())
            .await
            .is_ok();
        if !are_finished {
            tracing::warn!("some requests did not finish in time");
        }
        if let Some(embedded) = &self.embedded {
            self.presences.close(left()).await;
            embedded.close().await;
        } else {
            self.presences.leave(left()).await;
        }
        if let Some(digests) = &self.digests
            && are_finished
        {
            digests.close(left()).await;
        }
        drained
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

fn bind(address: SocketAddr, flag: &str) -> Result<TcpListener, CommandError> {
    listen::bind(address)
        .map_err(|error| CommandError(format!("{address} cannot be listened on: {error}; stop the process that uses it, or choose another with {flag}")))
}

fn outbox_limits(limits: &Limits) -> Arc<fanout::outbox::OutboxLimits> {
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
    fanout::outbox::OutboxLimits::new(
        bound(limits.outbox_bytes),
        age,
        bound(limits.outbox_total_bytes),
    )
}
