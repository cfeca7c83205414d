//! Presence: which users of this node are online, told to whoever watches them.
//!
//! A node keeps its users under its own lease in the store. A user is online while any node has it; offline is told ten
//! seconds after its last session ended, or when its node's lease has ended.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use dashmap::{DashMap, Entry};
use fanout::{Kind, Position, record::Control};
use parking_lot::Mutex;
use protocol::{EventKind, UserId, event::PresenceData, model::Presence, results::Presences as PresenceMap};
use serde::Serialize;
use tokio::sync::Notify;

use super::{
    Sessions,
    session::Session,
    subscribe::{Starts, unavailable},
};
use crate::{
    error::{Error, Result},
    service::{
        Services,
        document::decode,
        scope::{ENTITY, ONLY, SEEN, Scope, parse_member},
    },
    store::{Commit, Expected, Read},
};

/// After the last session ended, a user is online for this much longer.
const GRACE: Duration = Duration::from_secs(10);
/// How long a node's lease lasts.
const LEASE: Duration = Duration::from_secs(15);
/// How often it is renewed, and dead nodes are looked for.
const RENEWAL: Duration = Duration::from_secs(5);
/// The most users that a session watches.
const MAX_WATCHED: usize = 100;
/// Marks a member that is within its grace; below are its sessions.
const GRACED: u32 = 1 << 16;

/// The users of this node.
#[derive(Debug)]
pub struct Presences {
    services: Services,
    node: String,
    here: DashMap<String, Here>,
    changed: Mutex<HashMap<String, u32>>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Here {
    sessions: u32,
    /// Counts the beginnings of a grace, so that only the latest one ends it.
    graces: u64,
}

impl Here {
    fn value(&self) -> u32 {
        if self.sessions == 0 { GRACED } else { self.sessions.min(GRACED - 1) }
    }
}

#[derive(Serialize)]
struct Told<'a> {
    data: &'a PresenceData,
}

impl Presences {
    /// Nobody is here yet. The node's name is that of its lease.
    pub fn new(services: Services, node: impl Into<String>) -> Arc<Self> {
        Arc::new(Self { services, node: node.into(), here: DashMap::new(), changed: Mutex::default(), wake: Notify::new() })
    }

    /// A session of this user began here.
    pub(super) fn came(self: &Arc<Self>, scope: &Scope, user: &UserId) {
        let member = scope.member(user);
        let mut here = self.here.entry(member.clone()).or_default();
        here.sessions += 1;
        let is_new = here.sessions == 1 && here.graces == 0;
        self.changed.lock().insert(member.clone(), Here::value(&here));
        drop(here);
        if !is_new {
            self.wake.notify_one();
            return;
        }
        let (this, scope, user) = (Arc::clone(self), scope.clone(), user.clone());
        tokio::spawn(async move {
            // Elsewhere already? Then nobody has to be told. In doubt it is told: the newest word counts.
            let elsewhere = this.services.store.members(&[member]).await.is_ok_and(|counts| counts.iter().any(|c| *c != 0));
            this.wake.notify_one();
            if !elsewhere {
                this.tell(&scope, &user, true, None).await;
            }
        });
    }

    /// A session of this user ended here.
    pub(super) fn went(self: &Arc<Self>, scope: &Scope, user: &UserId) {
        let member = scope.member(user);
        let grace = {
            let Some(mut here) = self.here.get_mut(&member) else { return };
            here.sessions = here.sessions.saturating_sub(1);
            self.changed.lock().insert(member.clone(), Here::value(&here));
            self.wake.notify_one();
            if here.sessions > 0 {
                return;
            }
            here.graces += 1;
            here.graces
        };
        // Weak: a node that ends does not wait for those who may come back.
        let (this, scope, user) = (Arc::downgrade(self), scope.clone(), user.clone());
        tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            if let Some(this) = this.upgrade() {
                this.end_grace(&scope, &user, member, grace).await;
            }
        });
    }

    async fn end_grace(&self, scope: &Scope, user: &UserId, member: String, grace: u64) {
        match self.here.entry(member.clone()) {
            Entry::Occupied(here) if here.get().sessions == 0 && here.get().graces == grace => {
                here.remove();
            }
            _ => return,
        }
        self.changed.lock().insert(member.clone(), 0);
        if let Err(error) = self.flush().await {
            tracing::warn!(%error, "the store was not told that a user went");
        }
        self.went_offline(scope, user, member).await;
    }

    /// Tells that a user is offline, unless it is online elsewhere.
    async fn went_offline(&self, scope: &Scope, user: &UserId, member: String) {
        match self.services.store.members(&[member]).await {
            Ok(counts) if counts.iter().all(|c| *c == 0) => {
                let last_seen = self.services.clock.now_ms();
                let seen = Commit::default().require(ENTITY, ONLY, Expected::Present).put(SEEN, ONLY, &last_seen);
                if let Err(error) = self.services.store.commit(&scope.user(user), seen).await {
                    tracing::warn!(%error, "when a user was last seen was not kept");
                }
                self.tell(scope, user, false, Some(last_seen)).await;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "whether a user is online elsewhere is not known"),
        }
    }

    async fn tell(&self, scope: &Scope, user: &UserId, online: bool, last_seen: Option<u64>) {
        let data = PresenceData { user_id: user.clone(), online, last_seen, at: self.services.clock.now_ms() };
        self.services.tell(&scope.presence(user), EventKind::PresenceChanged, Control::None, &Told { data: &data }).await;
    }

    /// Writes what changed under the node's lease, and renews it.
    async fn flush(&self) -> Result<()> {
        let changed: Vec<(String, u32)> = self.changed.lock().drain().collect();
        match self.services.store.lease(&self.node, LEASE, changed.clone()).await {
            Ok(true) => Ok(()),
            Ok(false) => {
                // The lease had ended: what it held may have been swept.
                let all = self.here.iter().map(|here| (here.key().clone(), Here::value(here.value()))).collect();
                self.services.store.lease(&self.node, LEASE, all).await?;
                Ok(())
            }
            Err(error) => {
                let mut waiting = self.changed.lock();
                for (member, value) in changed {
                    waiting.entry(member).or_insert(value);
                }
                Err(error.into())
            }
        }
    }

    /// Keeps the lease, and looks for nodes whose lease has ended. Runs for as long as the node does.
    pub async fn keep(self: Arc<Self>) {
        let mut sweep = tokio::time::interval(RENEWAL);
        loop {
            let is_due = tokio::select! {
                _ = sweep.tick() => true,
                () = self.wake.notified() => false,
            };
            if let Err(error) = self.flush().await {
                tracing::warn!(%error, "the node's lease was not renewed");
                tokio::time::sleep(Duration::from_secs(1)).await;
                self.wake.notify_one();
                continue;
            }
            if is_due {
                self.sweep().await;
            }
            // Many changes share one write.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn sweep(&self) {
        match self.services.store.sweep().await {
            Ok(members) => {
                for member in members {
                    if let Some((scope, user)) = parse_member(&member) {
                        self.went_offline(&scope, &user, member).await;
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "dead nodes could not be looked for"),
        }
    }

    /// Ends the lease: the node is gone, its users with it.
    pub async fn release(&self) {
        if let Err(error) = self.services.store.release(&self.node).await {
            tracing::warn!(%error, "the node's lease ends by itself");
        }
    }

    /// Whether users are online, as the store has it now.
    pub async fn of(&self, scope: &Scope, users: &[UserId]) -> Result<BTreeMap<UserId, Presence>> {
        let members: Vec<String> = users.iter().map(|user| scope.member(user)).collect();
        let counts = self.services.store.members(&members).await?;
        let read = |user| Read { partition: scope.user(user), documents: vec![(SEEN, ONLY.into())], newest: None };
        let seen = self.services.store.read(users.iter().map(read).collect()).await?;
        let at = self.services.clock.now_ms();
        let mut presences = BTreeMap::new();
        for ((user, count), seen) in users.iter().zip(counts).zip(seen) {
            let online = count != 0;
            let last_seen = match &seen.documents[0] {
                Some(document) if !online => Some(decode(document)?),
                _ => None,
            };
            presences.insert(user.clone(), Presence { online, last_seen, at });
        }
        Ok(presences)
    }
}

impl Sessions {
    /// `presence.watch`: replaces the users that a session watches.
    pub(super) async fn watch_presence(&self, session: &Session, users: Vec<UserId>) -> Result<(PresenceMap, Starts)> {
        if users.len() > MAX_WATCHED {
            return Err(Error::bad_request(format!("at most {MAX_WATCHED} users are watched at once")));
        }
        let topics: Vec<_> = users.iter().map(|user| (session.scope().presence(user), Kind::Passing)).collect();
        let joined = self.hub.join_all(&topics, &session.outbox).await.map_err(unavailable)?;
        let presence = self.presences.of(session.scope(), &users).await?;
        Ok((PresenceMap { presence }, Starts::watching(joined)))
    }
}

impl Session {
    /// Replaces what the session watches.
    pub(super) fn watch(&self, joined: Vec<fanout::Joining>) {
        let watched = joined.into_iter().map(|joining| joining.start(Position::default(), Position::default())).collect();
        let mut state = self.state.lock();
        let before = if state.is_gone { watched } else { std::mem::replace(&mut state.watched, watched) };
        drop(state);
        drop(before);
    }
}
