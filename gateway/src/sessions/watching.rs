//! Sessions that watch users: `presence.watch`, and who is online as the store has it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::atomic::{AtomicU64, Ordering},
};

use fanout::{Kind, Position, Subscription};
use protocol::{UserId, model::Presence, results::Presences};

use super::{Sessions, session::Session, subscribe::unavailable};
use crate::{
    error::{Error, Result},
    service::{
        document::decode,
        online::Online,
        scope::{ONLY, SEEN, Scope},
    },
    store::Read,
};

/// The most users that a session watches.
const MAX_WATCHED: usize = 100;

/// When something was asked, among all requests of this process: of two, the greater was asked later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Asked(u64);

impl Asked {
    /// To be called where requests are read, since what serves them may overtake each other.
    pub(super) fn now() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(1);
        Self(COUNT.fetch_add(1, Ordering::Relaxed))
    }
}

/// Whom a session watches.
#[derive(Debug, Default)]
pub(super) struct Watched {
    /// By the newest request that was served.
    asked: Asked,
    users: HashMap<UserId, Subscription>,
}

impl Sessions {
    /// `presence.watch`: replaces the users that a session watches.
    ///
    /// Who is new is listened to before it is read who is online, so that no change falls between the two; an event may so
    /// come before the reply, and the newer of both counts. If this fails, those watched before go on being watched. A
    /// request that was overtaken by a later one is answered, and changes nothing.
    pub(super) async fn watch_presence(
        &self,
        session: &Session,
        asked: Asked,
        users: Vec<UserId>,
    ) -> Result<Presences> {
        if users.len() > MAX_WATCHED {
            return Err(Error::bad_request(format!(
                "at most {MAX_WATCHED} users are watched at once"
            )));
        }
        let users: BTreeSet<UserId> = users.into_iter().collect();
        let _turn = session.turn().await;
        let new: Vec<UserId> = {
            let state = session.state.lock();
            let is_watched = |user: &UserId| {
                state
                    .watched
                    .users
                    .get(user)
                    .is_some_and(|subscription| !subscription.is_ended())
            };
            users
                .iter()
                .filter(|user| !is_watched(user))
                .cloned()
                .collect()
        };
        let topics: Vec<_> = new
            .iter()
            .map(|user| (session.scope().presence(user), Kind::Passing))
            .collect();
        let joined = self
            .hub
            .join_all(&topics, &session.outbox)
            .await
            .map_err(unavailable)?;
        let started: Vec<_> = joined
            .into_iter()
            .map(|joining| joining.start(Position::default(), Position::default()))
            .collect();
        let presence = self.presence_of(session.scope(), &users).await?;
        drop(session.watch(asked, &users, new.into_iter().zip(started).collect()));
        Ok(Presences { presence })
    }

    /// Whether users are online, as the store has it. The time is from before the question, like that of an event: whatever
    /// is told of a later change is newer.
    async fn presence_of(
        &self,
        scope: &Scope,
        users: &BTreeSet<UserId>,
    ) -> Result<BTreeMap<UserId, Presence>> {
        let at = self.services.clock.now_ms();
        let members: Vec<String> = users.iter().map(|user| scope.member(user)).collect();
        let sums = self.services.store.members(&members).await?;
        let read = |user| Read {
            partition: scope.user(user),
            documents: vec![(SEEN, ONLY.into())],
            newest: None,
        };
        let seen = self
            .services
            .store
            .read(users.iter().map(read).collect())
            .await?;
        let mut presences = BTreeMap::new();
        for ((user, sum), seen) in users.iter().zip(sums).zip(seen) {
            let online = Online::from(sum).is_online();
            let last_seen = match &seen.documents[0] {
                Some(document) if !online => Some(decode(document)?),
                _ => None,
            };
            presences.insert(
                user.clone(),
                Presence {
                    online,
                    last_seen,
                    at,
                },
            );
        }
        Ok(presences)
    }
}

impl Session {
    /// Watches `users`, some of whom are new, and no others any more. What ends by that is dropped outside of the lock, since
    /// leaving a topic takes the topic's.
    fn watch(
        &self,
        asked: Asked,
        users: &BTreeSet<UserId>,
        new: HashMap<UserId, Subscription>,
    ) -> HashMap<UserId, Subscription> {
        let mut state = self.state.lock();
        if state.is_gone || state.watched.asked > asked {
            return new;
        }
        state.watched.asked = asked;
        let ended: HashMap<_, _> = state
            .watched
            .users
            .extract_if(|user, _| !users.contains(user) || new.contains_key(user))
            .collect();
        state.watched.users.extend(new);
        ended
    }
}
