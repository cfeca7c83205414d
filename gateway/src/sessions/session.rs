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
    session::{Sends, SubscriptionHandle, Subscriptions, Watched},
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
    /// Whether the token was replaced, so that the connection's task has to reset its timer.
    refreshed: AtomicBool,
    /// Whether steps are due that the connection's task has to begin.
    has_steps: AtomicBool,
    shell: AtomicWaker,
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
    pub(super) channels: Subscriptions<TrackedSubscription>,
    pub(super) own: Option<Subscription>,
    pub(super) watched: Watched<TrackedSubscription>,
    pub(super) sends: Sends<QueuedSend>,
    /// Whether a task takes the steps of `channels`.
    pub(super) is_taking_steps: bool,
}

/// A subscription to a channel, with facts about the user there.
#[derive(Debug)]
pub(super) struct TrackedSubscription {
    subscription: Subscription,
    /// Known facts about the user in the channel.
    pub(super) facts: Option<Facts>,
}

impl TrackedSubscription {
    pub(super) fn new(subscription: Subscription) -> Self {
        Self {
            subscription,
            facts: None,
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
        channels: Subscriptions<TrackedSubscription>,
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
            refreshed: AtomicBool::new(false),
            has_steps: AtomicBool::new(false),
            shell: AtomicWaker::new(),
            state: Mutex::new(SessionState {
                channels,
                own: None,
                watched: Watched::default(),
                sends: Sends::default(),
                is_taking_steps: false,
            }),
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

    /// Sends `session.draining`.
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

    pub(super) fn refresh(&self, credential: SessionCredential) {
        *self.credential.lock() = credential;
        self.refreshed.store(true, Ordering::Release);
        self.shell.wake();
    }

    /// Returns whether the token was replaced since the last call. If not, the task is woken when
    /// it is.
    pub fn is_refreshed(&self, cx: &Context<'_>) -> bool {
        self.shell.register(cx.waker());
        self.refreshed.load(Ordering::Acquire) && self.refreshed.swap(false, Ordering::AcqRel)
    }

    /// Returns whether steps have become due since the last call. If not, the task that called
    /// [`is_refreshed`](Self::is_refreshed) before is woken when they do.
    pub fn has_steps(&self) -> bool {
        self.has_steps.load(Ordering::Acquire) && self.has_steps.swap(false, Ordering::AcqRel)
    }

    /// Handles `channel.added` of the user's stream.
    pub(super) fn added(&self, id: ChannelId, position: Position) {
        self.change(|channels, now| channels.added(id, position, now));
    }

    /// Opens the subscriptions, which handles the notices that the user's stream has delivered.
    pub(super) fn opened(&self) {
        let mut ended = Vec::new();
        self.change(|channels, now| ended = channels.opened(now));
        drop(ended);
    }

    /// Restores subscriptions that a failed request removed, from the positions of their topics.
    pub(super) fn interrupted(&self, had: Vec<(ChannelId, Position)>) {
        self.change(|channels, now| channels.interrupted(had, now));
    }

    /// Schedules the recovery of subscriptions that the hub ended without `channel.removed`.
    pub fn recover_ended(&self) {
        self.change(|channels, now| channels.recover_ended(now));
    }

    /// Schedules a comparison of the subscriptions with the store, since the user's own stream may
    /// have
    pub(super) fn compare(&self) {
        let pause = jittered(MAX_COMPARISON_PAUSE);
        self.change(|channels, now| channels.compare(now + pause));
    }

    /// Changes the subscriptions, and wakes the connection's task to begin the resulting steps.
    fn change(&self, change: impl FnOnce(&mut Subscriptions<TrackedSubscription>, Instant)) {
        let mut state = self.state.lock();
        change(&mut state.channels, Instant::now());
        if state.channels.has_steps() {
            self.has_steps.store(true, Ordering::Release);
            self.shell.wake();
        }
    }

    /// Handles `channel.removed` of the user's stream, before it is delivered: ends the
    /// subscription.
    pub(super) fn removed(&self, id: ChannelId) {
        let ended = {
            let mut state = self.state.lock();
            // Frames of the channel that are queued already are dropped, too.
            self.outbox.mute(&self.scope().channel(&id).topic());
            state.channels.removed(id)
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
            (
                state.channels.close(),
                state.own.take(),
                state.watched.close(),
            )
        };
        drop(gone);
        self.changed.notify_one();
    }
}

/// Returns the subject of a user's outboxes at the hub.
pub(super) fn subject(user: &UserId) -> Bytes {
    Bytes::copy_from_slice(user.as_str().as_bytes())
}
