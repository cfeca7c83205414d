//! The client as the application uses it.

use std::{future::Future, sync::Arc};

use parking_lot::Mutex;
use protocol::{ChannelId, Cursor, MessageId, operation::message::SendMessage};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{
    CacheBounds, Connector, MessageCache, Session,
    client_shared::ClientShared,
    client_task::{self, ClientTask},
    machine::{Machine, SendError, Settings, TokenUnavailable, Update},
};

/// Number of updates that wait for [`Updates::next`] before the client stops reading its socket.
const UPDATE_QUEUE: usize = 64;

/// A client that stays connected, resumes its channels, and sends each message until it is
/// acknowledged. Clones are handles of the same client.
/// It runs until [`Client::close`], until its [`Updates`] are dropped, or until the server ends it
/// permanently.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<ClientShared>,
}

impl Client {
    /// Starts a client in a new task. It connects to a random address first, and to the next one
    /// when a node drains or cannot be reached.
    ///
    /// `token` is called for a user token before the first connection, before a token expires, and
    /// after it has expired. One call is in progress at a time.
    ///
    /// # Panics
    /// Outside of a tokio runtime, and if `addresses` is empty.
    pub fn start<F, T>(addresses: Vec<Connector>, settings: Settings, token: F) -> (Self, Updates)
    where
        F: FnMut() -> T + Send + 'static,
        T: Future<Output = Result<String, TokenUnavailable>> + Send + 'static,
    {
        assert!(!addresses.is_empty(), "a client needs at least one address");
        let machine = Machine::new(
            settings,
            addresses.len(),
            rand::random(),
            Instant::now().into_std(),
        );
        let shared = Arc::new(ClientShared {
            machine: Mutex::new(machine),
            session: Mutex::default(),
            wake: Notify::new(),
        });
        let (sender, receiver) = mpsc::channel(UPDATE_QUEUE);
        let addresses = addresses
            .into_iter()
            .map(Connector::queue_replies)
            .collect();
        tokio::spawn(client_task::run(ClientTask::new(
            shared.clone(),
            addresses,
            token,
            sender,
        )));
        (
            Self { shared },
            Updates {
                receiver,
                cache: MessageCache::default(),
            },
        )
    }

    /// Queues a message, which is sent as soon as there is a session. Messages of one channel are
    /// stored in the order of these calls. The outcome of each is an update:
    /// [`Update::Acknowledged`] or [`Update::Failed`].
    ///
    /// # Errors
    /// The message is not queued: [`SendError::Full`] while [`Settings::outbox`] messages are not
    /// acknowledged, [`SendError::Ended`] after the end of the client.
    pub fn send(
        &self,
        channel_id: &ChannelId,
        message: SendMessage,
    ) -> Result<MessageId, SendError> {
        self.with_machine(|machine, now| machine.send(channel_id.clone(), message, now))
    }

    /// Returns the number of messages that are not acknowledged yet.
    pub fn unacknowledged(&self) -> usize {
        self.shared.machine.lock().unacknowledged()
    }

    /// Follows a channel through all sessions, from a position or from now on. Does nothing if it
    /// is followed already.
    pub fn follow(&self, channel_id: &ChannelId, from: Cursor) {
        self.with_machine(|machine, now| machine.follow(channel_id.clone(), from, now));
    }

    /// Stops following a channel, see [`Machine::unfollow`].
    pub fn unfollow(&self, channel_id: &ChannelId) {
        self.with_machine(|machine, now| machine.unfollow(channel_id, now));
    }

    /// Returns the current session, for other requests. A session ends with its connection; the
    /// client then opens another.
    pub fn session(&self) -> Option<Session> {
        self.shared.session.lock().clone()
    }

    /// Ends the client. Messages that are not acknowledged yet fail.
    pub fn close(&self) {
        self.with_machine(|machine, _| machine.close());
    }

    fn with_machine<R>(&self, change: impl FnOnce(&mut Machine, std::time::Instant) -> R) -> R {
        let result = change(&mut self.shared.machine.lock(), Instant::now().into_std());
        self.shared.wake.notify_one();
        result
    }
}

/// The updates of a client. Dropping them ends the client.
///
/// They must be read: while 64 updates wait, the client does not read its socket, and a server
/// closes connections that are not read.
#[derive(Debug)]
pub struct Updates {
    receiver: mpsc::Receiver<Update>,
    cache: MessageCache,
}

impl Updates {
    /// Adds a [`MessageCache`] with these limits.
    pub fn with_cache(self, bounds: CacheBounds) -> Self {
        Self {
            cache: MessageCache::new(bounds),
            ..self
        }
    }

    /// Returns the next update, or `None` after [`Update::Ended`].
    pub async fn next(&mut self) -> Option<Update> {
        let update = self.receiver.recv().await?;
        self.cache.apply(&update);
        Some(update)
    }

    /// Returns the cache of messages, built from the updates that [`next`](Self::next) returned.
    pub fn cache(&self) -> &MessageCache {
        &self.cache
    }

    /// Returns the cache, to [merge](MessageCache::merge) the results of requests through
    /// [`Client::session`].
    pub fn cache_mut(&mut self) -> &mut MessageCache {
        &mut self.cache
    }
}
