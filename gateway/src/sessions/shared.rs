//! The shared state of a node's sessions, and how sessions end.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use async_trait::async_trait;
use domain::{
    Services,
    ended::{EndedHandler, Ending},
    error::Error,
    random,
    schema::Scope,
};
use fanout::{Hub, LogRateLimit};
use parking_lot::Mutex;
use protocol::{CloseCode, Limits, UserId, entity::Environment};
use store::cost::Meter;

use super::{
    presence::PresenceTracker,
    registry::{Registry, SessionBounds},
    session::{RequestInFlight, Session},
    step_limiter::StepLimiter,
};
use crate::{
    auth::Authenticator,
    limit::{Keyed, NoRoom, Room, request_bytes},
    metrics::{Metrics, Transport},
    session::{DrainSchedule, SessionTiming},
};

static FAILURES: LogRateLimit = LogRateLimit::new(10);

/// The shared state of a node's sessions.
#[derive(Debug)]
pub struct Sessions {
    pub(crate) services: Services,
    pub(crate) hub: Arc<Hub>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) presences: Arc<PresenceTracker>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) heartbeat: Duration,
    pub(super) requests: Arc<Room>,
    apps: Arc<Keyed<Scope>>,
    users: Arc<Keyed<(Scope, UserId)>>,
    recently_ended: Mutex<VecDeque<(Instant, Ending, u64)>>,
    /// Set when the node begins to drain.
    draining: OnceLock<Arc<DrainSchedule>>,
    pub(super) step_limiter: StepLimiter,
    pub(super) registry: Arc<Registry>,
}

/// The parts of [`Sessions`].
#[derive(Debug)]
pub struct SessionsParts {
    /// The services of the domain.
    pub services: Services,
    /// The hub.
    pub hub: Arc<Hub>,
    /// Authenticates tokens.
    pub authenticator: Arc<Authenticator>,
    /// The limits.
    pub limits: Arc<Limits>,
    /// Presence of this node's users.
    pub presences: Arc<PresenceTracker>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Silence after which a client is pinged.
    pub heartbeat: Duration,
    /// The buckets of `app_requests_per_second`, the same for both transports.
    pub apps: Arc<Keyed<Scope>>,
    /// The buckets of `requests_per_second` by user, the same for both transports.
    pub users: Arc<Keyed<(Scope, UserId)>>,
    /// The memory that requests of all clients hold.
    pub requests: Arc<Room>,
    /// The registry, still empty.
    pub registry: Arc<Registry>,
}

/// Time for which endings are compared with new sessions, whose tokens may have been checked just
/// before.
const RECENT_ENDINGS_WINDOW: Duration = Duration::from_secs(10);

/// Sessions that are closed without a pause, and the pause: at most 128,000 closes per second.
const CLOSES_PER_BATCH: usize = 128;
const PAUSE_BETWEEN_BATCHES: Duration = Duration::from_millis(1);

/// Assumed time to open a session. Sessions that are closed together get retry hints this far
/// apart.
const RECONNECT_SPACING_MICROS: u64 = 500;

impl Sessions {
    /// Creates the state, without sessions.
    pub fn new(parts: SessionsParts) -> Arc<Self> {
        let SessionsParts {
            services,
            hub,
            authenticator,
            limits,
            presences,
            metrics,
            heartbeat,
            requests,
            apps,
            users,
            registry,
        } = parts;
        Arc::new(Self {
            services,
            hub,
            authenticator,
            limits,
            presences,
            metrics,
            heartbeat,
            requests,
            apps,
            users,
            recently_ended: Mutex::default(),
            draining: OnceLock::new(),
            step_limiter: StepLimiter::default(),
            registry,
        })
    }

    /// Returns the number of sessions.
    pub fn count(&self) -> usize {
        self.registry.count()
    }

    /// Drains all sessions within `window`, and those that open from now on. Returns their number
    /// and when the last one is closed.
    pub fn drain(&self, window: Duration) -> (usize, Instant) {
        // Set before the registry is read: a session that is opening is either already in the
        // registry, or finds this schedule.
        let schedule = DrainSchedule::new(self.count(), window, Instant::now());
        let schedule = self.draining.get_or_init(|| schedule);
        let sessions = self.registry.all();
        for (index, session) in sessions.iter().enumerate() {
            session.drain(schedule.place(index));
        }
        (sessions.len(), schedule.ends_at())
    }

    /// Returns the settings of the node's sessions.
    pub(super) fn timing(&self) -> SessionTiming {
        SessionTiming {
            heartbeat: self.heartbeat,
            requests_per_second: self.limits.requests_per_second,
        }
    }

    /// Returns the time until an instant of the store's clock, in milliseconds since the Unix
    /// epoch.
    pub(super) fn time_until(&self, at_ms: u64) -> Duration {
        Duration::from_millis(at_ms.saturating_sub(self.services.clock.now_ms()))
    }

    /// Adds a session, or returns the name of the limit that it would exceed.
    pub(super) fn admit(&self, session: &Arc<Session>) -> Result<(), &'static str> {
        let bounds = SessionBounds {
            per_app: self.limits.connections_per_app,
            per_user: self.limits.connections_per_user,
        };
        self.registry.admit(session, bounds)?;
        if let Some(schedule) = self.draining.get() {
            session.drain(schedule.place(usize::MAX));
        }
        self.presences
            .session_began(session.scope(), session.user());
        Ok(())
    }

    /// Removes a session whose connection has ended.
    pub fn leave(&self, session: &Arc<Session>) {
        if self.registry.leave(session) {
            session.end_subscriptions();
            self.presences
                .session_ended(session.scope(), session.user());
        }
    }

    pub(super) fn of_user(&self, scope: &Scope, user: &UserId) -> Vec<Arc<Session>> {
        self.registry.of_user(scope, user)
    }

    /// Returns the close code of a session that was just registered, if a recent ending applies to
    /// it.
    pub(super) fn recent_ending(&self, session: &Session) -> Option<CloseCode> {
        let recent = self.recently_ended.lock();
        recent
            .iter()
            .find(|(_, what, at)| session.is_ended_by(what, *at))
            .map(|(_, what, _)| what.close())
    }

    /// Counts a request of `frame_bytes` and its reply of at most `reply_bytes`.
    ///
    /// # Errors
    ///
    /// `rate_limited` if the requests of the node leave no room for it.
    pub(super) fn begin_request(
        &self,
        session: &Arc<Session>,
        frame_bytes: usize,
        reply_bytes: usize,
    ) -> Result<RequestInFlight, Error> {
        let bytes = request_bytes::decoded(frame_bytes).saturating_add(reply_bytes);
        RequestInFlight::begin(session, &self.requests, bytes).map_err(|NoRoom| {
            self.metrics.limit_hit(request_bytes::LIMIT);
            Error::rate_limited(request_bytes::LIMIT, request_bytes::RETRY_MS)
        })
    }

    /// Takes a token of the app's bucket, or returns the milliseconds until one is available.
    pub(super) fn take_for_app(&self, scope: &Scope) -> Result<(), u64> {
        match self.limits.app_requests_per_second {
            0 => Ok(()),
            _ => self.apps.take(scope.clone(), self.services.clock.elapsed()),
        }
    }

    /// Charges a session's user and app for the cost of a request beyond its first token.
    pub(super) fn charge(&self, session: &Session, meter: &Meter) {
        let (tokens, now) = (meter.surcharge(), self.services.clock.elapsed());
        self.users.charge(
            (session.scope().clone(), session.user().clone()),
            tokens,
            now,
        );
        self.apps.charge(session.scope().clone(), tokens, now);
    }

    /// Takes a token for a `connect` of a user, or returns the milliseconds until there is one.
    pub(super) fn take_for_connect(&self, session: &Session) -> Result<(), u64> {
        self.users.take(
            (session.scope().clone(), session.user().clone()),
            self.services.clock.elapsed(),
        )
    }

    /// Sends an error. Causes are logged at a limited rate.
    pub(super) fn answer_error(&self, session: &Session, id: u32, error: &Error) {
        self.metrics.error(Transport::WebSocket, error.code());
        if let Some(cause) = &error.cause
            && let Some(suppressed) = FAILURES.pass(Instant::now())
        {
            tracing::warn!(session = %session.id, code = %error.code(), %cause, suppressed, "request failed");
        }
        session.reply_error(id, &error.body);
    }

    /// Fails while the user of a session owes tokens for earlier requests of any session. The error
    /// is the milliseconds until then.
    pub(super) fn check_debt(&self, session: &Session) -> Result<(), u64> {
        self.users.peek(
            &(session.scope().clone(), session.user().clone()),
            self.services.clock.elapsed(),
        )
    }
}

#[async_trait]
impl EndedHandler for Sessions {
    async fn ended(&self, what: &Ending, at: u64) {
        // Recorded before the registry is searched: a session that is opening is either already in
        // the registry, or finds this entry.
        {
            let mut recent = self.recently_ended.lock();
            while recent
                .pop_front_if(|(since, ..)| since.elapsed() > RECENT_ENDINGS_WINDOW)
                .is_some()
            {}
            recent.push_back((Instant::now(), what.clone(), at));
        }
        let candidates = match what {
            Ending::User {
                app,
                environment,
                user,
                ..
            } => self.of_user(
                &Scope {
                    app: app.clone(),
                    environment: *environment,
                },
                user,
            ),
            Ending::TokenKey { id } => self.registry.of_token_key(id),
            Ending::App { id } => [Environment::Live, Environment::Test]
                .into_iter()
                .flat_map(|environment| {
                    self.registry.of_app(&Scope {
                        app: id.clone(),
                        environment,
                    })
                })
                .collect(),
        };
        let meant = candidates
            .into_iter()
            .filter(|session| session.is_ended_by(what, at))
            .collect();
        close_in_batches(meant, |session| session.close(what.close(), None)).await;
    }

    /// Closes all sessions, since endings were lost. The clients reconnect, and their tokens are
    /// checked again.
    async fn all(&self) {
        let sessions = self.registry.all();
        // All nodes do this at the same time. The hint spreads the reconnections.
        let spread = (sessions.len() as u64 * RECONNECT_SPACING_MICROS / 1_000).max(1);
        close_in_batches(sessions, |session| {
            session.close(CloseCode::GoingAway, Some(random::bits() % spread))
        })
        .await;
    }
}

/// Closes sessions in batches with pauses, so that other sessions are not delayed.
async fn close_in_batches(sessions: Vec<Arc<Session>>, close: impl Fn(&Session)) {
    for some in sessions.chunks(CLOSES_PER_BATCH) {
        some.iter().for_each(|session| close(session));
        if some.len() == CLOSES_PER_BATCH {
            tokio::time::sleep(PAUSE_BETWEEN_BATCHES).await;
        }
    }
}
