//! The state of a session, shared by its tasks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Context,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chaos_redis::jittered;
use domain::{
    credential::{Actor, Who},
    ended::Ending,
    messages::send::Facts,
    schema::Scope,
};
use fanout::{Class, Outbox, Position, Subscription};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use protocol::{
    ChannelId, CloseCode, Encoding, ErrorBody, EventKind, SessionId, TokenKeyId, UserId,
    event::DrainingData, frame::encode_error, operation::message::SendMessage,
};
use serde::Serialize;
use store::cost;
use tokio::sync::Notify;

use crate::{
    limit::{NoRoom, Room, Share},
    session::{Active, Drain, RequestVerdict, SessionAction, SubscriptionHandle, Subscriptions},
    socket::frame,
};

/// Maximum number of requests of a session in flight. Beyond that, its socket is not read.
const MAX_REQUESTS_IN_FLIGHT: usize = 64;
/// Maximum estimated bytes of a session's requests in flight. Beyond that, its socket is not read;
/// a single request is always served.
const MAX_BYTES_IN_FLIGHT: usize = 1024 * 1024;
/// Estimated bytes of a session's requests in flight that do not count towards
/// `requests_total_bytes`: a few small ones.
const UNCOUNTED_BYTES: usize = 64 * 1024;

/// Maximum pause between a loss in the user's own stream and the comparison with the store. The
/// stream recovers meanwhile, and jitter spreads the sessions of a node.
const MAX_COMPARISON_PAUSE: Duration = Duration::from_secs(2);

/// A session: a connection after its `connect`.
#[derive(Debug)]
pub struct Session {
    pub(super) id: SessionId,
    pub(super) encoding: Encoding,
    pub(super) outbox: Arc<Outbox>,
    scope: Scope,
    user: UserId,
    /// In milliseconds since the Unix epoch, by the store's clock.
    began_at: u64,
    credential: Mutex<SessionCredential>,
    /// Whether another task has changed the state, so that the connection's task has to look for
    /// actions that are due.
    has_changed: AtomicBool,
    connection: AtomicWaker,
    pub(super) state: Mutex<SessionState>,
    /// Held while subscriptions change, from the first join to the start.
    pub(super) turns: Arc<tokio::sync::Mutex<()>>,
    /// Wakes the task that takes the steps of `channels`.
    pub(super) changed: Notify,
    flow: RequestFlow,
}

/// Begin of a session and expiry of its token, in milliseconds since the Unix epoch, by the store's
/// clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    pub(super) began_at: u64,
    pub(super) expires_at: u64,
}

/// A queued send.
#[derive(Debug)]
pub(super) struct QueuedSend {
    pub(super) in_flight: RequestInFlight,
    pub(super) id: u32,
    pub(super) body: SendMessage,
}

/// The right to change a session's subscriptions, held by one change at a time.
pub(super) type SubscriptionTurn = tokio::sync::OwnedMutexGuard<()>;

/// The token of a session.
#[derive(Debug, Clone)]
pub(super) struct SessionCredential {
    pub(super) who: Who,
    /// In milliseconds since the Unix epoch.
    pub(super) expires_at: u64,
}

/// The mutable state of a session.
#[derive(Debug)]
pub(super) struct SessionState {
    pub(super) active: Active<TrackedSubscription, QueuedSend>,
    /// The subscription to the user's own stream.
    pub(super) own: Option<Subscription>,
}

/// A subscription to a channel, with facts about the user there.
#[derive(Debug)]
pub(super) struct TrackedSubscription {
    subscription: Subscription,
    /// Known facts about the user in the channel.
    pub(super) facts: Option<Facts>,
}

impl TrackedSubscription {
    pub(super) fn new(subscription: Subscription, facts: Option<Facts>) -> Self {
        Self {
            subscription,
            facts,
        }
    }
}

impl SubscriptionHandle for TrackedSubscription {
    fn is_ended(&self) -> bool {
        self.subscription.is_ended()
    }

    fn topic_position(&self) -> Position {
        self.subscription.topic_position()
    }
}

/// The number and size of a session's requests in flight, and the task that waits for room.
#[derive(Debug, Default)]
pub struct RequestFlow {
    in_flight: AtomicUsize,
    bytes: AtomicUsize,
    reader: AtomicWaker,
}

impl RequestFlow {
    /// Returns whether another request may be read. If not, the task is woken when it may.
    pub fn has_room(&self, cx: &Context<'_>) -> bool {
        if self.is_below_bounds() {
            return true;
        }
        self.reader.register(cx.waker());
        self.is_below_bounds()
    }

    fn is_below_bounds(&self) -> bool {
        self.in_flight.load(Ordering::Acquire) < MAX_REQUESTS_IN_FLIGHT
            && self.bytes.load(Ordering::Acquire) < MAX_BYTES_IN_FLIGHT
    }

    /// Adds a request. Returns the bytes of all requests in flight.
    fn begin(&self, bytes: usize) -> usize {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes
    }

    fn end(&self, bytes: usize) {
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        // The reader is always woken: if it was not full here, the reader may have filled it since,
        // and would not be woken otherwise.
        if self.is_below_bounds() {
            self.reader.wake();
        }
    }
}

/// A request in flight, until it is dropped, also by a panic.
#[derive(Debug)]
pub(super) struct RequestInFlight {
    session: Arc<Session>,
    bytes: usize,
    /// The bytes, if they count towards `requests_total_bytes`.
    _share: Option<Share>,
}

impl RequestInFlight {
    /// Adds a request that holds `bytes`. If the requests of the session then hold more than
    /// [`UNCOUNTED_BYTES`], it needs room beside those of other sessions.
    ///
    /// # Errors
    /// [`NoRoom`] if there is none.
    pub(super) fn begin(
        session: &Arc<Session>,
        room: &Arc<Room>,
        bytes: usize,
    ) -> Result<Self, NoRoom> {
        let is_counted = session.flow.begin(bytes) > UNCOUNTED_BYTES;
        let mut in_flight = Self {
            session: Arc::clone(session),
            bytes,
            _share: None,
        };
        if is_counted {
            let mut share = room.share(session.tenant());
            share.resize(bytes)?;
            in_flight._share = Some(share);
        }
        Ok(in_flight)
    }
}

impl Drop for RequestInFlight {
    fn drop(&mut self) {
        self.session.flow.end(self.bytes);
    }
}

impl Session {
    pub(super) fn new(
        outbox: Arc<Outbox>,
        encoding: Encoding,
        active: Active<TrackedSubscription, QueuedSend>,
        actor: Actor,
        user: UserId,
        life: Life,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: SessionId::from_bits(domain::random::bits()),
            encoding,
            outbox,
            scope: actor.scope,
            user,
            began_at: life.began_at,
            credential: Mutex::new(SessionCredential {
                who: actor.who,
                expires_at: life.expires_at,
            }),
            has_changed: AtomicBool::new(false),
            connection: AtomicWaker::new(),
            state: Mutex::new(SessionState { active, own: None }),
            changed: Notify::new(),
            turns: Arc::default(),
            flow: RequestFlow::default(),
        })
    }

    /// Returns the session's id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// Returns the session's app and environment.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns the group of its app, for what tenants share.
    pub fn tenant(&self) -> u64 {
        cost::hash(&self.scope.app)
    }

    /// Returns the session's user.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Returns the session's requests in flight.
    pub fn flow(&self) -> &RequestFlow {
        &self.flow
    }

    /// Returns the expiry of its token, in milliseconds since the Unix epoch.
    pub fn expires_at(&self) -> u64 {
        self.credential.lock().expires_at
    }

    /// Returns whether an ending at `at`, by the store's clock, applies to this session.
    pub(super) fn is_ended_by(&self, what: &Ending, at: u64) -> bool {
        let Who::User {
            token_key,
            issued_at,
            ..
        } = self.credential.lock().who.clone()
        else {
            return false;
        };
        match what {
            Ending::User {
                app,
                environment,
                user,
                issued_until,
                ..
            } => {
                let of_user = self.scope.app == *app
                    && self.scope.environment == *environment
                    && self.user == *user;
                // A removed session may have reconnected since `at`; a deleted user cannot.
                let is_new = what.close() == CloseCode::GoingAway && self.began_at > at;
                of_user && issued_until.map_or(!is_new, |second| issued_at <= second)
            }
            Ending::TokenKey { id } => token_key == *id,
            Ending::App { id } => self.scope.app == *id,
        }
    }

    /// Sends `server.draining`.
    pub fn announce_drain(&self, reconnect_after_ms: u64) {
        #[derive(Serialize)]
        struct Draining {
            event: &'static str,
            data: DrainingData,
        }
        self.send_event(&Draining {
            event: EventKind::ServerDraining.as_str(),
            data: DrainingData { reconnect_after_ms },
        });
    }

    pub(super) fn actor(&self) -> Actor {
        Actor {
            scope: self.scope.clone(),
            who: self.credential.lock().who.clone(),
        }
    }

    /// Returns the key that verified its token.
    pub(super) fn token_key(&self) -> Option<TokenKeyId> {
        match &self.credential.lock().who {
            Who::User { token_key, .. } => Some(token_key.clone()),
            Who::App { .. } => None,
        }
    }

    /// Replaces the token by one that expires in `expires_in`.
    pub(super) fn refresh(&self, credential: SessionCredential, expires_in: Duration) {
        *self.credential.lock() = credential;
        self.change(|active, now| active.refreshed(expires_in, now));
    }

    /// Begins to drain the session.
    pub(super) fn drain(&self, drain: Drain) {
        self.change(|active, _| active.drain(drain));
    }

    /// Returns whether another task has changed the session since the last call. If not, the task
    /// is woken when one does.
    pub fn has_changed(&self, cx: &Context<'_>) -> bool {
        self.connection.register(cx.waker());
        self.has_changed.load(Ordering::Acquire) && self.has_changed.swap(false, Ordering::AcqRel)
    }

    /// Wakes the task that takes the steps of the subscriptions.
    pub fn wake_steps(&self) {
        self.changed.notify_one();
    }

    /// Records that a frame was received.
    pub fn received(&self, now: Instant) {
        self.state.lock().active.received(now);
    }

    /// Records a request, and returns how it is treated.
    pub fn request(&self, now: Instant) -> RequestVerdict {
        self.state.lock().active.request(now)
    }

    /// Returns the next action that is due. Call it until it returns `None`.
    pub fn tick(&self, now: Instant) -> Option<SessionAction> {
        self.state.lock().active.tick(now)
    }

    /// Returns when [`tick`](Self::tick) has to be called next.
    pub fn due(&self) -> Instant {
        self.state.lock().active.due()
    }

    /// Handles `channel.added` of the user's stream.
    pub(super) fn added(&self, id: ChannelId, position: Position) {
        self.change_channels(|channels, now| channels.added(id, position, now));
    }

    /// Opens the subscriptions, which handles the notices that the user's stream has delivered.
    pub(super) fn opened(&self) {
        drop(self.change(|active, now| active.opened(now)));
    }

    /// Restores subscriptions that a failed request removed, from the positions of their topics.
    pub(super) fn interrupted(&self, had: Vec<(ChannelId, Position)>) {
        self.change_channels(|channels, now| channels.interrupted(had, now));
    }

    /// Schedules the recovery of subscriptions that the hub ended without `channel.removed`.
    pub fn recover_ended(&self) {
        self.change_channels(|channels, now| channels.recover_ended(now));
    }

    /// Schedules a comparison of the subscriptions with the store, since the user's own stream may
    /// have lost events.
    pub(super) fn compare(&self) {
        let pause = jittered(MAX_COMPARISON_PAUSE);
        self.change_channels(|channels, now| channels.compare(now + pause));
    }

    /// Changes the subscriptions.
    fn change_channels(
        &self,
        change: impl FnOnce(&mut Subscriptions<TrackedSubscription>, Instant),
    ) {
        self.change(|active, now| active.change(|channels| change(channels, now)));
    }

    /// Changes the session, and wakes the connection's task to take the resulting actions.
    fn change<R>(
        &self,
        change: impl FnOnce(&mut Active<TrackedSubscription, QueuedSend>, Instant) -> R,
    ) -> R {
        let result = change(&mut self.state.lock().active, Instant::now());
        self.has_changed.store(true, Ordering::Release);
        self.connection.wake();
        result
    }

    /// Handles `channel.removed` of the user's stream, before it is delivered: ends the
    /// subscription.
    pub(super) fn removed(&self, id: ChannelId) {
        let ended = {
            let mut state = self.state.lock();
            // Frames of the channel that are queued already are dropped, too.
            self.outbox.mute(&self.scope().channel(&id).topic());
            state.active.channels.removed(id)
        };
        drop(ended);
    }

    /// Waits until no other change of subscriptions is in progress.
    pub(super) async fn turn(&self) -> SubscriptionTurn {
        Arc::clone(&self.turns).lock_owned().await
    }

    /// Closes the connection with this code, after the queued frames.
    pub fn close(&self, code: CloseCode, retry_after_ms: Option<u64>) {
        self.outbox
            .close(frame::close(code, retry_after_ms), code.code());
    }

    /// Like [`close`](Self::close), with a reason in place of the code's own.
    pub fn close_because(&self, code: CloseCode, reason: &str) {
        self.outbox
            .close(frame::close_because(code, reason, None), code.code());
    }

    /// Sends an event to this connection only.
    pub fn send_event<T: Serialize>(&self, event: &T) {
        self.reply(self.encoding.encode(event));
    }

    /// Sends a payload. Errors are ignored, since a closed outbox ends its connection.
    pub(super) fn reply(&self, payload: impl AsRef<[u8]>) {
        let _: Result<(), _> = self.outbox.push(
            frame::message(self.encoding, payload.as_ref()),
            Class::Reply,
        );
    }

    pub(super) fn reply_error(&self, id: u32, error: &ErrorBody) {
        self.reply(encode_error(self.encoding, id, error));
    }

    /// Ends all subscriptions, after the connection has ended.
    pub(super) fn end_subscriptions(&self) {
        // Dropped outside of the lock, since leaving a topic takes the topic's lock.
        let gone = {
            let mut state = self.state.lock();
            (state.active.close(), state.own.take())
        };
        drop(gone);
        self.changed.notify_one();
    }
}

/// Returns the subject of a user's outboxes at the hub.
pub(super) fn subject(user: &UserId) -> Bytes {
    Bytes::copy_from_slice(user.as_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_session_stays_small() {
        let bytes = size_of::<Session>();
        assert!(bytes <= 808, "{bytes} bytes");
    }
}
