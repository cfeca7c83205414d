//! Sessions that watch users: `presence.watch`, and who is online as the store has it.

use std::collections::{BTreeMap, BTreeSet};

use domain::{
    document::decode,
    error::{Error, Result},
    online::Online,
    schema::{ONLY, SEEN, Scope},
    users,
};
use fanout::{Kind, Position};
use protocol::{UserId, entity::Presence, operation::presence::Presences};
use store::Read;

use super::{
    session::{Listening, Session},
    shared::Sessions,
    subscribe::unavailable,
};
use crate::session::RequestOrder;

/// The most users that a session watches.
const MAX_WATCHED: usize = protocol::bounds::USER_IDS;

/// `presence.watch`: replaces the users that a session watches.
///
/// Who is new is listened to before it is read who is online, so that no change falls between
/// the two; an event may so come before the reply, and the newer of both counts. If this fails,
/// those watched before go on being watched. A request that was overtaken by a later one is
/// answered, and changes nothing.
///
/// Only users that exist are listened to: an id that nobody has is offline, and joins no topic.
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
    let missing = session.state.lock().watched.missing(&users);
    let new = users::existing_users(&sessions.services, session.scope(), missing).await?;
    let topics: Vec<_> = new
        .iter()
        .map(|user| (session.scope().presence(user), Kind::Passing))
        .collect();
    let joined = sessions
        .hub
        .join_all(&topics, &session.outbox)
        .await
        .map_err(unavailable)?;
    let started: Vec<_> = joined
        .into_iter()
        .map(|joining| Listening::new(joining.start(Position::default(), Position::default())))
        .collect();
    let presence = presence_of(sessions, session.scope(), &users).await?;
    let started = new.into_iter().zip(started).collect();
    // Dropped outside of the lock: leaving a topic takes the topic's.
    let ended = session.state.lock().watched.replace(order, &users, started);
    drop(ended);
    Ok(Presences { presence })
}

/// Whether users are online, as the store has it. The time is from before the question, like
/// that of an event: whatever is told of a later change is newer.
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
