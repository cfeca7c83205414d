//! What all sessions of a node share, and how sessions end.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use domain::{
    Services,
    ended::{Ended, Ending},
    error::Error,
    random,
    schema::Scope,
};
use fanout::Hub;
use parking_lot::Mutex;
use protocol::{CloseCode, Limits, UserId, entity::Environment};
use store::cost::Meter;

use super::{
    presence::Presences,
    registry::{Bounds, Registry},
    session::{Session, UnderWay},
    step_limiter::StepLimiter,
};
use crate::{
    auth::Authenticator,
    limit::{Keyed, NoRoom, Room, request_bytes},
    log::LogRateLimit,
    metrics::{Metrics, Transport},
};

/// The failed requests that are logged.
static FAILURES: LogRateLimit = LogRateLimit::new(10);

/// What sessions work with.
#[derive(Debug)]
pub struct Sessions {
    pub(crate) services: Services,
    pub(crate) hub: Arc<Hub>,
    pub(crate) authenticator: Arc<Authenticator>,
    pub(crate) limits: Arc<Limits>,
    pub(crate) presences: Arc<Presences>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) heartbeat: Duration,
    pub(super) requests: Arc<Room>,
    apps: Arc<Keyed<Scope>>,
    users: Arc<Keyed<(Scope, UserId)>>,
    recently_ended: Mutex<VecDeque<(Instant, Ending, u64)>>,
    pub(super) step_limiter: StepLimiter,
    pub(super) registry: Arc<Registry>,
}

/// What [`Sessions`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// What requests do.
    pub services: Services,
    /// Who listens to what.
    pub hub: Arc<Hub>,
    /// Who a token stands for.
    pub authenticator: Arc<Authenticator>,
    /// What is allowed at most.
    pub limits: Arc<Limits>,
    /// Who is online here.
    pub presences: Arc<Presences>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The silence after which a ping goes out.
    pub heartbeat: Duration,
    /// The buckets of `app_requests_per_second`, the same for both transports.
    pub apps: Arc<Keyed<Scope>>,
    /// The buckets of `requests_per_second` by user, the same for both transports.
    pub users: Arc<Keyed<(Scope, UserId)>>,
    /// What the requests of all clients hold.
    pub requests: Arc<Room>,
    /// The sessions of this node: none yet.
    pub registry: Arc<Registry>,
}

/// For how long a session that begins is held against what ended: a token may have been looked at
/// just before.
const RECENTLY: Duration = Duration::from_secs(10);

/// How many sessions are closed at once, and the pause before the next: at most 128,000 a second.
const CLOSES_AT_ONCE: usize = 128;
const CLOSES_PAUSE: Duration = Duration::from_millis(1);

/// What letting a session in takes, by and large: those that are all sent away at once are asked to
/// come back so far apart.
const COMING_BACK_MICROS: u64 = 500;

impl Sessions {
    /// No sessions yet.
    pub fn new(parts: Parts) -> Arc<Self> {
        let Parts {
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
            step_limiter: StepLimiter::default(),
            registry,
        })
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.registry.count()
    }

    /// Every session, to close them one after the other.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.registry.all()
    }

    /// Takes a session in, unless a count is full. The name of the full limit otherwise.
    pub(super) fn admit(&self, session: &Arc<Session>) -> Result<(), &'static str> {
        let bounds = Bounds {
            per_app: self.limits.connections_per_app,
            per_user: self.limits.connections_per_user,
        };
        self.registry.admit(session, bounds)?;
        self.presences
            .session_began(session.scope(), session.user());
        Ok(())
    }

    /// Lets a session go whose connection ended.
    pub fn leave(&self, session: &Arc<Session>) {
        if self.registry.leave(session) {
            session.let_go();
            self.presences
                .session_ended(session.scope(), session.user());
        }
    }

    pub(super) fn of_user(&self, scope: &Scope, user: &UserId) -> Vec<Arc<Session>> {
        self.registry.of_user(scope, user)
    }

    /// How a session that was just registered has to end, if what ended recently meant it.
    pub(super) fn has_ended(&self, session: &Session) -> Option<CloseCode> {
        let recent = self.recently_ended.lock();
        recent
            .iter()
            .find(|(_, what, at)| session.is_meant(what, *at))
            .map(|(_, what, _)| what.close())
    }

    /// Counts a request under way.
    ///
    /// # Errors
    ///
    /// `rate_limited` if the requests of the node leave no room for it.
    pub(super) fn begin_request(
        &self,
        session: &Arc<Session>,
        operation: &str,
        frame_bytes: usize,
    ) -> Result<UnderWay, Error> {
        UnderWay::begin(session, &self.requests, operation, frame_bytes).map_err(|NoRoom| {
            self.metrics.limit_hit(request_bytes::LIMIT);
            Error::rate_limited(request_bytes::LIMIT, request_bytes::RETRY_MS)
        })
    }

    /// Takes a token of the app's bucket, or returns in how many milliseconds there will be one.
    pub(super) fn take_for_app(&self, scope: &Scope) -> Result<(), u64> {
        match self.limits.app_requests_per_second {
            0 => Ok(()),
            _ => self.apps.take(scope.clone(), self.services.clock.elapsed()),
        }
    }

    /// Charges a session's user and app for what a request cost beyond its own token.
    pub(super) fn charge(&self, session: &Session, meter: &Meter) {
        let (tokens, now) = (meter.surcharge(), self.services.clock.elapsed());
        self.users.charge(
            (session.scope().clone(), session.user().clone()),
            tokens,
            now,
        );
        self.apps.charge(session.scope().clone(), tokens, now);
    }

    /// Takes a token for a `connect` of a user; else returns when to come again, in milliseconds.
    pub(super) fn take_for_connect(&self, session: &Session) -> Result<(), u64> {
        self.users.take(
            (session.scope().clone(), session.user().clone()),
            self.services.clock.elapsed(),
        )
    }

    /// Sends an error. Its cause goes to the log, though not that of each request while the store is
    /// away.
    pub(super) fn answer_error(&self, session: &Session, id: u32, error: &Error) {
        self.metrics.error(Transport::WebSocket, error.code());
        if let Some(cause) = &error.cause
            && let Some(held_back) = FAILURES.pass(Instant::now())
        {
            tracing::warn!(session = %session.id, code = %error.code(), %cause, held_back, "a request failed");
        }
        session.reply_error(id, &error.body);
    }

    /// Fails while a session's user owes tokens for earlier requests, of whichever session: with
    /// when to come again, in milliseconds.
    pub(super) fn is_in_debt(&self, session: &Session) -> Result<(), u64> {
        self.users.peek(
            &(session.scope().clone(), session.user().clone()),
            self.services.clock.elapsed(),
        )
    }
}

#[async_trait]
impl Ended for Sessions {
    async fn ended(&self, what: &Ending, at: u64) {
        // Noted first: a session that is just beginning is either in the registry by now, or finds
        // the note.
        {
            let mut recent = self.recently_ended.lock();
            while recent
                .pop_front_if(|(since, ..)| since.elapsed() > RECENTLY)
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
            .filter(|session| session.is_meant(what, at))
            .collect();
        paced(meant, |session| session.close(what.close(), None)).await;
    }

    /// Which sessions should have ended is not known: all of them come back, and their tokens are
    /// looked at then.
    async fn all(&self) {
        let sessions = self.registry.all();
        // Every node does so at the same time: without a hint all would come back at once.
        let spread = (sessions.len() as u64 * COMING_BACK_MICROS / 1_000).max(1);
        paced(sessions, |session| {
            session.close(CloseCode::GoingAway, Some(random::bits() % spread))
        })
        .await;
    }
}

/// Closes sessions a few at a time, so that a hundred thousand do not hold up those that stay.
async fn paced(sessions: Vec<Arc<Session>>, close: impl Fn(&Session)) {
    for some in sessions.chunks(CLOSES_AT_ONCE) {
        some.iter().for_each(|session| close(session));
        if some.len() == CLOSES_AT_ONCE {
            tokio::time::sleep(CLOSES_PAUSE).await;
        }
    }
}
