//! A connection after its upgrade and before its session: frames as they are.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use protocol::{Encoding, params::Connect, results::Connected};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::frame::{
            Frame as RawFrame,
            coding::{Data, OpCode},
        },
    },
};

use crate::{Closed, ConnectError, Events, Session, driver, session::Settings};

/// A WebSocket message as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// A text message; sent as it is, valid UTF-8 or not.
    Text(Bytes),
    /// A binary message.
    Binary(Bytes),
}

impl Frame {
    /// What a session of this encoding sends these bytes in.
    pub fn of(encoding: Encoding, bytes: impl Into<Bytes>) -> Self {
        match encoding {
            Encoding::MessagePack => Self::Binary(bytes.into()),
            Encoding::Json => Self::Text(bytes.into()),
        }
    }

    pub(crate) fn into_message(self) -> Message {
        match self {
            Self::Text(bytes) => {
                Message::Frame(RawFrame::message(bytes, OpCode::Data(Data::Text), true))
            }
            Self::Binary(bytes) => Message::Binary(bytes),
        }
    }
}

/// A connection without a session. [`Socket::connect`] opens one; sending and receiving frames by hand is for those who
/// want to see what a server does with them.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TcpStream>,
    settings: Settings,
}

impl Socket {
    pub(crate) fn new(stream: WebSocketStream<TcpStream>, settings: Settings) -> Self {
        Self { stream, settings }
    }

    /// Opens the session. Refused, it waits for the server's close frame too, so that the error has both.
    pub async fn connect(self, params: &Connect) -> Result<(Session, Events), ConnectError> {
        let limit = self.settings.timeout;
        let (session, mut events) = Session::start(self.stream, self.settings);
        match session
            .request::<_, Connected>(protocol::Method::Connect, params)
            .await
        {
            Ok(connected) => Ok(events.connected(connected)),
            Err(error) => {
                let ended = timeout(limit, events.ended()).await;
                Err(ConnectError::refused(error, || {
                    ended.unwrap_or_else(|_| Closed::broken("the server did not close"))
                }))
            }
        }
    }

    /// Sends a frame as it is.
    pub async fn send(&mut self, frame: Frame) -> Result<(), Closed> {
        self.stream
            .send(frame.into_message())
            .await
            .map_err(|e| Closed::broken(e.to_string()))
    }

    /// The next frame, or how the connection ended. Pings are answered while this is awaited.
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
                None => Err(Closed::broken("the connection was cut")),
            };
        }
    }
}
