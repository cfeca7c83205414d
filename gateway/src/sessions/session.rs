//! One session: what all that happens to a connection shares.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::Context,
};

use bytes::Bytes;
use fanout::{Class, Outbox, Position, Subscription};
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use protocol::{
    ChannelId, CloseCode, Encoding, ErrorBody, EventKind, SessionId, UserId, event::DrainingData,
    frame::encode_error, params::Watch,
};
use serde::Serialize;

use super::{Sessions, sends::Sending, subscribe::Why, watching::Watched};
use crate::{
    auth::{Actor, Who},
    service::{ended::Ending, messages::Facts, scope::Scope},
    socket::frame,
};

/// How many requests of a session are worked on at once. Beyond that its socket is not read.
const AT_ONCE: usize = 64;

/// A session: a connection after its `connect`.
#[derive(Debug)]
pub struct Session {
    pub(super) id: SessionId,
    pub(super) encoding: Encoding,
    pub(super) outbox: Arc<Outbox>,
    pub(super) watch: Watch,
    pub(super) sessions: Weak<Sessions>,
    scope: Scope,
    user: UserId,
    /// By the store's clock, in milliseconds since the Unix epoch.
    began_at: u64,
    credential: Mutex<Credential>,
    /// The token was replaced, and the connection's task has to look at its clock anew.
    refreshed: AtomicBool,
    shell: AtomicWaker,
    pub(super) state: Mutex<State>,
    /// Held while subscriptions change, from the first join to the start.
    pub(super) turns: Arc<tokio::sync::Mutex<()>>,
    flow: Flow,
}

/// The token of a session.
#[derive(Debug, Clone)]
pub(super) struct Credential {
    pub(super) who: Who,
    /// In milliseconds since the Unix epoch.
    pub(super) expires_at: u64,
}

/// What changes while a session lives.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) channels: HashMap<ChannelId, Subscribed>,
    pub(super) own: Option<Subscription>,
    pub(super) watched: Watched,
    pub(super) sends: HashMap<ChannelId, Sending>,
    /// What the own stream told before the session was ready.
    pub(super) early: Option<VecDeque<Move>>,
    /// Channels that are to be subscribed to outside of a request, and why: what is told or asked of them later counts.
    pub(super) awaited: HashMap<ChannelId, Why>,
    pub(super) is_gone: bool,
}

/// A change of the user's channels, as the own stream tells it.
#[derive(Debug)]
pub(super) enum Move {
    /// Into a channel, where it stood then.
    Into(ChannelId, Position),
    /// Out of a channel.
    OutOf(ChannelId),
}

/// A channel that a session listens to.
#[derive(Debug)]
pub(super) struct Subscribed {
    pub(super) subscription: Subscription,
    /// What is known of the user there.
    pub(super) facts: Option<Facts>,
}

/// How many requests are under way, and who waits for room.
#[derive(Debug, Default)]
pub struct Flow {
    under_way: AtomicUsize,
    reader: AtomicWaker,
}

impl Flow {
    /// Whether another request may be read; if not, the task is woken when it may.
    pub fn has_room(&self, cx: &Context<'_>) -> bool {
        if self.under_way.load(Ordering::Acquire) < AT_ONCE {
            return true;
        }
        self.reader.register(cx.waker());
        self.under_way.load(Ordering::Acquire) < AT_ONCE
    }

    fn end(&self) {
        if self.under_way.fetch_sub(1, Ordering::AcqRel) == AT_ONCE {
            self.reader.wake();
        }
    }
}

/// A request under way, until it is dropped: also by a panic.
#[derive(Debug)]
pub(super) struct UnderWay(Arc<Session>);

impl UnderWay {
    pub(super) fn begin(session: &Arc<Session>) -> Self {
        session.flow.under_way.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(session))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.flow.end();
    }
}

impl Session {
    pub(super) fn new(
        sessions: &Arc<Sessions>,
        outbox: Arc<Outbox>,
        encoding: Encoding,
        watch: Watch,
        actor: Actor,
        user: UserId,
        expires_at: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            id: SessionId::from_bits(crate::service::random::bits()),
            encoding,
            outbox,
            watch,
            sessions: Arc::downgrade(sessions),
            scope: actor.scope,
            user,
            began_at: sessions.services.clock.now_ms(),
            credential: Mutex::new(Credential {
                who: actor.who,
                expires_at,
            }),
            refreshed: AtomicBool::new(false),
            shell: AtomicWaker::new(),
            state: Mutex::new(State {
                early: Some(VecDeque::new()),
                ..State::default()
            }),
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

    pub(super) fn refresh(&self, credential: Credential) {
        *self.credential.lock() = credential;
        self.refreshed.store(true, Ordering::Release);
        self.shell.wake();
    }

    /// Whether the token was replaced since this was last asked; if not, the task is woken when it is.
    pub fn is_refreshed(&self, cx: &Context<'_>) -> bool {
        self.shell.register(cx.waker());
        self.refreshed.load(Ordering::Acquire) && self.refreshed.swap(false, Ordering::AcqRel)
    }

    /// Closes the connection with this code, after what waits for its reader.
    pub fn close(&self, code: CloseCode, retry_after_ms: Option<u64>) {
        self.outbox
            .close(frame::close(code, retry_after_ms), code.code());
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
            state.is_gone = true;
            state.awaited = HashMap::new();
            (
                std::mem::take(&mut state.channels),
                state.own.take(),
                std::mem::take(&mut state.watched),
            )
        };
        drop(gone);
    }
}

/// The subject of a user's outboxes and of what the hub does with them.
pub(super) fn subject(user: &UserId) -> Bytes {
    Bytes::copy_from_slice(user.as_str().as_bytes())
}
