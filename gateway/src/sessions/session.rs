//! One session: what all that happens to a connection shares.

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
    limit::{NoRoom, Room, Share, request_bytes},
    session::{Handle, Sends, Subscriptions, Watched},
    socket::frame,
};

/// How many requests of a session are worked on at once. Beyond that its socket is not read.
const AT_ONCE: usize = 64;
/// Bytes that the requests of a session may hold at once, by estimate. Beyond that its socket is
/// not read; one request always is.
const BYTES_AT_ONCE: usize = 1024 * 1024;
/// Bytes that the requests of a session may hold at once without counting towards
/// `requests_total_bytes`: a few small ones.
const UNCOUNTED_BYTES: usize = 64 * 1024;

/// Maximum pause between a loss of the user's own stream and the comparison with the store. The
/// stream recovers meanwhile, and the sessions of a node spread out.
const MAX_COMPARISON_PAUSE: Duration = Duration::from_secs(2);

/// A session: a connection after its `connect`.
#[derive(Debug)]
pub struct Session {
    pub(super) id: SessionId,
    pub(super) encoding: Encoding,
    pub(super) outbox: Arc<Outbox>,
    scope: Scope,
    user: UserId,
    /// By the store's clock, in milliseconds since the Unix epoch.
    began_at: u64,
    credential: Mutex<Credential>,
    /// The token was replaced, and the connection's task has to look at its clock anew.
    refreshed: AtomicBool,
    /// There are steps to take, and the connection's task has to begin them.
    has_steps: AtomicBool,
    shell: AtomicWaker,
    pub(super) state: Mutex<State>,
    /// Held while subscriptions change, from the first join to the start.
    pub(super) turns: Arc<tokio::sync::Mutex<()>>,
    /// Wakes the task that takes the steps of `channels`.
    pub(super) changed: Notify,
    flow: Flow,
}

/// When a session began and when its token ends, by the store's clock, in milliseconds since the
/// Unix epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Life {
    pub(super) began_at: u64,
    pub(super) expires_at: u64,
}

/// A send in line.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) under_way: UnderWay,
    pub(super) id: u32,
    pub(super) body: SendMessage,
}

/// A session's subscriptions change in turn.
pub(super) type Turn = tokio::sync::OwnedMutexGuard<()>;

/// The token of a session.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) who: Who,
    /// In milliseconds since the Unix epoch.
    pub(super) expires_at: u64,
}

/// What changes while a session lives.
#[derive(Debug)]
pub(super) struct State {
    pub(super) channels: Subscriptions<Listening>,
    pub(super) own: Option<Subscription>,
    pub(super) watched: Watched<Listening>,
    pub(super) sends: Sends<Waiting>,
    /// Whether a task takes the steps of `channels`.
    pub(super) is_following: bool,
}

/// A channel that a session listens to.
#[derive(Debug)]
pub(super) struct Listening {
    subscription: Subscription,
    /// What is known of the user there.
    pub(super) facts: Option<Facts>,
}

impl Listening {
    pub(super) fn new(subscription: Subscription) -> Self {
        Self {
            subscription,
            facts: None,
        }
    }
}

impl Handle for Listening {
    fn is_ended(&self) -> bool {
        self.subscription.is_ended()
    }

    fn topic_position(&self) -> Position {
        self.subscription.topic_position()
    }
}

/// How many requests are under way, what they hold, and the task that waits for room.
#[derive(Debug, Default)]
pub struct Flow {
    under_way: AtomicUsize,
    bytes: AtomicUsize,
    reader: AtomicWaker,
}

impl Flow {
    /// Whether another request may be read; if not, the task is woken when it may.
    pub fn has_room(&self, cx: &Context<'_>) -> bool {
        if self.is_below_bounds() {
            return true;
        }
        self.reader.register(cx.waker());
        self.is_below_bounds()
    }

    fn is_below_bounds(&self) -> bool {
        self.under_way.load(Ordering::Acquire) < AT_ONCE
            && self.bytes.load(Ordering::Acquire) < BYTES_AT_ONCE
    }

    /// Counts a request. Returns the bytes of all requests under way.
    fn begin(&self, bytes: usize) -> usize {
        self.under_way.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes
    }

    fn end(&self, bytes: usize) {
        self.under_way.fetch_sub(1, Ordering::AcqRel);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        // Whether it was full before cannot be asked: the reader may have filled it since, and
        // would not be woken.
        if self.is_below_bounds() {
            self.reader.wake();
        }
    }
}

/// A request under way, until it is dropped: also by a panic.
#[derive(Debug)]
pub(super) struct UnderWay {
    session: Arc<Session>,
    bytes: usize,
    /// The bytes, if they count towards `requests_total_bytes`.
    _share: Option<Share>,
}

impl UnderWay {
    /// Counts a request of an operation that came in a frame of so many bytes. Beyond
    /// [`UNCOUNTED_BYTES`] of a session it needs room beside the requests of other sessions.
    pub(super) fn begin(
        session: &Arc<Session>,
        room: &Arc<Room>,
        operation: &str,
        frame_bytes: usize,
    ) -> Result<Self, NoRoom> {
        let bytes = request_bytes::of_request(operation, frame_bytes);
        let is_counted = session.flow.begin(bytes) > UNCOUNTED_BYTES;
        let mut under_way = Self {
            session: Arc::clone(session),
            bytes,
            _share: None,
        };
        if is_counted {
            let mut share = room.share(session.tenant());
            share.resize(bytes)?;
            under_way._share = Some(share);
        }
        Ok(under_way)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.session.flow.end(self.bytes);
    }
}

impl Session {
    pub(super) fn new(
        outbox: Arc<Outbox>,
        encoding: Encoding,
        channels: Subscriptions<Listening>,
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
            credential: Mutex::new(Credential {
                who: actor.who,
                expires_at: life.expires_at,
            }),
            refreshed: AtomicBool::new(false),
            has_steps: AtomicBool::new(false),
            shell: AtomicWaker::new(),
            state: Mutex::new(State {
                channels,
                own: None,
                watched: Watched::default(),
                sends: Sends::default(),
                is_following: false,
            }),
            changed: Notify::new(),
            turns: Arc::default(),
            flow: Flow::default(),
        })
    }

    /// Its id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    /// The wall around it.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns the group of its app's environment, for what tenants share.
    pub fn tenant(&self) -> u64 {
        cost::hash(&self.scope)
    }

    /// Whose it is.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// Its requests under way.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// When its token ends, in milliseconds since the Unix epoch.
    pub fn expires_at(&self) -> u64 {
        self.credential.lock().expires_at
    }

    /// Whether this is one of the sessions that ended at `at`, by the store's clock.
    pub(super) fn is_meant(&self, what: &Ending, at: u64) -> bool {
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
                // Who was told to come back may be there again; a deleted user never is.
                let is_new = what.close() == CloseCode::GoingAway && self.began_at > at;
                of_user && issued_until.map_or(!is_new, |second| issued_at <= second)
            }
            Ending::TokenKey { id } => token_key == *id,
            Ending::App { id } => self.scope.app == *id,
        }
    }

    /// Tells that the node ends soon.
    pub fn say_goodbye(&self, reconnect_after_ms: u64) {
        #[derive(Serialize)]
        struct Draining {
            event: &'static str,
            data: DrainingData,
        }
        self.tell(&Draining {
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

    /// The key that verified its token.
    pub(super) fn token_key(&self) -> Option<TokenKeyId> {
        match &self.credential.lock().who {
            Who::User { token_key, .. } => Some(token_key.clone()),
            Who::App { .. } => None,
        }
    }

    pub(super) fn refresh(&self, credential: Credential) {
        *self.credential.lock() = credential;
        self.refreshed.store(true, Ordering::Release);
        self.shell.wake();
    }

    /// Whether the token was replaced since this was last asked; if not, the task is woken when it
    /// is.
    pub fn is_refreshed(&self, cx: &Context<'_>) -> bool {
        self.shell.register(cx.waker());
        self.refreshed.load(Ordering::Acquire) && self.refreshed.swap(false, Ordering::AcqRel)
    }

    /// Whether steps have to be begun since this was last asked. If not, the task that asked
    /// [`is_refreshed`](Self::is_refreshed) before is woken when they have.
    pub fn has_steps(&self) -> bool {
        self.has_steps.load(Ordering::Acquire) && self.has_steps.swap(false, Ordering::AcqRel)
    }

    /// The session was told `channel.added`: one that watches all channels subscribes to it.
    pub(super) fn added(&self, id: ChannelId, position: Position) {
        self.change(|channels, now| channels.added(id, position, now));
    }

    /// The session is open: what the user's stream told meanwhile is done now.
    pub(super) fn opened(&self) {
        let mut ended = Vec::new();
        self.change(|channels, now| ended = channels.opened(now));
        drop(ended);
    }

    /// A failed request took these subscriptions from the session, whose topics stood here.
    pub(super) fn interrupted(&self, had: Vec<(ChannelId, Position)>) {
        self.change(|channels, now| channels.interrupted(had, now));
    }

    /// Doubts the subscriptions that the hub ended and that `channel.removed` does not explain.
    pub fn recover_ended(&self) {
        self.change(|channels, now| channels.recover_ended(now));
    }

    /// The user's own stream may have lost events: the subscriptions are compared with the store.
    pub(super) fn compare(&self) {
        let pause = jittered(MAX_COMPARISON_PAUSE);
        self.change(|channels, now| channels.compare(now + pause));
    }

    /// Changes the subscriptions, and has the connection's task begin the steps that follow.
    fn change(&self, change: impl FnOnce(&mut Subscriptions<Listening>, Instant)) {
        let mut state = self.state.lock();
        change(&mut state.channels, Instant::now());
        if state.channels.has_steps() {
            self.has_steps.store(true, Ordering::Release);
            self.shell.wake();
        }
    }

    /// The session is about to be told `channel.removed`: it hears nothing more of the channel.
    pub(super) fn removed(&self, id: ChannelId) {
        let ended = {
            let mut state = self.state.lock();
            // What is on its way already does not follow, either.
            self.outbox.mute(&self.scope().channel(&id).topic());
            state.channels.removed(id)
        };
        drop(ended);
    }

    /// Waits until no other change of subscriptions is under way.
    pub(super) async fn turn(&self) -> Turn {
        Arc::clone(&self.turns).lock_owned().await
    }

    /// Closes the connection with this code, after what waits for its reader.
    pub fn close(&self, code: CloseCode, retry_after_ms: Option<u64>) {
        self.outbox
            .close(frame::close(code, retry_after_ms), code.code());
    }

    /// The same with a reason that says more than the code's own.
    pub fn close_because(&self, code: CloseCode, reason: &str) {
        self.outbox
            .close(frame::close_because(code, reason, None), code.code());
    }

    /// Sends an event of this connection alone.
    pub fn tell<T: Serialize>(&self, event: &T) {
        self.reply(self.encoding.encode(event));
    }

    /// Sends a payload. An outbox that takes nothing more ends its connection by itself.
    pub(super) fn reply(&self, payload: impl AsRef<[u8]>) {
        let _: Result<(), _> = self.outbox.push(
            frame::message(self.encoding, payload.as_ref()),
            Class::Reply,
        );
    }

    pub(super) fn reply_error(&self, id: u32, error: &ErrorBody) {
        self.reply(encode_error(self.encoding, id, error));
    }

    /// Ends every subscription, when the connection is gone.
    pub(super) fn let_go(&self) {
        // Dropped outside of the lock: leaving a topic takes the topic's.
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

/// The subject of a user's outboxes and of what the hub does with them.
pub(super) fn subject(user: &UserId) -> Bytes {
    Bytes::copy_from_slice(user.as_str().as_bytes())
}
