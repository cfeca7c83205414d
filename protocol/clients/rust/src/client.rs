//! The client that never loses anything: what the application holds of it.

use std::{future::Future, sync::Arc};

use parking_lot::Mutex;
use protocol::{ChannelId, MessageId, params::Cursor, params::SendMessage};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

use crate::{
    Bounds, Cache, Connector, Session,
    machine::{Machine, NoToken, SendError, Settings, Update},
    shell::{self, Shell},
};

/// Updates that wait for [`Updates::next`] before the client stops reading its socket.
const UPDATES: usize = 64;

/// What handles and the task of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) machine: Mutex<Machine>,
    pub(crate) session: Mutex<Option<Session>>,
    /// The machine has something to do that does not come from its task.
    pub(crate) wake: Notify,
}

/// A client that connects, stays connected, and sees each message to its fate. Clones are the same client.
///
/// It lives until [`Client::close`], until its [`Updates`] are dropped, or until the server ends it for good.
#[derive(Debug, Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

impl Client {
    /// Starts a client in a task of its own. It takes any of the addresses at first, and another one when a node goes away.
    ///
    /// `token` is asked for a user token before the first connection, when one ends soon, and when one has ended; never
    /// twice at a time.
    ///
    /// # Panics
    /// Outside of a tokio runtime, and without an address.
    pub fn start<F, T>(addresses: Vec<Connector>, settings: Settings, token: F) -> (Self, Updates)
    where
        F: FnMut() -> T + Send + 'static,
        T: Future<Output = Result<String, NoToken>> + Send + 'static,
    {
        assert!(
            !addresses.is_empty(),
            "a client has an address to connect to"
        );
        let machine = Machine::new(
            settings,
            addresses.len(),
            rand::random(),
            Instant::now().into_std(),
        );
        let shared = Arc::new(Shared {
            machine: Mutex::new(machine),
            session: Mutex::default(),
            wake: Notify::new(),
        });
        let (sender, receiver) = mpsc::channel(UPDATES);
        let addresses = addresses
            .into_iter()
            .map(Connector::queue_replies)
            .collect();
        tokio::spawn(shell::run(Shell::new(
            shared.clone(),
            addresses,
            token,
            sender,
        )));
        (
            Self { shared },
            Updates {
                receiver,
                cache: Cache::default(),
            },
        )
    }

    /// Takes a message for sending, now or once there is a session. Messages of one channel are stored in the order of these
    /// calls. The fate of each is told: [`Update::Acknowledged`] or [`Update::Failed`].
    ///
    /// # Errors
    /// It is not taken: [`SendError::Full`] while [`Settings::outbox`] messages wait, [`SendError::Over`] after the end.
    pub fn send(
        &self,
        channel_id: &ChannelId,
        message: SendMessage,
    ) -> Result<MessageId, SendError> {
        self.changes(|machine, now| machine.send(channel_id.clone(), message, now))
    }

    /// How many messages wait for their acknowledgement.
    pub fn unacknowledged(&self) -> usize {
        self.shared.machine.lock().unacknowledged()
    }

    /// Follows a channel from a position, or from now on, through all sessions. One that is followed goes on as it is.
    pub fn follow(&self, channel_id: &ChannelId, from: Cursor) {
        self.changes(|machine, now| machine.follow(channel_id.clone(), from, now));
    }

    /// Follows a channel no more. See [`Machine::unfollow`].
    pub fn unfollow(&self, channel_id: &ChannelId) {
        self.changes(|machine, now| machine.unfollow(channel_id, now));
    }

    /// The session of this moment, for every other request. It ends when its connection does; the client goes on with another.
    pub fn session(&self) -> Option<Session> {
        self.shared.session.lock().clone()
    }

    /// Ends the client. What is not acknowledged yet fails.
    pub fn close(&self) {
        self.changes(|machine, _| machine.close());
    }

    fn changes<R>(&self, change: impl FnOnce(&mut Machine, std::time::Instant) -> R) -> R {
        let result = change(&mut self.shared.machine.lock(), Instant::now().into_std());
        self.shared.wake.notify_one();
        result
    }
}

/// What a client tells. Dropped, the client ends.
///
/// They are to be read: while 64 wait, the client does not read its socket, and a server closes one that is not read.
#[derive(Debug)]
pub struct Updates {
    receiver: mpsc::Receiver<Update>,
    cache: Cache,
}

impl Updates {
    /// The same with a [`Cache`] of this size.
    pub fn with_cache(self, bounds: Bounds) -> Self {
        Self {
            cache: Cache::new(bounds),
            ..self
        }
    }

    /// The next update; none after [`Update::Over`].
    pub async fn next(&mut self) -> Option<Update> {
        let update = self.receiver.recv().await?;
        self.cache.apply(&update);
        Some(update)
    }

    /// The messages as they are by the updates that were taken.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// For [merging](Cache::merge) what was asked for by [`Client::session`].
    pub fn cache_mut(&mut self) -> &mut Cache {
        &mut self.cache
    }
}
