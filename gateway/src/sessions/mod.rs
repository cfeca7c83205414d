//! The sessions of this node: who is connected, what each listens to, and how its requests reach the services.
//!
//! Owned here: the registry by user, `connect`, subscriptions, the way of requests and replies, presence of this node's
//! users. Left out: sockets and time (`socket`, `session`), and every rule of chat (`service`).

mod connect;
mod dispatch;
mod presence;
mod sends;
mod session;
mod subscribe;
mod watching;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use dashmap::DashMap;
use fanout::{Hub, Outbox, Position};
use parking_lot::Mutex;
use protocol::{ChannelId, CloseCode, Limits, UserId};

pub use self::{
    connect::Refused,
    presence::Presences,
    session::{Flow, Session},
};
use crate::{
    auth::Authenticator,
    limit::Keyed,
    metrics::Metrics,
    service::{
        Services,
        ended::{Ended, Ending},
        random,
        scope::Scope,
    },
    source::Membership,
};

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
    apps: Arc<Keyed<Scope>>,
    recently_ended: Mutex<VecDeque<(Instant, Ending, u64)>>,
    by_user: DashMap<(Scope, UserId), Vec<Arc<Session>>>,
    by_app: DashMap<Scope, u64>,
    count: AtomicUsize,
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
}

/// For how long a session that begins is held against what ended: a token may have been looked at just before.
const RECENTLY: Duration = Duration::from_secs(10);

/// What letting a session in takes, by and large: those that are all sent away at once are asked to come back so far apart.
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
            apps,
        } = parts;
        Arc::new(Self {
            services,
            hub,
            authenticator,
            limits,
            presences,
            metrics,
            heartbeat,
            apps,
            recently_ended: Mutex::default(),
            by_user: DashMap::new(),
            by_app: DashMap::new(),
            count: AtomicUsize::new(0),
        })
    }

    /// How many sessions there are.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Every session, to close them one after the other.
    pub fn all(&self) -> Vec<Arc<Session>> {
        self.by_user
            .iter()
            .flat_map(|entry| entry.value().clone())
            .collect()
    }

    /// Takes a session in, unless a count is full. The name of the full limit otherwise.
    fn admit(&self, session: &Arc<Session>) -> Result<(), &'static str> {
        let full = |limit: u64, count: u64| limit != 0 && count >= limit;
        let key = (session.scope().clone(), session.user().clone());
        let mut of_app = self.by_app.entry(key.0.clone()).or_default();
        if full(self.limits.connections_per_app, *of_app) {
            return Err("connections_per_app");
        }
        let mut of_user = self.by_user.entry(key.clone()).or_default();
        if full(self.limits.connections_per_user, of_user.len() as u64) {
            return Err("connections_per_user");
        }
        of_user.push(Arc::clone(session));
        *of_app += 1;
        drop((of_user, of_app));
        self.count.fetch_add(1, Ordering::Relaxed);
        self.presences.came(&key.0, &key.1);
        Ok(())
    }

    /// Lets a session go whose connection ended.
    pub fn leave(&self, session: &Arc<Session>) {
        let key = (session.scope().clone(), session.user().clone());
        let mut was_here = false;
        if let Some(mut sessions) = self.by_user.get_mut(&key) {
            let before = sessions.len();
            sessions.retain(|other| !Arc::ptr_eq(other, session));
            was_here = sessions.len() < before;
        }
        if !was_here {
            return;
        }
        self.by_user
            .remove_if(&key, |_, sessions| sessions.is_empty());
        if let Some(mut count) = self.by_app.get_mut(&key.0) {
            *count -= 1;
        }
        self.by_app.remove_if(&key.0, |_, count| *count == 0);
        self.count.fetch_sub(1, Ordering::Relaxed);
        session.let_go();
        self.presences.went(&key.0, &key.1);
    }

    fn of_user(&self, scope: &Scope, user: &UserId) -> Vec<Arc<Session>> {
        self.by_user
            .get(&(scope.clone(), user.clone()))
            .map(|sessions| sessions.clone())
            .unwrap_or_default()
    }

    /// The session that was told something. Another one of the user may still be behind, and is told later.
    fn behind(&self, scope: &Scope, user: &UserId, outbox: &Arc<Outbox>) -> Option<Arc<Session>> {
        self.of_user(scope, user)
            .into_iter()
            .find(|session| Arc::ptr_eq(&session.outbox, outbox))
    }

    /// How a session that was just registered has to end, if what ended recently meant it.
    fn has_ended(&self, session: &Session) -> Option<CloseCode> {
        let recent = self.recently_ended.lock();
        recent
            .iter()
            .find(|(_, what, at)| session.is_meant(what, *at))
            .map(|(_, what, _)| what.close())
    }

    /// Takes one request out of the app's bucket; else when to come again, in milliseconds.
    fn take_for_app(&self, scope: &Scope) -> Result<(), u64> {
        match self.limits.app_requests_per_second {
            0 => Ok(()),
            _ => self.apps.take(scope.clone(), self.services.clock.elapsed()),
        }
    }
}

impl Membership for Sessions {
    fn added(
        &self,
        scope: Scope,
        user: UserId,
        channel: ChannelId,
        position: Position,
        outbox: &Arc<Outbox>,
    ) {
        if let Some(session) = self.behind(&scope, &user, outbox) {
            session.came_into(channel, position);
        }
    }

    fn removed(&self, scope: Scope, user: UserId, channel: ChannelId, outbox: &Arc<Outbox>) {
        if let Some(session) = self.behind(&scope, &user, outbox) {
            session.went_out_of(channel);
        }
    }
}

impl Ended for Sessions {
    fn ended(&self, what: &Ending, at: u64) {
        // Noted first: a session that is just beginning is either in the registry by now, or finds the note.
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
            Ending::TokenKey { .. } | Ending::App { .. } => self.all(),
        };
        for session in candidates
            .iter()
            .filter(|session| session.is_meant(what, at))
        {
            session.close(what.close(), None);
        }
    }

    /// Which sessions should have ended is not known: all of them come back, and their tokens are looked at then.
    fn all(&self) {
        let sessions = self.all();
        // Every node does so at the same time: without a hint all would come back at once.
        let spread = (sessions.len() as u64 * COMING_BACK_MICROS / 1_000).max(1);
        for session in sessions {
            session.close(CloseCode::GoingAway, Some(random::bits() % spread));
        }
    }
}
