//! `presence.watch`: sessions that watch the presence of users.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    document::decode,
    error::{Error, Result},
    online::Online,
    schema::{ONLY, SEEN, Scope},
    users,
};
use fanout::{Position, TopicKind};
use protocol::{UserId, entity::Presence, operation::presence::Presences};
use store::Read;

use super::{
    session::{Session, TrackedSubscription},
    shared::Sessions,
    subscribe::unavailable,
};
use crate::session::RequestOrder;

/// Maximum number of users that a session watches.
const MAX_WATCHED: usize = protocol::bounds::USER_IDS;

/// `presence.watch`: replaces the users that a session watches.
///
/// New users are subscribed to before their presence is read, so that no change is missed. An event
/// may arrive before the reply; the newer of the two counts. If this fails, the users watched
/// before stay watched. A request that was overtaken by a later one is answered, and changes
/// nothing.
///
/// Users that do not exist are offline, and their topics are not joined.
pub(super) async fn watch_presence(
    sessions: &Sessions,
    session: &Session,
    order: RequestOrder,
    users: Vec<UserId>,
) -> Result<Presences> {
    if users.len() > MAX_WATCHED {
        return Err(Error::bad_request(format!(
            "at most {MAX_WATCHED} users are watched at once"
        )));
    }
    let users: BTreeSet<UserId> = users.into_iter().collect();
    let _turn = session.turn().await;
    let missing = session.state.lock().active.watched.missing(&users);
    let new = users::existing_users(&sessions.services, session.scope(), missing).await?;
    let topics: Vec<_> = new
        .iter()
        .map(|user| (session.scope().presence(user), TopicKind::Passing))
        .collect();
    let joined = sessions
        .hub
        .join_all(&topics, &session.outbox)
        .await
        .map_err(unavailable)?;
    let started: Vec<_> = joined
        .into_iter()
        .map(|joining| {
            TrackedSubscription::new(
                joining.start(Position::default(), Position::default()),
                None,
            )
        })
        .collect();
    let presence = presence_of(sessions, session.scope(), &users).await?;
    let started = new.into_iter().zip(started).collect();
    // Dropped outside of the lock: leaving a topic takes the topic's.
    let ended = session
        .state
        .lock()
        .active
        .watched
        .replace(order, &users, started);
    drop(ended);
    Ok(Presences { presence })
}

/// Reads the presence of users from the store. The time is from before the read, so that any event
/// about a later change is newer.
async fn presence_of(
    sessions: &Sessions,
    scope: &Scope,
    users: &BTreeSet<UserId>,
) -> Result<BTreeMap<UserId, Presence>> {
    let at = sessions.services.clock.now_ms();
    let members: Vec<String> = users.iter().map(|user| scope.member(user)).collect();
    let sums = sessions.services.store.members(&members).await?;
    let read = |user| Read {
        partition: scope.user(user),
        documents: vec![(SEEN, ONLY.into())],
        newest: None,
    };
    let seen = sessions
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
