//! The events of a session.

use bytes::Bytes;
use protocol::{EventMessage, operation::session::Connected};
use tokio::sync::mpsc;

use crate::{Closed, Session};

/// The events of a session, in the order in which the server sent them. Dropping them discards
/// further events.
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

    /// Discards events until the connection has ended.
    pub(crate) async fn ended(&mut self) -> Closed {
        while self.frames.recv().await.is_some() {}
        self.closed()
    }

    /// Returns the next event. Returns `None` after the last one, when the connection has ended or
    /// an event cannot be parsed.
    pub async fn next(&mut self) -> Option<EventMessage> {
        let frame = self.frames.recv().await?;
        match self.session.encoding().decode(&frame) {
            Ok(event) => Some(event),
            Err(error) => {
                self.session.shared().end(Closed::broken(format!(
                    "an event cannot be parsed: {error}"
                )));
                self.frames.close();
                None
            }
        }
    }

    /// Returns the frame of the next event, for callers that parse only a part of it, like a load
    /// test. See [`Events::next`].
    pub async fn next_frame(&mut self) -> Option<Bytes> {
        self.frames.recv().await
    }

    /// Returns the frame of an event that was received already.
    pub fn try_next_frame(&mut self) -> Option<Bytes> {
        self.frames.try_recv().ok()
    }

    /// The session of these events.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// How the connection ended. Valid when there is no next event.
    pub fn closed(&self) -> Closed {
        self.session.shared().closed()
    }
}
