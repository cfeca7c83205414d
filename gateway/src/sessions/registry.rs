//! The sessions of a node, indexed by user, app and token key, so that ending some of them does not
//! visit all others.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use dashmap::DashMap;
use domain::schema::Scope;
use fanout::{Outbox, Position, capacity::ShrinkIfSparse};
use protocol::{ChannelId, TokenKeyId, UserId};

use super::session::Session;
use crate::source::MembershipListener;

/// The indexes are shrunk, if they are sparse, whenever the number of sessions has fallen to a
/// multiple of it.
const SESSIONS_PER_SHRINK: usize = 1024;

/// Limits of sessions on this node; 0 means no limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct SessionBounds {
    pub(super) per_app: u64,
    pub(super) per_user: u64,
}

/// The sessions of this node.
#[derive(Debug, Default)]
pub struct Registry {
    by_user: Index<(Scope, UserId)>,
    by_app: Index<Scope>,
    by_token_key: Index<TokenKeyId>,
    count: AtomicUsize,
}

impl Registry {
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Returns all sessions.
    pub(super) fn all(&self) -> Vec<Arc<Session>> {
        self.by_app
            .0
            .iter()
            .flat_map(|sessions| sessions.values().cloned().collect::<Vec<_>>())
            .collect()
    }

    pub(super) fn of_user(&self, scope: &Scope, user: &UserId) -> Vec<Arc<Session>> {
        self.by_user.get(&(scope.clone(), user.clone()))
    }

    pub(super) fn of_app(&self, scope: &Scope) -> Vec<Arc<Session>> {
        self.by_app.get(scope)
    }

    pub(super) fn of_token_key(&self, key: &TokenKeyId) -> Vec<Arc<Session>> {
        self.by_token_key.get(key)
    }

    /// Adds a session, or returns the name of the limit that it would exceed.
    pub(super) fn admit(
        &self,
        session: &Arc<Session>,
        bounds: SessionBounds,
    ) -> Result<(), &'static str> {
        let full = |limit: u64, count: usize| limit != 0 && count as u64 >= limit;
        let user = (session.scope().clone(), session.user().clone());
        let mut of_app = self.by_app.0.entry(user.0.clone()).or_default();
        if full(bounds.per_app, of_app.len()) {
            return Err("connections_per_app");
        }
        let mut of_user = self.by_user.0.entry(user).or_default();
        if full(bounds.per_user, of_user.len()) {
            return Err("connections_per_user");
        }
        of_user.insert(address_of(session), Arc::clone(session));
        of_app.insert(address_of(session), Arc::clone(session));
        drop((of_user, of_app));
        self.count.fetch_add(1, Ordering::Relaxed);
        if let Some(key) = session.token_key() {
            self.by_token_key.insert(key, session);
        }
        Ok(())
    }

    /// Removes a session. Returns false if it was not registered.
    pub(super) fn leave(&self, session: &Arc<Session>) -> bool {
        if !self
            .by_user
            .remove(&(session.scope().clone(), session.user().clone()), session)
        {
            return false;
        }
        self.by_app.remove(session.scope(), session);
        if let Some(key) = session.token_key() {
            self.by_token_key.remove(&key, session);
        }
        let left = self.count.fetch_sub(1, Ordering::Relaxed) - 1;
        if left.is_multiple_of(SESSIONS_PER_SHRINK) {
            self.by_user.0.shrink_if_sparse();
            self.by_app.0.shrink_if_sparse();
            self.by_token_key.0.shrink_if_sparse();
        }
        true
    }

    /// Moves a session to another token key while `replace` replaces its token. The session is
    /// indexed by both keys meanwhile, so that no revocation misses it.
    pub(super) fn rekey(&self, session: &Arc<Session>, new: &TokenKeyId, replace: impl FnOnce()) {
        let old = session.token_key();
        self.by_token_key.insert(new.clone(), session);
        replace();
        if let Some(old) = old.filter(|old| old != new) {
            self.by_token_key.remove(&old, session);
        }
        // If the session was removed in the meantime, remove the new entry here.
        if !self
            .by_user
            .has(&(session.scope().clone(), session.user().clone()), session)
        {
            self.by_token_key.remove(new, session);
        }
    }
}

impl Registry {
    /// Returns the session of an outbox.
    fn behind(&self, scope: &Scope, user: &UserId, outbox: &Arc<Outbox>) -> Option<Arc<Session>> {
        self.of_user(scope, user)
            .into_iter()
            .find(|session| Arc::ptr_eq(&session.outbox, outbox))
    }
}

impl MembershipListener for Registry {
    fn added(
        &self,
        scope: Scope,
        user: UserId,
        channel: ChannelId,
        position: Position,
        outbox: &Arc<Outbox>,
    ) {
        if let Some(session) = self.behind(&scope, &user, outbox) {
            session.added(channel, position);
        }
    }

    fn removed(&self, scope: Scope, user: UserId, channel: ChannelId, outbox: &Arc<Outbox>) {
        if let Some(session) = self.behind(&scope, &user, outbox) {
            session.removed(channel);
        }
    }

    fn lost(&self, scope: Scope, user: UserId, outbox: &Arc<Outbox>) {
        if let Some(session) = self.behind(&scope, &user, outbox) {
            session.compare();
        }
    }
}

/// Sessions by a common property.
#[derive(Debug)]
struct Index<K: Eq + Hash>(DashMap<K, HashMap<usize, Arc<Session>>>);

impl<K: Eq + Hash> Default for Index<K> {
    fn default() -> Self {
        Self(DashMap::new())
    }
}

impl<K: Eq + Hash> Index<K> {
    fn get(&self, key: &K) -> Vec<Arc<Session>> {
        self.0
            .get(key)
            .map(|sessions| sessions.values().cloned().collect())
            .unwrap_or_default()
    }

    fn has(&self, key: &K, session: &Arc<Session>) -> bool {
        self.0
            .get(key)
            .is_some_and(|sessions| sessions.contains_key(&address_of(session)))
    }

    fn insert(&self, key: K, session: &Arc<Session>) {
        self.0
            .entry(key)
            .or_default()
            .insert(address_of(session), Arc::clone(session));
    }

    /// Removes a session. Returns false if it was not indexed.
    fn remove(&self, key: &K, session: &Arc<Session>) -> bool {
        let was_there = self.0.get_mut(key).is_some_and(|mut sessions| {
            let removed = sessions.remove(&address_of(session)).is_some();
            sessions.shrink_if_sparse();
            removed
        });
        self.0.remove_if(key, |_, sessions| sessions.is_empty());
        was_there
    }
}

/// Returns a key that is unique to the session as long as it is referenced.
fn address_of(session: &Arc<Session>) -> usize {
    Arc::as_ptr(session) as usize
}
