//! What the server tells on its own.

use bytes::Bytes;
use protocol::{EventMessage, results::Connected};
use tokio::sync::mpsc;

use crate::{Closed, Session};

/// The events of a session, in the order in which the server sent them. Dropped, further events are thrown away.
#[derive(Debug)]
pub struct Events {
    session: Session,
    frames: mpsc::Receiver<Bytes>,
}

impl Events {
    pub(crate) fn new(session: Session, frames: mpsc::Receiver<Bytes>) -> Self {
        Self { session, frames }
    }

    pub(crate) fn connected(self, connected: Connected) -> (Session, Self) {
        self.session.set_connected(connected);
        (self.session.clone(), self)
    }

    /// Throws events away until the connection ended.
    pub(crate) async fn ended(&mut self) -> Closed {
        while self.frames.recv().await.is_some() {}
        self.closed()
    }

    /// The next event; none once the connection ended, or sent an event that cannot be read, and all before were taken.
    pub async fn next(&mut self) -> Option<EventMessage> {
        let frame = self.frames.recv().await?;
        match self.session.encoding().decode(&frame) {
            Ok(event) => Some(event),
            Err(error) => {
                self.session
                    .link()
                    .end(Closed::broken(format!("an event cannot be read: {error}")));
                self.frames.close();
                None
            }
        }
    }

    /// The next event's frame, for those who read only a part of it (a load test, say). See [`Events::next`].
    pub async fn next_frame(&mut self) -> Option<Bytes> {
        self.frames.recv().await
    }

    /// An event that is here already.
    pub fn try_next_frame(&mut self) -> Option<Bytes> {
        self.frames.try_recv().ok()
    }

    /// The session that these are the events of.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// How the connection ended; meaningful once there is no next event.
    pub fn closed(&self) -> Closed {
        self.session.link().closed()
    }
}
