//! A connection without a session.

use futures_util::{SinkExt, StreamExt};
use protocol::operation::{
    Operation,
    session::{Connect, Connected, SessionConnect},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use crate::{Closed, ConnectError, Events, Frame, Session, driver, session::SessionSettings};

/// A connection without a session. [`Socket::connect`] opens one. Sending and receiving single
/// frames is for tests of a server.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    settings: SessionSettings,
}

impl Socket {
    pub(crate) fn new(stream: WebSocketStream<TcpStream>, settings: SessionSettings) -> Self {
        Self { stream, settings }
    }

    /// Opens a session. If the server refuses it, waits for its close frame, too, so that the error
    /// contains both.
    pub async fn connect(self, params: &Connect) -> Result<(Session, Events), ConnectError> {
        let limit = self.settings.timeout;
        let (session, frames) = Session::start(self.stream, self.settings);
        let mut events = Events::new(session.clone(), frames);
        match session
            .request::<_, Connected>(SessionConnect::NAME, params)
            .await
        {
            Ok(connected) => Ok(events.connected(connected)),
            Err(error) => {
                let ended = timeout(limit, events.ended()).await;
                Err(ConnectError::refused(error, || {
                    ended.unwrap_or_else(|_| {
                        Closed::broken("the server did not close the connection")
                    })
                }))
            }
        }
    }

    /// Sends a frame unchanged.
    pub async fn send(&mut self, frame: Frame) -> Result<(), Closed> {
        self.stream
            .send(frame.into_message())
            .await
            .map_err(|e| Closed::broken(e.to_string()))
    }

    /// Returns the next frame, or how the connection ended. Answers pings meanwhile.
    pub async fn receive(&mut self) -> Result<Frame, Closed> {
        loop {
            return match self.stream.next().await {
                Some(Ok(Message::Binary(bytes))) => Ok(Frame::Binary(bytes)),
                Some(Ok(Message::Text(text))) => Ok(Frame::Text(text.into())),
                Some(Ok(Message::Close(frame))) => {
                    driver::answer_close(&mut self.stream).await;
                    Err(Closed::by_server(frame))
                }
                Some(Ok(_)) => continue,
                Some(Err(error)) => Err(Closed::broken(error.to_string())),
                None => Err(Closed::broken(
                    "the connection was closed without a close frame",
                )),
            };
        }
    }
}
